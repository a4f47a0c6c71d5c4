"""From a sentence to the condition that it means, or to the news that it means none.

    Reader.bundled().read("Strengthen to 90 knots in 48 hours", words)        # wind 85..95 kt at 48h

The reader of the package looks through the bundled nano model, whatever model a goal network has: so goals are
understood at once, and alike, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from gssr.backbone import FrozenBackbone
from gssr.backbone.identity import configured
from gssr.shown import listed
from gssr.states import state_file
from gssr.understanding.change_words import has_change_word
from gssr.understanding.clauses import Setting, Unsayable, clauses_of, label_of
from gssr.understanding.head import LAYER, Answers, Head, read
from gssr.understanding.mentions import LONGEST, masked, mentions
from gssr.understanding.plain_words import plain_words
from gssr.understanding.writing import KINDS

FORM = "gssr-goal-reader-1"
FILE = Path(__file__).parent / "nano.safetensors"
KEPT = 256  # sentences whose reading is kept
DOUBT = 0.75  # a reading that is less sure is told to be unsure
OTHER_NETWORK = "the reader was learned for another language model; run python -m gssr.understanding.learn"


@dataclass(frozen=True)
class Understood:
    """What a sentence means.

    kind:       "goal", "other" (a goal about something else) or "none" (no goal)
    condition:  of a goal, in the words of `gssr.sequences.conditions`; else None
    sure:       how probable the reading is, as the reader sees it
    problem:    why a goal cannot be asked, or None
    outside:    what of it lies outside anything seen, or None
    """

    kind: str
    condition: str | None
    sure: float
    problem: str | None = None
    outside: str | None = None

    def __str__(self) -> str:
        if self.condition is None:
            return self.problem or "understood as no goal about these values"
        doubt = "" if self.sure >= DOUBT else f", perhaps (the reader is {self.sure:.0%} sure)"
        outside = "" if self.outside is None else f"; {self.outside}"
        return f"understood as: {self.condition}{doubt}{outside}"


class Reader:
    """Reads goals.

    Args:
        backbone: the frozen model that ``head`` was trained with. layer: of the model, that it reads.
    """

    def __init__(self, backbone: FrozenBackbone, head: Head, layer: int = LAYER) -> None:
        self.backbone, self.head, self.layer = backbone, head, layer
        self._answers = lru_cache(maxsize=KEPT)(self._asked)  # `predict` reads one goal after many histories

    @classmethod
    @lru_cache(maxsize=1)
    def bundled(cls) -> Reader:
        """The reader of the package. Raises ValueError where its file does not fit the bundled model."""
        return cls.load(FILE, FrozenBackbone())

    @classmethod
    def load(cls, file: Path, backbone: FrozenBackbone) -> Reader:
        """Raises ValueError for a damaged file, and for one that was learned for another model."""

        def build(tensors: dict[str, torch.Tensor], about: dict[str, str]) -> Reader:
            if about.get("fingerprint") != _fingerprint(backbone):
                raise ValueError(OTHER_NETWORK)
            if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in head.state_dict().items()}:
                raise ValueError("its sizes are not those of a reader")
            if any(not tensor.is_meta for tensor in tensors.values()):
                if not all(tensor.isfinite().all() for tensor in tensors.values()):
                    raise ValueError("it holds numbers that are not finite")
                head.load_state_dict(tensors)
            return cls(backbone, head.eval().requires_grad_(False))

        head = Head(backbone.hidden_size)
        return state_file.read(file, FORM, build)

    def save(self, file: Path) -> None:
        """Raises ValueError if the file cannot be written."""
        state_file.write(file, FORM, self.head.state_dict(), {"fingerprint": _fingerprint(self.backbone)})

    def _asked(self, seen: str, at: tuple[tuple[str, int, int], ...]) -> Answers:
        return self.head(read(self.backbone, [(seen, at)], self.layer))

    @torch.no_grad()
    def read(self, sentence: str, setting: Setting) -> Understood:
        """What a sentence means in a setting."""
        text = " ".join(sentence.split())[:LONGEST]
        found = mentions(text, setting.words, float(setting.time[0]))
        seen, places = plain_words(*masked(text, found))
        if not seen.strip():
            return Understood("none", None, 1.0)
        at = [(m.kind, *place) for m, place in zip(found, places, strict=True)]
        answers = self._answers(seen, tuple(at))
        kinds = answers.kind[0].softmax(-1)
        kind = KINDS[int(kinds.argmax())]
        if kind != "goal":
            return _no_goal(kind, float(kinds.max()), setting)
        clauses, sure = clauses_of(answers, found, setting, has_change_word(seen))
        sure *= float(kinds.max())
        if not clauses:
            return _no_goal("none", sure, setting)
        for clause in clauses:
            if label := label_of(text, clause, setting):
                return Understood("other", None, sure, label)
        parts, outside = [], []
        try:
            for clause in clauses:
                parts.append(clause.condition(setting))
                outside += clause.outside(setting)
        except Unsayable as problem:
            return Understood("goal", None, sure, str(problem))
        either = float(answers.either[0].sigmoid())
        if len(parts) > 1:
            sure *= max(either, 1 - either)
        said = (" or " if either > 0.5 else " and ").join(dict.fromkeys(parts))
        return Understood("goal", said, sure, None, "; ".join(dict.fromkeys(outside)) or None)


def _no_goal(kind: str, sure: float, setting: Setting) -> Understood:
    names = listed(list(setting.words.names))
    what = f"a goal about something other than {names}" if kind == "other" else f"no goal about {names}"
    return Understood(kind, None, sure, f"understood as {what}; it changes nothing")


def _fingerprint(backbone: FrozenBackbone) -> str:
    return f"{backbone.fingerprint} {configured(backbone.model, backbone.tokenizer)}"
