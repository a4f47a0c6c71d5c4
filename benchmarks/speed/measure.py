"""Tools to measure with: interleaved repetitions, peak memory of a process, matrix products, counted operations."""

import ctypes
import gc
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM
from transformers.models.granitemoehybrid import modeling_granitemoehybrid as library

from gssr.backbone.accelerate import REPLACED, accelerate_on_cpu

# Published shapes of Granite-4.0-H: E, layers, attention layers, Mamba heads and head dimension, MLP width,
# logits_scaling, attention_multiplier.
SHAPES = {
    "350m": (768, 32, (10, 13, 17, 27), 48, 32, 2048, 3, 1 / 64),
    "1b": (1536, 40, (5, 15, 25, 35), 48, 64, 4096, 6, 1 / 128),
}


def seconds(function: Callable[[], object]) -> float:
    """Seconds of one call, the GPU's work included."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(variants: dict[str, Callable[[], object]], repeats: int, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of each variant, A B A B …, after one unmeasured call of each."""
    if warm:
        for function in variants.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, function in variants.items():
            times[name].append(seconds(function))
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Median over the pairs of one round, in which other work on the machine slows both and cancels."""
    return statistics.median(s / f for s, f in zip(times[slow], times[fast], strict=True))


def median(times: Sequence[float]) -> float:
    return statistics.median(times)


def slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Exponent of the power law fitted by least squares on log axes."""
    x, y = [math.log(s) for s in sizes], [math.log(t) for t in times]
    return statistics.linear_regression(x, y).slope


@contextmanager
def library_path() -> Iterator[None]:
    """The torch path of transformers, as it is without gssr."""
    ours = {name: getattr(library, name) for name in REPLACED}
    for name, function in ours.items():
        setattr(library, name, getattr(function, "__wrapped__", function))
    try:
        yield
    finally:
        for name, function in ours.items():
            setattr(library, name, function)


def granite(
    shape: str, dtype: torch.dtype, device: str = "cpu", layers: int | None = None
) -> GraniteMoeHybridForCausalLM:
    """A frozen model of a published shape with random weights."""
    width, count, attention, heads, head_dim, mlp, scaling, multiplier = SHAPES[shape]
    count = layers or count
    config = GraniteMoeHybridConfig(
        vocab_size=100_352,
        hidden_size=width,
        intermediate_size=mlp,
        shared_intermediate_size=mlp,
        num_hidden_layers=count,
        layer_types=["full_attention" if i in attention else "linear_attention" for i in range(count)],
        num_attention_heads=12,
        num_key_value_heads=4,
        mamba_n_heads=heads,
        mamba_d_head=head_dim,
        mamba_d_state=128,
        mamba_n_groups=1,
        mamba_expand=2,
        mamba_d_conv=4,
        mamba_chunk_size=256,
        num_local_experts=0,
        num_experts_per_tok=0,
        embedding_multiplier=12,
        logits_scaling=scaling,
        residual_multiplier=0.246 if shape == "350m" else 0.22,
        attention_multiplier=multiplier,
        position_embedding_type=None,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = GraniteMoeHybridForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    accelerate_on_cpu(library)
    return model.eval().requires_grad_(False)


def floor_seconds(model: torch.nn.Module, rows: int, targets: int, repeats: int = 5) -> tuple[float, float]:
    """Seconds of the frozen model's matrix products, forward and to the inputs, and their operations.

    Each projection is timed by itself, with its own rows, weights and precision. Scan and attention are left out, so
    the floor is low.
    """
    total = work = 0.0
    known: dict[tuple[int, ...], float] = {}
    head = model.get_output_embeddings()
    for module in model.modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        m = targets if module is head else rows
        key = (m, *module.weight.shape)
        if key not in known:
            x, dy = (
                torch.randn(m, n, dtype=module.weight.dtype, device=module.weight.device) for n in reversed(key[1:])
            )
            weight = module.weight

            def products(x: Tensor = x, dy: Tensor = dy, weight: Tensor = weight) -> None:
                x @ weight.T
                dy @ weight

            products()
            known[key] = median([seconds(products) for _ in range(repeats)])
        total += known[key]
        work += 4.0 * m * module.weight.numel()
    return total, work


def own_process(case: str, *arguments: object) -> tuple[float, float]:
    """MiB by which a new process grows at its peak in one case of ``benchmarks.speed.memory``, and its seconds."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", case, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    grown, took = done.stdout.strip().splitlines()[-1].split()
    return float(grown), float(took)


def peak_memory(case: str, *arguments: object) -> float:
    """The MiB of ``own_process``."""
    return own_process(case, *arguments)[0]


def give_memory_back() -> None:
    """Return free memory to the system, which malloc does not do after ``prepare_cpu``."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def reset_peak() -> None:
    """Start the peak of resident memory anew, on Linux (proc_pid_clear_refs(5)); elsewhere it counts from the start."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def own_peak() -> float:
    """Largest MiB of this process since ``reset_peak``."""
    return _status("VmHWM")


def resident() -> float:
    """MiB of this process now."""
    return _status("VmRSS")


def _status(name: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def machine() -> dict[str, object]:
    """Processor, speed of its matrix products, and versions of the libraries."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = ""
    square = torch.randn(1024, 1024)
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = square.to(dtype)
        a @ a
        rates[str(dtype)[6:]] = 2 * 1024**3 / min(seconds(lambda a=a: a @ a) for _ in range(5)) / 1e9
    return {
        "cpu": model,
        "cores": torch.get_num_threads(),
        "avx512_bf16": "avx512_bf16" in flags,
        "gflops_1024": {name: round(rate, 1) for name, rate in rates.items()},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def dump(results: dict[str, object], file: Path) -> None:
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
