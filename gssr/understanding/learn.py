"""Learn the reading of typed goals, from sentences whose meaning is known because they were written from it.

python -m gssr.understanding.learn            # of the bundled nano model, some five minutes on a core
python -m gssr.understanding.learn --backbone FOLDER --to FILE
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import trange

from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.sequences.vocabulary import Vocabulary
from gssr.understanding.head import BASES, BOUNDS, ENDS, KINDS, LAYER, WHENS, Head, Read, asked, loss, placed
from gssr.understanding.mentions import masked, mentions
from gssr.understanding.reader import FILE, Reader
from gssr.understanding.writing import Sentence, sentences

COUNT, EPOCHS, BATCH, RATE, CLEARED = 32_000, 6, 32, 2e-3, 0.05
# Their documentation is English of any kind, and on every machine that has Python.
MODULES = (
    *("argparse", "ast", "calendar", "cmd", "collections", "configparser", "contextlib", "copy", "csv", "datetime"),
    *("decimal", "difflib", "dis", "doctest", "email", "enum", "fractions", "functools", "getpass", "glob", "gzip"),
    *("heapq", "html", "inspect", "io", "itertools", "json", "locale", "logging", "mailbox", "math", "mimetypes"),
    *("os", "pathlib", "pickle", "platform", "pprint", "queue", "random", "re", "sched", "secrets", "shelve", "shlex"),
    *("shutil", "socket", "sqlite3", "statistics", "string", "struct", "subprocess", "tarfile", "tempfile"),
    *("textwrap", "threading", "timeit", "tokenize", "traceback", "turtle", "types", "typing", "unittest", "uuid"),
    *("warnings", "wave", "weakref", "zipfile"),
)
# Words of no table, so that numbers of any text are marked as they would be.
ANY = Vocabulary(("value",), ("units",), (("value",),), (("units",),))


def learn(
    backbone: FrozenBackbone, seed: int = 0, layer: int = LAYER, count: int = COUNT, epochs: int = EPOCHS
) -> Head:
    """A head that was trained on ``count`` sentences, read once."""
    texts = list(sentences(count, seed, any_texts()))
    states, offsets = _states(backbone, texts, layer)
    torch.manual_seed(seed)
    head = Head(backbone.hidden_size).to(backbone.device).train()
    optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.01)
    steps = epochs * (count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for _ in (bar := trange(steps, leave=False)):
        if len(order) < BATCH:
            # Sentences of like length lie together, so that hardly any padding is computed.
            lengths = torch.tensor([len(s) for s in states]) + 3 * torch.rand(count, generator=generator)
            groups = lengths.argsort().split(BATCH)[:-1]
            order = [i for g in torch.randperm(len(groups), generator=generator).tolist() for i in groups[g].tolist()]
        rows, order = order[:BATCH], order[BATCH:]
        seen, truth = batch([texts[i] for i in rows], [states[i] for i in rows], [offsets[i] for i in rows])
        # Words that are not seen now and then, so that others must do.
        kept = torch.rand(seen.mask.shape, generator=generator).to(seen.states.device) >= CLEARED
        value = loss(head(seen._replace(states=seen.states * (kept | (seen.marks > 0))[..., None])), seen.kinds, truth)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{value.item():.3f}")
    return head.eval().requires_grad_(False)


def any_texts() -> list[str]:
    """Sentences of the documentation of Python's own modules."""
    found = []
    for name in MODULES:
        module = importlib.import_module(name)
        docs = [module.__doc__, *(inspect.getdoc(getattr(module, part, None)) for part in dir(module))]
        for doc in filter(None, docs):
            found += [" ".join(part.split()) for part in re.split(r"(?<=[.?!])\s+|\n\s*\n", doc)]
    return [text for text in dict.fromkeys(found) if 12 <= len(text) <= 120]


def batch(
    texts: Sequence[Sentence], states: Sequence[Tensor], offsets: Sequence[Sequence[tuple[int, int]]]
) -> tuple[Read, dict[str, Tensor]]:
    """Sentences with what the head should answer."""
    padded = torch.nn.utils.rnn.pad_sequence([s.float() for s in states], batch_first=True)
    mask = torch.arange(padded.shape[1]) < torch.tensor([len(s) for s in states])[:, None]
    seen = placed(padded, mask.to(padded.device), offsets, [text.mentions for text in texts])
    size, most = seen.kinds.shape
    truth = {name: torch.zeros(size, most, dtype=torch.long) for name in ("bound", "basis", "when")}
    truth |= {"negated": torch.zeros(size, most), "either": torch.tensor([float(text.either) for text in texts])}
    truth |= {end: torch.zeros(size, most, most, dtype=torch.bool) for end in ENDS}
    truth["kind"] = torch.tensor([KINDS.index(text.kind) for text in texts])
    for row, text in enumerate(texts):
        for i, meaning in text.meanings.items():
            at = (row, i + 1)
            truth["bound"][at], truth["basis"][at] = BOUNDS.index(meaning.bound), BASES.index(meaning.basis)
            truth["when"][at], truth["negated"][at] = WHENS.index(meaning.when), float(meaning.negated)
            for end in ENDS:
                meant = [1 + j for j in getattr(meaning, end)] or [0]
                truth[end][row, i + 1, meant] = True
    return seen, {name: each.to(padded.device) for name, each in truth.items()}


def _states(
    backbone: FrozenBackbone, texts: list[Sentence], layer: int
) -> tuple[list[Tensor], list[list[tuple[int, int]]]]:
    """Token states, in half precision, and where tokens stand; mentions of plain texts are found first."""
    for text in texts:
        if not text.mentions and text.kind == "none":
            found = mentions(text.text, ANY)
            text.text, places = masked(text.text, found)
            text.mentions = [(m.kind, *place) for m, place in zip(found, places, strict=True)]
    plain = [text.text for text in texts]
    offsets = backbone.tokenizer(plain, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return backbone.read(plain, layer, lambda states: states.half()), offsets


@torch.no_grad()
def accuracies(
    head: Head, backbone: FrozenBackbone, seed: int, count: int = 2000, layer: int = LAYER
) -> dict[str, float]:
    """Shares of right answers on new sentences, and of sentences of which all is right."""
    texts = list(sentences(count, seed, any_texts()))
    states, offsets = _states(backbone, texts, layer)
    right: dict[str, list[Tensor]] = {}
    for first in range(0, count, BATCH):
        rows = slice(first, first + BATCH)
        seen, truth = batch(texts[rows], states[rows], offsets[rows])
        answers = head(seen)
        used = asked(seen.kinds) & (truth["bound"] > 0)
        whole = answers.kind.argmax(-1) == truth["kind"]
        right.setdefault("kind", []).append(whole.clone())
        for name in ("bound", "basis", "when", "negated", *ENDS):
            given = getattr(answers, name)
            if name == "negated":
                ok = (given > 0) == (truth[name] > 0.5)
            elif name in ENDS:
                ok = truth[name].gather(-1, given.argmax(-1, keepdim=True))[..., 0]
            else:
                ok = given.argmax(-1) == truth[name]
            counts = asked(seen.kinds) if name == "bound" else used
            right.setdefault(name, []).append(ok[counts])
            whole &= (ok | ~counts).all(1)
        right.setdefault("all", []).append(whole)
    return {name: torch.cat(parts).float().mean().item() for name, parts in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="nano", help="nano (default), a local folder or a hub id")
    parser.add_argument("--to", type=Path, default=FILE, help="the file to write; default that of the package")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare_cpu()
    backbone, start = FrozenBackbone(options.backbone), time.monotonic()
    head = learn(backbone, options.seed)
    Reader(backbone, head).save(options.to)
    found = accuracies(head, backbone, options.seed + 1)
    print(f"learned in {time.monotonic() - start:.0f} s; right on new sentences: {found}; written: {options.to}")


if __name__ == "__main__":
    main()
