"""Training against the one-at-a-time loop, with fewer texts a step, and on the library's path and ours."""

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from benchmarks import reference_loop
from benchmarks.speed.measure import interleaved, library_path, median, peak_memory, ratio
from benchmarks.speed.work import network_and_batch, storms, update
from gssr.network import GoalNetwork
from gssr.network.objective import Objective
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch


def training(quick: bool) -> dict[str, Any]:
    """(sequence, step) pairs a second, forward, backward and optimizer, with every text in the loss.

    Ours computes open-loop and goal losses as well, which the loop does not.
    """
    size, rows = 4 if quick else 32, []
    for dtype in ("float32", "bfloat16"):
        network, batch = network_and_batch(size, dtype=dtype)
        steps = batch.value.shape[1]
        agree = losses_agree(network, batch.select([0, 1]), 1e-4 if dtype == "float32" else 0.02)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)
        one, noise = batch.select([0]), torch.randn(1, steps, network.world.config.latent_dim)

        def ours(network=network, batch=batch, optimizer=optimizer) -> None:
            update(optimizer, network.objective(batch, network.noise, False).terms)

        def loop(network=network, one=one, noise=noise, optimizer=optimizer) -> None:
            with library_path():
                update(optimizer, reference_loop.losses(network, one, noise))

        times = interleaved({"ours": ours, "loop": loop}, 2 if quick else 7)
        row = {
            "backbone": dtype,
            "ours steps/s": size * steps / median(times["ours"]),
            "one at a time steps/s": steps / median(times["loop"]),
            "ratio": ratio(times, "loop", "ours") * size,
            "largest difference of a loss": agree,
        }
        if not quick:
            row["ours peak MiB"] = peak_memory("training", "ours", dtype)
            row["one at a time peak MiB"] = peak_memory("training", "one", dtype)
        rows.append(row)
    return {"rows": rows, "windows in our batch": size, "windows in the loop": 1}


def losses_agree(network: GoalNetwork, batch: Batch, tolerance: float) -> float:
    """Largest relative difference between a loss of the network and of the plain loop, with the same noise."""
    with torch.no_grad(), library_path():
        # The network draws its posterior noise first.
        shape = (*batch.step_mask.shape, network.world.config.latent_dim)
        plain = reference_loop.losses(network, batch, torch.randn(shape, generator=torch.Generator().manual_seed(3)))
    with torch.no_grad():
        ours = network.objective(batch, torch.Generator().manual_seed(3), False).terms
    found = {name: abs(float(ours[name] - plain[name]) / float(plain[name])) for name in reference_loop.LOSSES}
    if max(found.values()) > tolerance:
        raise AssertionError(f"the loop and the network compute different losses: {found}")
    return max(found.values())


def curve(quick: bool) -> dict[str, Any]:
    """The same training twice from the same seed, with the library's path and ours: loss of each optimizer step."""
    steps = 6 if quick else 30
    losses: dict[str, list[float]] = {"library": [], "ours": []}
    for path, curve in losses.items():
        network, _ = network_and_batch(1, text_steps=4)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        for step in range(steps):
            batch = collate([storms().train_records[(0, 8 * step + i)] for i in range(8)])
            with library_path() if path == "library" else nullcontext():
                terms = network.objective(batch, network.noise, True).terms
                update(optimizer, terms)
            curve.append(float(sum(terms.values()).detach()))
    largest = max(abs(a - b) / abs(b) for a, b in zip(*losses.values(), strict=True))
    return {"rows": [{"optimizer steps": steps, "largest relative difference": largest}], "curves": losses}


def text_steps(quick: bool) -> dict[str, Any]:
    """Time to a held-out text loss with 8 texts of a batch of 16 windows, against all of its texts.

    Ours is trained both ways from the same seed. The curve with all texts is that of the one-at-a-time loop, since
    the losses agree; the loop would take hours, so its time is extrapolated from its rate. The target is the higher of
    the two lowest losses, so that both ways reach it.
    """
    budget = 20.0 if quick else 110.0
    held = collate([storms().val_records[i] for i in range(0, 8 * 90, 90)])
    records = storms().train_records
    runs: dict[int, list[tuple[float, float, int]]] = {}
    for count in (8, 10**6):
        network, _ = network_and_batch(1, text_steps=count)
        network.world.table.add([text for row in held.text for text in row if text is not None], keep=False)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        spent, step, runs[count] = 0.0, 0, []
        while spent < budget:
            start = time.perf_counter()
            batch = collate([records[(0, (16 * step + i) % len(records.records))] for i in range(16)])
            network.world.table.add([text for row in batch.text for text in row if text is not None], keep=False)
            update(optimizer, network.objective(batch, network.noise, True).terms)
            spent, step = spent + time.perf_counter() - start, step + 1
            if step % (20 if count == 8 else 1) == 0 or spent >= budget:
                runs[count].append((spent, held_out(network, held), step))
    target = max(min(nats for _, nats, _ in run) for run in runs.values())
    seconds_few = next(s for s, nats, _ in runs[8] if nats <= target)
    seconds_all, updates_all = next((s, u) for s, nats, u in runs[10**6] if nats <= target)
    rate = training(True)["rows"][0]["one at a time steps/s"]
    seconds_loop = updates_all * 16 * held.value.shape[1] / rate
    row = {
        "held-out nats a token": target,
        "8 texts a batch, s": seconds_few,
        "every text, s": seconds_all,
        "one-at-a-time loop (extrapolated), s": seconds_loop,
        "loop / 8 texts": seconds_loop / seconds_few,
    }
    return {"rows": [row], "best nats": {str(count): min(n for _, n, _ in run) for count, run in runs.items()}}


@torch.no_grad()
def held_out(network: GoalNetwork, batch: Batch) -> float:
    """Nats a token of 64 texts of validation windows, always the same and with the same noise."""
    own = network.objective
    objective = Objective(replace(own.config, text_steps=64), own.world, own.speaker)
    return float(objective(batch, torch.Generator().manual_seed(5), False).terms["text"])
