"""The frozen model: likelihood, encoding and generation against one-at-a-time computations with the plain model."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.backbone import table as table_module
from gssr.backbone.cross_entropy import token_nats
from gssr.backbone.table import TextTable, cache_folder
from tests.conftest import SENTENCES


def prefixes(backbone: FrozenBackbone, count: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    return torch.randn(count, 2, backbone.hidden_size, generator=g) * backbone.embedding_scale


def naive_nats(backbone: FrozenBackbone, prefix: torch.Tensor, text: str) -> torch.Tensor:
    """One text, all logits of the sequence from the model's own head, loss picked out by hand."""
    ids = [backbone.start_id, *backbone.tokenize([text])[0], backbone.tokenizer.eos_token_id]
    embedded = torch.cat([prefix, backbone.model.get_input_embeddings()(torch.tensor(ids[:-1]))])[None]
    log_probs = F.log_softmax(backbone.model(inputs_embeds=embedded).logits[0].float(), -1)
    return -sum(log_probs[len(prefix) + i, ids[i + 1]] for i in range(len(ids) - 1))


def test_text_nats_equal_a_naive_computation(tiny: FrozenBackbone) -> None:
    prefix = prefixes(tiny, len(SENTENCES)).requires_grad_()
    nats, tokens = tiny.text_nats(prefix, SENTENCES)
    expected = torch.stack([naive_nats(tiny, p, text) for p, text in zip(prefix, SENTENCES, strict=True)])
    assert torch.allclose(nats, expected, rtol=1e-4)
    assert tokens.tolist() == [len(ids) + 1 for ids in tiny.tokenize(SENTENCES)]
    (gradient,) = torch.autograd.grad(nats.sum(), prefix)
    (reference,) = torch.autograd.grad(expected.sum(), prefix)
    assert torch.allclose(gradient, reference, atol=1e-4)


@pytest.mark.parametrize("rows", [7, 50, 1000])
def test_chunks_of_the_cross_entropy_change_nothing(tiny: FrozenBackbone, rows: int) -> None:
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, tiny.hidden_size, generator=g, requires_grad=True)
    target = torch.randint(0, 300, (50,), generator=g)
    weights = torch.randn(50, generator=g)
    full = F.cross_entropy(tiny.logits(hidden), target, reduction="none")
    found = token_nats(hidden, target, tiny.logits, rows)
    assert torch.allclose(found, full, atol=1e-6)
    (gradient,) = torch.autograd.grad((found * weights).sum(), hidden)
    (expected,) = torch.autograd.grad((full * weights).sum(), hidden)
    assert torch.allclose(gradient, expected, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(token_nats(hidden, target, tiny.logits, rows), found)


def test_no_weight_of_the_frozen_model_gets_a_gradient(tiny: FrozenBackbone) -> None:
    nats, _ = tiny.text_nats(prefixes(tiny, len(SENTENCES)).requires_grad_(), SENTENCES)
    nats.sum().backward()
    assert all(weight.grad is None for weight in tiny.model.parameters())


def test_a_text_does_not_depend_on_its_batch(tiny: FrozenBackbone) -> None:
    prefix = prefixes(tiny, len(SENTENCES))
    together, _ = tiny.text_nats(prefix, SENTENCES)
    single = torch.cat([tiny.text_nats(prefix[i : i + 1], [text])[0] for i, text in enumerate(SENTENCES)])
    assert torch.allclose(together, single, rtol=1e-5)
    means = tiny.mean_states(SENTENCES, [2])
    assert torch.equal(means[1], tiny.mean_states(SENTENCES[1:2], [2])[0])


def test_groups_by_length_change_neither_nats_nor_their_order(
    tiny: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gssr.backbone import frozen

    prefix = prefixes(tiny, len(SENTENCES)).requires_grad_()
    nats, tokens = tiny.text_nats(prefix, SENTENCES)
    (gradient,) = torch.autograd.grad(nats.sum(), prefix)
    monkeypatch.setattr(frozen, "TOKENS_PER_GRADIENT", 40)
    grouped, same = tiny.text_nats(prefix, SENTENCES)
    assert torch.allclose(grouped, nats, rtol=1e-5)
    assert torch.equal(tokens, same)
    assert torch.allclose(torch.autograd.grad(grouped.sum(), prefix)[0], gradient, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 3, 4])
def test_token_states_are_the_models_hidden_states(tiny: FrozenBackbone, layer: int) -> None:
    states, mask = tiny.token_states(SENTENCES, layer)
    for text, row, m in zip(SENTENCES, states, mask, strict=True):
        ids = torch.tensor([[tiny.start_id, *tiny.tokenize([text])[0]]])
        captured = []
        if layer == 0:
            captured.append(tiny.model.get_input_embeddings()(ids))
        else:
            handle = tiny.layers[layer - 1].register_forward_hook(
                lambda mod, args, out, keep=captured: keep.append(out[0] if isinstance(out, tuple) else out)
            )
            tiny.model(input_ids=ids)
            handle.remove()
        assert torch.allclose(row[m], captured[0][0, 1:], atol=1e-5)
        assert (row[~m] == 0).all()


def test_generation_continues_greedily_behind_the_prefix(tiny: FrozenBackbone) -> None:
    prefix = prefixes(tiny, 2)
    texts = tiny.generate(prefix, max_new_tokens=6)
    for p, text in zip(prefix, texts, strict=True):
        ids = [tiny.start_id]
        for _ in range(6):
            embedded = torch.cat([p, tiny.table(torch.tensor(ids))])[None]
            ids.append(int(tiny.model(inputs_embeds=embedded, use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == tiny.tokenizer.eos_token_id:
                break
        assert text == tiny.tokenizer.decode(ids[1:], skip_special_tokens=True).strip()


def test_frozen_means_frozen(tiny: FrozenBackbone) -> None:
    assert not tiny.model.training
    assert not any(p.requires_grad for p in tiny.model.parameters())


def test_the_fingerprint_tells_weights_apart(tiny_folder: Path, tiny: FrozenBackbone) -> None:
    other = FrozenBackbone(str(tiny_folder))
    assert other.fingerprint == tiny.fingerprint
    from gssr.backbone.loading import fingerprint

    with torch.no_grad():
        next(other.model.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(other.model) != tiny.fingerprint


def test_the_tokenizer_round_trips_every_string(tiny: FrozenBackbone) -> None:
    strings = ["".join(map(chr, range(32, 500))), "émigré 中文 🌀\t\n  x  ", "12 345.6", " leading", "trailing "]
    for text in strings:
        assert tiny.tokenizer.decode(tiny.tokenize([text])[0]) == text
    assert tiny.tokenizer.pad_token_id != tiny.tokenizer.eos_token_id
    ids = tiny.tokenize([" 25", " 45"])
    assert len(ids[0]) == len(ids[1]) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FrozenBackbone("no-such-model"), "no backbone at 'no-such-model'"),
        (lambda: FrozenBackbone("nano", dtype="int4"), "dtype 'int4' is not known"),
    ],
)
def test_bad_names_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_empty_text_and_a_missing_layer_are_refused(tiny: FrozenBackbone) -> None:
    with pytest.raises(ValueError, match="has no token"):
        tiny.token_states([""], 1)
    with pytest.raises(ValueError, match="layer 9 does not exist"):
        tiny.token_states(["x"], 9)


def test_the_table_reads_each_text_once_and_keeps_it(tiny: FrozenBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    table = TextTable(tiny, [1, 3])
    table.add(SENTENCES)
    states, mask = table.look_up([[SENTENCES[0], None], [None, SENTENCES[2]]])
    assert mask.tolist() == [[True, False], [False, True]]
    assert torch.allclose(states[1, 1], tiny.mean_states([SENTENCES[2]], [1, 3])[0], atol=1e-5)
    assert (states[0, 1] == 0).all()

    def never(*args: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(FrozenBackbone, "mean_states", never)
    again = TextTable(tiny, [1, 3])
    again.add(SENTENCES)
    assert torch.equal(again.look_up([[SENTENCES[2]]])[0], states[1:, 1:])


class Evil:
    """Creates a file as it is read by a pickle that may do anything."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("damage", ["text", "pickle", "cut short", "empty", "other shapes"])
def test_a_damaged_cache_file_is_made_again_and_never_executed(
    damage: str, tiny: FrozenBackbone, tmp_path: Path
) -> None:
    TextTable(tiny, [1]).add(SENTENCES)
    (file,) = cache_folder().glob("*.safetensors")
    content = file.read_bytes()
    if damage == "other shapes":
        save_file({"hashes": torch.zeros(3, 2, dtype=torch.int64), "states": torch.zeros(2, 5)}, file)
    elif damage == "pickle":
        torch.save(Evil(tmp_path / "marker"), file)
    else:
        file.write_bytes({"text": b"import os; os.abort()", "cut short": content[:-100], "empty": b""}[damage])
    table = TextTable(tiny, [1])
    with pytest.warns(match=r"the text cache .*\.safetensors cannot be read and is made again"):
        table.add(SENTENCES)
    assert torch.equal(table.look_up([[SENTENCES[3]]])[0][0, 0], tiny.mean_states([SENTENCES[3]], [1])[0])
    assert file.read_bytes() == content
    assert not (tmp_path / "marker").exists()


def test_reading_that_is_interrupted_keeps_what_was_read(tiny: FrozenBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "TEXTS_PER_STEP", 1)
    original, read = FrozenBackbone.mean_states, []

    def counted(self: FrozenBackbone, texts: list[str], layers: list[int]) -> torch.Tensor:
        if len(read) == 2:
            read.append("")
            raise KeyboardInterrupt
        read.extend(texts)
        return original(self, texts, layers)

    monkeypatch.setattr(FrozenBackbone, "mean_states", counted)
    with pytest.raises(KeyboardInterrupt):
        TextTable(tiny, [1]).add(SENTENCES)
    TextTable(tiny, [1]).add(SENTENCES)
    read.remove("")
    assert sorted(read) == sorted(SENTENCES), "a text was read twice, or never"


def test_a_cache_that_cannot_be_written_is_done_without(tiny: FrozenBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    TextTable(tiny, [1]).add(SENTENCES[:2])
    (file,) = cache_folder().glob("*.safetensors")
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    table = TextTable(tiny, [1])
    with pytest.warns(match="could not be written .*No space left.*read again next time"):
        table.add(SENTENCES)
    assert table.look_up([SENTENCES])[1].all()
    assert file.read_bytes() == before
    assert list(cache_folder().iterdir()) == [file]


def test_two_processes_that_keep_texts_at_once_leave_a_whole_file(tiny: FrozenBackbone) -> None:
    """Each writes many times while the other does; every state that can be read is that of one of them."""
    first, second = (TextTable(tiny, [1]) for _ in range(2))
    keys, states = torch.arange(40_000).reshape(-1, 2), torch.zeros(20_000, first.width)
    writer = os.fork()
    if not writer:
        try:
            for _ in range(30):
                first._save(keys, states)
        finally:
            os._exit(0)
    for _ in range(30):
        second._save(keys + 1, states + 1)
        kept, values = second._load()
        other = int(kept[0, 0] == 1)
        assert torch.equal(kept, keys + other) and (values == other).all()
    assert os.waitpid(writer, 0)[1] == 0
    assert len(list(cache_folder().iterdir())) == 1
