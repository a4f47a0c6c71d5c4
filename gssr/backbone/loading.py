"""Find, load and fingerprint a causal language model: the bundled ``nano``, a local folder or a hub id."""

import hashlib
import sys
from importlib import resources
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gssr.backbone.cpu import prepare_cpu
from gssr.backbone.scan import accelerate_on_cpu

NANO = "nano"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str, revision: str | None = None, dtype: str = "float32", offline: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer, never running code that comes with the weights.

    Raises:
        ValueError: the dtype is unknown, the folder or hub id cannot be read, or the tokenizer has no end-of-text token.
    """
    if dtype not in DTYPES:
        raise ValueError(f"backbone dtype {dtype!r} is not known; expected one of {sorted(DTYPES)}")
    if name == NANO:
        source = str(resources.files("gssr.backbone") / "nano")
    else:
        source = name
        if not Path(name).exists() and ("/" not in name or name.startswith((".", "/", "~"))):
            raise ValueError(
                f"no backbone at {name!r}; give 'nano', an existing folder, or a hub id such as ibm-granite/granite-4.0-h-350m"
            )
    options = {"revision": revision, "local_files_only": offline, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[dtype], use_safetensors=True, **options)
    except (OSError, ConnectionError) as error:
        raise ValueError(
            f"the backbone {name!r} could not be loaded: {error}\nGive a local folder with config.json, tokenizer.json and "
            "safetensors weights, or check the network; with offline=True only what the hub cache already holds is used."
        ) from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {name!r} has no end-of-text token; texts could not be ended")
    prepare_cpu()
    accelerate(model)
    return model, tokenizer


def accelerate(model: PreTrainedModel) -> None:
    """Put the CPU scan in place where the model's own module has the scan that it stands in for."""
    modeling = sys.modules[type(model).__module__]
    if hasattr(modeling, "mamba2_chunk_scan"):
        accelerate_on_cpu(modeling)


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of the model's layers, found by its length, since architectures name it differently."""
    count = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(
        f"{type(model).__name__} has no list of {count} layers; this architecture cannot be read layer by layer"
    )


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over names, shapes and values of all weights, as float32, the first 16 hex digits: the identity of a backbone."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.to(torch.float32).numpy().data)
    return digest.hexdigest()[:16]
