"""Markdown and plot of the results."""

import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.steering.methods import LEARNED

BAR_TARGET, BAR_PERPLEXITY, BAR_REPETITION = 0.8, 1.2, 0.1


def write_all(folder: Path) -> str:
    """Write steering.md and steering.png into ``folder``; returns the Markdown."""
    results = json.loads((folder / "steering.json").read_text())
    real = results["real"]
    rows = [summary(c, real) for c in results["conditions"].values()]
    parts = [_about(results), _best(rows, real), _sweep(rows)]
    if f"{LEARNED}|1|all" in results["conditions"]:
        parts += [_pairs(results), *([_long(results)] if "long" in results else []), _samples(results)]
    text = "\n\n".join(parts)
    (folder / "steering.md").write_text(text + "\n")
    plot(rows, real, folder / "steering.png")
    return text


def summary(condition: dict[str, Any], real: dict[str, Any]) -> dict[str, Any]:
    """Averages over ordered pairs; ``ratio`` is the mean of the pairs' perplexity over that of real target text."""
    pairs = condition["pairs"]
    mean = {key: _mean(p[key] for p in pairs.values()) for key in ("target", "nats", "repetition", "distinct")}
    ratio = _mean(math.exp(p["nats"] - real["pairs"][name]["nats"]) for name, p in pairs.items())
    texts = condition["rows"] * len(pairs)
    error = math.sqrt(max(mean["target"] * (1 - mean["target"]), 1 / texts) / texts)
    about = {key: condition[key] for key in ("method", "strength", "layers")}
    return about | mean | {"ratio": ratio, "texts": texts, "error": error}


def is_harmless(row: dict[str, Any], real: dict[str, Any]) -> bool:
    repetition = _mean(p["repetition"] for p in real["pairs"].values())
    return row["ratio"] <= BAR_PERPLEXITY and row["repetition"] <= repetition + BAR_REPETITION


def _about(results: dict[str, Any]) -> str:
    about, real = results["about"], results["real"]["pairs"]
    return (
        f"Backbone `{about['backbone']}` ({about['fingerprint']}), {about['tokens']} tokens sampled at temperature 1 "
        f"behind 24-token prompts; classifier on held-out real text {results['classifier_accuracy']:.0%}; real target "
        f"text behind the same prompts: perplexity {math.exp(_mean(p['nats'] for p in real.values())):.1f}, repetition "
        f"{_mean(p['repetition'] for p in real.values()):.3f}, distinct-2 "
        f"{_mean(p['distinct'] for p in real.values()):.3f}. "
        f"Measured in {sum(results['seconds'].values()) / 60:.0f} minutes."
    )


def _cells(row: dict[str, Any]) -> str:
    return (
        f"{row['target']:.0%} ± {row['error']:.0%} | {row['ratio']:.2f} | {row['repetition']:.3f} | "
        f"{row['distinct']:.3f} | {row['texts']}"
    )


def _best(rows: list[dict[str, Any]], real: dict[str, Any]) -> str:
    lines = [
        "The best setting of each method: the largest share of the target at no more than "
        f"{BAR_PERPLEXITY} times the perplexity of real target text and at most {BAR_REPETITION} more repetition. "
        "Brackets: no setting is that harmless, and the row shows the largest share. All layers.",
        "",
        "| method | strength | target domain | perplexity / real | repetition | distinct-2 | texts |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method and row["layers"] == "all"]
        harmless = [row for row in own if is_harmless(row, real)]
        best = max(harmless or own, key=lambda row: row["target"])
        name = f"**{method}**" if method == LEARNED else method
        lines.append(f"| {name if harmless else f'({name})'} | {best['strength']:g} | {_cells(best)} |")
    return "\n".join(lines)


def _sweep(rows: list[dict[str, Any]]) -> str:
    lines = [
        "Every setting.",
        "",
        "| method | strength | layers | target domain | perplexity / real | repetition | distinct-2 | texts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {row['method']} | {row['strength']:g} | {row['layers']} | {_cells(row)} |" for row in rows]
    return "\n".join(lines)


def _pairs(results: dict[str, Any]) -> str:
    """Share and ratio of the learned state at strength 1 for each ordered pair."""
    pairs, real = results["conditions"][f"{LEARNED}|1|all"]["pairs"], results["real"]["pairs"]
    targets = list(dict.fromkeys(name.split(">")[1] for name in pairs))
    lines = [
        f"{LEARNED.capitalize()}, strength 1, by pair: share of the target (perplexity over real).",
        "",
        f"| from | {' | '.join(f'to {t}' for t in targets)} |",
        "|---|" + "---|" * len(targets),
    ]
    for source in targets:
        cells = []
        for target in targets:
            name = f"{source}>{target}"
            if name in pairs:
                ratio = math.exp(pairs[name]["nats"] - real[name]["nats"])
                cells.append(f"{pairs[name]['target']:.0%} ({ratio:.2f})")
            else:
                cells.append("")
        lines.append(f"| {source} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _long(results: dict[str, Any]) -> str:
    plain = results["long"]["unsteered"]
    lines = [
        f"{results['about']['long']} tokens, one text for each ordered pair.",
        "",
        "| | distinct-2 | over unsteered | repetition | nats a token in the last quarter | largest norm / unsteered "
        "| at the end |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results["long"].items():
        lines.append(
            f"| {name} | {row['distinct']:.3f} | {row['distinct'] / plain['distinct']:.2f} | {row['repetition']:.3f} "
            f"| {row['nats_last_quarter']:.2f} | {row['largest_norm']:.1f} | {row['largest_norm_at_end']:.1f} |"
        )
    ratios = "; ".join(f"{name}: {ratio:.3f}" for name, ratio in results.get("cost", {}).items())
    return "\n".join([*lines, "", f"Time of steered over unsteered decoding of 64 tokens: {ratios}."])


def _samples(results: dict[str, Any]) -> str:
    pairs = results["conditions"][f"{LEARNED}|1|all"]["pairs"]
    lines = [f"The first text of each pair, {LEARNED}, strength 1; prompt and text as they are."]
    for name, pair in pairs.items():
        prompt, text = pair["sample"]
        lines.append(f"**{name.replace('>', ' to ')}**\n\n```text\n{prompt.strip()} ⟶{text}\n```")
    return "\n\n".join(lines)


def plot(rows: list[dict[str, Any]], real: dict[str, Any], path: Path) -> None:
    """Share of the target against perplexity over real text, a line a method over its strengths."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for method in dict.fromkeys(row["method"] for row in rows):
        own = sorted((r for r in rows if r["method"] == method and r["layers"] == "all"), key=lambda r: r["strength"])
        width = 2.5 if method == LEARNED else 1.2
        axes.plot([r["ratio"] for r in own], [r["target"] for r in own], "o-", label=method, lw=width, ms=4)
        for r in own if len(own) > 1 else []:
            axes.annotate(
                f"{r['strength']:g}", (r["ratio"], r["target"]), fontsize=6, xytext=(3, 3), textcoords="offset points"
            )
    axes.axvline(BAR_PERPLEXITY, color="0.7", lw=1)
    axes.axhline(BAR_TARGET, color="0.7", lw=1)
    axes.set(
        xscale="log",
        xlabel="damage: perplexity over that of real target text",
        ylabel="effect: share judged to be the target domain",
    )
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=7, loc="best")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)
