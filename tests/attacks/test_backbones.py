"""Folders of language models that are damaged or made up: refused quickly, in a paragraph about what is wrong, and
nothing in them is run."""

import json
import os
import pickle
import random
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gssr.backbone import FrozenBackbone
from gssr.backbone.folder import check_config
from tests.backbone.test_loading import HUB_ID, use_hub
from tests.conftest import SENTENCES

pytestmark = pytest.mark.attack

Damage = Callable[[Path], Any]
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A good model to be damaged."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def edit(file: str, **values: Any) -> Damage:
    def edited(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | values))

    return edited


def config(**values: Any) -> Damage:
    return edit("config.json", **values)


def write(file: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return changed


def filled(value: float, where: str = "") -> Damage:
    return weights(lambda tensors: [tensor.fill_(value) for name, tensor in tensors.items() if where in name])


def raw(change: Callable[[bytearray], Any]) -> Damage:
    def changed(folder: Path) -> None:
        content = bytearray((folder / WEIGHTS).read_bytes())
        changed = change(content)
        (folder / WEIGHTS).write_bytes(content if changed is None else changed)

    return changed


def instead(file: str, make: Callable[[Path], Any]) -> Damage:
    def made(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        make(folder / file)

    return made


def link(file: str, target: str) -> Damage:
    return instead(file, lambda path: path.symlink_to(target))


def linked_out(file: str) -> Damage:
    """The file moves out of the folder, and a link leads to it."""

    def moved(folder: Path) -> None:
        (folder / file).rename(folder.parent / file)
        (folder / file).symlink_to(folder.parent / file)

    return moved


def sharded(name: Any) -> Damage:
    """An index that says where the weights lie, and beside it weights out of the folder."""

    def changed(folder: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        shutil.copy(folder / WEIGHTS, folder.parent / "outside.safetensors")
        (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, name)}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))

    return changed


def tokenizer(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def changed(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return changed


def large(file: str, size: int) -> Damage:
    """A file that takes no room on the disk."""
    return lambda folder: os.truncate(folder / file, size)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


CONFIG, LACKS, TOO_LARGE = "the config of the backbone", "incomplete", "config.json describes a model of more than"
NO_MODEL, NO_CODE = "no model has as many", "a kernel from the hub is code"
CONFIGS: dict[str, tuple[Damage, str]] = {
    "width in words": (config(hidden_size="big"), f"{CONFIG} .*hidden_size"),
    "width of a fraction": (config(hidden_size=1.5), f"{CONFIG} .*hidden_size"),
    "width below 0": (config(hidden_size=-96), CONFIG),
    "width of 0": (config(hidden_size=0), CONFIG),
    "a billion wide": (config(hidden_size=10**9), CONFIG),
    "a billion wide, as it fits": (config(hidden_size=96 * 10**7, mamba_d_head=32 * 10**7), NO_MODEL),
    "a billion layers": (config(num_hidden_layers=10**9), NO_MODEL),
    "65,000 layers": (
        config(num_hidden_layers=65_000, layer_types=["full_attention"] * 65_000), TOO_LARGE
    ),
    "layers of 4,000 digits": (config(num_hidden_layers=10**3999), "num_hidden_layers is a number of .* bits"),
    "fewer layers than weights": (config(num_hidden_layers=2, layer_types=["linear_attention"] * 2), "have no place"),
    "more layers than weights": (
        config(num_hidden_layers=5, layer_types=["linear_attention"] * 3 + ["full_attention"] * 2), "incomplete"
    ),
    "a trillion tokens": (config(vocab_size=10**12), TOO_LARGE),
    "tokens beyond all numbers": (config(vocab_size=10**30), NO_MODEL),
    "tokens below 0": (config(vocab_size=-1), "the weights of the backbone"),
    "fewer tokens": (config(vocab_size=300), "differ from those in config.json in 1 places: model.embed_tokens.weight"),
    "a billion experts": (config(num_local_experts=10**9), NO_MODEL),
    "60,000 experts": (config(num_local_experts=60_000), TOO_LARGE),
    "two experts": (config(num_local_experts=2), LACKS),
    "ten million labels": (config(num_labels=10**7), NO_MODEL),
    "a billion heads": (config(num_attention_heads=10**9), NO_MODEL),
    "no heads": (config(num_attention_heads=0), "the weights of the backbone"),
    "heads that do not divide": (config(mamba_n_heads=7), CONFIG),
    "a wide state": (config(mamba_d_state=10**9), TOO_LARGE),
    "a wide convolution": (config(mamba_d_conv=10**9), TOO_LARGE),
    "a long chunk": (config(mamba_chunk_size=10**12), NO_MODEL),
    "a wide MLP": (config(shared_intermediate_size=10**12), TOO_LARGE),
    "an unknown kind of layer": (config(layer_types=["x"] * 4), CONFIG),
    "a number of kinds": (config(layer_types=7), CONFIG),
    "another kind of layer": (config(layer_types=["full_attention"] * 4), "incomplete|have no place"),
    "an untied head": (config(tie_word_embeddings=False), "lm_head.weight"),
    "NaN as a factor": (config(embedding_multiplier=float("nan")), "embedding_multiplier is not a number"),
    "a factor of 0": (config(embedding_multiplier=0), "all zero"),
    "infinity as a factor": (config(residual_multiplier=float("inf")), "not finite in torch.float32: a wrong number"),
    "a division by 0": (config(logits_scaling=0), "not finite|all zero|cannot read"),
    "a root of -1": (config(rms_norm_eps=-1.0), "not finite in torch.float32: a wrong number"),
    "a factor in words": (config(embedding_multiplier="x"), f"{CONFIG} .*embedding_multiplier"),
    "an unknown activation": (config(hidden_act="evil"), "KeyError 'evil'"),
    "an activation of numbers": (config(hidden_act=3), CONFIG),
    "an unknown precision": (config(dtype="eval"), "no attribute 'eval'"),
    "a padding far away": (config(pad_token_id=10**9), "the weights of the backbone .*[Pp]adding"),
    "an end of text in words": (config(eos_token_id="x"), f"{CONFIG} .*eos_token_id"),
    "labels of a number": (config(id2label=10**9), CONFIG),
    "an unknown model": (config(model_type="evil"), "does not recognize this architecture"),
    "a model of numbers": (config(model_type=5), "does not recognize|could not be loaded"),
    "a model of lists": (config(model_type=["llama"]), "could not be loaded"),
    "a name of 100,000 letters": (config(model_type="x" * 100_000), "does not recognize|could not be loaded"),
    "another model": (config(model_type="llama"), "could not be loaded|differ|incomplete|have no place"),
    "a model that is not causal": (write("config.json", '{"model_type": "t5"}'), "no causal language model"),
    "a quantizer of numbers": (config(quantization_config=3), CONFIG),
    "a kernel of the hub": (config(attn_implementation="evil/kernel"), NO_CODE),
    "a kernel under another name": (config(_attn_implementation="evil/kernel"), NO_CODE),
    "a kernel of a version": (config(attn_implementation={"": "paged|evil/kernel@main:x"}), NO_CODE),
    "a kernel of experts": (config(experts_implementation="evil/kernel"), NO_CODE),
    "a kernel below": (config(text_config={"attn_implementation": "evil/kernel"}), NO_CODE),
    "weights elsewhere": (config(transformers_weights="../outside.safetensors"), "inside the model directory"),
    "weights of a pickle": (config(transformers_weights="pytorch_model.bin"), "expected a safetensors file"),
    "code of its own": (
        config(model_type="mine", auto_map={"AutoConfig": "evil.Mine", "AutoModelForCausalLM": "evil.Mine"}),
        "needs code of its own",
    ),
    "code of numbers": (config(auto_map=3), "could not be loaded"),
    "a nested config": (config(x=nested(40)), "nested more than 32 deep"),
    "a config nested 100,000 deep": (write("config.json", '{"x":' * 100_000), "not a valid JSON file"),
    "a config nested to its end": (
        write("config.json", '{"x":' * 100_000 + "1" + "}" * 100_000), "not a valid JSON file"
    ),
    "a config cut": (write("config.json", '{"model_type": "granite'), "not a valid JSON file"),
    "a config of zeros": (write("config.json", b"\0" * 1000), "not a valid JSON file"),
    "a config of bytes": (write("config.json", b"\xff\xfe\xfd"), "not a valid JSON file"),
    "a config of a list": (write("config.json", "[1, 2]"), "holds no object"),
    "a config of null": (write("config.json", "null"), "holds no object"),
    "a config of nothing": (write("config.json", ""), "not a valid JSON file"),
    "a number of 5,000 digits": (write("config.json", '{"hidden_size": ' + "9" * 5000 + "}"), "not a valid JSON file"),
    "a config of gigabytes": (large("config.json", 2**32), "expected at most 16,777,216"),
}  # fmt: skip


def half(folder: Path) -> None:
    raw(lambda content: content[: len(content) // 2])(folder)


def flip_header(content: bytearray) -> None:
    content[40] ^= 0x40


FILES: dict[str, tuple[Damage, str]] = {
    "weights cut": (half, "the weights of the backbone .*could not be loaded"),
    "weights longer": (raw(lambda c: c + b"\0" * 64), "the weights of the backbone .*could not be loaded"),
    "no weights": (instead(WEIGHTS, lambda f: f), "there are no weights"),
    "weights of nothing": (write(WEIGHTS, b""), "the weights of the backbone .*could not be loaded"),
    "weights of text": (write(WEIGHTS, "x" * 99), "the weights of the backbone .*could not be loaded"),
    "a header of gigabytes": (raw(lambda c: struct.pack("<Q", 2**40) + c[8:]), "could not be loaded"),
    "a flipped header": (raw(flip_header), "could not be loaded|incomplete|no place|differ"),
    "a flipped name": (
        weights(lambda t: t.update({"model.layers.9.x": t.pop("model.norm.weight")})), "1 are missing.*norm.weight"
    ),
    "NaN weights": (filled(float("nan")), "not finite in torch.float32. Fetch"),
    "a NaN in a corner": (
        weights(lambda t: t["model.embed_tokens.weight"][399].fill_(float("nan"))), "numbers in model.embed_tok"
    ),
    "infinite weights": (filled(float("inf"), "norm"), "not finite in torch.float32. Fetch"),
    "zero weights": (filled(0.0), "all zero"),
    "zero embeddings": (filled(0.0, "embed_tokens"), "all zero"),
    "a zero norm": (filled(0.0, "model.norm"), "all zero"),
    "a weight too many": (weights(lambda t: t.update(extra=torch.ones(3))), "1 weights of .* have no place.*'extra'"),
    "a weight too few": (weights(lambda t: t.pop("model.norm.weight")), "1 are missing"),
    "a weight of another shape": (
        weights(lambda t: t.update({"model.norm.weight": torch.ones(95)})), r"model.norm.weight is \(95,\)"
    ),
    "no tensor": (weights(dict.clear), "incomplete"),
    "an adapter": (write("adapter_config.json", '{"base_model_name_or_path": "evil/model"}'), "belongs to an adapter"),
    "a link to /dev/zero": (link("config.json", "/dev/zero"), "is a link out of the folder"),
    "weights of /dev/zero": (link(WEIGHTS, "/dev/zero"), "is a link out of the folder"),
    "a link to a secret": (link("tokenizer.json", "/etc/passwd"), "is a link out of the folder"),
    "a link to nothing": (link("tokenizer.json", "nothing"), "is no file that can be read"),
    "a link to itself": (link("tokenizer.json", "tokenizer.json"), "is no file that can be read"),
    "a link out of the folder": (linked_out(WEIGHTS), "is a link out of the folder"),
    "a template by a link": (link("chat_template.jinja", "/etc/passwd"), "is a link out of the folder"),
    "a pipe as config": (instead("config.json", os.mkfifo), "is no file that can be read"),
    "a pipe as weights": (instead(WEIGHTS, os.mkfifo), "is no file that can be read"),
    "a pipe as tokenizer": (instead("tokenizer.json", os.mkfifo), "is no file that can be read"),
    "a pipe as template": (instead("chat_template.jinja", os.mkfifo), "is no file that can be read"),
    "a folder as config": (instead("config.json", Path.mkdir), "config"),
    "a folder as weights": (instead(WEIGHTS, Path.mkdir), "weights"),
    "a folder as tokenizer": (instead("tokenizer.json", Path.mkdir), "tokenizer"),
    "shards elsewhere": (sharded("../outside.safetensors"), "names '../outside.safetensors' as weights"),
    "shards at the root": (sharded("/etc/passwd"), "names '/etc/passwd' as weights"),
    "shards of a pickle": (sharded("pytorch_model.bin"), "names 'pytorch_model.bin' as weights"),
    "shards of numbers": (sharded(3), "names '3' as weights"),
    "shards that are missing": (sharded("model-00002-of-00002.safetensors"), "as weights; expected names"),
    "an index of a list": (
        lambda f: (sharded("x")(f), write(f"{WEIGHTS}.index.json", '{"weight_map": [1]}')(f)), "names '.1.' as weights"
    ),
    "an index cut": (write(f"{WEIGHTS}.index.json", "{"), "not a valid JSON file"),
    "a tokenizer cut": (write("tokenizer.json", "{"), "the tokenizer of the backbone"),
    "a tokenizer of zeros": (write("tokenizer.json", b"\0" * 1000), "the tokenizer of the backbone"),
    "a tokenizer of a list": (write("tokenizer.json", "[]"), "the tokenizer of the backbone"),
    "a nested tokenizer": (write("tokenizer.json", '{"a":' * 50_000), "the tokenizer of the backbone"),
    "a tokenizer of gigabytes": (large("tokenizer.json", 2**32), "expected at most 67,108,864"),
    "an unknown tokenizer": (tokenizer(lambda t: t["model"].update(type="Evil")), "the tokenizer of the backbone"),
    "a vocabulary of a list": (tokenizer(lambda t: t["model"].update(vocab=[1])), "the tokenizer of the backbone"),
    "no vocabulary": (tokenizer(lambda t: t["model"].update(vocab={}, merges=[])), "tokenizer"),
    "a token far away": (tokenizer(lambda t: t["model"]["vocab"].update(x=2**31)), "token ids up to 2147483648"),
    "a negative token": (tokenizer(lambda t: t["model"]["vocab"].update(x=-1)), "the tokenizer of the backbone"),
    "merges of numbers": (tokenizer(lambda t: t["model"].update(merges=[1, 2])), "the tokenizer of the backbone"),
    "merges of unknown tokens": (
        tokenizer(lambda t: t["model"].update(merges=[["evil", "pair"]])), "the tokenizer of the backbone"
    ),
    "a pattern that is none": (
        tokenizer(lambda t: t.update(pre_tokenizer={
            "type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False
        })), "the tokenizer of the backbone",
    ),
    "a normalizer that eats all": (
        tokenizer(lambda t: t.update(normalizer={
            "type": "Replace", "pattern": {"Regex": "."}, "content": ""
        })), "makes no token",
    ),
    "tokenizer options cut": (write("tokenizer_config.json", "{"), "not a valid JSON file"),
    "tokenizer options of a list": (write("tokenizer_config.json", "[1]"), "holds no object"),
    "no end of text": (edit("tokenizer_config.json", eos_token=None), "no end-of-text token"),
    "an end of text of numbers": (edit("tokenizer_config.json", eos_token=5), "the tokenizer|no end-of-text"),
    "special tokens cut": (write("special_tokens_map.json", "{"), "not a valid JSON file"),
    "added tokens of a list": (write("added_tokens.json", "[1]"), "holds no object"),
    "generation cut": (write("generation_config.json", "{"), "not a valid JSON file"),
    "pickles alone": (
        lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), "pytorch_model.bin is a pickle, .* never opened"
    ),
}  # fmt: skip


def refused(folder: Path) -> str:
    begun = time.monotonic()
    with pytest.raises(ValueError) as error:
        FrozenBackbone(str(folder))
    said = str(error.value)
    assert time.monotonic() - begun < 20
    assert "\n\n" not in said and len(said) < 1200 and "Traceback" not in said
    return said


@pytest.mark.parametrize("attack", [*CONFIGS, *FILES])
def test_a_hostile_folder_is_refused_by_what_is_wrong(attack: str, folder: Path) -> None:
    damage, message = (CONFIGS | FILES)[attack]
    damage(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = " ".join(refused(folder).split())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024
    with pytest.raises(ValueError, match=message):
        raise ValueError(said)


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def evil_code(folder: Path) -> None:
    for name in ("configuration_evil", "modeling_evil", "tokenization_evil", "evil"):
        write(f"{name}.py", f"open({str(folder / 'was run')!r}, 'w')")(folder)
    config(auto_map={"AutoConfig": "configuration_evil.X", "AutoModelForCausalLM": "modeling_evil.X"})(folder)
    edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.X", None]})(folder)


TEMPLATE = "{% for i in range(10**9) %}{% for j in range(10**9) %}{{ ''.__class__.__mro__ }}{% endfor %}{% endfor %}"
WITHOUT_EFFECT: dict[str, Damage] = {
    "a pickle beside the weights": lambda f: write("pytorch_model.bin", pickle.dumps(Touch(f / "was run")))(f),
    "an optimizer beside the weights": lambda f: write("optimizer.pt", pickle.dumps(Touch(f / "was run")))(f),
    "code that is not needed": evil_code,
    "a chat template": write("chat_template.jinja", TEMPLATE),
    "a chat template in the options": edit("tokenizer_config.json", chat_template=TEMPLATE),
    "a broken chat template": edit("tokenizer_config.json", chat_template="{% if"),
    "a million beams": edit("generation_config.json", num_beams=10**6, do_sample=True),
    "a million sequences": edit("generation_config.json", num_return_sequences=10**6, num_beams=10**6),
    "an unknown quantizer": config(quantization_config={"quant_method": "evil"}),
    "a class of the system": edit("tokenizer_config.json", tokenizer_class="os.system"),
    "another decoding": edit("generation_config.json", repetition_penalty=50.0, min_new_tokens=10**6, max_time=1e-9),
    "decoding code": edit("generation_config.json", custom_generate="evil/repository", trust_remote_code=True),
    "an assistant": edit("generation_config.json", prompt_lookup_num_tokens=10, assistant_early_exit=1),
    "an end far away": edit("generation_config.json", eos_token_id=10**9, pad_token_id=-1),
    "tokens in words": edit("generation_config.json", bos_token_id="x"),
    "no cache": config(use_cache=False),
    "truncation in the tokenizer": tokenizer(
        lambda t: t.update(truncation={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0})
    ),
    "a short model": edit("tokenizer_config.json", model_max_length=1, truncation_side="left"),
}  # fmt: skip


@pytest.mark.parametrize("attack", WITHOUT_EFFECT)
def test_what_else_lies_in_a_folder_changes_nothing(attack: str, folder: Path, tiny: FrozenBackbone) -> None:
    WITHOUT_EFFECT[attack](folder)
    found = FrozenBackbone(str(folder))
    assert found.fingerprint == tiny.fingerprint and found.tokenize(SENTENCES) == tiny.tokenize(SENTENCES)
    prefix = torch.zeros(1, 1, tiny.hidden_size)
    assert found.generate(prefix, 3) == tiny.generate(prefix, 3)
    assert not (folder / "was run").exists()


def test_links_inside_the_folder_and_of_the_hubs_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(folder / "weights.safetensors")
    (folder / WEIGHTS).symlink_to("weights.safetensors")
    FrozenBackbone(str(folder))
    (folder / WEIGHTS).unlink()
    snapshot = tmp_path / "models--some--one" / "snapshots" / "0123"
    blobs = tmp_path / "models--some--one" / "blobs"
    for place in (snapshot, blobs):
        place.mkdir(parents=True)
    for file in folder.iterdir():
        file.rename(blobs / file.name)
        (snapshot / file.name.replace("weights", "model")).symlink_to(f"../../blobs/{file.name}")
    FrozenBackbone(str(snapshot))


def test_a_hub_model_is_bounded_by_the_weights_that_were_fetched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)
    place = tmp_path / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    config(num_local_experts=60_000)(folder)
    shutil.copytree(folder, place / "snapshots" / "0123456789")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123456789", encoding="utf-8")
    with pytest.raises(ValueError, match=TOO_LARGE):
        FrozenBackbone(HUB_ID, offline=True)


def test_nothing_that_was_registered_stays() -> None:
    from torch.nn.modules import module

    assert not module._global_parameter_registration_hooks and not module._global_buffer_registration_hooks


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([10**9, -1, 0, 2**63])
VALUES = st.recursive(
    LEAVES | st.floats(allow_subnormal=False),  # models flush those to zero, process-wide
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_mutation_of_a_config_ends_in_a_traceback(data: st.DataObject, tiny_folder: Path, tmp_path: Path) -> None:
    """One to three keys get any value: a ValueError of a paragraph, or a model that can be used."""
    content = json.loads((tiny_folder / "config.json").read_text())
    keys = sorted(content)
    changes = data.draw(st.dictionaries(st.sampled_from(keys), VALUES, min_size=1, max_size=3))
    place = tmp_path / f"model-{random.getrandbits(64):x}"
    shutil.copytree(tiny_folder, place, copy_function=os.link)
    (place / "config.json").unlink()
    (place / "config.json").write_text(json.dumps(content | changes))
    try:
        FrozenBackbone(str(place))
    except ValueError as error:
        assert "\n\n" not in str(error) and len(str(error)) < 1200
    finally:
        shutil.rmtree(place)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=30), VALUES, max_size=5))
def test_any_config_is_looked_through(config: dict[str, Any]) -> None:
    try:
        check_config(config)
    except ValueError as error:
        assert str(error)
