"""The frozen language model: loading, encoding texts, likelihood of texts behind a prefix, generation, CPU kernels."""

from gssr.backbone.frozen import FrozenBackbone

__all__ = ["FrozenBackbone"]
