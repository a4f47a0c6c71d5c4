"""Networks that were trained around a frozen model, each in a safetensors file that is bound to this model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.states import state_file

N = TypeVar("N", bound=nn.Module)
LARGEST = 8192  # width that a file may declare


@dataclass(frozen=True)
class Kind(Generic[N]):
    """A kind of file.

    Args:
        form: its name, in the file.
        does: what the network does, as in "it *drafts for* the model".
        config: a configuration that trains one.
        build: makes an untrained network from the file's strings; ValueError refuses them.
    """

    form: str
    does: str
    config: str
    build: Callable[[FrozenBackbone, Mapping[str, str]], N]

    def save(self, path: Path, network: N, backbone: FrozenBackbone, about: Mapping[str, str]) -> None:
        """Write a network with the strings that ``build`` makes it from. Raises ValueError if that fails."""
        tensors = {name: part.detach().float().contiguous() for name, part in network.state_dict().items()}
        state_file.write(path, self.form, tensors, {**about, "fingerprint": backbone.fingerprint})

    def load(self, path: Path, backbone: FrozenBackbone) -> N:
        """Raises ValueError for a file that is damaged, of another kind, or of another model."""

        def network_of(tensors: dict[str, Tensor], about: Mapping[str, str]) -> N:
            if (made_for := about.get("fingerprint")) != backbone.fingerprint:
                raise ValueError(
                    f"it {self.does} the model {made_for}, this is {backbone.fingerprint} ({backbone.name}); train one "
                    f"for this model: python train.py fit --config {self.config}"
                )
            network = self.build(backbone, about)
            expected = {name: part.shape for name, part in network.state_dict().items()}
            if {name: part.shape for name, part in tensors.items()} != expected:
                raise ValueError("its tensors are not those of the network that it names, for this model")
            if not any(part.is_meta for part in tensors.values()):
                if not all(part.isfinite().all() for part in tensors.values()):
                    raise ValueError("it holds a number that is not finite")
                network.load_state_dict(tensors)
            return network.eval().requires_grad_(False)

        return state_file.read(path, self.form, network_of)


def whole(number: str, name: str, most: int = LARGEST) -> int:
    """The number from 1 to ``most`` that a file names. Raises ValueError for anything else."""
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and 0 < int(number) <= most):
        raise ValueError(f"it names the {name} {number[:20]!r}")
    return int(number)
