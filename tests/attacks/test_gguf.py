"""GGUF files that are damaged or made up: refused before memory is spent, and nothing of them is kept."""

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gssr.backbone import FrozenBackbone
from gssr.files import cache_folder
from tests.backbone.gguf_models import write

pytestmark = pytest.mark.attack
pytest.importorskip("gguf", reason="the extra gguf is not installed")
pytest.importorskip("accelerate", reason="the extra gguf is not installed")

HUGE = 2**62


def text(content: str) -> bytes:
    return struct.pack("<Q", len(content)) + content.encode()


def made(tensors: int = 0, keys: int = 0, body: bytes = b"", magic: bytes = b"GGUF", version: int = 3) -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, keys) + body


ARCHITECTURE = text("general.architecture") + struct.pack("<I", 8) + text("llama")


def tensor(shape: tuple[int, ...] = (4, 4), kind: int = 0, offset: int = 0, name: str = "a") -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def one(**about: Any) -> bytes:
    return made(1, 1, ARCHITECTURE + tensor(**about) + bytes(256))


MADE: dict[str, bytes] = {
    "empty": b"",
    "another format": b"PK\3\4" + bytes(100),
    "a pickle": b"\x80\x04" + b"cos\nsystem\n(S'touch owned'\ntR." + bytes(100),
    "version 1": made(version=1),
    "a version of the other byte order": made(version=0x03000000),
    "more tensors than there are bytes": made(tensors=HUGE),
    "more keys than there are bytes": made(keys=HUGE),
    "no architecture": made(),
    "a key longer than the file": made(keys=1, body=struct.pack("<Q", HUGE)),
    "a key that is no text": made(keys=1, body=struct.pack("<Q", 2) + b"\xff\xfe" + bytes(8)),
    "a key twice": made(keys=2, body=ARCHITECTURE + ARCHITECTURE),
    "a value of an unknown kind": made(keys=1, body=text("a") + struct.pack("<I", 77) + bytes(16)),
    "a string longer than the file": made(keys=1, body=text("a") + struct.pack("<IQ", 8, HUGE)),
    "a list longer than the file": made(keys=1, body=text("a") + struct.pack("<IIQ", 9, 4, HUGE)),
    "a list of a million strings": made(keys=1, body=text("a") + struct.pack("<IIQ", 9, 8, 2**20)),
    "lists in lists": made(keys=1, body=text("a") + struct.pack("<IIQ", 9, 9, 2**20) * 50),
    "it ends within a value": made(keys=1, body=text("a") + struct.pack("<I", 12)),
    "an alignment of zero": made(1, 2, ARCHITECTURE + text("general.alignment") + struct.pack("<II", 4, 0) + tensor()),
    "no tensor": made(0, 1, ARCHITECTURE),
    "a tensor larger than the file": one(shape=(2**31, 2**31)),
    "a shape whose product overflows": one(shape=(2**32, 2**32, 2**32)),
    "a tensor of a hundred dimensions": one(shape=(1,) * 100),
    "a tensor of no numbers": one(shape=(0, 4)),
    "a tensor of an unknown kind": one(kind=999),
    "a tensor behind the file": one(offset=2**40),
    "a tensor off its alignment": one(offset=7),
    "a block that is cut": one(shape=(5, 4), kind=2),
    "a tensor twice": made(2, 1, ARCHITECTURE + tensor() + tensor() + bytes(256)),
}


@pytest.mark.parametrize("content", MADE.values(), ids=MADE)
def test_a_made_up_file_is_refused(content: bytes, tmp_path: Path) -> None:
    file, begin = tmp_path / "made.gguf", time.monotonic()
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"made\.gguf is no GGUF file that can be read"):  # by us, not by a library
        FrozenBackbone(str(file))
    assert time.monotonic() - begin < 30
    assert not any((cache_folder() / "backbones").glob("*"))
    assert not (tmp_path / "owned").exists()


DAMAGED: dict[str, Callable[[Path], Any]] = {
    "cut within its weights": lambda file: file.write_bytes(file.read_bytes()[:-4096]),
    "cut within its head": lambda file: file.write_bytes(file.read_bytes()[:512]),
    "an architecture that is not known": lambda file: write(file, architecture="pyramid"),
    "a layer is missing": lambda file: write(file, leave_out="blk.1.ffn_up.weight"),
    "no embeddings": lambda file: write(file, leave_out="token_embd.weight"),
    "more layers than weights": lambda file: write(file, block_count=3),
    "a hundred thousand layers": lambda file: write(file, block_count=100_000),
    "another width than its weights": lambda file: write(file, embedding_length=64),
    "tensors of no model": lambda file: file.write_bytes(one()),
    "no heads": lambda file: write(file, head_count=0),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_model_is_refused(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    file = tmp_path / "damaged.gguf"
    write(file)
    damage(file)
    with pytest.raises(ValueError, match=r"damaged\.gguf"):
        FrozenBackbone(str(file))
    assert not any((cache_folder() / "backbones").glob("*"))
