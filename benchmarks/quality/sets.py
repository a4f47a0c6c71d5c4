"""The data sets of the benchmark: the configs that train them, and how many origins are scored."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from gssr.network.options import KINDS, Options

CONFIGS = Path(__file__).parents[2] / "configs"
DOMAINS = ("Agriculture", "Climate", "Economy", "Energy", "SocialGood", "Traffic")
NAMES = ("storms", "strikes", "weather", *DOMAINS)


@dataclass
class DataSet:
    """A data set by name.

    Attributes:
        files: configs, each read over the one before, as train.py does.
        most: origins to score, evenly picked.
        options: of the data module, over those of the configs.
        short: the config that shortens training for ablations.
    """

    name: str
    files: list[Path]
    most: int
    options: dict[str, Any] = field(default_factory=dict)
    short: Path | None = None

    def arguments(self, more: Sequence[Path] = ()) -> list[str]:
        """Arguments of `train.py fit`, which reads the default config first; `more` configs are read last."""
        configs = [word for file in (*self.files[1:], *more) for word in ("--config", str(file))]
        return configs + [f"--data.{key}={value}" for key, value in self.options.items()]

    def model_options(self) -> Options:
        """The options of the goal network in the configs, the code's own where they give none."""
        parser = ArgumentParser(exit_on_error=False)
        for name, kind in KINDS.items():
            parser.add_argument(f"--{name}", type=kind, default=kind())
        given = _merged(self.files, "model")[1]
        found = parser.instantiate(parser.parse_object({name: part for name, part in given.items() if name in KINDS}))
        return Options(**{name: found[name] for name in KINDS})

    def module(self, seed: int = 0, **more: Any) -> Any:
        """The data module with the options of a training run, and `more` over them."""
        path, options = _merged(self.files, "data")
        module, name = path.rsplit(".", 1)
        return getattr(importlib.import_module(module), name)(**options | self.options | {"seed": seed} | more)


def data_set(name: str, path: Path | None) -> DataSet:
    """A data set by name; `path` is the folder of one that is not bundled.

    Raises ValueError for another name, and for a missing folder or one that lacks the data.
    """
    default = CONFIGS / "default.yaml"
    short = CONFIGS / "ablations"
    if name == "storms":
        return DataSet(name, [default], 1500, short=short / "short_storms.yaml")
    if name == "strikes":
        return DataSet(name, [default, CONFIGS / "strikes.yaml"], 400, short=short / "short_strikes.yaml")
    if name not in NAMES:
        raise ValueError(f"no data set {name!r}; expected one of {', '.join(NAMES)}")
    if path is None:
        raise ValueError(f"{name} is not bundled; name its folder with --path")
    path = path.resolve()  # training runs in another folder
    if name == "weather":
        file = path / "weather_jena_6h.csv"
        needed, found = file, DataSet(name, [default, CONFIGS / "weather.yaml"], 200, {"path": str(file)})
    else:
        folder = path / "time_mmd" if (path / "time_mmd").is_dir() else path
        needed = folder / "numerical" / name
        options = {"path": str(folder), "domain": name}
        found = DataSet(name, [default, CONFIGS / "time_mmd.yaml"], 400, options)
    if not needed.exists():
        raise ValueError(f"{needed} is not there; --path names the folder that holds it")
    return found


def _merged(files: list[Path], section: str) -> tuple[str, dict[str, Any]]:
    """The class and its options, from the last config that names another class on."""
    chosen, options = "", {}
    for file in files:
        given = yaml.safe_load(file.read_text(encoding="utf-8")).get(section)
        if given is None:
            continue
        if given["class_path"] != chosen:
            chosen, options = given["class_path"], {}
        options = _over(options, given.get("init_args", {}))
    return chosen, options


def _over(options: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Options with others read over them; a group keeps the options that the others leave out."""
    return options | {
        name: _over(options[name], part) if isinstance(part, dict) and isinstance(options.get(name), dict) else part
        for name, part in more.items()
    }
