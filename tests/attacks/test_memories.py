"""Memories and projectors from an untrusted place are refused in one paragraph, and no file is changed by it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from datamodules.facts.language import Language, make_tokenizer
from gssr.backbone import FrozenBackbone
from gssr.commands.main import main
from gssr.control.compose import beginning
from gssr.control.memory import FORMAT, Memory
from gssr.control.projector import FactProjector, shapes_of
from gssr.control.saved import FORMAT as PROJECTOR
from gssr.control.saved import load_projector, save_projector
from gssr.states import state_file
from gssr.training.architectures import PureMamba2

pytestmark = pytest.mark.attack
Change = Callable[[dict[str, Tensor], dict[str, str]], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place, language = tmp_path_factory.mktemp("model"), Language()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        PureMamba2(len(language.words()), 32, 2, 16).build().save_pretrained(place)
    make_tokenizer(language).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def backbone(folder: Path) -> FrozenBackbone:
    return FrozenBackbone(str(folder))


def contents(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    header = json.loads(file.read_bytes()[8 : 8 + struct.unpack("<Q", file.read_bytes()[:8])[0]])
    about = {key: value for key, value in header["__metadata__"].items() if key not in ("digest", "format")}
    return load_file(file), about


def put(name: str, tensor: Tensor) -> Change:
    return lambda tensors, about: tensors.update({name: tensor})


def say(name: str, value: str) -> Change:
    return lambda tensors, about: about.update({name: value})


MEMORIES: dict[str, Change] = {
    "another model": say("fingerprint", "0" * 16),
    "no fingerprint": lambda tensors, about: about.pop("fingerprint"),
    "no ledger": lambda tensors, about: tensors.pop("digests"),
    "a longer ledger": put("digests", torch.zeros(65, dtype=torch.int64)),
    "a ledger of floats": put("digests", torch.zeros(64)),
    "ages of other shape": put("aged.0", torch.zeros(64, 3)),
    "a fact that grew": put("aged.0", torch.ones(64, 2)),
    "ages that are no numbers": put("aged.0", torch.full((64, 2), torch.nan)),
    "a state that is not finite": put("layers.0.recurrent", torch.full((1, 2, 32, 16), torch.inf)),
    "a state of two rows": put("layers.1.recurrent", torch.zeros(2, 2, 32, 16)),
    "a state of another shape": put("layers.0.recurrent", torch.zeros(1, 2, 32, 8)),
    "a missing conv state": lambda tensors, about: tensors.pop("layers.0.conv"),
    "more layers": put("layers.2.recurrent", torch.zeros(1, 2, 32, 16)),
    "more layers declared": say("layers", "3"),
    "a thousand million layers": say("layers", "1000000000"),
    "keys that would grow": put("layers.0.keys", torch.zeros(1, 2, 4, 8)),
    "a strange name": put("../layers.0.recurrent", torch.zeros(1)),
}


@pytest.mark.parametrize("change", MEMORIES.values(), ids=MEMORIES)
def test_a_made_up_memory_is_refused(
    change: Change, backbone: FrozenBackbone, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.safetensors"
    Memory.empty(backbone).write(backbone, "Mira lives in Oslo.").save(file)
    tensors, about = contents(file)
    change(tensors, about)
    state_file.write(file, FORMAT, tensors, about)
    before = file.read_bytes()
    with pytest.raises(ValueError) as error:
        Memory.load(file, backbone)
    assert "Traceback" not in str(error.value) and str(file) in str(error.value)
    call = ["memory", "write", str(file), "--fact", "Hugo keeps a cat.", "--backbone", str(folder)]
    assert main(call) == 2 and capsys.readouterr().err.startswith("gssr: ")
    assert file.read_bytes() == before


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_memory_is_refused(place: float, backbone: FrozenBackbone, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    Memory.empty(backbone).save(file)
    damaged = bytearray(file.read_bytes())
    damaged[int(len(damaged) * place)] ^= 0x5A
    file.write_bytes(damaged)
    with pytest.raises(ValueError):
        Memory.load(file, backbone)


@pytest.mark.parametrize("kind", ["missing", "link", "folder", "text", "cut", "another kind"])
def test_what_is_no_memory_is_refused(kind: str, backbone: FrozenBackbone, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    if kind == "link":
        file.symlink_to("/etc/passwd")
    elif kind == "folder":
        file.mkdir()
    elif kind == "text":
        file.write_text("Mira lives in Oslo.")
    elif kind == "cut":
        Memory.empty(backbone).save(file)
        file.write_bytes(file.read_bytes()[:-100])
    elif kind == "another kind":
        Memory.empty(backbone).save(file)
        state_file.write(file, "gssr hybrid state 1", *contents(file))
    with pytest.raises(ValueError):
        Memory.load(file, backbone)


PROJECTORS: dict[str, Change] = {
    "another model": say("fingerprint", "0" * 16),
    "another kind": say("projector", "TokenProjector"),
    "a kind that is code": say("projector", "os.system"),
    "options that are none": say("options", "[1"),
    "options of another class": say("options", '{"rank": 3}'),
    "a bound that is no number": say("options", '{"bound": "inf"}'),
    "a bound below nothing": say("options", '{"bound": -1.0}'),
    "a missing tensor": lambda tensors, about: tensors.pop("mix.0"),
    "a tensor of another shape": put("mix.0", torch.zeros(3, 3)),
    "a tensor that is not finite": put("mix.0", torch.full((2, 2), torch.nan)),
    "a further tensor": put("more", torch.zeros(1)),
}


@pytest.mark.parametrize("change", PROJECTORS.values(), ids=PROJECTORS)
def test_a_made_up_projector_is_refused(change: Change, backbone: FrozenBackbone, tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    projector = FactProjector()
    projector.prepare(backbone, shapes_of(beginning(backbone)))
    save_projector(file, projector, backbone)
    load_projector(file, backbone, FactProjector)
    tensors, about = contents(file)
    change(tensors, about)
    state_file.write(file, PROJECTOR, tensors, about)
    with pytest.raises(ValueError, match="not a state that can be used"):
        load_projector(file, backbone, FactProjector)
