"""A state to start from, learned: by gradient through the frozen model, so that what should follow becomes likely behind any prompt.

Behind the prompt, once, each part of the state is pulled to a learned target,

    h' = (1 - a) h + a T,    a and T learned for each layer and part,

the recurrent and conv states of Mamba-2 layers and the values of attention layers. The three hold the prompt in three ways, and
each alone brings the text back to it: the conv states its last tokens, which decide what the very next one is; the values all of it.
One target serves all tokens of an attention layer: what is looked up in the prompt becomes the same wherever one looks. Keys
stay, and so do lengths and positions. What is changed once and bounded by its target neither adds up nor costs anything in decoding.

Shapes: B rows; (M, R, N) recurrent states, (channels, width) conv states, (KV heads, 1, head dimension) values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import DynamicCache

from gssr.backbone import FrozenBackbone
from gssr.states.cache import attention_layers, get_part, recurrent_layers
from gssr.states.examples import Examples, Learning, fit
from gssr.states.rules import PARTS, Interpolation, Schedule
from gssr.states.steering import inject

FORMAT = "gssr learned state 1"
# Where gates begin: the prompt's own last tokens should matter little from the start.
FIRST_GATE = 0.9


@dataclass(frozen=True, eq=False)
class LearnedState:
    """Targets by part and layer, and for each the share a in [0, 1] by which it replaces the state."""

    targets: Mapping[str, Mapping[int, Tensor]]
    gates: Mapping[str, Mapping[int, Tensor]]

    def rules(
        self,
        strength: float | Tensor = 1.0,
        layers: Sequence[int] | None = None,
        schedule: Schedule | None = None,
    ) -> list[Interpolation]:
        """What ``steer`` needs; ``strength`` in [0, 1] multiplies the gates, ``layers`` are some of those that were learned.

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
        """Write a safetensors file with the fingerprint of the model it belongs to."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors(), path, metadata={"format": FORMAT, "fingerprint": backbone.fingerprint})

    @classmethod
    def load(cls, path: Path, backbone: FrozenBackbone) -> "LearnedState":
        """
        Raises:
            ValueError: no such file, no learned state in it, or one that was made for another model.
        """
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read as a learned state: {error}") from error
        if about.get("format") != FORMAT:
            raise ValueError(f"{path} holds no learned state; make one with gssr generate --learn FILE --save {path}")
        if about.get("fingerprint") != backbone.fingerprint:
            raise ValueError(
                f"{path} was made for the model {about.get('fingerprint')}, this is {backbone.fingerprint} ({backbone.name}); "
                "states of one model mean nothing to another"
            )
        return cls.from_tensors(tensors)

    def tensors(self) -> dict[str, Tensor]:
        """By names such as ``conv.4.target`` and ``conv.4.gate``."""
        return {
            f"{part}.{layer}.{kind}": tensor.float().contiguous()
            for kind, by_part in (("target", self.targets), ("gate", self.gates))
            for part, by_layer in by_part.items()
            for layer, tensor in by_layer.items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "LearnedState":
        """What ``tensors`` gave."""
        found: dict[str, dict[str, dict[int, Tensor]]] = {"target": {}, "gate": {}}
        for name, tensor in tensors.items():
            part, layer, kind = name.split(".")
            found[kind].setdefault(part, {})[int(layer)] = tensor
        return cls(found["target"], found["gate"])


def learn_state(
    examples: Examples,
    settings: Learning | None = None,
    layers: Sequence[int] | None = None,
    parts: Sequence[str] = PARTS,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[LearnedState, list[float]]:
    """The state that makes the continuations likely behind the prompts, whichever follows which. No weight changes.

    Args:
        layers, parts: those that are changed; None is all layers.

    Returns:
        What was learned, for a change behind the prompt; and the loss of every step.

    Raises:
        ValueError: layers that have none of the parts.
    """
    settings = settings or Learning()
    targets, gates, scales = _start(examples, layers, parts)

    def state() -> LearnedState:
        scaled = {part: {i: scales[part][i] * x for i, x in targets[part].items()} for part in targets}
        return LearnedState(scaled, {part: {i: x.sigmoid() for i, x in gates[part].items()} for part in gates})

    def loss(generator: torch.Generator) -> Tensor:
        return examples.loss(settings, generator, change=lambda cache: inject(cache, state().rules()))

    parameters = [x for group in (targets, gates) for by_layer in group.values() for x in by_layer.values()]
    losses = fit(parameters, settings, loss, progress)
    learned = state()
    return LearnedState(_detached(learned.targets), _detached(learned.gates)), losses


def _start(
    examples: Examples, layers: Sequence[int] | None, parts: Sequence[str]
) -> tuple[dict[str, dict[int, Tensor]], dict[str, dict[int, Tensor]], dict[str, dict[int, float]]]:
    """By part and layer: targets in units of the states' own size, so that one rate suits all; logits of gates; the sizes."""
    cache = examples.read_some()
    targets: dict[str, dict[int, Tensor]] = {}
    gates: dict[str, dict[int, Tensor]] = {}
    scales: dict[str, dict[int, float]] = {}
    having = {"recurrent": recurrent_layers(cache), "conv": recurrent_layers(cache), "values": attention_layers(cache)}
    known = sorted({layer for part in parts for layer in having[part]})
    if wrong := sorted(set(layers or ()) - set(known)):
        raise ValueError(f"layers {wrong} have nothing to learn of {', '.join(parts)}; expected some of {known}")
    for part in parts:
        chosen = [layer for layer in having[part] if layers is None or layer in layers]
        for layer in chosen:
            found = _of(cache, part, layer)
            scales.setdefault(part, {})[layer] = found.square().mean().sqrt().item()
            shape = found.shape[1:] if part != "values" else (found.shape[1], 1, found.shape[3])
            targets.setdefault(part, {})[layer] = torch.zeros(shape, device=found.device).requires_grad_()
            gates.setdefault(part, {})[layer] = torch.tensor(FIRST_GATE, device=found.device).logit().requires_grad_()
    return targets, gates, scales


def _of(cache: DynamicCache, part: str, layer: int) -> Tensor:
    found = get_part(cache, part, layer)
    assert found is not None
    return found.float()


def _detached(by_part: Mapping[str, Mapping[int, Tensor]]) -> dict[str, dict[int, Tensor]]:
    return {part: {layer: x.detach() for layer, x in by_layer.items()} for part, by_layer in by_part.items()}
