"""The processes of a run on several devices: which one this is, and what all of them together say.

Everything here goes by torch's process group, which Lightning has opened before it asks for a data loader. Without one, this
process is the only one and answers for itself. `gather` and `any_rank` are collective: all processes call them, or all wait.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import distributed


def world() -> int:
    """How many processes there are, W."""
    return distributed.get_world_size() if _grouped() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return distributed.get_rank() if _grouped() else 0


def is_first() -> bool:
    """Whether this process is the first of a run, as far as can be told before there is a process group.

    torchrun numbers processes by RANK; Lightning, which starts those of one node itself, by NODE_RANK and LOCAL_RANK; srun by
    SLURM_PROCID.
    """
    names = ("RANK",) if "RANK" in os.environ else ("NODE_RANK", "LOCAL_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def any_rank(flag: bool) -> bool:
    """Whether the flag is up in any process."""
    if world() == 1:
        return flag
    # NCCL reduces on a GPU alone.
    device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(int(flag), device=device)
    distributed.all_reduce(total, distributed.ReduceOp.MAX)
    return bool(total.item())


def seed_of(seed: int, which: int) -> int:
    """A seed (64 bits) for process `which`; that of the first is the run's own, so that one process is as it always was."""
    return seed if which == 0 else int(np.random.SeedSequence([seed, which]).generate_state(1, np.uint64)[0])


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()
