"""Whether two runs are equal bit for bit: weights, optimizer, generators and all logged rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gssr.checkpoint import read
from gssr.runs.folders import BEST, LAST, checkpoint_file


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Names of all values in two nested structures that are not equal bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape
        same = same and torch.equal(
            a.reshape(-1).contiguous().view(torch.uint8), b.reshape(-1).contiguous().view(torch.uint8)
        )
        return [] if same else [name]
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(key for key in b if key not in a)]
        return [d for key in keys for d in differences(a.get(key), b.get(key), f"{name}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{name}/{i}")]
    return [] if type(a) is type(b) and (a == b or (a != a and b != b)) else [name]


def compare(run: Path, other: Path) -> list[str]:
    """What differs between two runs: in their newest and best states, and in their logs."""
    found = []
    for name in (LAST, BEST):
        a, b = (read(checkpoint_file(folder, name)) for folder in (run, other))
        found += [f"{name}.ckpt{where}" for where in differences(a, b)]
    if (run / "metrics.csv").read_bytes() != (other / "metrics.csv").read_bytes():
        found.append("metrics.csv")
    return found
