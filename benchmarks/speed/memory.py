"""One case in a process of its own: the MiB by which its peak resident memory grows in a call, and the seconds.

The seconds are NaN where the machine's memory was too small; the MiB are those reached by then.
"""

import resource
import sys
from pathlib import Path

import torch

from benchmarks.speed.measure import granite, library_path, own_peak, reset_peak, resident, seconds
from benchmarks.speed.work import network_and_batch, prefix_and_texts, text_call
from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.backbone.cross_entropy import token_nats


def text(shape: str, path: str, batch: str, length: str, dtype: str) -> None:
    """Text likelihood of a random-weight model, forward and backward; path ours or library."""
    prepare_cpu()
    model = granite(shape, getattr(torch, dtype))
    call = text_call(model, int(batch), int(length), path)
    if path == "library":
        bound_memory()
    report(lambda: guarded(call, path))


def bound_memory() -> None:
    """Let allocation fail near the end of the machine's memory, before the system kills a process of its choice."""
    if sys.platform == "linux":
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (int(resident() * 2**20 + 0.85 * free), resource.RLIM_INFINITY))


def guarded(call, path: str) -> None:
    if path == "library":
        with library_path():
            call()
    else:
        call()


def head(vocabulary: str, rows: str) -> None:
    """Cross-entropy alone over a vocabulary, forward and backward."""
    prepare_cpu()
    weight, hidden = torch.randn(int(vocabulary), 64), torch.randn(int(rows), 64, requires_grad=True)
    target = torch.zeros(int(rows), dtype=torch.long)
    chunk = max(1, 2**24 // int(vocabulary))
    report(lambda: token_nats(hidden, target, lambda h: h @ weight.T, chunk).sum().backward())


def nano(texts: str) -> None:
    """Text likelihood of nano for a number of texts."""
    backbone = FrozenBackbone()
    prefix, lines = prefix_and_texts(backbone, int(texts))
    report(lambda: backbone.text_nats(prefix, lines)[0].sum().backward())


def training(path: str, dtype: str) -> None:
    """One batch of 16 windows with every text in the loss; ours, or the one-at-a-time loop over one window."""
    from benchmarks import reference_loop

    network, batch = network_and_batch(16, dtype=dtype)
    noise = torch.randn(16, batch.value.shape[1], network.world.config.latent_dim)
    if path == "ours":
        report(lambda: sum(network.objective(batch, network.noise, False).terms.values()).backward())
    else:
        with library_path():
            report(lambda: sum(reference_loop.losses(network, batch.select([0]), noise).values()).backward())


def report(call) -> None:
    reset_peak()
    before = resident()
    try:
        took = seconds(call)
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        took = float("nan")
    print(own_peak() - before, took)


if __name__ == "__main__":
    {f.__name__: f for f in (text, head, nano, training)}[sys.argv[1]](*sys.argv[2:])
