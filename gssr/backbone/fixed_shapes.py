"""Token states that depend on the text alone: never on what is read with it, before it, or by how many threads.

Libraries choose their kernels, and with them the order of additions, by the shape of a call; and threads cut a tensor
where vector instructions end. So the last bits of a state depend on padding, on the number of rows and on threads.
Here every call has one of a few shapes: the number of tokens of a text determines the padded length, and the length
determines the number of rows. Rows without a text are filled. On a CPU each call has one thread, and the calls of a
group run side by side. Within one shape a row's numbers depend neither on its place nor on the other rows.

Shapes: R rows of a call, L its padded length with the start token; E as in the legend.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

VERSION = 3  # of the shapes below; a change makes all kept states be read again
# Tokens of a call and its least length: few calls, and few rows to fill where goals of one batch are read.
CPU, GPU = (576, 18), (2048, 32)
# A wider model is busy with fewer tokens, and a single text should not cost it many rows.
WIDTH = 512
# Names under which configs count their experts.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def call_shape(tokens: int, width: int, on_cpu: bool, alone: bool = False) -> tuple[int, int]:
    """R and L of the call that reads a text of so many tokens, the start token among them.

    Args:
        width: E.
        alone: one row a call, for a model whose tokens are sorted by experts: there other rows change the shapes.
    """
    budget, least = CPU if on_cpu else GPU
    step = max(4, 1 << max(0, tokens.bit_length() - 4))
    length = least if tokens <= least else -(-tokens // step) * step
    fitting = budget * WIDTH // max(WIDTH, width if on_cpu else 0) // length
    return 1 if alone or fitting < 2 else 1 << (fitting.bit_length() - 1), length


@torch.no_grad()
def read(
    ids: Sequence[Sequence[int]],
    states: Callable[[Tensor], Tensor],
    keep: Callable[[Tensor], Tensor],
    shape: Callable[[int], tuple[int, int]],
    filler: int,
    device: torch.device,
) -> list[Tensor]:
    """What is kept of the states of each text.

    Args:
        ids: token ids of each text, from the start token.
        states: maps ids (R, L) to states (R, L, E).
        keep: maps a text's states (tokens, E), without the start token, to what is kept of them.
        shape: maps tokens to (R, L).
        filler: the token id of padding and of rows without a text.
    """
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, own in enumerate(ids):
        by_shape[shape(len(own))].append(i)
    calls = [
        (rows, length, places[start : start + rows])
        for (rows, length), places in sorted(by_shape.items())
        for start in range(0, len(places), rows)
    ]
    kept: list[Tensor] = [torch.empty(0)] * len(ids)

    def call(rows: int, length: int, places: Sequence[int]) -> None:
        # These settings belong to a thread. Autocast would make a text read in training differ from one read before.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            padded = torch.full((rows, length), filler)
            for row, i in enumerate(places):
                padded[row, : len(ids[i])] = torch.tensor(ids[i])
            found = states(padded.to(device))
            for row, i in enumerate(places):
                kept[i] = keep(found[row, 1 : len(ids[i])].float())

    _side_by_side([partial(call, *each) for each in calls], device)
    return kept


def _side_by_side(calls: Sequence[Callable[[], None]], device: torch.device) -> None:
    """Run calls; on a CPU with a thread each, as many at a time as torch has threads."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        for call in calls:
            call()
        return
    try:
        with ThreadPoolExecutor(max(1, min(threads, len(calls))), initializer=_one_thread) as pool:
            for done in [pool.submit(call) for call in calls]:
                done.result()
    finally:
        # Threads that begin later take their number from the last one that was set anywhere.
        torch.set_num_threads(threads)


def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # belongs to a thread, too
