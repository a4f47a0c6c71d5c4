"""What `gssr generate` does with several rows or a draft: options, the search, and what is shown."""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gssr import shown
from gssr.commands import options as shared

if TYPE_CHECKING:
    from torch import Tensor

    from gssr.backbone import FrozenBackbone
    from gssr.search.decoding.select import Selected
    from gssr.states.rules import Rule


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("selection among several texts, on top of any steering")
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument("--best-of", type=shared.items, metavar="N", help="write N texts side by side; take the best")
    kinds.add_argument(
        "--particles", type=shared.items, metavar="N", help="N weighted texts, drawn anew where weights are uneven"
    )
    kinds.add_argument(
        "--draft", metavar="ngram|FILE",
        help="plain text by speculative decoding, with its speed: drafts of n-grams or of a trained drafter",
    )  # fmt: skip
    kinds.add_argument(
        "--plan", action="store_true", help="one text, while a process of its own looks ahead for better tokens"
    )
    group.add_argument(
        "--scorer", metavar="MODULE:FUNCTION",
        help="a Python function of the new text, higher is better; without it, the likeliest text is best",
    )  # fmt: skip
    group.add_argument(
        "--critic", type=Path, metavar="FILE",
        help="a trained critic values unfinished texts, and finished ones where there is no --scorer",
    )  # fmt: skip
    group.add_argument(
        "--every", type=shared.count, metavar="TOKENS",
        help="select each time so many tokens are written; default 8 for particles, and the end for --best-of",
    )  # fmt: skip
    group.add_argument(
        "--sharpness", type=shared.real(0, 1000), metavar="S",
        help="particles follow the model's probability times exp(S * score); default 1",
    )  # fmt: skip


def rows_of(options: argparse.Namespace) -> int:
    """Texts to select among; 0 without selection."""
    return options.best_of or options.particles or 0


def check(options: argparse.Namespace, is_steered: bool) -> None:
    """Raises ValueError for options that do not belong together."""
    if options.draft is not None and is_steered:
        raise ValueError("--draft writes the plain text of the model; leave the steering out")
    for name in ("scorer", "critic"):
        if getattr(options, name) is not None and not (rows_of(options) or options.plan):
            raise ValueError(f"--{name} belongs to --best-of, --particles or --plan, which is missing; add one")
    if options.every is not None and not rows_of(options):
        raise ValueError("--every belongs to --best-of or --particles, which is missing; add one")
    if options.sharpness is not None and not options.particles:
        raise ValueError("--sharpness belongs to --particles, which is missing; add it")
    if rows_of(options) > 1 and options.temperature == 0:
        raise ValueError(f"at --temperature 0 all {rows_of(options)} texts are the same; give a temperature above 0")


def select_texts(
    backbone: "FrozenBackbone", options: argparse.Namespace, prompt: "Tensor", rules: "list[Rule]"
) -> "Selected":
    from gssr.search.decoding import scoring, select
    from gssr.search.decoding.critic import Critic
    from gssr.search.decoding.rows import Decoding, Rows

    value = None if options.critic is None else Critic.load(options.critic, backbone).value
    score = value or scoring.likelihood
    if options.scorer is not None:
        score = scoring.of_texts(scoring.load_scorer(options.scorer))
    decoding = Decoding(options.tokens, options.temperature, options.top_p)
    rows = Rows(backbone, prompt, rows_of(options), decoding, rules, options.seed)
    if options.particles:
        sharpness = 1.0 if options.sharpness is None else options.sharpness
        return select.particles(rows, score, options.every or 8, sharpness, value)
    if options.every is None:
        return select.best_of(rows, score)
    return select.blockwise(rows, score, options.every, value)


def show_selected(options: argparse.Namespace, unsteered: str, found: "Selected", is_steered: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    (best,), row = found.best, int(found.chosen)
    about = {
        "rows": rows_of(options), "chosen": row, "scores": found.scores[0].tolist(), "calls": found.calls,
        "tokens_read": found.read, "texts": found.texts,
    }  # fmt: skip
    if options.particles:
        about["weights"] = found.log_weights[0].exp().tolist()
        about["log_evidence"] = float(found.log_evidence)
        about["effective"] = [effective.item() for effective in found.effective]
    if options.json:
        print(json.dumps({"prompt": options.prompt, "unsteered": unsteered, "selected": best, "selection": about}))
        return
    what = f"best of {options.best_of}" if options.best_of else f"{options.particles} particles"
    table = Table("plain", f"{what}, steered" if is_steered else what, title=Text(shown.lines(options.prompt)))
    table.add_row(Text(shown.lines(unsteered)), Text(shown.lines(best)))
    Console().print(table)
    kind = "score" if options.scorer is not None or options.critic is not None else "mean log-likelihood"
    print(
        f"{kind} {found.scores[0, row]:.4g}, mean of all {found.scores.mean():.4g}; {found.calls} calls of the "
        f"model, {found.read:,} tokens read"
    )


def write_drafted(backbone: "FrozenBackbone", options: argparse.Namespace, prompt: "Tensor") -> None:
    """Write the plain text without and with a draft, and show what the draft saved."""
    from gssr.search.decoding.drafting import HiddenDrafter, NGramDrafter
    from gssr.search.decoding.rows import Decoding, Rows
    from gssr.search.decoding.speculative import Drafter, speculate

    drafter: Drafter
    if options.draft == "ngram":
        drafter = NGramDrafter(backbone.table.num_embeddings)
    else:
        drafter = HiddenDrafter.load(Path(options.draft), backbone)
    decoding = Decoding(options.tokens, options.temperature, options.top_p)
    began = time.perf_counter()
    plain = Rows(backbone, prompt, 1, decoding, seed=options.seed)
    plain.write(options.tokens)
    between = time.perf_counter()
    found = speculate(backbone, prompt, drafter, decoding, seed=options.seed)
    seconds = {"plain": between - began, "drafted": time.perf_counter() - between}
    text = backbone.tokenizer.decode(found.tokens, skip_special_tokens=True)
    about = {"calls": found.calls, "tokens": len(found.tokens), "acceptance": found.acceptance, "seconds": seconds}
    if options.json:
        print(json.dumps({"prompt": options.prompt, "plain": plain.texts()[0], "drafted": text, "draft": about}))
        return
    print(shown.lines(text))
    speeds = (len(found.tokens) / seconds["drafted"], int(plain.lengths[0]) / seconds["plain"])
    print(
        f"{len(found.tokens)} tokens in {found.calls} calls of the model, {found.acceptance:.0%} of drafts kept; "
        f"{speeds[0]:.0f} tokens a second with the draft, {speeds[1]:.0f} without"
    )
