"""A picture of norms and leverage, layer by layer."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from gssr.files import atomic_path
from gssr.states.inspect import LayerReport, Leverage

COLOURS = {"recurrent": "tab:blue", "conv": "tab:cyan", "keys": "tab:orange", "values": "tab:red"}
KINDS = {"mamba": "tab:blue", "attention": "tab:orange"}


def plot_states(reports: Sequence[LayerReport], effects: Sequence[Leverage] | None, share: float) -> Figure:
    """Plot the norms of all parts and, with effects, the KL divergence under a change of each layer's state."""
    figure = Figure(figsize=(9 if effects is not None else 5, 0.28 * len(reports) + 1.6), layout="constrained")
    axes = figure.subplots(1, 1 if effects is None else 2, squeeze=False)[0]
    for name, colour in COLOURS.items():
        points = [(part.norm, report.layer) for report in reports for part in report.parts if part.name == name]
        if points:
            axes[0].scatter(*zip(*points, strict=True), color=colour, label=name, s=22)
    axes[0].set(xscale="log", xlabel="norm of a row", ylabel="layer", title="states")
    axes[0].legend(fontsize="small")
    axes[0].set_yticks([report.layer for report in reports])
    axes[0].invert_yaxis()
    if effects is not None:
        _plot_leverage(axes[1], effects, share)
        axes[1].sharey(axes[0])
    return figure


def _plot_leverage(axes, effects: Sequence[Leverage], share: float) -> None:
    for offset, field, label in ((-0.2, "kl_next", "next token"), (0.2, "kl_continuation", "a token of continuation")):
        places = [effect.layer + offset for effect in effects]
        # A logarithmic axis cannot show zero: the row of a change without effect stays empty.
        sizes = [max(getattr(effect, field), 0.0) for effect in effects]
        colours = [KINDS.get(effect.kind, "tab:purple") for effect in effects]
        alpha = 1.0 if field == "kl_next" else 0.45
        axes.barh(places, sizes, height=0.38, color=colours, alpha=alpha, label=label)
    if any(effect.kl_next > 0 for effect in effects):
        axes.set_xscale("log")
    axes.set(xlabel="KL from the unchanged model, nats", title=f"leverage of {share:g} of the norm")
    axes.legend(fontsize="small")


def save(figure: Figure, path: Path) -> None:
    """Raises ValueError if the file cannot be written, or its ending names no known picture format."""
    try:
        with atomic_path(path) as draft:
            figure.savefig(draft, dpi=150, format=path.suffix[1:] or None)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error}") from error
