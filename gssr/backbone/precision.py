"""In which precision a frozen model computes: one in which its device is fast, without rounding a weight."""

from __future__ import annotations

import time
import warnings

import torch
from torch.nn.functional import linear

AUTO = "auto"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENS, WIDTH, TRIES = 64, 384, 4  # of the linear layer that is timed
SLOWER = 1.2  # times as long as in float32: worth a warning


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def choose(dtype: str, stored: torch.dtype | None, device: str | None = None) -> tuple[torch.dtype, str]:
    """The precision that an option means, and why; no reason where the option names it.

    ``auto`` is the precision in which the weights are stored where the device has arithmetic for it, else float32: so
    it changes no weight, and a network that was trained on one device fits the same model on another.

    Args:
        dtype: ``auto`` or a key of ``DTYPES``. stored: None where it is unknown.
        device: type of the device; by default a GPU where there is one.

    Raises:
        ValueError: the option is neither.
    """
    if dtype != AUTO:
        if dtype not in DTYPES:
            raise ValueError(f"backbone dtype {dtype!r} is not known; expected one of {[AUTO, *sorted(DTYPES)]}")
        return DTYPES[dtype], ""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    stored = stored if stored in DTYPES.values() else torch.float32
    if is_fast(stored, device):
        return stored, "as its weights are stored"
    why = f"its weights are stored in {name_of(stored)}, for which this {_shown(device)} has no arithmetic"
    return torch.float32, why


def is_fast(dtype: torch.dtype, device: str) -> bool:
    """Whether devices of a type on this machine have arithmetic for a precision."""
    if dtype == torch.float32:
        return True
    if device == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and dtype == torch.bfloat16 and _cpu_has_bfloat16()


def warn_if_slow(dtype: torch.dtype, device: str) -> None:
    """Warn where the CPU is slower in a precision than in float32, with the ratio that is measured here."""
    if device == "cpu" and not is_fast(dtype, device) and (ratio := slowdown(dtype)) > SLOWER:
        warnings.warn(
            f"the frozen model computes in {name_of(dtype)} on this CPU, where a linear layer takes {ratio:.1f} times "
            "as long as in float32 (just measured); backbone.dtype auto or float32 is faster",
            stacklevel=3,
        )


def slowdown(dtype: torch.dtype) -> float:
    """How many times as long a linear layer takes on the CPU as in float32: the best of a few tries."""
    seconds = []
    for kind in (torch.float32, dtype):
        x, weight, tries = torch.ones(TOKENS, WIDTH, dtype=kind), torch.ones(WIDTH, WIDTH, dtype=kind), []
        for _ in range(TRIES):
            start = time.perf_counter()
            linear(x, weight)
            tries.append(time.perf_counter() - start)
        seconds.append(min(tries))
    return seconds[1] / seconds[0]


def _cpu_has_bfloat16() -> bool:
    # Older releases of torch know one flag alone.
    known = getattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()})
    found = known()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def _shown(device: str) -> str:
    return "GPU" if device == "cuda" else "CPU" if device == "cpu" else device
