"""Reads checkpoint files without running anything in them: tensors and plain values are loaded, all else is refused."""

from __future__ import annotations

import pickle
import re
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gssr.runs.folders import BEST, CHECKPOINTS, LAST, Found, RunError


class DamagedCheckpoint(RunError):
    """A file that is missing, cut short or altered, or no checkpoint of a training."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file} cannot be read as a checkpoint: {reason}")


def read_checkpoint(file: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The contents of the file. Raises `DamagedCheckpoint`, and `RunError` if the file asks for code."""
    try:
        if not zipfile.is_zipfile(file):
            raise DamagedCheckpoint(file, f"it is cut short, or was never one ({file.stat().st_size} bytes)")
        with zipfile.ZipFile(file) as parts:
            if parts.testzip() is not None:  # torch itself does not compare the checksums that it writes
                raise DamagedCheckpoint(file, "it is damaged (a checksum is wrong)")
        content = torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global:?|class|type) (?:GLOBAL )?([\w.]+\.\w+)", str(error))
        raise RunError(
            f"{file} was not loaded: it asks for {found[1] if found else 'something'}, which is no tensor or plain "
            "value and could run code. Take a checkpoint that this program wrote, from a source that you trust"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, DamagedCheckpoint):
            raise
        reason = str(error).split("\n")[0]
        raise DamagedCheckpoint(file, f"it is damaged ({reason})") from error
    if not isinstance(content, dict):
        raise DamagedCheckpoint(file, f"it holds a {type(content).__name__}")
    return content


def steps_done(file: Path) -> int:
    """Optimizer steps of the training that the file holds. Raises as `read_checkpoint` does."""
    step = read_checkpoint(file).get("global_step")
    if not isinstance(step, int):
        raise DamagedCheckpoint(file, "it has no training in it")
    return step


def newest_readable(run: Path) -> tuple[Path, int] | None:
    """The readable state of a run that is furthest on, and its optimizer steps; None if there is none."""
    states = []
    for file in sorted((run / CHECKPOINTS).glob("*.ckpt"), key=lambda file: file.stem in (LAST, BEST)):
        with suppress(RunError):
            states.append((file, steps_done(file)))
    return max(states, default=None, key=lambda state: state[1])


def readable(found: Found, to_train: bool) -> tuple[Found, int, str]:
    """A checkpoint that can be read, its optimizer steps, and a note for the user, or "".

    Where training is to go on from a damaged `last`, the newest readable state of the run replaces it. Training repeats
    the steps since then bit for bit, so that only time is lost.

    Raises RunError for a damaged checkpoint otherwise; the message names the newest readable one of its run.
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
