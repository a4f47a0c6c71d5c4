"""Goals in the units that the network sees: the levels that a sentence names, through the scale of its window."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gssr.network.normalisation import WindowScale
from gssr.sequences.goal_numbers import rewritten
from gssr.sequences.vocabulary import Vocabulary

MIDDLE, DEVIATION = 50, 10  # of T scores


class GoalUnits:
    """Writes the levels of goals as T scores of their windows: 50 is 0 in units of the window, and 60 is 1.

    Where each window has units of its own, the level of a goal is another number in each. The frozen model reads the
    sentence with that number. What is no level stays: lengths of time, dates and shares (see `levels`).

    Args:
        words: the value that goals speak of, and what it and its unit are called; JSON of a Vocabulary, None for the
            first value and no words.
    """

    def __init__(self, words: str | None = None) -> None:
        self.words = words

    def __call__(self, goals: Sequence[str | None], scale: WindowScale, step: Tensor) -> list[str | None]:
        """Goals of B windows in their units at the steps (B,) at which they should hold.

        Raises ValueError for words that no Vocabulary made.
        """
        words = Vocabulary(("",), ("",), ((),), ((),)) if self.words is None else Vocabulary.from_json(self.words)
        column = words.column
        said = words.unit_wordings[column], words.wordings[column]
        zero, one = (part[:, column].tolist() for part in scale.at(step))
        return [
            None if goal is None else rewritten(goal, lambda level, b=b: t_score(level, zero[b], one[b]), *said)
            for b, goal in enumerate(goals)
        ]


def t_score(level: float, zero: float, one: float) -> str:
    """A level as a whole number: 50 where it is `zero`, ten more for each `one`."""
    return str(round(MIDDLE + DEVIATION * (level - zero) / one))
