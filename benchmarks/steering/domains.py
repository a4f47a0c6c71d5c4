"""The domains of the benchmark: prompts, texts from the beginning of a line, and a classifier."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from transformers import PreTrainedTokenizerBase

DOMAINS = ("addresses", "postgresql", "python", "storms", "strikes")
PROMPT_TOKENS = 24
# Lines begin behind line breaks; the addresses have none, and their sentences stand for lines.
STARTS = re.compile(r"\n+|(?<=[.!?]) +(?=[A-Z])")


@dataclass
class Domain:
    """The text of one source and split as a stream of documents, and the places where a line begins."""

    text: str
    starts: np.ndarray
    ids: np.ndarray

    @classmethod
    def build(cls, texts: pd.Series, tokenizer: PreTrainedTokenizerBase, characters: int) -> "Domain":
        text = "\n".join(texts.sample(frac=1, random_state=0))[:characters]
        starts = [m.end() for m in STARTS.finditer(text) if text[m.end() : m.end() + 1].strip()]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return cls(text, np.array([s for s in starts if s < len(text) - 1000]), np.array(ids))

    def prompts(self, count: int, tokens: int, rng: np.random.Generator) -> np.ndarray:
        """Token ids (count, tokens) from anywhere, in the middle of a word or not."""
        begin = rng.integers(0, len(self.ids) - tokens, count)
        return self.ids[begin[:, None] + np.arange(tokens)]

    def continuations(self, count: int, characters: int, rng: np.random.Generator) -> list[str]:
        """A line break and the text from the beginning of a line on; it may span several lines."""
        return ["\n" + self.text[s : s + characters] for s in rng.choice(self.starts, count)]


def read_corpus(
    path: Path, tokenizer: PreTrainedTokenizerBase, characters: int = 500_000
) -> dict[tuple[str, str], Domain]:
    """By source and split (train, heldout)."""
    if not path.exists():
        raise ValueError(f"no corpus at {path}; build it with: python -m datamodules.text.build --out {path.parent}")
    frame = pd.read_parquet(path)
    return {
        (source, split): Domain.build(
            frame[(frame["source"] == source) & (frame["split"] == split)]["text"], tokenizer, characters
        )
        for source in DOMAINS
        for split in ("train", "heldout")
    }


def train_classifier(
    corpus: dict[tuple[str, str], Domain], tokenizer: PreTrainedTokenizerBase, tokens: int, count: int = 1200
) -> tuple[Pipeline, float]:
    """Logistic regression on character 1- to 4-grams of real texts; half of them start at the beginning of a line.

    Returns:
        The classifier, which predicts a domain's name, and its accuracy on held-out text.
    """
    rng = np.random.default_rng(0)

    def texts(split: str, count: int) -> tuple[list[str], list[str]]:
        found, names = [], []
        for name in DOMAINS:
            domain = corpus[name, split]
            anywhere = domain.prompts(count // 2, tokens, rng)
            lines = tokenizer(domain.continuations(count - count // 2, 12 * tokens, rng), add_special_tokens=False)
            found += tokenizer.batch_decode(anywhere)
            found += tokenizer.batch_decode([ids[:tokens] for ids in lines["input_ids"]])
            names += [name] * count
        return found, names

    grams = HashingVectorizer(analyzer="char", ngram_range=(1, 4), n_features=2**15, lowercase=False)
    classifier = make_pipeline(grams, LogisticRegression(C=30, max_iter=200))
    classifier.fit(*texts("train", count))
    return classifier, float(classifier.score(*texts("heldout", 200)))
