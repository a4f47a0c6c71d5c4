"""The same text likelihood on a GPU: kernels against the torch path, share of the card's matrix products, memory."""

from typing import Any

import torch

from benchmarks.speed.measure import floor_seconds, granite, library_path, median, seconds
from benchmarks.speed.work import text_call

MIB = 2**20


def gpu(quick: bool) -> dict[str, Any]:
    """350m and 1b shapes in bf16, L = 64; a note in place of rows without a GPU."""
    if not torch.cuda.is_available():
        return {"rows": [], "note": "no GPU was available, so this part has not been run"}
    rows = []
    for shape in ("350m", "1b"):
        model = granite(shape, torch.bfloat16, "cuda")
        largest = 0
        for batch in (8, 32, 128, 512):
            torch.cuda.reset_peak_memory_stats()
            call = text_call(model, batch, 64, "ours")
            call()
            peak = torch.cuda.max_memory_allocated() / MIB
            times = [seconds(call) for _ in range(3 if quick else 10)]
            floor, work = floor_seconds(model, batch * 68, batch * 64)
            if peak < 11.5 * 1024:
                largest = batch
            rows.append(
                {
                    "shape": shape,
                    "B": batch,
                    "texts/s": batch / median(times),
                    "share of the floor": floor / median(times),
                    "TFLOP/s": work / median(times) / 1e12,
                    "peak MiB": peak,
                }
            )
            if quick:
                break
        rows[-1]["largest batch tried within 12 GB"] = largest
        rows[-1]["difference of kernels and torch path"] = paths_differ(model)
        del model
    return {"rows": rows}


@torch.no_grad()
def paths_differ(model: torch.nn.Module) -> float:
    """Largest difference of hidden states between kernels and the CPU's torch path, relative to the largest state."""
    ids = torch.arange(64, device="cuda")[None]
    kernels = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.float().cpu()
    model.cpu()
    with library_path():
        plain = model.get_decoder()(input_ids=ids.cpu(), use_cache=False).last_hidden_state.float()
    model.cuda()
    return float((kernels - plain).abs().max() / plain.abs().max())
