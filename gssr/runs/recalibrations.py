"""What corrects the chances of a run's network: its own validation windows, for `gssr chance --recalibrate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tqdm import tqdm

from gssr import shown
from gssr.network import GoalNetwork
from gssr.runs.folders import Found
from gssr.runs.twists import training_data
from gssr.search.beliefs import Recalibration, recalibrate
from gssr.search.beliefs.recalibration import MOST
from gssr.sequences.conditions import Condition


def recalibrations_of(
    network: GoalNetwork, found: Found, events: Sequence[Condition], seed: int = 0
) -> list[Recalibration]:
    """What corrects the chance of each event; how often it came true is said on the error stream.

    Raises ValueError for a checkpoint outside of a run, validation windows that cannot be read, and too few of them.
    """
    if found.run is None:
        raise ValueError(
            f"{found.checkpoint} lies in no run, whose validation windows would tell how often events came true; "
            "leave --recalibrate out"
        )
    windows = training_data(found.run).windows("val")
    with tqdm(total=min(MOST, len(windows)), desc="recalibration", unit="window", leave=False) as bar:
        made = recalibrate(network, windows, events, seed, tick=bar.update)
    for event, each in zip(events, made, strict=True):
        words = f"gssr: {event.text}: came true behind {each.came_true} of {each.windows} validation windows"
        print(shown.line(words), file=sys.stderr)
    return made
