"""How often answers are right, in three ways, for any causal language model, with or without thoughts.

    choices   the likeliest of the given choices, by nats a token
    extract   the text that is written, from which a pattern takes the answer
    content   the text that is written, where the answer stands anywhere as whole words, small and without punctuation

Every score has its number of problems, Wilson's 95 % interval (Wilson 1927) and the mean number of steps.

Shapes: n tokens of a continuation, V vocabulary.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from gssr.files import read_plain
from gssr.reasoning.thinker import State, Thinker
from gssr.shown import quoted
from gssr.states.advance import advance

Way = Literal["choices", "extract", "content"]
FIRST_WORD = r"\S+"
LARGEST = 2**28  # bytes of a file of problems


class Item(NamedTuple):
    """A problem. Choices and written answers follow the prompt as they stand, a blank at their start included."""

    prompt: str
    answer: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """``low`` and ``high``: the 95 % interval of the share. ``steps``: mean number taken."""

    way: Way
    cases: int
    right: int
    low: float
    high: float
    steps: float


@dataclass(frozen=True)
class Answering:
    """How a model answers: its thoughts, and when they end.

    Args:
        steps: at most. One is an answer without thinking.
        threshold: chance of being right at which thinking ends; None takes all steps.
    """

    thinker: Thinker
    steps: int = 1
    threshold: float | None = None

    @torch.no_grad()
    def behind(self, prompt: str) -> tuple[State, int]:
        """The state behind prompt and thoughts, and steps taken. Raises ValueError for a prompt without a token."""
        backbone = self.thinker.backbone
        (ids,) = backbone.tokenize([prompt])
        if not ids:
            raise ValueError(f"the prompt {quoted(prompt)} has no token; give a text of at least one character")
        tokens = torch.tensor([[backbone.start_id, *ids]], device=backbone.device)
        return self.thinker.after(tokens, self.steps, self.threshold)

    @torch.no_grad()
    def log_probabilities(self, state: State, ids: Sequence[int]) -> Tensor:
        """(n, V): of each token of a continuation, given those before it."""
        backbone, logits = self.thinker.backbone, state.step.logits
        if len(ids) > 1:
            mask = torch.cat([state.mask, state.mask.new_ones(1, len(ids) - 1)], 1)
            given = backbone.embed(torch.tensor([list(ids[:-1])], device=backbone.device))
            hidden, _ = advance(backbone, state.read, given, mask)
            logits = torch.cat([logits, backbone.logits(hidden[0]).float()])
        return logits.log_softmax(-1)

    @torch.no_grad()
    def write(self, state: State, tokens: int, stop: Sequence[str] = ()) -> str:
        """The likeliest text, up to end-of-text, a text of ``stop``, which is left out, or a number of tokens."""
        backbone, ids = self.thinker.backbone, []
        logits, cache, mask = state.step.logits, state.read, state.mask
        while len(ids) < tokens and (token := int(logits.argmax())) != backbone.tokenizer.eos_token_id:
            ids.append(token)
            text = backbone.tokenizer.decode(ids, skip_special_tokens=True)
            if places := [text.index(end) for end in stop if end in text]:
                return text[: min(places)]
            mask = torch.cat([mask, mask.new_ones(1, 1)], 1)
            hidden, cache = advance(backbone, cache, backbone.embed(torch.tensor([[token]])), mask)
            logits = backbone.logits(hidden[:, -1]).float()
        return backbone.tokenizer.decode(ids, skip_special_tokens=True)


def evaluate(
    answering: Answering, items: Sequence[Item], way: Way, tokens: int = 32, pattern: str = FIRST_WORD
) -> Score:
    """The share of problems whose answer is right.

    Args:
        tokens: of a written answer at most.
        pattern: what ``extract`` takes: the last group of the first match.

    Raises ValueError for no problem, one without the choices it needs, or a prompt without a token.
    """
    if way not in get_args(Way) or not items:
        raise ValueError(f"{len(items)} problems, way {quoted(way)}; expected at least one, and {get_args(Way)}")
    right, taken = 0, 0
    for item in items:
        state, steps = answering.behind(item.prompt)
        taken += steps
        if way == "choices":
            right += _likeliest(answering, state, item) == item.answer
        else:
            text = answering.write(state, tokens)
            right += extracted(text, pattern) == item.answer.strip() if way == "extract" else holds(text, item.answer)
    low, high = interval(right / len(items), len(items))
    return Score(way, len(items), right, low, high, taken / len(items))


def _likeliest(answering: Answering, state: State, item: Item) -> str:
    if item.answer not in item.choices:
        raise ValueError(f"the answer {quoted(item.answer)} is none of the choices {item.choices[:8]}")
    nats = {}
    for choice, ids in zip(item.choices, answering.thinker.backbone.tokenize(item.choices), strict=True):
        if not ids:
            raise ValueError(f"the choice {quoted(choice)} has no token; give a text of at least one character")
        said = answering.log_probabilities(state, ids)
        nats[choice] = -said[torch.arange(len(ids)), torch.tensor(ids)].mean().item()
    return min(nats, key=nats.__getitem__)


def extracted(text: str, pattern: str = FIRST_WORD) -> str | None:
    """What a pattern takes from a text, without blanks around it; None where it does not match."""
    found = re.search(pattern, text)
    return None if found is None else found[found.lastindex or 0].strip()


def holds(text: str, answer: str) -> bool:
    """Whether the words of an answer stand in a text, one behind the other."""
    words, wanted = _words(text), _words(answer)
    return bool(wanted) and any(words[i : i + len(wanted)] == wanted for i in range(len(words) - len(wanted) + 1))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def read_items(path: Path) -> list[Item]:
    """Problems of a file: JSON lines with ``prompt``, ``answer`` and, for ``choices``, a list of texts.

    Raises ValueError for a file that cannot be read, or a line that is no problem.
    """
    try:
        lines = read_plain(path, LARGEST).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as UTF-8 text: {error}") from error
    items = []
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            item = Item(found["prompt"], found["answer"], tuple(found.get("choices", ())))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is no problem with prompt and answer: {quoted(line)}") from error
        if not all(isinstance(text, str) for text in (item.prompt, item.answer, *item.choices)):
            raise ValueError(f"{path}, line {number}: prompt, answer and choices are not texts")
        items.append(item)
    return items


def interval(share: float, cases: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, n = 1.96, cases
    centre, half = share + z * z / (2 * n), z * math.sqrt((share * (1 - share) + z * z / (4 * n)) / n)
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
