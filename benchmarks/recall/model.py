"""The model to measure: a folder, a hub id, or a checkpoint of a training of nano that still goes on."""

import tempfile
from pathlib import Path

from transformers import AutoTokenizer, GraniteMoeHybridForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from gssr import checkpoint
from gssr.backbone import FrozenBackbone
from gssr.training.architectures import nano_config

PREFIX = "model."  # of the model's weights in a checkpoint of `LanguageModelTraining`


def load(name: str, tokenizer: str | None = None) -> tuple[FrozenBackbone, int | None]:
    """The backbone, and the optimizer steps of a checkpoint.

    Args:
        tokenizer: folder of the tokenizer that the checkpoint was trained with, by default the one that it names.

    Raises ValueError for a file that is no checkpoint of nano, and as ``FrozenBackbone``.
    """
    if not name.endswith(".ckpt"):
        return FrozenBackbone(name), None
    saved = checkpoint.read(Path(name))
    weights = {key.removeprefix(PREFIX): w for key, w in saved["state_dict"].items() if key.startswith(PREFIX)}
    try:
        vocabulary, width = weights["model.embed_tokens.weight"].shape
        layers = 1 + max(int(key.split(".")[2]) for key in weights if key.startswith("model.layers."))
        channels = next(len(w) for key, w in weights.items() if key.endswith("mamba.conv1d.weight"))
    except (KeyError, StopIteration, ValueError) as error:
        raise ValueError(f"{name} holds no nano; give a checkpoint of configs/pretrain_nano.yaml") from error
    model = GraniteMoeHybridForCausalLM(nano_config(vocabulary, width, layers, (channels - 2 * width) // 2))
    model.load_state_dict(weights)
    folder = tokenizer or saved["datamodule_hyper_parameters"]["tokenizer"]
    if not Path(folder, "tokenizer.json").exists():
        raise ValueError(f"no tokenizer at {folder}; give the one of the training with --tokenizer")
    backbone = frozen(model, AutoTokenizer.from_pretrained(folder))
    backbone.name = name
    return backbone, saved["global_step"]


def frozen(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> FrozenBackbone:
    """A copy of a model in training, as a frozen backbone."""
    with tempfile.TemporaryDirectory() as home:
        model.save_pretrained(home)
        tokenizer.save_pretrained(home)
        return FrozenBackbone(home)
