"""Backbones that cannot be used are refused with the reason, and nothing in them is run."""

import http.server
import json
import pickle
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutput

from datamodules.text.corpus import train_tokenizer
from gssr.backbone import FrozenBackbone
from gssr.backbone.loading import fingerprint, load_model
from tests.conftest import SENTENCES

HUB_ID = "ibm-granite/granite-4.0-h-350m"
SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    save(folder, LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=1)))
    return folder


def save(folder: Path, model: PreTrainedModel) -> None:
    model.save_pretrained(folder)
    train_tokenizer(SENTENCES * 4, 400).save_pretrained(folder)


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A good model to be damaged."""
    return shutil.copytree(good, tmp_path / "model")


def refusal(name: str | Path, **options: Any) -> str:
    with pytest.raises(ValueError) as refused:
        FrozenBackbone(str(name), **options)
    return str(refused.value)


def edit(file: Path, **values: Any) -> None:
    """Change keys of a JSON file; None takes one out."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_the_folder_that_the_others_are_made_of_is_good(folder: Path) -> None:
    assert FrozenBackbone(str(folder)).hidden_size == 32


def cut_in_half(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def no_embeddings_row(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    short = {name: w[:100].clone() if len(w) == 400 else w for name, w in weights.items()}
    save_file(short, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", vocab_size=100)


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def not_a_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def only(folder: Path, *kept: str) -> None:
    for file in folder.iterdir():
        if file.name not in kept:
            file.unlink()


DAMAGES = {
    "empty folder": (
        lambda f: only(f),
        "holds nothing; expected a model as save_pretrained writes it, but there is no config.json",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "but there is no config.json"),
    "config cut": (lambda f: (f / "config.json").write_text("{"), "is not a valid JSON file"),
    "config of nothing": (lambda f: (f / "config.json").write_text("{}"), "model_type"),
    "unknown type": (lambda f: edit(f / "config.json", model_type="mine"), "does not recognize this architecture"),
    "no causal model": (
        lambda f: (f / "config.json").write_text('{"model_type": "t5"}'),
        "That is no causal language model",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"there are no weights \(\*.safetensors\)"),
    "weights cut": (cut_in_half, "could not be loaded: .*\n.*complete safetensors files"),
    "weights are text": (lambda f: (f / "model.safetensors").write_text("x" * 99), "could not be loaded"),
    "a weight is missing": (lose_a_weight, "incomplete: 1 are missing, such as model.layers.1.mlp.up_proj.weight"),
    "other shapes": (
        lambda f: edit(f / "config.json", intermediate_size=40),
        "shapes of the weights of .* differ from those in config.json",
    ),
    "not a number": (not_a_number, "numbers in model.layers.1.mlp.up_proj.weight are not finite in torch.float32"),
    "no tokenizer": (lambda f: only(f, "config.json", "model.safetensors"), "there is no tokenizer"),
    "tokenizer cut": (
        lambda f: (f / "tokenizer.json").write_text("{"),
        "the tokenizer of the backbone .* could not be loaded",
    ),
    "no end of text": (
        lambda f: edit(f / "tokenizer_config.json", eos_token=None),
        "no end-of-text token.*set eos_token",
    ),
    "other tokenizer": (no_embeddings_row, "token ids up to .*, the model embeds 100; they do not belong together"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:You are using a model of type")
@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_folder_is_told_by_what_is_wrong(folder: Path, what: str) -> None:
    damage, message = DAMAGES[what]
    damage(folder)
    said = refusal(folder)
    assert re.search(message, said), said
    assert str(folder) in said


def test_a_tokenizer_without_a_pad_token_is_as_good(good: Path, folder: Path) -> None:
    edit(folder / "tokenizer_config.json", pad_token=None)
    without, usual = FrozenBackbone(str(folder)), FrozenBackbone(str(good))
    assert without.tokenizer.pad_token is None and usual.tokenizer.pad_token is not None
    prefix = torch.zeros(len(SENTENCES), 1, 32)
    assert torch.equal(without.text_nats(prefix, SENTENCES)[0], usual.text_nats(prefix, SENTENCES)[0])
    assert torch.equal(without.token_states(SENTENCES, 1)[0], usual.token_states(SENTENCES, 1)[0])
    assert without.generate(prefix, 3) == usual.generate(prefix, 3)


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_pickled_weights_are_refused_and_never_opened(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(tmp_path / "was run")))
    assert "pytorch_model.bin is a pickle, which can run code when it is read, and is never opened" in refusal(folder)
    assert not (tmp_path / "was run").exists()


def test_code_in_the_folder_is_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    for name in ("configuration_mine.py", "modeling_mine.py", "tokenization_mine.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'was run')!r}, 'w')")
    own = {"AutoConfig": "configuration_mine.Mine", "AutoModelForCausalLM": "modeling_mine.Mine"}
    edit(folder / "config.json", model_type="mine", auto_map=own)
    assert "It needs code of its own, which is never executed" in refusal(folder)
    edit(folder / "config.json", model_type="llama")
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_mine.Mine", None]})
    FrozenBackbone(str(folder))  # what transformers knows itself needs none of it
    assert not (tmp_path / "was run").exists()


class PlainConfig(PretrainedConfig):
    model_type = "plain-lm"
    hidden_size, num_hidden_layers, vocab_size = 8, 1, 400


class PlainDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(400, 8), nn.ModuleList([nn.Linear(8, 8)])


class PlainLM(PreTrainedModel):
    """A causal model that takes token ids only."""

    config_class = PlainConfig
    _tied_weights_keys = None

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        self.decoder, self.head = PlainDecoder(), nn.Linear(8, 400, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def prepare_inputs_for_generation(self, input_ids: Any, **kwargs: Any) -> Any:
        return {"input_ids": input_ids}

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> CausalLMOutput:
        return CausalLMOutput(logits=self.head(self.decoder.layers[0](self.decoder.embed(input_ids))))


def test_a_model_without_inputs_embeds_is_refused(tmp_path: Path) -> None:
    AutoConfig.register("plain-lm", PlainConfig, exist_ok=True)
    AutoModelForCausalLM.register(PlainConfig, PlainLM, exist_ok=True)
    save(tmp_path, PlainLM(PlainConfig()))
    assert "does not take inputs_embeds, which a prefix needs; choose another backbone" in refusal(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_looks_ahead_is_refused(tmp_path: Path, dtype: str) -> None:
    save(tmp_path, AutoModelForCausalLM.from_config(BertConfig(**SIZES)))
    said = refusal(tmp_path, dtype=dtype)
    assert "is no causal language model: its states of a token depend on later tokens" in said


def test_a_head_with_an_unknown_factor_is_refused(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = LlamaForCausalLM.forward

    def halved(self: LlamaForCausalLM, *args: Any, **kwargs: Any) -> Any:
        out = plain(self, *args, **kwargs)
        out.logits = out.logits / 2
        return out

    monkeypatch.setattr(LlamaForCausalLM, "forward", halved)
    assert "the output head of LlamaForCausalLM" in refusal(good)


def test_revisions_are_for_the_hub_and_names_must_be_something(good: Path) -> None:
    assert "revision 'main' was given for" in refusal(good, revision="main")
    assert "only hub ids have revisions" in refusal("nano", revision="main")
    assert "is a file; give the folder" in refusal(good / "config.json")
    assert "no backbone at './missing'" in refusal("./missing")


def test_layers_out_of_range_are_refused(good: Path) -> None:
    backbone = FrozenBackbone(str(good))
    backbone.require_layers([0, 1, 2])
    for layer in (-1, 3):
        with pytest.raises(ValueError, match=f"layer {layer} does not exist; .* has layers 0 to 2"):
            backbone.token_states(["x"], layer)


# ---------------------------------------------------------------------- the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A hub on this machine that knows no model, and an empty cache; the paths that it was asked for."""
    asked: list[str] = []

    class Unknown(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(401)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unknown)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path)
    yield asked
    server.shutdown()
    server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))


def test_an_id_that_the_hub_does_not_know(hub: list[str]) -> None:
    said = refusal("someone/no-such-model", revision="v1")
    assert any("someone/no-such-model" in path and "v1" in path for path in hub)
    assert (
        "'someone/no-such-model' could not be loaded: someone/no-such-model is not a local folder and is not a valid"
        in said
    )
    assert "Check the spelling of id and revision, or give a local folder; there is none of that name here." in said


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("the client tries again"))
    said = refusal(HUB_ID)
    assert "http://127.0.0.1:9 does not answer, and the hub cache does not hold it" in said
    assert "Check the network, or give a local folder; there is none of that name here." in said


def test_what_was_fetched_before_needs_no_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_folder: Path
) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)
    cached = tmp_path / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    shutil.copytree(tiny_folder, cached / "snapshots" / "0123456789")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123456789", encoding="utf-8")
    model, _ = load_model(HUB_ID)
    assert model.config.hidden_size == load_model(str(tiny_folder))[0].config.hidden_size


def test_offline_never_asks_the_hub(hub: list[str]) -> None:
    said = refusal(HUB_ID, offline=True)
    assert (
        "Only the hub cache was looked at (offline: true or HF_HUB_OFFLINE is set): fetch it once without that" in said
    )
    assert hub == []


def test_the_untrained_backbone_is_always_the_same_and_not_nano() -> None:
    before = torch.get_rng_state()
    (first, tokenizer), (second, _) = load_model("nano-random"), load_model("nano-random")
    trained, its_tokenizer = load_model("nano")
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint(first) == fingerprint(second) != fingerprint(trained)
    assert tokenizer.get_vocab() == its_tokenizer.get_vocab()
    assert {n: w.shape for n, w in first.state_dict().items()} == {n: w.shape for n, w in trained.state_dict().items()}
    FrozenBackbone("nano-random").token_states(["a storm"], 3)
