"""The cells of one data set and part: every baseline and every run with its measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from benchmarks.quality import words
from benchmarks.quality.cells import Cells
from benchmarks.quality.classical import classical
from benchmarks.quality.gru import EPOCHS, GRUForecaster, equal_width, gru_forecast, numeric_parameters, train_gru
from benchmarks.quality.origins import Origins, find_origins
from benchmarks.quality.scores import Forecast, score
from benchmarks.quality.sets import DataSet
from benchmarks.quality.simple import simple
from benchmarks.quality.steered import find_goals, measure
from benchmarks.quality.training import identity, load
from gssr.evaluation.imagining import imagine, seed_of
from gssr.files import atomic_write

GRUS = {"GRU": False, "GRU of changes": True}
REFIT = "refit"


@dataclass
class Sizes:
    """The sizes of all measurements; `quick` is a smoke test, not a result."""

    quick: bool
    samples: int
    most_goals: int
    text_steps: int
    plans: int
    gru_epochs: int

    @classmethod
    def of(cls, quick: bool) -> Sizes:
        return cls(True, 16, 32, 40, 8, 3) if quick else cls(False, 64, 400, 600, 128, EPOCHS)


@dataclass
class Piece:
    """One cell, to be made unless it exists."""

    name: str
    settings: dict[str, Any]
    work: Callable[[], dict[str, Any]]


class Work:
    """All pieces of one data set and part.

    Args:
        data: the data set.
        part: "val", "test", or "refit": the test part, forecast by methods that learned from the validation part, too.
        folder: of the data set, with a folder of cells for each part.
        seeds: of the GRUs.
        runs: {seed: run folder} of the goal network, for "refit" of runs that learned from the validation part.
        tick: called during long pieces of work.
    """

    def __init__(
        self,
        data: DataSet,
        part: str,
        folder: Path,
        seeds: Sequence[int],
        runs: dict[int, Path],
        sizes: Sizes,
        tick: Callable[[], Any],
    ) -> None:
        self.data, self.seeds, self.runs, self.sizes, self.tick = data, seeds, runs, sizes, tick
        self.folder, self.cells = folder, Cells(folder / part)
        self.refit, self.most = part == REFIT, 48 if sizes.quick else data.most
        more = {"train_through": "val"} if self.refit else {}
        self.origins: Origins = find_origins(data.module(**more), "test" if self.refit else part, self.most)
        self._loaded: tuple[Path, Any] | None = None
        self._goals: Any = None
        o = self.origins
        self.settings = {
            "data": data.name,
            "part": part,
            "origins": len(o.batch),
            "context": o.context,
            "horizon": o.horizon,
            "samples": sizes.samples,
            "quick": sizes.quick,
        }

    def about(self) -> dict[str, Any]:
        """The facts about the origins that the report needs."""
        o, y = self.origins, self.origins.dimension
        ahead = o.batch.time[0, o.context :] - o.batch.time[0, o.context - 1]
        return {
            "clusters": o.clusters,
            "series": len(set(o.batch.series)),
            "name": o.data.value_names[y],
            "unit": o.data.value_units[y],
            "std": float(o.data.scaler.std[y]),
            "hours": ahead.tolist(),
            "training_windows": len(o.training),
        }

    def pieces(self, without_classical: bool = False, only_forecasts: bool = False) -> Iterator[Piece]:
        """All pieces, the cheapest first."""
        o, samples = self.origins, self.sizes.samples
        yield Piece("origins", self.settings, self.about)
        for name, method in simple(o, samples).items():
            yield self._forecast(name, method)
        for name, method in ({} if without_classical else classical(o, samples)).items():
            yield self._forecast(name, lambda method=method: method(self.tick))
        of_runs = [list(self.of_run(seed, run)) for seed, run in self.runs.items()]
        for made in of_runs:
            yield made[0]  # forecasts first: readers look for them first
        width, parameters = self._gru_size()
        sized = self.settings | {"width": width, "parameters": parameters}
        for seed in self.seeds:
            for name in GRUS:
                yield Piece(f"{name}-seed{seed}", sized, lambda n=name, s=seed: self._gru(n, s, width))
        for made in () if only_forecasts or self.refit else of_runs:
            yield from made[1:]

    def of_run(self, seed: int, run: Path, stem: str = "network", only_forecast: bool = False) -> Iterator[Piece]:
        """The pieces of one run of the goal network."""
        settings = self.settings | identity(run)

        def piece(name: str, work: Callable[[Any], dict[str, Any]]) -> Piece:
            return Piece(f"{name}-seed{seed}", settings, lambda: work(self._network(run)))

        s = self.sizes
        yield piece(stem, lambda network: self._network_forecast(network, seed))
        if self.origins.data.has_goals:
            most = s.most_goals // 2 if only_forecast else s.most_goals
            gains = (0.0, 1.0) if only_forecast else None
            yield piece(f"goals of {stem}", lambda network: self._measure_goals(network, seed, most, gains))
        if only_forecast:
            return
        yield piece("latent", lambda network: words.latent(network, self.origins, 64 if s.quick else 384, seed))
        if self.origins.data.has_text:
            yield piece("text", lambda network: words.texts(network, self.origins, s.text_steps, seed))
        if self.data.name == "storms":
            yield piece("plans", lambda n: words.plans(n, self.origins, self.goals(s.most_goals), s.plans, seed))

    def goals(self, most: int) -> Any:
        """The goals that measure steering, found once."""
        if self._goals is None or self._goals[0] != most:
            self._goals = most, find_goals(self.origins, most)
        return self._goals[1]

    def _forecast(self, name: str, method: Callable[[], Forecast]) -> Piece:
        return Piece(name, self.settings, lambda: score(method(), self.origins.truth))

    def _gru_size(self) -> tuple[int, int]:
        """Width of a GRU with about as many parameters as the network's numeric part, and these parameters."""
        values = len(self.origins.data.value_names)
        parameters = numeric_parameters(self.data.model_options(), values)
        return equal_width(values, self.origins.horizon, parameters), parameters

    def _gru(self, name: str, seed: int, width: int) -> dict[str, Any]:
        """Trained once for validation and test; "refit" learns from both parts for as many epochs as were best."""
        epochs, o = self.sizes.gru_epochs, self.origins
        model, epoch = self._trained_gru(name, seed, width, epochs, self.validated if self.refit else o, choose=True)
        if self.refit:
            model, epoch = self._trained_gru(name, seed, width, epoch + 1, o, choose=False)
        return score(gru_forecast(model, o, self.sizes.samples, seed), o.truth) | {"epoch": epoch}

    @cached_property
    def validated(self) -> Origins:
        """The origins without the validation part in training."""
        return find_origins(self.data.module(), "val", self.most)

    def _trained_gru(
        self, name: str, seed: int, width: int, epochs: int, origins: Origins, choose: bool
    ) -> tuple[GRUForecaster, int]:
        stem = f"{'' if choose else 'refit '}{name}-seed{seed}-width{width}-epochs{epochs}"
        file = self.folder / "gru" / f"{stem}.safetensors"
        if not file.exists():
            trained, epoch = train_gru(origins, width, GRUS[name], seed, epochs, self.tick, choose)
            with atomic_write(file, "wb") as stream:
                stream.write(save(trained.state_dict() | {"epoch": torch.tensor(epoch)}))
        tensors = load_file(file)
        epoch = int(tensors.pop("epoch").item())
        model = GRUForecaster(len(origins.data.value_names), origins.horizon, width, GRUS[name])
        model.load_state_dict(tensors)
        return model.eval(), epoch

    def _network_forecast(self, network: Any, seed: int) -> dict[str, Any]:
        o = self.origins
        if network.value_names != list(o.data.value_names):
            raise ValueError(f"the run was trained on {network.value_names}, the data has {o.data.value_names}")
        rollouts = imagine(network, o.batch, None, self.sizes.samples, seed_of(seed, "no goal"))
        y = o.dimension
        mean = (rollouts.mean[..., y].mean(0) - o.truth).abs().nanmean(0)
        return score(Forecast(rollouts.sample[..., y]), o.truth) | {"mae_of_mean": mean}

    def _measure_goals(self, network: Any, seed: int, most: int, gains: Sequence[float] | None) -> dict[str, Any]:
        found, s = self.goals(most), self.sizes
        more = {} if gains is None else {"gains": gains}
        return measure(network, self.origins, found, s.samples, seed, self.tick, **more)

    def _network(self, run: Path) -> Any:
        if self._loaded is None or self._loaded[0] != run:
            self._loaded = run, load(run)
        return self._loaded[1]
