"""Write one text while a planner looks ahead; without plans in time it is plain generation, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gssr.search.decoding.lookahead import Request
from gssr.search.decoding.planners import Planner
from gssr.search.decoding.plans import Counts, PlanBuffer
from gssr.search.decoding.rows import Rows


@dataclass(frozen=True)
class Planned:
    """What became of plans, tokens that were written by plan, and the seconds that writing took."""

    counts: Counts
    tokens: int
    seconds: float


def write_planned(
    rows: Rows,
    planner: Planner | None,
    tokens_a_second: float | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Planned:
    """Write one row to its end.

    A plan that is applied writes its tokens in place of drawn ones; one that comes in the middle of another takes over.

    Args:
        rows: of one prompt, one copy, from its first token on.
        tokens_a_second: write no faster, as for a reader; the planner has the time in between.
        pause: waits so many seconds.

    Raises:
        ValueError: more than one row.
    """
    if len(rows.tokens) != 1:
        raise ValueError(f"a planner goes beside one text, these are {len(rows.tokens)}; give one prompt and one row")
    buffer, by_plan, began = PlanBuffer(), 0, time.perf_counter()
    coming: list[int] = []
    while not rows.finished:
        written = rows.tokens[0].tolist()
        if planner is not None:
            for plan in planner.plans(len(written)):
                buffer.put(plan, len(written))
            if (taken := buffer.take(written)) is not None:
                coming = list(taken.tokens)
            if written and not buffer.is_waiting and planner.is_idle():
                buffer.counts.asked += 1
                request = Request(rows.snapshot(), len(written), rows.generator.get_state(), tuple(coming))
                planner.ask(request)
        if coming:
            rows.put([coming.pop(0)])
            by_plan += 1
        else:
            rows.write(1)
        if tokens_a_second is not None:
            pause(max(0.0, began + rows.length / tokens_a_second - time.perf_counter()))
    if planner is not None:
        for plan in planner.plans(rows.length):
            buffer.put(plan, rows.length)
    return Planned(buffer.close(), by_plan, time.perf_counter() - began)
