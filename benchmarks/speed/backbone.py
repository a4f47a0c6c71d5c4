"""The frozen model: scan, text likelihood against the floor, encoding, decoding."""

import inspect
import math
import os
import statistics
import tempfile
from typing import Any

import torch
from torch.profiler import profile
from transformers.models.granitemoehybrid import modeling_granitemoehybrid as library

from benchmarks.speed.measure import (
    floor_seconds,
    give_memory_back,
    granite,
    interleaved,
    library_path,
    median,
    own_process,
    peak_memory,
    ratio,
    seconds,
)
from benchmarks.speed.work import prefix_and_texts, storms, text_call
from gssr.backbone import FrozenBackbone
from gssr.backbone.scan import chunk_scan
from gssr.backbone.table import TextTable


def scan(quick: bool) -> dict[str, Any]:
    """The scan of one 350m layer, batch 8, against the library's with its own chunk of 256: seconds and their ratio."""
    slow = inspect.unwrap(library.mamba2_chunk_scan)
    rows = []
    for length in (16, 64, 256) if quick else (16, 32, 64, 128, 256, 512, 1024, 2048):
        batch = 8 if length <= 256 else 2
        generator = torch.Generator().manual_seed(0)
        given = {
            "hidden_states": torch.randn(batch, length, 48, 32, generator=generator, requires_grad=True),
            "dt": torch.randn(batch, length, 48, generator=generator, requires_grad=True),
            "B": torch.randn(batch, length, 1, 128, generator=generator, requires_grad=True),
            "C": torch.randn(batch, length, 1, 128, generator=generator, requires_grad=True),
            "A": -torch.arange(1, 49).float(),
            "D": torch.ones(48),
            "dt_bias": torch.zeros(48),
            "chunk_size": 256,
            "dt_softplus": True,
        }

        def forward(function: Any, given: dict = given) -> None:
            with torch.no_grad():
                function(**given)

        def both(function: Any, given: dict = given) -> None:
            function(**given).sum().backward()

        repeats = 3 if quick or length > 256 else 7
        calls = {"forward": forward, "forward + backward": both}
        for name, call in calls.items():
            times = interleaved({"ours": lambda c=call: c(chunk_scan), "library": lambda c=call: c(slow)}, repeats)
            rows.append(
                {
                    "L": length,
                    "B": batch,
                    "pass": name,
                    "ours ms": 1e3 * median(times["ours"]),
                    "library ms": 1e3 * median(times["library"]),
                    "ratio": ratio(times, "library", "ours"),
                }
            )
    return {"rows": rows}


def nano(quick: bool) -> dict[str, Any]:
    """Text likelihood of nano, forward and backward, against the time of its matrix products, and a profile."""
    rows, tables = [], {}
    for dtype in ("float32", "bfloat16"):
        backbone = FrozenBackbone(dtype=dtype)
        for count in (8,) if quick else (8, 64):
            prefix, texts = prefix_and_texts(backbone, count)
            lengths = [len(ids) for ids in backbone.tokenize(texts)]

            def call(backbone: FrozenBackbone = backbone, prefix=prefix, texts=texts) -> None:
                backbone.text_nats(prefix, texts)[0].sum().backward()

            def plain(call=call) -> None:
                with library_path():
                    call()

            call()
            shares, times = [], interleaved({"ours": call, "library": plain}, 3 if quick else 9)
            for _ in range(3 if quick else 7):
                # The floor has no padding: every token, and the prefix, once.
                floor, work = floor_seconds(backbone.model, sum(lengths) + 5 * count, sum(lengths) + count, 3)
                shares.append(floor / seconds(call))
            rows.append(
                {
                    "dtype": dtype,
                    "texts": count,
                    "ms": 1e3 * median(times["ours"]),
                    "library ms": 1e3 * median(times["library"]),
                    "GFLOP": work / 1e9,
                    "share of the floor": statistics.median(shares),
                }
            )
        with profile() as profiler:
            call()
        events = sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)
        whole = sum(event.self_cpu_time_total for event in events)
        tables[dtype] = {event.key: event.self_cpu_time_total / whole for event in events[:14]}
    return {"rows": rows, "profile": tables}


def h350m(quick: bool) -> dict[str, Any]:
    """Text likelihood of random weights of the 350m shape, forward and backward, L = 64, batch 8."""
    rows = []
    for dtype in ("bfloat16",) if quick else ("float32", "bfloat16"):
        model = granite("350m", getattr(torch, dtype))
        call = text_call(model, 8, 64, "ours")
        call()
        factors, mine = [], []
        for _ in range(1 if quick else 5):
            floor, work = floor_seconds(model, 8 * 68, 8 * 64, 1)
            mine.append(seconds(call))
            factors.append(mine[-1] / floor)
        del model, call
        give_memory_back()
        # The library's scan needs some 20 GiB here, so it runs once, in a process of its own.
        library_peak, library_seconds = own_process("text", "350m", "library", 8, 64, dtype)
        row = {
            "dtype": dtype,
            "s": median(mine),
            "library s": None if math.isnan(library_seconds) else library_seconds,
            "TFLOP": work / 1e12,
            "times the floor": median(factors),
            "peak MiB": peak_memory("text", "350m", "ours", 8, 64, dtype),
            "library peak MiB": f"more than {library_peak:.0f}" if math.isnan(library_seconds) else library_peak,
        }
        rows.append(row)
    return {"rows": rows}


def encode(quick: bool) -> dict[str, Any]:
    """Texts a second, read into an empty cache and found in a full one."""
    backbone, texts = FrozenBackbone(), storms().texts()[: 256 if quick else 2048]
    before = os.environ.get("GSSR_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GSSR_CACHE"] = folder
        try:
            cold = seconds(lambda: TextTable(backbone, [4]).add(texts))
            warm = median([seconds(lambda: TextTable(backbone, [4]).add(texts)) for _ in range(3)])
        finally:
            os.environ.pop("GSSR_CACHE") if before is None else os.environ.update(GSSR_CACHE=before)
    single = median([seconds(lambda t=t: backbone.mean_states([t], [4])) for t in texts[:10]])
    row = {"texts": len(texts), "cold texts/s": len(texts) / cold, "warm texts/s": len(texts) / warm}
    return {"rows": [row | {"one at a time texts/s": 1 / single}]}


def decode(quick: bool) -> dict[str, Any]:
    """Tokens a second of greedy decoding behind prefixes, in one batch."""
    rows, backbone = [], FrozenBackbone()
    for count in (8,) if quick else (1, 8, 64):
        prefix = prefix_and_texts(backbone, count)[0].detach()
        new = 16 if quick else 48

        def ours(prefix=prefix, new=new) -> None:
            backbone.model.generation_config.min_new_tokens = new
            backbone.generate(prefix, new)

        def plain(ours=ours) -> None:
            with library_path():
                ours()

        times = interleaved({"ours": ours, "library": plain}, 3)
        rate = count * new
        rows.append(
            {
                "texts": count,
                "tokens/s": rate / median(times["ours"]),
                "library tokens/s": rate / median(times["library"]),
                "ratio": ratio(times, "library", "ours"),
            }
        )
    return {"rows": rows}
