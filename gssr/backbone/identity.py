"""What changes the bits that a model computes, beside its weights: configuration, tokenizer, hardware, libraries."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gssr.backbone.fixed_shapes import CPU, GPU, VERSION

if TYPE_CHECKING:
    from gssr.backbone.frozen import FrozenBackbone

# The last two bring kernels of their own where they are installed.
LIBRARIES = ("torch", "transformers", "tokenizers", "mamba-ssm", "causal-conv1d")
# Entries of a config that change no number, or only where a model lies.
ELSEWHERE = ("_name_or_path", "_commit_hash", "transformers_version", "dtype", "torch_dtype", "architectures")


def reads_as(backbone: FrozenBackbone) -> tuple[object, ...]:
    """All that changes the bits of a text's states, beside text and layer: other values need other caches.

    The number of threads is not among them, see `gssr.backbone.fixed_shapes`.
    """
    model = (backbone.fingerprint, str(backbone.table.weight.dtype), backbone.configured, backbone.start_id)
    calls = (VERSION, CPU, GPU, torch.get_float32_matmul_precision())
    return (*model, *calls, _hardware(backbone.device), _versions())


def configured(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """32 hex digits over a model's configuration and all that its tokenizer knows."""
    config: dict[str, Any] = {key: value for key, value in model.config.to_dict().items() if key not in ELSEWHERE}
    config["attention"] = getattr(model.config, "_attn_implementation", None)
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        words: Any = [type(tokenizer).__name__, tokenizer.get_vocab(), tokenizer.init_kwargs]
    else:
        # A call sets padding and truncation anew.
        words = {key: value for key, value in json.loads(fast.to_str()).items() if key not in ("padding", "truncation")}
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    whole = json.dumps([config, words, ends], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _hardware(device: torch.device) -> str:
    """The kind of a device: kernels are chosen by it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def _versions() -> dict[str, str | None]:
    """The versions of the libraries that compute, None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
