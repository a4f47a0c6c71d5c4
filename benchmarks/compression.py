"""Bits per byte of held-out text, of a language model and of `xz -9` with the training text; samples of the model.

    python -m benchmarks.compression --corpus corpus/corpus.parquet
    python -m benchmarks.compression --corpus corpus/corpus.parquet --model gssr/backbone/nano
    python -m benchmarks.compression --corpus corpus/corpus.parquet --model gssr/backbone/nano --samples 10

Both columns are bits over the bytes of the held-out documents. Bits include the separators of documents, bytes do
not: an empty line between two documents for xz, an end-of-text token for the model.
"""

import argparse
import lzma
import math
import re
import sys
from pathlib import Path

import pandas as pd
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datamodules.text.corpus import TextCorpus
from gssr.backbone.loading import load_model

PROMPT_WORDS = 6


def xz_bits_per_byte(train: list[str], heldout: list[str]) -> float:
    """Bits that the held-out documents add to an `xz -9` archive of the training documents, over their bytes.

    Raises:
        ValueError: the documents do not fit into the window of xz, 64 MiB.
    """
    known, new = "\n\n".join(train).encode(), "\n\n".join(heldout).encode()
    if len(known) + len(new) > 64 * 2**20:
        raise ValueError(
            f"{len(known) + len(new)} bytes do not fit the window of xz -9, 64 MiB; give it less training text"
        )
    added = len(lzma.compress(known + b"\n\n" + new, preset=9)) - len(lzma.compress(known, preset=9))
    return 8 * added / sum(len(text.encode()) for text in heldout)


@torch.no_grad()
def model_bits_per_byte(model: PreTrainedModel, corpus: TextCorpus) -> dict[str, float]:
    """Bits per byte by source, over rows of ``row_length`` tokens; an independent reference for `gssr.training`."""
    bits = {}
    for source, rows in zip(corpus.sources, corpus.val_dataloader(), strict=True):
        nats = sum(row_nats(model, batch["tokens"], corpus.tokenizer.pad_token_id) for batch in rows)
        bits[source] = nats / math.log(2) / corpus.heldout_bytes[source]
        print(f"{source}: model {bits[source]:.3f}", file=sys.stderr, flush=True)
    return bits


def row_nats(model: PreTrainedModel, rows: torch.Tensor, pad: int) -> float:
    """Summed nats of rows (B, L+1), without the first token of each row and without padding."""
    rows = rows.long().to(model.device)
    log_probs = F.log_softmax(model(input_ids=rows[:, :-1], use_cache=False).logits.float(), -1)
    target = rows[:, 1:]
    nats = -log_probs.gather(-1, target[..., None]).squeeze(-1)
    return nats.double().masked_fill(target == pad, 0.0).sum().item()


@torch.no_grad()
def samples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    heldout: dict[str, list[str]],
    count: int,
    temperature: float,
    tokens: int = 120,
    seed: int = 0,
) -> list[tuple[str, str, str]]:
    """(source, prompt, continuation) of ``count`` samples, the sources in turn; held-out documents give the prompts."""
    torch.manual_seed(seed)
    names = list(heldout)
    written = []
    for i in range(count):
        source, turn, turns = names[i % len(names)], i // len(names), -(-count // len(names))
        text = heldout[source][turn * len(heldout[source]) // turns]
        prompt = opening(text)
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        ids = torch.tensor([[start, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]], device=model.device)
        more = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            pad_token_id=tokenizer.eos_token_id,
        )
        written.append((source, prompt, tokenizer.decode(more[0, ids.shape[1] :], skip_special_tokens=True)))
    return written


def opening(text: str, words: int = PROMPT_WORDS) -> str:
    """The first words of a text with the line breaks between them, which distinguish a heading from a sentence."""
    return re.match(rf"\s*(?:\S+\s+){{0,{words - 1}}}\S*", text)[0]


def table(columns: dict[str, dict[str, float]], sizes: dict[str, tuple[int, int]]) -> str:
    """A Markdown table, a row for each source and one for the mean over sources."""
    lines = [
        f"| source | training bytes | held-out bytes | {' | '.join(columns)} |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for source, (train, heldout) in sizes.items():
        cells = [f"{column[source]:.3f}" for column in columns.values()]
        lines.append(f"| {source} | {train:,} | {heldout:,} | {' | '.join(cells)} |")
    means = [f"{sum(column.values()) / len(column):.3f}" for column in columns.values()]
    lines.append(f"| mean over sources | | | {' | '.join(means)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpus/corpus.parquet"), help="made by datamodules.text.build"
    )
    parser.add_argument("--model", type=Path, help="folder of a language model with its tokenizer")
    parser.add_argument("--no-xz", action="store_true", help="leave out xz, which takes a minute or two")
    parser.add_argument(
        "--samples", type=int, default=0, help="print this many texts sampled from the model instead of the table"
    )
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--row-length", type=int, default=512, help="tokens that the model reads at once")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.samples and options.model is None:
        parser.error("--samples needs a --model to draw them from")
    if not options.corpus.exists():
        parser.error(f"no corpus at {options.corpus}; build it with: python -m datamodules.text.build --out corpus")

    frame = pd.read_parquet(options.corpus)
    parts = {key: group["text"].tolist() for key, group in frame.groupby(["source", "split"])}
    names = sorted(set(frame["source"]))
    train, heldout = ({name: parts[name, split] for name in names} for split in ("train", "heldout"))
    if options.model is not None:
        model, tokenizer = load_model(str(options.model))
        model.eval()
    if options.samples:
        for source, prompt, more in samples(
            model, tokenizer, heldout, options.samples, options.temperature, seed=options.seed
        ):
            print(f"**{source}**, continuing {prompt!r}:\n\n```text\n{prompt}{more}\n```\n", flush=True)
        return

    columns: dict[str, dict[str, float]] = {}
    if not options.no_xz:
        column = columns["`xz -9` given the training text"] = {}
        for name in names:
            column[name] = xz_bits_per_byte(train[name], heldout[name])
            print(f"{name}: xz -9 {column[name]:.3f}", file=sys.stderr, flush=True)
    if options.model is not None:
        corpus = TextCorpus(str(options.corpus), str(options.model), row_length=options.row_length)
        corpus.setup()
        columns["model"] = model_bits_per_byte(model, corpus)
    sizes = {name: tuple(sum(len(t.encode()) for t in part[name]) for part in (train, heldout)) for name in names}
    print(table(columns, sizes))


if __name__ == "__main__":
    main()
