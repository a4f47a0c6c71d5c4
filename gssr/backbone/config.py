"""Which frozen language model a network reads and writes with."""

from dataclasses import dataclass
from typing import Literal

from gssr.backbone.frozen import FrozenBackbone
from gssr.domains import checked


@checked
@dataclass(frozen=True)
class BackboneConfig:
    """The frozen language model.

    Args:
        name: nano, smollm2-135m (extra smollm), a GGUF file (extra gguf), a local folder or a hub id of a causal
            language model; nano-random has nano's shape, untrained.
        revision: Commit or tag of a hub id.
        dtype: Precision of its weights: float32, bfloat16, float16, or auto, that of the stored weights where the
            device has arithmetic for it and float32 elsewhere; trained parts are float32 in any case.
        offline: Take a hub id from the local cache only.
    """

    name: str = "nano"
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    offline: bool = False

    def load(self) -> FrozenBackbone:
        """Raises ValueError where the model cannot be read."""
        return FrozenBackbone(self.name, self.revision, self.dtype, self.offline)
