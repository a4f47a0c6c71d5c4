"""A memory: constant bytes, facts that come and go, a file that is checked, clear errors."""

from pathlib import Path

import pytest
import torch

from gssr.backbone import FrozenBackbone
from gssr.control.compose import compose, piece
from gssr.control.memory import PLACES, Memory
from gssr.control.words import ids_of

OSLO, RIGA, CAT = "Mira lives in Oslo.", "Mira lives in Riga.", "Hugo keeps a cat."
OTHER = "the old road fell on the wall . " * 3


def states(memory: Memory) -> list[torch.Tensor]:
    return [layer.recurrent for layer in memory.layers]


def close(first: Memory, second: Memory) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(states(first), states(second), strict=True))


def test_facts_are_taken_out_in_any_order_and_leave_only_the_decay(facts: FrozenBackbone) -> None:
    empty = Memory.empty(facts)
    both = empty.write(facts, OSLO).write(facts, CAT)
    assert both.facts == 2
    gone = [both.forget(facts, OSLO).forget(facts, CAT), both.forget(facts, CAT).forget(facts, OSLO)]
    assert close(*gone) and all(each.facts == 0 for each in gone)
    assert not close(both, gone[0])
    layers = empty.layers
    for text in (OSLO, CAT):
        layers = compose(layers, piece(facts, ids_of(facts, text)), gain=0.0)
    for found, expected in zip(states(gone[0]), layers, strict=True):
        torch.testing.assert_close(found, expected.recurrent, rtol=1e-4, atol=1e-5)


def test_what_was_read_meanwhile_counts_in_one_layer_exactly(one_layer: FrozenBackbone) -> None:
    """In one layer a fact that was taken out behind other text was never there."""
    empty = Memory.empty(one_layer)
    written = empty.write(one_layer, CAT).write(one_layer, OSLO).read(one_layer, OTHER).forget(one_layer, CAT)
    without = empty.write(one_layer, CAT).forget(one_layer, CAT).write(one_layer, OSLO).read(one_layer, OTHER)
    assert close(written, without)
    assert not close(written, empty.write(one_layer, OSLO).read(one_layer, OTHER).write(one_layer, CAT))


def test_replacing_is_forgetting_and_writing(facts: FrozenBackbone) -> None:
    memory = Memory.empty(facts).write(facts, OSLO).write(facts, CAT)
    assert close(memory.replace_fact(facts, OSLO, RIGA), memory.forget(facts, OSLO).write(facts, RIGA))


def test_no_method_changes_a_memory_and_its_bytes_stay(facts: FrozenBackbone) -> None:
    memory = Memory.empty(facts)
    before = [state.clone() for state in states(memory)]
    full = memory
    for _ in range(PLACES + 3):
        full = full.write(facts, OSLO)
    full = full.read(facts, OTHER * 60)
    full.ask(facts, "Where does Mira live?")
    assert full.bytes == memory.bytes and full.facts == PLACES
    assert all(torch.equal(a, b) for a, b in zip(before, states(memory), strict=True))


def test_reading_is_the_models_own_reading(facts: FrozenBackbone) -> None:
    memory = Memory.empty(facts).read(facts, OTHER).read(facts, OSLO)
    ids = facts.tokenize([OTHER + OSLO])[0]
    from gssr.control.functional import read

    expected = read(facts, None, torch.tensor([[facts.start_id, *ids]])).layers
    for found, layer in zip(states(memory), expected, strict=True):
        torch.testing.assert_close(found, layer.recurrent, rtol=1e-4, atol=1e-5)


def test_an_answer_is_what_the_model_writes_up_to_a_full_stop(facts: FrozenBackbone) -> None:
    memory = Memory.empty(facts).write(facts, OSLO)
    said = memory.ask(facts, "Where does Mira live?")
    assert "." not in said and said == memory.ask(facts, "where does mira live ?")


def test_a_file_brings_the_memory_back(facts: FrozenBackbone, tmp_path: Path) -> None:
    memory = Memory.empty(facts).write(facts, OSLO).read(facts, OTHER).write(facts, CAT)
    sizes = []
    for name, each in (("a", memory), ("b", Memory.empty(facts))):
        each.save(tmp_path / name)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] == sizes[1]
    loaded = Memory.load(tmp_path / "a", facts)
    assert all(torch.equal(a, b) for a, b in zip(states(loaded), states(memory), strict=True))
    assert close(loaded.forget(facts, OSLO), memory.forget(facts, OSLO))


@pytest.mark.parametrize(
    "text, message",
    [("", "has no token"), ("Mira lives in Atlantis.", "does not know 'Atlantis.'")],
    ids=["empty", "unknown word"],
)
def test_texts_that_cannot_be_written(facts: FrozenBackbone, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Memory.empty(facts).write(facts, text)


def test_only_what_was_written_is_forgotten(facts: FrozenBackbone) -> None:
    memory = Memory.empty(facts).read(facts, OSLO)
    for text in (OSLO, CAT):
        with pytest.raises(ValueError, match="was not written into this memory"):
            memory.forget(facts, text)
    with pytest.raises(ValueError, match="was not written"):
        memory.write(facts, CAT).forget(facts, CAT).forget(facts, CAT)


def test_models_with_attention_and_foreign_models_are_refused(
    facts: FrozenBackbone, one_layer: FrozenBackbone, tiny: FrozenBackbone
) -> None:
    with pytest.raises(ValueError, match="layers with attention"):
        Memory.empty(tiny)
    with pytest.raises(ValueError, match="this memory belongs to the backbone"):
        Memory.empty(facts).write(one_layer, OSLO)
