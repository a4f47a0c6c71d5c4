"""A state to continue from, learned by gradient through the frozen model: it makes given texts likely behind any
prompt.

Behind the prompt, once, each part of the state is interpolated to a learned target,

    h' = (1 - a) h + a T,    a and T learned for each layer and part.

The parts are the recurrent and conv states of Mamba-2 layers and the values of attention layers. Each of the three
can lead the text back to the prompt. The conv states hold its last tokens and decide the very next one; the values
hold all of its tokens. All positions of an attention layer get the same target for their values; keys, lengths and
positions stay. The change happens once and is bounded by its target. It does not add up over a long text and costs
nothing in decoding.

Shapes: B rows; (M, R, N) recurrent states, (channels, width) conv states, (KV heads, 1, head dimension) values.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.states import state_file
from gssr.states.cache import layer_states
from gssr.states.checks import NUMBER
from gssr.states.examples import Examples, Intervention, Learning, fit
from gssr.states.intervention import inject
from gssr.states.rules import PARTS, Interpolation, Schedule

FORMAT = "gssr learned state 2"
NAME = re.compile(rf"({'|'.join(PARTS)})\.{NUMBER}\.(target|gate)")
# The initial gates. A large gate lets the prompt's last tokens matter little from the start.
FIRST_GATE = 0.9


@dataclass(frozen=True, eq=False)
class LearnedState:
    """Targets T by part and layer, and gates a in [0, 1] for the same parts and layers."""

    targets: Mapping[str, Mapping[int, Tensor]]
    gates: Mapping[str, Mapping[int, Tensor]]

    def rules(
        self,
        strength: float | Tensor = 1.0,
        layers: Sequence[int] | None = None,
        schedule: Schedule | None = None,
    ) -> list[Interpolation]:
        """Rules for ``steer``.

        Args:
            strength: in [0, 1]; multiplies the gates.
            layers: some of the learned layers; None is all of them.
            schedule: ``Schedule.once()`` by default, as in learning.

        Raises:
            ValueError: a layer that was not learned, or a strength out of range.
        """
        known = {layer for targets in self.targets.values() for layer in targets}
        if wrong := sorted(set(layers or ()) - known):
            raise ValueError(f"layers {wrong} have no direction; it has the layers {sorted(known)}")
        rules = []
        for part, targets in self.targets.items():
            chosen = [layer for layer in targets if layers is None or layer in layers]
            if chosen:
                rules.append(
                    Interpolation(targets, strength, chosen, None, schedule or Schedule.once(), part, self.gates[part])
                )
        return rules

    def save(self, path: Path, backbone: FrozenBackbone) -> None:
        """Write a safetensors file with the model's fingerprint. Raises ValueError if that fails."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error}") from error
        state_file.write(path, FORMAT, self.tensors(), {"fingerprint": backbone.fingerprint})

    @classmethod
    def load(cls, path: Path, backbone: FrozenBackbone) -> "LearnedState":
        """Raises ValueError if the file cannot be read, holds no learned state, or holds one of another model."""

        def build(tensors: dict[str, Tensor], about: Mapping[str, str]) -> LearnedState:
            if (made_for := about.get("fingerprint")) != backbone.fingerprint:
                raise ValueError(
                    f"it was made for the model {made_for}, this is {backbone.fingerprint} ({backbone.name}); use the "
                    "backbone that the state was learned with"
                )
            state = cls.from_tensors(tensors)
            for part, targets in state.targets.items():
                for layer, target in targets.items():
                    _check_target(f"{part}.{layer}", target, state.gates[part][layer])
            return state

        return state_file.read(path, FORMAT, build)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, with names such as ``conv.4.target`` and ``conv.4.gate``."""
        return {
            f"{part}.{layer}.{kind}": tensor.float().contiguous()
            for kind, by_part in (("target", self.targets), ("gate", self.gates))
            for part, by_layer in by_part.items()
            for layer, tensor in by_layer.items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "LearnedState":
        """The inverse of ``tensors``. Raises ValueError for other names, or a target or gate without the other."""
        found: dict[str, dict[str, dict[int, Tensor]]] = {"target": {}, "gate": {}}
        for name, tensor in tensors.items():
            if (known := NAME.fullmatch(name)) is None:
                raise ValueError(f"it holds {name[:40]!r}; expected names such as conv.4.target and conv.4.gate")
            found[known[3]].setdefault(known[1], {})[int(known[2])] = tensor
        names = ({(part, layer) for part in by for layer in by[part]} for by in found.values())
        if len({frozenset(kind) for kind in names}) != 1 or not tensors:
            raise ValueError("it holds no target with a gate for each, or the other way round")
        return cls(found["target"], found["gate"])


def _check_target(name: str, target: Tensor, gate: Tensor) -> None:
    """Raises ValueError for a target that is not finite, or a gate outside of 0 to 1; on meta there are no values."""
    if not target.is_floating_point() or not gate.is_floating_point() or gate.ndim > 1 or not gate.numel():
        raise ValueError(
            f"{name} is {target.dtype}, its gate {gate.dtype} {tuple(gate.shape)}; expected floats, () or (B,)"
        )
    if not target.is_meta and not (target.isfinite().all() and ((gate >= 0) & (gate <= 1)).all()):
        raise ValueError(f"{name} is not finite, or its gate is not between 0 and 1; learn the state again")


def learn_state(
    examples: Examples,
    settings: Learning | None = None,
    layers: Sequence[int] | None = None,
    parts: Sequence[str] = PARTS,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[LearnedState, list[float]]:
    """Learn the state that makes the continuations of the examples likely behind their prompts. No weight changes.

    Args:
        layers: layers to change; None is all of them.
        parts: parts to change, some of ``PARTS``.

    Returns:
        The learned state, and the loss of every step.

    Raises:
        ValueError: layers that have none of the parts.
    """
    states = layer_states(examples.read_some())
    known = [i for i, layer in enumerate(states) if any(getattr(layer, part) is not None for part in parts)]
    if wrong := sorted(set(layers or ()) - set(known)):
        raise ValueError(f"layers {wrong} have no {' or '.join(parts)} to learn; expected some of {known}")
    # Targets in units of the states' size and logits of the gates, so that one rate suits all; names as in ``tensors``.
    sizes: dict[str, float] = {}
    parameters: dict[str, Tensor] = {}
    for part in parts:
        for layer in known if layers is None else sorted(set(layers)):
            if (found := getattr(states[layer], part)) is None:
                continue
            target, gate = (f"{part}.{layer}.{kind}" for kind in ("target", "gate"))
            shape = found.shape[1:] if part != "values" else (found.shape[1], 1, found.shape[3])
            sizes[target] = found.float().square().mean().sqrt().item()
            parameters[target] = torch.zeros(shape, device=found.device).requires_grad_()
            parameters[gate] = torch.tensor(FIRST_GATE, device=found.device).logit().requires_grad_()

    def state() -> LearnedState:
        tensors = {name: sizes[name] * x if name in sizes else x.sigmoid() for name, x in parameters.items()}
        return LearnedState.from_tensors(tensors)

    acting = Intervention(change=lambda cache: inject(cache, state().rules()))
    losses = fit(list(parameters.values()), examples, acting, settings or Learning(), progress)
    with torch.no_grad():
        return state(), losses
