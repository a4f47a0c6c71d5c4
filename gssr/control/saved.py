"""A projector as a safetensors file with a checksum, bound to its backbone."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.control.compose import beginning
from gssr.control.projector import FactProjector, Projector, TokenProjector, shapes_of
from gssr.states import state_file

FORMAT = "gssr projector 1"
KINDS: dict[str, type[Projector]] = {"FactProjector": FactProjector, "TokenProjector": TokenProjector}
OPTIONS = {"FactProjector": ("bound",), "TokenProjector": ("rank", "hidden", "bound")}


def save_projector(path: str | Path, projector: Projector, backbone: FrozenBackbone) -> None:
    """Raises ValueError for a projector of another class than those of `gssr.control.projector`."""
    kind = type(projector).__name__
    if KINDS.get(kind) is not type(projector):
        raise ValueError(f"{kind} is no projector that can be saved; expected {' or '.join(KINDS)}")
    options = {name: getattr(projector, name) for name in OPTIONS[kind]}
    about = {"fingerprint": backbone.fingerprint, "projector": kind, "options": json.dumps(options)}
    state_file.write(path, FORMAT, projector.state_dict(), about)


def load_projector(path: str | Path, backbone: FrozenBackbone, wanted: type[Projector]) -> Projector:
    """Raises ValueError for a file that is damaged, of another kind, or made around another model."""
    shapes = shapes_of(beginning(backbone))

    def build(tensors: dict[str, Tensor], about: Mapping[str, str]) -> Projector:
        if (made_for := about.get("fingerprint")) != backbone.fingerprint:
            raise ValueError(
                f"it was made for the model {made_for}, this is {backbone.fingerprint} ({backbone.name}); use the "
                "backbone that the projector was trained around"
            )
        if (kind := about.get("projector", "")) != wanted.__name__:
            raise ValueError(f"it holds a {kind[:40]!r}, expected a {wanted.__name__}")
        projector = wanted(**_options(kind, about.get("options", "")))
        projector.prepare(backbone, shapes)
        expected = {name: part.shape for name, part in projector.state_dict().items()}
        if {name: part.shape for name, part in tensors.items()} != expected:
            raise ValueError(f"its tensors are not those of a {kind} around {backbone.name}")
        if not any(part.is_meta for part in tensors.values()):
            if not all(part.isfinite().all() for part in tensors.values()):
                raise ValueError("it holds a number that is not finite")
            projector.load_state_dict(tensors)
        return projector.eval().requires_grad_(False).to(backbone.device)

    return state_file.read(path, FORMAT, build)


def _options(kind: str, text: str) -> dict[str, float]:
    try:
        options = json.loads(text[:1000])
    except ValueError as error:
        raise ValueError("its options cannot be read") from error
    if not isinstance(options, dict) or set(options) - set(OPTIONS[kind]):
        raise ValueError(f"its options are not some of {', '.join(OPTIONS[kind])}")
    return options


def parameters(projector: torch.nn.Module) -> int:
    """Their number."""
    return sum(parameter.numel() for parameter in projector.parameters())
