"""All options of a goal network: one dataclass a component, kept where the component is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_type_hints

from gssr.backbone.config import BackboneConfig
from gssr.domains import NonNegative, checked
from gssr.network.config import fixed, plain, restore
from gssr.network.goal_units import GoalUnits
from gssr.network.objective import ObjectiveConfig
from gssr.network.optimizer import OptimizerConfig
from gssr.network.speaker import SpeechConfig
from gssr.network.steering import SteeringConfig
from gssr.network.world_model import WorldModelConfig


@checked
@dataclass(frozen=True)
class ValuesConfig:
    """The Y value dimensions; null takes them from the data module.

    Args:
        names: Their names.
        units: Their units.
        resolution: Their resolution in data units, 0 where it is unknown.
        step: Time between two steps, such as 6h; null without a clock.
        words: What the values, their units and named ranges are called, as JSON; typed goals are read by it.
    """

    names: tuple[str, ...] | None = fixed(None)
    units: tuple[str, ...] | None = fixed(None)
    resolution: tuple[NonNegative, ...] | None = None
    step: str | None = fixed(None)
    words: str | None = None

    def goal_units(self) -> GoalUnits:
        """What writes goals about these values in units of windows."""
        return GoalUnits(self.words)


@dataclass
class Options:
    """The options of each component, from objects or from plain values as ``plain`` makes them.

    Raises ValueError for an option that a component lacks.
    """

    backbone: BackboneConfig
    world: WorldModelConfig
    steering: SteeringConfig
    speech: SpeechConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    values: ValuesConfig

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            setattr(self, name, restore(kind, getattr(self, name)))

    def set_values(
        self, names: Any, units: Any = None, resolution: Any = None, step: str | None = None, words: str | None = None
    ) -> None:
        """Name the Y value dimensions, with empty units and unknown resolutions where none are given."""
        width = len(names)
        units, resolution = units or [""] * width, resolution or [0.0] * width
        self.values = ValuesConfig(tuple(names), tuple(units), tuple(map(float, resolution)), step, words)

    def plain(self) -> dict[str, Any]:
        """Plain values by component, for a checkpoint: it must hold no code."""
        return plain(self)


KINDS: dict[str, type] = get_type_hints(Options)
