"""States on the terminal."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from gssr import shown
from gssr.states.hybrid_state import HybridState
from gssr.states.inspect import Leverage, describe, nbytes


def summary(state: HybridState) -> dict[str, Any]:
    """Facts about a state: positions, bytes by part, bytes that one more token adds, and its layers."""
    sizes = nbytes(state)
    length = state.tokens.shape[1] - 1
    return {
        "backbone": state.backbone,
        "fingerprint": state.fingerprint,
        "rows": state.rows,
        "tokens_read": state.position.tolist(),
        "bytes": sizes,
        "bytes_per_token": sizes["attention"] // length + sizes["tokens"] // (length + 1),
        "layers": [asdict(layer) for layer in describe(state)],
    }


def print_summary(state: HybridState) -> None:
    """Print which parts of a state grow with the text."""
    sizes, read, length = nbytes(state), state.position.tolist(), state.tokens.shape[1] - 1
    span = " to ".join(f"{tokens:,}" for tokens in sorted({min(read), max(read)}))
    title = f"{state.backbone} {state.fingerprint}, {state.rows} row{'s' * (state.rows > 1)}, {span} tokens read"
    table = Table("part", Column("bytes", justify="right"), "with every further token", title=Text(shown.line(title)))
    table.add_row("recurrent states", f"{sizes['recurrent']:,}", "as large")
    table.add_row("conv states", f"{sizes['conv']:,}", "as large")
    rows = f" for {state.rows} rows" if state.rows > 1 else ""
    table.add_row("attention keys and values", f"{sizes['attention']:,}", f"+ {sizes['attention'] // length:,}{rows}")
    table.add_row("token ids", f"{sizes['tokens']:,}", f"+ {sizes['tokens'] // (length + 1):,}{rows}")
    _print(table)


def print_state(state: HybridState, prompts: Sequence[str] = ()) -> None:
    """Print the layers of a state, then its summary."""
    for prompt in prompts:
        _print(Text(shown.lines(prompt if len(prompt) < 200 else f"{prompt[:100]} … {prompt[-90:]}"), style="dim"))
    table = Table(title="states, layer by layer (shapes: rows × …; norms: of a row, mean over rows)")
    for name in ("layer", "kind", "part", "shape", "type", "bytes", "norm"):
        table.add_column(name, justify="right" if name in ("layer", "bytes", "norm") else "left")
    for layer in describe(state):
        parts = [
            (part.name, " × ".join(map(str, part.shape)), part.dtype, f"{part.bytes:,}", f"{part.norm:.3g}")
            for part in layer.parts
        ]
        for i, cells in enumerate(parts or [()]):
            table.add_row(*(("", "") if i else (str(layer.layer), shown.line(layer.kind))), *cells)
    _print(table)
    print_summary(state)


def print_leverage(effects: Sequence[Leverage], share: float, tokens: int, directions: int) -> None:
    table = Table(
        title=f"leverage: each layer's state changed by {share:g} of its norm, {directions} random directions; "
        f"{tokens} tokens of continuation"
    )
    for name in ("layer", "kind", "KL next token, nats", "KL a token of continuation", "same most likely token"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    most = max((effect.kl_continuation for effect in effects), default=0.0)
    for e in effects:
        error = "" if e.kl_next_error != e.kl_next_error else f" ± {e.kl_next_error:.0e}"
        style = "bold" if e.kl_continuation == most > 0 else ""
        table.add_row(
            str(e.layer), e.kind, f"{e.kl_next:.2e}{error}", f"{e.kl_continuation:.2e}", f"{e.agreement:.1%}",
            style=style,
        )  # fmt: skip
    _print(table)


def print_continuations(before: Sequence[str], after: Sequence[str]) -> None:
    for i, (text, more) in enumerate(zip(before, after, strict=True)):
        begin = text if len(text) <= 300 else "… " + text[-300:]
        _print(Text.assemble("\n" if i else "", (shown.lines(begin), "dim"), (shown.lines(more), "bold")))


def _print(what: Table | Text) -> None:
    # A pipe has no width; a table cut at 80 columns there would lose figures.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(what, soft_wrap=isinstance(what, Text))
