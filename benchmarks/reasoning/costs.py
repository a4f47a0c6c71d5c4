"""What thoughts cost: bytes after 1, 10, 1,000 and 100,000 of them, and thoughts a second beside plain decoding.

    python -m benchmarks.reasoning.costs
    python -m benchmarks.reasoning.costs --most 1000        # a minute

Three models of equal size with random weights: costs do not depend on them. Where bytes grow, they grow by the same
number with each thought, so that the last columns are computed from the thousandth (marked c).
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from datamodules.lookups.data import make_tokenizer
from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.files import atomic_write
from gssr.reasoning.thinker import Memory, Thinker
from gssr.reasoning.thoughts import SoftToken
from gssr.states.cache import any_cache, cache_name, layer_states
from gssr.training.architectures import Nano, PureMamba2

WORDS, PROMPT = 258, 64
COUNTS = (1, 10, 1000, 100_000)
MEASURED_GROWING = 1000


def models() -> dict[str, PreTrainedModel]:
    """About 0.9M parameters each."""
    llama = LlamaConfig(
        vocab_size=WORDS, hidden_size=128, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=352, bos_token_id=1, eos_token_id=3, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    return {
        "Mamba-2": PureMamba2(WORDS, 128, 8).build(),
        "hybrid": Nano(WORDS, 96, 8).build(),
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
    began = time.perf_counter()
    next(islice(steps, count - 1, None))
    return count / (time.perf_counter() - began)


@torch.no_grad()
def kept(thinker: Thinker, prompt: Tensor, most: int) -> tuple[dict[int, int], set[int]]:
    """Bytes after each of COUNTS, and those that were computed."""
    sizes: dict[int, int] = {}
    last = 0
    grows = False
    for done, state in enumerate(thinker.states(prompt), 1):
        if done in (1, 2, *COUNTS) or done == most:
            parts = [part for layer in layer_states(state.kept) for _, part in layer.parts()]
            now = sum(part.numel() * part.element_size() for part in parts)
            grows, last = grows or (done > 1 and now != last), now
            if done in COUNTS:
                sizes[done] = now
        if done >= most or (grows and done >= min(most, MEASURED_GROWING)):
            break
    computed = {count for count in COUNTS if count not in sizes}
    a, b = sorted(sizes)[-2:]
    for count in computed:
        sizes[count] = sizes[b] + (sizes[b] - sizes[a]) // (b - a) * (count - b)
    return dict(sorted(sizes.items())), computed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="thoughts at most that are taken; default 100000")
    parser.add_argument("--timed", type=int, default=300, help="steps that are timed, three times; default 300")
    parser.add_argument("--out", type=Path, default=Path("reasoning"), help="folder of the results; default reasoning")
    options = parser.parse_args(arguments)
    if options.most < 10 or options.timed < 1:
        parser.error("--most is at least 10, --timed at least 1")
    options.out.mkdir(parents=True, exist_ok=True)
    prepare_cpu()
    torch.manual_seed(0)
    prompt = torch.randint(4, WORDS, (1, PROMPT))
    found: dict[str, Any] = {}
    table = Table("model", "memory", *(f"{n:,}" for n in COUNTS), "thoughts/s", "decoding/s", "times", title="bytes")
    for name, model in models().items():
        backbone = save(model, options.out / f"model-{name}")
        thought = SoftToken()
        thought.prepare(backbone)
        policies: tuple[Memory, ...] = ("read_only", "write", "write_without_keys")
        for memory in policies:
            thinker = Thinker(backbone, thought, memory)
            sizes, computed = kept(thinker, prompt, options.most)
            with torch.no_grad():
                pairs = [
                    (
                        a_second(thinker.steps(prompt), options.timed),
                        a_second(decoding(backbone, prompt), options.timed),
                    )
                    for _ in range(3)
                ]
            thoughts, plain = (sorted(column)[1] for column in zip(*pairs, strict=True))
            row = {"bytes": sizes, "computed": sorted(computed), "thoughts": thoughts, "decoding": plain}
            found[f"{name}, {memory}"] = row | {"parameters": model.num_parameters()}
            cells = [f"{size:,}{' c' if n in computed else ''}" for n, size in sizes.items()]
            about = f"{name} ({model.num_parameters() / 1e6:.2f}M)"
            table.add_row(about, memory, *cells, f"{thoughts:.0f}", f"{plain:.0f}", f"{plain / thoughts:.2f}")
    with atomic_write(options.out / "costs.json") as file:
        json.dump(found, file, indent=1)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
