"""Find, load and fingerprint a causal language model: a bundled one, a local folder or a hub id."""

import hashlib
import inspect
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import CONFIG_NAME, cached_file, logging

from gssr import ranks, shown
from gssr.backbone.accelerate import accelerate_on_cpu
from gssr.backbone.cpu import prepare_cpu
from gssr.backbone.folder import check_config, check_folder, no_larger_than, numbers_in
from gssr.backbone.gguf_file import is_gguf, unpacked
from gssr.backbone.precision import AUTO, choose, name_of

NANO = "nano"
RANDOM = "nano-random"  # nano's shape and tokenizer with untrained weights, for comparison
LOOKUPS = "nano-lookups"  # knows the words of generated problems alone, for thoughts
FACTS = "nano-facts"  # remembers facts of a small language
BUNDLED = {NANO: "nano", RANDOM: "nano", LOOKUPS: "lookups", FACTS: "nano_facts"}  # folders in this package
PART = 2**22
HUB_SECONDS = 5.0
# What tokenizer files begin with: tokenizer.json, tokenizer.model, vocab.json, sentencepiece.bpe.model, spiece.model,
# tekken.json.
TOKENIZERS = ("tokenizer.", "vocab", "sentencepiece", "spiece", "tekken")
SAID: set[str] = set()  # choices of a precision that were printed


def load_model(
    name: str, revision: str | None = None, dtype: str = AUTO, offline: bool = False, device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer, never running code that comes with the weights.

    Args:
        name: ``nano``, ``nano-random`` (nano's shape, weights as initialized from a fixed seed), ``nano-lookups``,
            ``nano-facts``, ``smollm2-135m``, a GGUF file, a local folder or a hub id.
        revision: branch, tag or commit of a hub id; a commit pins it for good.
        dtype: precision of the weights, a key of ``DTYPES``, or ``auto``, which is printed once it is chosen.
        offline: use the hub cache only.
        device: type of the device that ``auto`` is chosen for; by default a GPU where there is one.

    Raises:
        ValueError: the dtype is unknown; the package of a named model is not installed; the file, folder or hub id
            cannot be read; it holds no causal language model, damaged, incomplete, unknown or pickled weights, or needs
            code of its own; its config describes a larger model than the weights; the tokenizer is absent, has no
            end-of-text token or belongs to another model.
    """
    choose(dtype, None)  # an unknown one is refused before anything is read
    source = _source(name, revision)
    asks = not (Path(source).exists() or offline or constants.HF_HUB_OFFLINE)
    silent = asks and not _hub_answers()
    options = {"revision": revision, "local_files_only": offline or silent, "trust_remote_code": False}
    what, level = "config", logging.get_verbosity()
    logging.set_verbosity_error()  # its reports follow below, in fewer words
    try:
        if Path(source).exists():
            check_folder(Path(source))
        check_config(PreTrainedConfig.get_config_dict(source, **options)[0])
        config = AutoConfig.from_pretrained(source, **options)
        kind, why = choose(dtype, config.get_text_config().dtype or config.dtype, device)
        what = "tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(source, config=config, **options)
        if tokenizer.eos_token_id is not None and not tokenizer(["A trial."], add_special_tokens=False)["input_ids"][0]:
            raise ValueError("it makes no token of 'A trial.'")
        what = "weights"
        if name == RANDOM:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model, loaded = AutoModelForCausalLM.from_config(config, dtype=kind), {}
        else:
            with no_larger_than(lambda: numbers_in(_home(source, options))):
                model, loaded = AutoModelForCausalLM.from_pretrained(
                    source, config=config, dtype=kind, use_safetensors=True, output_loading_info=True,
                    ignore_mismatched_sizes=True, **options,
                )  # fmt: skip
    except BaseException as error:  # the libraries raise anything, from KeyError to a panic of Rust code
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise _explained(f"the {what} of the backbone", name, error, offline, silent) from error
    finally:
        logging.set_verbosity(level)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {name!r} has no end-of-text token, so texts could not be ended; set eos_token in its "
            "tokenizer_config.json"
        )
    _check_loaded(name, loaded)
    _check_finite(name, model)
    largest, rows = max(tokenizer.get_vocab().values(), default=0), len(model.get_input_embeddings().weight)
    if largest >= rows:
        raise ValueError(
            f"the tokenizer of {name!r} has token ids up to {largest}, the model embeds {rows}; they do not belong "
            "together"
        )
    prepare_cpu()
    accelerate_on_cpu(sys.modules[type(model).__module__])
    _name_embeddings(model)
    _keep_token_ids(model, tokenizer, rows)
    if why and (choice := f"gssr: {shown.line(name)} computes in {name_of(kind)}: {why}") not in SAID:
        SAID.add(choice)
        if ranks.is_first():
            print(choice, file=sys.stderr)
    return model, tokenizer


def _home(source: str, options: dict[str, Any]) -> Path | None:
    """The folder of a model's files: of a hub id, its snapshot in the cache."""
    file = cached_file(source, CONFIG_NAME, **options, _raise_exceptions_for_missing_entries=False)
    return None if file is None else Path(file).parent


def _check_loaded(name: str, loaded: dict[str, Any]) -> None:
    """Raises ValueError for weights that the model lacks, does not know, or expects in another shape."""
    if other := sorted(loaded.get("mismatched_keys", ())):
        key, saved, wanted = other[0]
        raise ValueError(
            f"the shapes of the weights of {name!r} differ from those in {CONFIG_NAME} in {len(other)} places: {key} "
            f"is {tuple(saved)}, the config makes it {tuple(wanted)}; they do not belong together"
        )
    if absent := sorted(loaded.get("missing_keys", ())):
        raise ValueError(
            f"the weights of {name!r} are incomplete: {len(absent)} are missing, such as {absent[0]}; they would be "
            "random numbers. Fetch the model again"
        )
    if unknown := sorted(loaded.get("unexpected_keys", ())):
        raise ValueError(
            f"{len(unknown)} weights of {name!r} have no place in the model of its {CONFIG_NAME}, such as "
            f"{unknown[0][:80]!r}; they would be left out. Fetch config and weights again"
        )


def _check_finite(name: str, model: PreTrainedModel) -> None:
    """Raises ValueError for weights with NaN or infinity."""
    for key, weight in model.named_parameters():
        if weight.numel() and not torch.stack(weight.detach().aminmax()).isfinite().all():
            raise ValueError(
                f"the weights of {name!r} are damaged: numbers in {key} are not finite in {weight.dtype}. Fetch the "
                "model again, or try backbone.dtype float32"
            )


def _keep_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Of the folder's options of generation keep only token ids: how texts are decoded is for the caller to say."""
    given, kept = getattr(model, "generation_config", None), {"eos_token_id": tokenizer.eos_token_id}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(given, key, None)
        ids = value if isinstance(value, list) else [value]
        if ids and all(isinstance(i, int) and 0 <= i < rows for i in ids):
            kept[key] = value
    model.generation_config = GenerationConfig(**kept)


def _source(name: str, revision: str | None) -> str:
    """The folder or hub id that ``name`` means.

    Raises ValueError for a folder that does not exist, or has no config, weights or tokenizer; nothing was read yet. A
    GGUF file is unpacked, see `gssr.backbone.gguf_file`.
    """
    if is_gguf(name):
        if revision is not None:
            raise ValueError(f"revision {revision!r} was given for {name!r}, a file; only hub ids have revisions")
        return str(unpacked(name))
    folder = Path(str(resources.files("gssr.backbone") / BUNDLED[name])) if name in BUNDLED else Path(name)
    if not folder.exists():
        if "/" not in name or name.startswith((".", "/", "~")):
            raise ValueError(
                f"no backbone at {name!r}; give 'nano', 'smollm2-135m', an existing folder, or a hub id such as "
                "ibm-granite/granite-4.0-h-350m"
            )
        return name
    if revision is not None:
        raise ValueError(
            f"revision {revision!r} was given for {name!r}, which is a folder; only hub ids have revisions"
        )
    if not folder.is_dir():
        raise ValueError(f"the backbone {name!r} is a file; give the folder that holds config.json and the weights")
    files = sorted(path.name for path in folder.iterdir())
    what = f"the folder {name!r} holds {', '.join(files[:8]) or 'nothing'}{', …' if len(files) > 8 else ''}"
    if CONFIG_NAME not in files:
        raise ValueError(f"{what}; expected a model as save_pretrained writes it, but there is no {CONFIG_NAME}")
    if not any(file.endswith(".safetensors") for file in files):
        pickled = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        if pickled:
            raise ValueError(
                f"{what}; {pickled[0]} is a pickle, which can run code when it is read, and is never opened. Give the "
                "model as safetensors: load it where you trust it, then save_pretrained(folder)"
            )
        raise ValueError(f"{what}; there are no weights (*.safetensors)")
    if not any(file.startswith(TOKENIZERS) for file in files):
        raise ValueError(f"{what}; there is no tokenizer: save it there, tokenizer.save_pretrained(folder)")
    return str(folder)


def _explained(what: str, name: str, error: BaseException, offline: bool, silent: bool) -> ValueError:
    """The library's error with advice for the user; ``silent``: the hub did not answer."""
    text = " ".join(str(error).split())
    problem = (text if " " in text else f"{type(error).__name__} {text}".strip())[:300]
    if "trust_remote_code" in str(error):
        advice = "It needs code of its own, which is never executed; choose a model that transformers knows."
    elif "Unrecognized configuration class" in str(error):
        problem = problem.split(" for this kind")[0]
        advice = "That is no causal language model; choose one that writes text from left to right."
    elif Path(name).exists() or name in BUNDLED:
        advice = "The folder must be as save_pretrained writes it: config, tokenizer.json, complete safetensors files."
    elif silent:
        problem = f"{constants.ENDPOINT} does not answer, and the hub cache does not hold it"
        advice = "Check the network, or give a local folder; there is none of that name here."
    elif offline or constants.HF_HUB_OFFLINE:
        advice = (
            "Only the hub cache was looked at (offline: true or HF_HUB_OFFLINE is set): fetch it once without that, or "
            "give a local folder; there is none of that name here."
        )
    else:
        advice = "Check the spelling of id and revision, or give a local folder; there is none of that name here."
    return ValueError(f"{what} {name!r} could not be loaded: {problem}\n{advice}")


def _hub_answers() -> bool:
    """Whether the hub answers within seconds. Its client would try each file for half a minute, up to two in all."""
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # of the HTTP library, of a proxy or of the socket
        return False
    return True


def _name_embeddings(model: PreTrainedModel) -> None:
    """Show ``generate`` that the model takes embeddings: Bamba and Falcon-H1 take them under ``kwargs``."""
    prepare = model.prepare_inputs_for_generation
    if "inputs_embeds" in inspect.signature(prepare).parameters:
        return

    def named(input_ids: Tensor, inputs_embeds: Tensor | None = None, **kwargs: Any) -> dict[str, Any]:
        return prepare(input_ids, inputs_embeds=inputs_embeds, **kwargs)

    model.prepare_inputs_for_generation = named


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of the model's layers, found by its length: each architecture has another name for it."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(
        f"{type(model).__name__} has no list of {count} layers; this architecture cannot be read layer by layer"
    )


def fingerprint(model: PreTrainedModel) -> str:
    """The identity of a backbone: 16 hex digits of the SHA-256 of names, shapes and float32 values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        # In parts, since an embedding table in float32 would be the largest tensor of all.
        for part in tensor.detach().reshape(-1).split(PART):
            digest.update(part.to("cpu", torch.float32).numpy().data)
    return digest.hexdigest()[:16]
