"""Plans for a text that is being written, and the buffer that lands each at its token.

A plan is made from a snapshot of the text, for a later position. It foresees the tokens in between, and holds only if
they came: it is applied at exactly its position, or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


def digest(tokens: Sequence[int]) -> str:
    """A hash of token ids."""
    return hashlib.blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What to write from a position on. Positions count new tokens of the text.

    Args:
        snapshot: tokens that were written when the planner looked.
        position: tokens that are written when the plan begins, at least ``snapshot``.
        between: ``digest`` of the tokens from ``snapshot`` to ``position``, as the planner foresaw them.
        tokens: to write from there.
        value: what the planner expects of them.
    """

    snapshot: int
    position: int
    between: str
    tokens: tuple[int, ...]
    value: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.snapshot <= self.position or not self.tokens:
            raise ValueError(
                f"a plan from {self.snapshot} for {self.position} with {len(self.tokens)} tokens; expected 0 <= "
                "snapshot <= position, and at least one token"
            )


@dataclass
class Counts:
    """What became of plans; ``received`` is the sum of the five below it.

    Args:
        asked: snapshots that a planner took.
        received: plans that came back.
        applied: at their position.
        late: their position had passed when they came.
        discarded: other tokens came than the plan foresaw.
        replaced: a newer plan came for the same position.
        left: the text ended before their position.
    """

    asked: int = 0
    received: int = 0
    applied: int = 0
    late: int = 0
    discarded: int = 0
    replaced: int = 0
    left: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class PlanBuffer:
    """Plans that wait for their positions. ``counts`` tells what became of them."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._waiting: dict[int, Plan] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a plan waits for its position: what is planned before it came would not foresee its tokens."""
        return bool(self._waiting)

    def put(self, plan: Plan, position: int) -> None:
        """Keep a plan that came when ``position`` tokens were written."""
        self.counts.received += 1
        if plan.position < position:
            self.counts.late += 1
            return
        self.counts.replaced += plan.position in self._waiting
        self._waiting[plan.position] = plan

    def take(self, tokens: Sequence[int]) -> Plan | None:
        """The plan that begins behind exactly these new tokens; to be called at each position."""
        plan = self._waiting.pop(len(tokens), None)
        if plan is None:
            return None
        if digest(tokens[plan.snapshot :]) != plan.between:
            self.counts.discarded += 1
            return None
        self.counts.applied += 1
        return plan

    def close(self) -> Counts:
        """The counts at the text's end."""
        self.counts.left += len(self._waiting)
        self._waiting.clear()
        return self.counts
