"""The network with one thing changed at a time: `configs/ablations/*.yaml`, read on top of the data's own config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.sets import CONFIGS, DataSet
from benchmarks.quality.training import trained

FOLDER = CONFIGS / "ablations"
BASE = "as_shipped"


@dataclass
class Ablated:
    """One run. The names of its cells begin with `stem`."""

    name: str
    seed: int
    folder: Path

    @property
    def stem(self) -> str:
        return f"ablation {self.name}"


def names() -> list[str]:
    """All ablations, the one that the others are compared with first."""
    found = sorted(file.stem for file in FOLDER.glob("*.yaml") if not file.stem.startswith("short_"))
    return [BASE, *found]


def configs(data: DataSet, name: str) -> list[Path]:
    """The configs on top of the data's: the shorter training that all ablations share, and the ablation itself.

    Raises ValueError for an unknown name.
    """
    short = [] if data.short is None else [data.short]
    if name == BASE:
        return short
    if name not in names():
        raise ValueError(f"no ablation {name!r}; expected some of {', '.join(names())}")
    return [*short, FOLDER / f"{name}.yaml"]


def train(
    data: DataSet,
    out: Path,
    wanted: Sequence[str],
    seeds: Sequence[int],
    options: Sequence[str],
    base: str,
    threads: int,
    bar: Any,
) -> Iterator[Ablated]:
    """The runs of the ablations, seed by seed; a missing run is trained when its turn comes.

    Args:
        wanted: names of ablations; none means all.
        options: of `train.py fit`, over the configs.
        base: start of the names of the network's own runs. Ablations that train as long are compared with those.
    """
    for seed in seeds:
        for name in wanted or names():
            bar.set_description(f"{data.name}: training {name}, seed {seed}")
            stem = base if name == BASE and data.short is None else f"{name}-seed"
            folder = out / "runs" / f"{stem}{seed}"
            trained(data, folder, seed, configs(data, name), options, threads)
            yield Ablated(name, seed, folder)
