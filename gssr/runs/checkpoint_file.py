"""The checkpoints of a run: the file that is asked for, or the newest that can be read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gssr.checkpoint import DamagedCheckpoint, read
from gssr.runs.folders import BEST, CHECKPOINTS, LAST, Found, RunError


def steps_done(file: Path) -> int:
    """Optimizer steps of the training that the file holds. Raises as `gssr.checkpoint.read` does."""
    step = read(file).get("global_step")
    if not isinstance(step, int) or step < 0:
        raise DamagedCheckpoint(file, "it has no training in it")
    return step


def newest_readable(run: Path) -> tuple[Path, int] | None:
    """The readable state of a run that is furthest on, and its optimizer steps; None if there is none."""
    states = []
    for file in sorted((run / CHECKPOINTS).glob("*.ckpt"), key=lambda file: file.stem in (LAST, BEST)):
        with suppress(ValueError):
            states.append((file, steps_done(file)))
    return max(states, default=None, key=lambda state: state[1])


def readable(found: Found, to_train: bool) -> tuple[Found, int, str]:
    """A checkpoint that can be read, its optimizer steps, and a note for the user, or "".

    Where training is to go on from a damaged `last`, the newest readable state of the run replaces it. Training repeats
    the steps since then bit for bit, so that only time is lost.

    Raises ValueError for a damaged checkpoint otherwise; the message names the newest readable one of its run.
    """
    if found.checkpoint is None:
        return found, 0, ""
    try:
        return found, steps_done(found.checkpoint), ""
    except DamagedCheckpoint as error:
        if found.run is None:
            raise
        if (other := newest_readable(found.run)) is None:
            raise RunError(f"{error}; no other checkpoint of {found.run} can be read") from error
        file, step = other
        if not (to_train and found.is_last):
            raise RunError(
                f"{error}; the newest readable one of its run is --ckpt_path {file}, of step {step}"
            ) from error
        note = (
            f"{error}.\nUsing {file} instead, of step {step}, the newest that can be read; later steps are made again."
        )
        return replace(found, checkpoint=file, stands_in=True), step, note
