"""What a folder of a language model, or its config, may hold: checked before transformers believes it.

A folder may come from anywhere. Nothing here reads weights; sizes and names are enough to refuse what would run code,
read other files, or take more memory than the weights that are there.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as registering

from gssr.files import memory

# The largest tokenizer in use has 34 MB, the largest other JSON file 10 MB.
LARGEST_TOKENIZER, LARGEST_JSON = 64 * 2**20, 16 * 2**20
PARSED = re.compile(r".*config\.json|special_tokens_map\.json|added_tokens\.json|.*\.index\.json")
# Keys whose number makes as many modules or entries; no model in use comes near the bound.
COUNTS, MOST = re.compile(r"layer|head|expert|label|group|codebook|stage|chunk"), 2**16
MOST_DEPTH = 32
# Numbers of a model to a byte of its weights: two at four bits, twice that for a head that shares the embeddings.
NUMBERS_PER_BYTE, SPARE_NUMBERS = 4, 2**22


def check_folder(folder: Path) -> None:
    """Raises ValueError for links out of the folder, files that are none, adapters, damaged or too large JSON files."""
    root = os.path.realpath(folder)
    if os.path.basename(os.path.dirname(root)) == "snapshots":  # the hub's cache: files are links to blobs beside
        root = os.path.dirname(os.path.dirname(root))
    templates = folder / "additional_chat_templates"
    for path in (*sorted(folder.iterdir()), *(sorted(templates.iterdir()) if templates.is_dir() else ())):
        if os.path.commonpath([root, os.path.realpath(path)]) != root:
            raise ValueError(f"{path} is a link out of the folder, which is not followed; put the file itself there")
        if path.is_dir():
            continue
        if not path.is_file():
            raise ValueError(f"{path} is no file that can be read; take it out of the folder")
        size = path.stat().st_size
        parsed = PARSED.fullmatch(path.name) is not None
        most = LARGEST_JSON if parsed else LARGEST_TOKENIZER
        if path.suffix in (".json", ".txt", ".jinja", ".model") and size > most:
            raise ValueError(f"{path} has {size:,} bytes, expected at most {most:,}; it is no file of a model")
        if path.name == "adapter_config.json":
            raise ValueError(
                f"{path} belongs to an adapter, which is not applied; merge it into the model and save that"
            )
        if parsed:
            _check_json(path)


def _check_json(path: Path) -> None:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # ValueError covers the encoding, too
        raise ValueError(f"{path} is not a valid JSON file: {str(error)[:100]}; fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a valid JSON file of a model: it holds no object; fetch it again")
    if not path.name.endswith(".index.json"):
        return
    files = content.get("weight_map")
    for file in files.values() if isinstance(files, dict) else [files]:
        if (
            not (isinstance(file, str) and file.endswith(".safetensors") and (path.parent / file).is_file())
            or "/" in file
        ):
            raise ValueError(
                f"{path} names {str(file)[:80]!r} as weights; expected names of safetensors files in the same folder"
            )


def check_config(config: dict[str, Any]) -> None:
    """Look through the values of a config, as read from JSON.

    Raises ValueError for code from the hub, weights that are no safetensors, counts that no model has, NaN, or depth.
    """
    _check_value(config, "config.json", 0)


def _check_value(value: Any, key: str, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise ValueError(f"{key} is nested more than {MOST_DEPTH} deep; no config of a model is")
    children = value.items() if isinstance(value, dict) else ()
    for name, child in children:
        if name.endswith("_implementation") and any(mark in json.dumps(child) for mark in "/:"):
            raise ValueError(
                f"{name} is {str(child)[:80]!r}: a kernel from the hub is code, which is never fetched; expected eager "
                "or sdpa"
            )
        if name == "transformers_weights" and not (isinstance(child, str) and child.endswith(".safetensors")):
            raise ValueError(f"{name} is {str(child)[:80]!r}; expected a safetensors file")
        _check_value(child, name, depth + 1)
    for child in value if isinstance(value, list) else ():
        _check_value(child, key, depth + 1)
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{key} is not a number (NaN)")
    if isinstance(value, int) and not abs(value) <= (MOST if COUNTS.search(key) else 2**53):
        shown = str(value) if abs(value) < 10**20 else f"a number of {value.bit_length()} bits"
        raise ValueError(f"{key} is {shown}; no model has as many")


def numbers_in(folder: Path | None) -> int:
    """The most numbers that the weight files of a folder can hold; of an unknown folder (None) what memory can."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder else memory()
    return NUMBERS_PER_BYTE * min(size, memory())


@contextmanager
def no_larger_than(numbers: Callable[[], int]) -> Iterator[None]:
    """Inside the block, a model with more numbers than its weight files can hold raises ValueError while it is built.

    transformers builds a model without memory first and then makes random numbers for what the files lack.

    Args:
        numbers: how many the files can hold, asked at the first one: those of a hub id are fetched inside the block.
    """
    found, most = 0, -1

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal found, most
        if most < 0:
            most = numbers() + SPARE_NUMBERS
        found += 0 if tensor is None else tensor.numel()
        if found > most:
            raise ValueError(
                f"config.json describes a model of more than {most:,} numbers, and the weight files (or the memory) "
                "are too small for that; config and weights do not belong together"
            )

    handles = [
        registering.register_module_parameter_registration_hook(count),
        registering.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
