"""What thoughts cost: bytes after 1, 10, 1,000 and 100,000 of them, and thoughts a second beside plain decoding.

    python -m benchmarks.reasoning.costs
    python -m benchmarks.reasoning.costs --most 1000        # a minute

Models have random weights, on which costs do not depend: bytes are those of two layers (1M parameters), times those of
six or eight (4 to 5M). Every thought is taken, up to 100,000, where it writes and the bytes should stay. Where they
grow, they grow by the same number with each thought, so that the last columns are computed from the thousandth
(marked c); so are those of thoughts that only read, which hand on the very same states. Seconds are CPU time of one
thread, so that others on the machine do not matter. What is finished is kept in --out; an interrupted call goes on
behind it.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm
from transformers import GraniteMoeHybridForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from datamodules.lookups.data import make_tokenizer
from datamodules.lookups.tasks import WORDS as KNOWN
from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.files import atomic_write
from gssr.reasoning.thinker import Memory, Thinker
from gssr.reasoning.thoughts import SoftToken
from gssr.states.cache import any_cache, cache_name
from gssr.training.architectures import PureMamba2, nano_config

WORDS, PROMPT = len(KNOWN), 64
COUNTS = (1, 10, 1000, 100_000)
MEASURED_GROWING, ROUNDS = 1000, 7
# Mamba-2 has no keys, so that "write" is the same as "write_without_keys"; so is "read_only" for a transformer.
ROWS: tuple[tuple[str, Memory], ...] = (
    ("Mamba-2", "read_only"),
    ("Mamba-2", "write"),
    ("hybrid", "read_only"),
    ("hybrid", "write"),
    ("hybrid", "write_without_keys"),
    ("transformer", "read_only"),
    ("transformer", "write"),
)


def models(small: bool) -> dict[str, PreTrainedModel]:
    """About 1M parameters each in two layers, or 4.5M in six or eight."""
    width, layers = (192, 2) if small else (256, 6)
    llama = LlamaConfig(
        vocab_size=WORDS, hidden_size=width, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=704, bos_token_id=1, eos_token_id=3, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    hybrid = nano_config(WORDS, 192, 8)
    if small:
        hybrid.num_hidden_layers, hybrid.layer_types = 2, ["linear_attention", "full_attention"]
    return {
        "Mamba-2": (PureMamba2(WORDS, 272, 2) if small else PureMamba2(WORDS, 304, 8)).build(),
        "hybrid": GraniteMoeHybridForCausalLM(hybrid),
        "transformer": LlamaForCausalLM(llama),
    }


def save(model: PreTrainedModel, folder: Path) -> FrozenBackbone:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return FrozenBackbone(str(folder))


@torch.no_grad()
def decoding(backbone: FrozenBackbone, prompt: Tensor) -> Iterator[None]:
    """Plain greedy steps in place, the model alone: no sampler, no copies."""
    model, cache, name = backbone.model, any_cache(backbone.model), cache_name(backbone.model)
    tokens = prompt
    while True:
        logits = model(input_ids=tokens, use_cache=True, **{name: cache}).logits[:, -1:]
        tokens = logits.argmax(-1)
        yield


def a_second(steps: Iterator[Any], count: int) -> float:
    next(islice(steps, 20, None))
    began = time.process_time()
    next(islice(steps, count - 1, None))
    return count / (time.process_time() - began)


@torch.no_grad()
def kept(thinker: Thinker, prompt: Tensor, most: int) -> tuple[dict[int, int], set[int]]:
    """Bytes after each of COUNTS, and those that were computed."""
    sizes: dict[int, int] = {}
    last, before, stays = 0, None, False
    thoughts = tqdm(thinker.states(prompt), total=most, desc=f"{thinker.memory} thoughts", leave=False)
    for done, state in enumerate(thoughts, 1):
        if done in (1, 2, *COUNTS) or done == most:
            now = sum(part.numel() * part.element_size() for layer in state.kept for _, part in layer.parts())
            stays = done == 1 or now == last
            last = now
            if done in COUNTS:
                sizes[done] = now
        is_same = state.kept is before
        before = state.kept
        if done >= most or (done >= min(most, MEASURED_GROWING) and (is_same or not stays)):
            break
    computed = {count for count in COUNTS if count not in sizes}
    a, b = sorted(sizes)[-2:]
    for count in computed:
        sizes[count] = sizes[b] + (sizes[b] - sizes[a]) // (b - a) * (count - b)
    return dict(sorted(sizes.items())), computed


def timed(backbone: FrozenBackbone, memory: Memory, prompt: Tensor, steps: int) -> dict[str, float]:
    """Thoughts and decoding steps a second: medians of rounds that take turns."""
    thought = SoftToken()
    thought.prepare(backbone)
    thinker = Thinker(backbone, thought, memory)
    with torch.no_grad():
        pairs = [
            (a_second(thinker.steps(prompt), steps), a_second(decoding(backbone, prompt), steps)) for _ in range(ROUNDS)
        ]
    return dict(zip(("thoughts", "decoding"), map(median, zip(*pairs, strict=True)), strict=True))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="thoughts at most that are taken; default 100000")
    parser.add_argument("--timed", type=int, default=100, help="steps of a timed round; default 100")
    parser.add_argument("--out", type=Path, default=Path("reasoning"), help="folder of the results; default reasoning")
    options = parser.parse_args(arguments)
    if options.most < 10 or options.timed < 1:
        parser.error("--most is at least 10, --timed at least 1")
    options.out.mkdir(parents=True, exist_ok=True)
    prepare_cpu()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    prompt = torch.randint(4, WORDS, (1, PROMPT))
    file = options.out / "costs.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    small = {name: save(model, options.out / f"small-{name}") for name, model in models(small=True).items()}
    large = {name: save(model, options.out / f"large-{name}") for name, model in models(small=False).items()}
    for name, memory in tqdm(ROWS, unit="row"):
        row = found.setdefault(f"{name}, {memory}", {})
        if row.get("most") != options.most:
            thought = SoftToken()
            thought.prepare(small[name])
            sizes, computed = kept(Thinker(small[name], thought, memory), prompt, options.most)
            row |= {"most": options.most, "bytes": {str(count): size for count, size in sizes.items()}}
            row |= {"computed": sorted(computed)}
        if row.get("timed") != options.timed:
            row |= timed(large[name], memory, prompt, options.timed) | {"timed": options.timed}
        row["parameters"] = [models[name].model.num_parameters() for models in (small, large)]
        with atomic_write(file) as draft:
            json.dump(found, draft, indent=1)
    table = Table("model", "memory", *(f"{n:,}" for n in COUNTS), "thoughts/s", "decoding/s", "times", title="bytes")
    for row_name, row in found.items():
        name, memory = row_name.split(", ")
        cells = [f"{size:,}{' c' if int(n) in row['computed'] else ''}" for n, size in row["bytes"].items()]
        sizes = " and ".join(f"{count / 1e6:.1f}M" for count in row["parameters"])
        times = f"{row['decoding'] / row['thoughts']:.2f}"
        table.add_row(f"{name} ({sizes})", memory, *cells, f"{row['thoughts']:.0f}", f"{row['decoding']:.0f}", times)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
