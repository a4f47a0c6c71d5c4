"""``docs/speed.md`` from the results: the answer, then each part with an explanation."""

from pathlib import Path
from textwrap import fill
from typing import Any

WIDTH = 110
WORDS = {
    "scan": (
        "The scan",
        "One layer of the 350m shape (48 heads of 32, 128 state dimensions, float32) against transformers' "
        "default torch path (chunk 256), with denormals flushed for both. Bar: 20 times at L = 64, forward and "
        "backward.",
    ),
    "nano": (
        "Text likelihood, nano",
        "Forward and backward to a prefix, texts of storms. The floor is the time of the model's own projections "
        "at the same rows, weights and precision, each timed separately in the same run; it leaves out scan, "
        "attention and padding. Bar: half of the floor. The library's column has the same batching and "
        "cross-entropy, its own scan and convolution.",
    ),
    "h350m": (
        "Text likelihood, 350m shape",
        "Random weights, L = 64, batch 8, P = 4, forward and backward. Bar: 1.5 times the floor, in less memory "
        "than the library's path (logits of all positions, its own scan). Memory is the growth of a separate "
        "process at its peak.",
    ),
    "training": (
        "A training step",
        "A step is one (sequence, step) pair: one value, one text, forward, backward and update. The "
        "one-at-a-time loop (`benchmarks/reference_loop.py`) runs the library's path, with gssr's process-wide "
        "settings too. Ours computes open-loop and goal losses as well. Bar: 10 times. Memory as above.",
    ),
    "text_steps": (
        "Fewer texts a step",
        "Time to the same held-out nats per token. The loop's time is *extrapolated*: updates that the run with "
        "every text needed, times its (sequence, step) pairs, over the loop's measured rate. Bar: 20 times.",
    ),
    "curve": (
        "Speed changes no number",
        "The same training from the same seed with the library's path and with ours.",
    ),
    "encode": (
        "Reading texts once",
        "Distinct storm texts into an empty cache on disk, and from it.",
    ),
    "decode": (
        "Decoding",
        "Greedy, all texts in one batch. The library's column has its own scan, convolution and single-token step.",
    ),
    "scaling": (
        "How cost grows",
        "Exponents fitted on log axes. B, L, V, weights: text likelihood. T: filtering, forward and backward. "
        "Bar: 1.15 in B, T and L up to 512. V and weights have no bar.\n\n![cost on log axes](images/speed.png)",
    ),
    "memory": (
        "Memory over V × L",
        "Only the cross-entropy over so many rows, forward and backward. The last column is one float32 tensor of "
        "all logits.",
    ),
    "gpu": (
        "GPU",
        "Random weights in bf16, L = 64, P = 4: `python -m benchmarks.speed --only gpu` on a machine with a GPU "
        "(`pip install -e '.[cuda]'` for the kernels). A 12 GB card goes as far as the largest batch whose peak "
        "stays below 11.5 GiB.",
    ),
}


def write(results: dict[str, Any], file: Path) -> None:
    """The Markdown file of all parts that have results."""
    machine = results["machine"]
    rates = ", ".join(f"{rate:g} GFLOP/s in {dtype}" for dtype, rate in machine["gflops_1024"].items())
    bfloat16 = "with" if machine["avx512_bf16"] else "without"
    lines = [
        "# How fast is it?",
        "",
        *answer(results),
        "Each table has what one command measured. `docs/speed.json` holds all its numbers:",
        "",
        "```bash",
        "python -m benchmarks.speed",
        "```",
        "",
        f"- Machine: {machine['cpu']}, {machine['cores']} threads, {bfloat16} avx512_bf16; "
        f"GPU: {machine['gpu'] or 'none'}.",
        f"- A product of two 1024² matrices: {rates}.",
        f"- Python {machine['python']}, torch {machine['torch']}, transformers {machine['transformers']}; "
        f"{machine['date']}.",
        "- The rows of a part are measured in one run, interleaved (A B A B …). Times are medians; ratios are",
        "  medians of the rounds' ratios.",
        "",
    ]
    for name, (title, words) in WORDS.items():
        lines += [f"## {title}", "", *paragraphs(words), ""]
        found = results.get(name)
        if found is None or not found["rows"]:
            lines += [f"**Not run.** {found['note'] if found and 'note' in found else ''}".rstrip(), ""]
            continue
        lines += [*table(found["rows"]), ""]
        for dtype, shares in found.get("profile", {}).items():
            listed = ", ".join(f"{key} {100 * share:.0f} %" for key, share in shares.items() if share >= 0.01)
            lines += [*paragraphs(f"Profile in {dtype}, share of the CPU time of one call: {listed}."), ""]
    file.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def answer(results: dict[str, Any]) -> list[str]:
    """The first paragraph: how much faster a training step is than one text at a time."""
    rows = results.get("training", {}).get("rows")
    if not rows:
        return []
    ratios = " and ".join(f"{cell(row['ratio'])} times ({row['backbone']})" for row in rows)
    return [*paragraphs(f"A training step is {ratios} as fast as the library's path with one text at a time."), ""]


def paragraphs(text: str) -> list[str]:
    return [line for part in text.split("\n") for line in fill(part, WIDTH, break_on_hyphens=False).split("\n")]


def table(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return lines + ["| " + " | ".join(cell(row.get(name)) for name in names) + " |" for row in rows]


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
