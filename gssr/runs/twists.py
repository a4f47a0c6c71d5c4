"""The twist of a run's network, by which `gssr chance` finds rare events.

It lies beside its checkpoint, best.twist.safetensors beside best.ckpt, and is learned when it is first needed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse import ArgumentParser
from tqdm import tqdm

from datamodules import SequenceData
from gssr import shown
from gssr.network import GoalNetwork
from gssr.runs import class_paths
from gssr.runs.command_line import reason
from gssr.runs.config import read_run_config
from gssr.runs.folders import Found
from gssr.search.beliefs import Twist, learn_twist

ENDING = ".twist.safetensors"


def twist_of(network: GoalNetwork, found: Found) -> Twist | None:
    """The twist of the network of a checkpoint; None, and a line that says why, where it cannot be learned.

    A file that is damaged, or of another network, is replaced. What happens is said on the error stream.
    """
    assert found.checkpoint is not None
    file = found.checkpoint.with_suffix(ENDING)
    if file.exists():
        try:
            return Twist.load(file, network)
        except ValueError as error:
            _say(f"{error}; it is learned anew")
    if found.run is None:
        _say(f"{found.checkpoint} lies in no run, whose windows show what is rare; rollouts are counted")
        return None
    try:
        windows = training_data(found.run).windows("train")
    except (ValueError, OSError) as error:
        _say(f"the training windows of {found.run} cannot be read, so rollouts are counted: {error}")
        return None
    _say("the event is rare; the network learns once, in about a minute, what leads to such events")
    with tqdm(total=100, desc="twist", bar_format="{l_bar}{bar}| {elapsed}<{remaining}", leave=False) as bar:
        twist = learn_twist(network, windows, tick=lambda share: bar.update(round(100 * share) - bar.n))
    try:
        twist.save(file)
    except ValueError as error:
        _say(f"the twist is not kept: {error}")
    return twist


def training_data(run: Path) -> SequenceData:
    """The data module of a run, of the project's own classes alone: the config may come from someone else.

    Raises ValueError where the config cannot be read or names another class, or its data cannot be read.
    """
    options = read_run_config(run)
    class_paths.allow([])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(SequenceData, "data", required=True)
    try:
        data = parser.instantiate(parser.parse_object({"data": options.get("data")})).data
    except Exception as error:  # whatever the parser raises for options that are none
        raise ValueError(class_paths.refused(str(error)) or shown.line(reason(error))) from error
    assert isinstance(data, SequenceData)
    return data


def _say(words: str) -> None:
    print(shown.line(f"gssr: {words}"), file=sys.stderr)
