"""Speed of resuming a captured context against reading it again; agreement of the resumed with an uninterrupted run.

    python -m benchmarks.states
    python -m benchmarks.states --backbone 350m --repeats 1

All ways end with the distribution of the next token. `prefill` reads the context into an empty cache. `resume` copies a
captured state into a new cache and reads the last token. `resume from file` also loads and checks the file. The ways
alternate, so that other work on the machine slows all of them. `350m` is a model of random weights in the shape of
Granite-4.0-H-350m.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

from gssr.backbone import FrozenBackbone
from gssr.states.hybrid_state import HybridState, capture_tokens
from gssr.states.inspect import continuation_log_probs

SHAPE_350M = "350m"


def config_350m() -> GraniteMoeHybridConfig:
    """Shapes and constants of the published configuration of ibm-granite/granite-4.0-h-350m."""
    attention = (10, 13, 17, 27)
    return GraniteMoeHybridConfig(
        vocab_size=100_352, hidden_size=768, num_hidden_layers=32,
        layer_types=["full_attention" if i in attention else "linear_attention" for i in range(32)],
        intermediate_size=2048, shared_intermediate_size=2048, num_attention_heads=12, num_key_value_heads=4,
        mamba_n_heads=48, mamba_d_head=32, mamba_d_state=128, mamba_n_groups=1, mamba_d_conv=4, mamba_expand=2,
        mamba_chunk_size=256, num_local_experts=0, num_experts_per_tok=0, position_embedding_type=None,
        embedding_multiplier=12, attention_multiplier=1 / 64, logits_scaling=3, residual_multiplier=0.246,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip


def load(name: str, dtype: str) -> FrozenBackbone:
    if name != SHAPE_350M:
        return FrozenBackbone(name, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        GraniteMoeHybridForCausalLM(config_350m()).save_pretrained(folder)
        # Any tokenizer will do: the tokens are random.
        AutoTokenizer.from_pretrained(Path(__file__).parents[1] / "gssr" / "backbone" / "nano").save_pretrained(folder)
        return FrozenBackbone(folder, dtype=dtype)


def random_batch(backbone: FrozenBackbone, lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask of left-padded rows of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    tokens = torch.randint(2, backbone.table.num_embeddings, (len(lengths), width), generator=generator)
    mask = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    return tokens.masked_fill(~mask, 1), mask


def times(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way; the ways alternate, and the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@torch.no_grad()
def speed(backbone: FrozenBackbone, context: int, repeats: int, folder: Path) -> dict[str, list[float]]:
    tokens, mask = random_batch(backbone, [context], seed=0)
    state = capture_tokens(backbone, tokens)
    state.save(folder / "state.safetensors")
    word = torch.zeros(1, 1, dtype=torch.long)  # any word: the distribution before it does not depend on it
    ways = {
        "prefill": lambda: backbone.model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits,
        "resume": lambda: continuation_log_probs(backbone, state, word),
        "resume from file": lambda: continuation_log_probs(
            backbone, HybridState.load(folder / "state.safetensors", backbone), word
        ),
    }
    return times(ways, repeats)


def agreement(backbone: FrozenBackbone, new: int) -> dict[str, float]:
    """Share of tokens that equal those of the uninterrupted run, for a batch of unequal prompts."""
    tokens, mask = random_batch(backbone, [9, 40, 23], seed=1)
    state = capture_tokens(backbone, tokens, mask)
    found = {}
    for how, options in (("greedy", {"do_sample": False}), ("sampled", {"do_sample": True, "top_k": 0})):
        options = {**options, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 1}
        torch.manual_seed(0)
        expected = backbone.model.generate(input_ids=tokens, attention_mask=mask.long(), **options)[
            :, tokens.shape[1] :
        ]
        torch.manual_seed(0)
        found[how] = (state.generate(backbone, **options) == expected).double().mean().item()
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="nano", help="nano, a local folder, a hub id, or 350m; default nano")
    parser.add_argument("--dtype", default="float32", help="of the weights; default float32")
    parser.add_argument("--context", type=int, default=2000, help="tokens; default 2000")
    parser.add_argument("--repeats", type=int, default=5, help="turns that are timed; default 5")
    parser.add_argument("--new", type=int, default=16, help="tokens compared with the uninterrupted run; default 16")
    options = parser.parse_args(arguments)
    backbone = load(options.backbone, options.dtype)
    for how, share in agreement(backbone, options.new).items():
        print(f"{how}, three unequal prompts: {share:.1%} of {options.new} tokens as uninterrupted", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        measured = speed(backbone, options.context, options.repeats, Path(folder))
    print("| | ms, median | times faster than prefill, median of turns |\n|---|---|---|")
    for name, seconds in measured.items():
        ratio = statistics.median(p / s for p, s in zip(measured["prefill"], seconds, strict=True))
        print(f"| {name} | {1e3 * statistics.median(seconds):.1f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
