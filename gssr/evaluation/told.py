"""The words of a plan as a person reads them: which of the imagined futures each text belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gssr import shown
from gssr.evaluation.network import Plan

TYPICAL = "a typical rollout (the nearest to the mean)"


def told(plan: Plan, row: int) -> Iterator[tuple[str, list[str]]]:
    """What each future of a sequence is, and its texts; one that repeats the text before it is a ditto mark."""
    samples = len(plan.rollouts.mean)
    futures = [(future.text[row], round(future.share[row].item() * samples)) for future in plan.futures]
    for k, (texts, near) in enumerate(futures or [(plan.text[row], samples)]):
        what = TYPICAL
        if len(futures) > 1:
            which = TYPICAL if k == 0 else "another rollout"
            what = f"future {k + 1} of {len(futures)}: {which}, told for {near} of {samples}"
        if any(texts):
            yield what, shown.with_dittos(texts)


@contextmanager
def telling(network: Any, futures: int) -> Iterator[None]:
    """Inside the block, plans of a goal network tell so many futures; those of other models stay as they are."""
    forecaster = getattr(network, "forecaster", None)
    before = getattr(forecaster, "told", None)
    if before is not None:
        forecaster.told = futures
    try:
        yield
    finally:
        if before is not None:
            forecaster.told = before
