"""The processes of a run on several devices: the number of this one, and values of all of them.

The functions use torch's process group, which Lightning opens before it asks for a data loader; without a group, this
process is the only one. `gather` and `any_rank` are collective: unless all processes call them, those that do wait
forever.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import distributed


def world() -> int:
    """The number of processes, W."""
    return distributed.get_world_size() if _grouped() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if _grouped() else 0


def is_first() -> bool:
    """Whether this process is the first of a run; needs no process group.

    torchrun numbers processes by RANK, srun by SLURM_PROCID. Lightning starts those of one node itself, and numbers
    them by NODE_RANK and LOCAL_RANK.
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
    # NCCL reduces only on a GPU.
    device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(int(flag), device=device)
    distributed.all_reduce(total, distributed.ReduceOp.MAX)
    return bool(total.item())


def seed_of(seed: int, which: int) -> int:
    """A seed (64 bits) for process number `which`; the first process keeps the seed of the run."""
    return seed if which == 0 else int(np.random.SeedSequence([seed, which]).generate_state(1, np.uint64)[0])


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()
