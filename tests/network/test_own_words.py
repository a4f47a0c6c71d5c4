"""Words of one series are spelled anew in training, alike in all of its texts, and no others."""

import torch

from gssr.network.own_words import respelled
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record

STORMS = {"Amy": "Storm {} near 30 north", "Igor": "Storm {} moving north", "Three": "Low {} near 12 north"}


def batch_of(names: list[str]) -> Batch:
    texts = [[None, STORMS[name].format(name), "Storm moving near. " + STORMS[name].format(name)] for name in names]
    steps = torch.arange(3).numpy()
    return collate(
        [Record(name, 6.0 * steps, [[1.0]] * 3, own, goal_start=1) for name, own in zip(names, texts, strict=True)]
    )


def test_only_own_words_change_and_they_change_alike() -> None:
    batch, changed = batch_of([*STORMS, "Amy"]), 0
    for seed in range(40):
        new = respelled(batch, [1], torch.Generator().manual_seed(seed))
        assert [new.text[i] for i in (0, 2, 3)] == [batch.text[i] for i in (0, 2, 3)]
        if new.text != batch.text:
            changed += 1
            none, short, long = new.text[1]
            name = short.split()[1]
            assert none is None and sorted(name.lower()) == sorted("igor") and name[0].isupper()
            assert short == f"Storm {name} moving north"
            assert long == f"Storm moving near. Storm {name} moving north"
    assert 8 < changed < 32


def test_the_own_name_is_own_though_another_window_of_the_series_has_it() -> None:
    batch = batch_of(["Amy", "Amy", "Igor"])
    found = {respelled(batch, [0], torch.Generator().manual_seed(seed)).text[0][1] for seed in range(40)}
    assert any("Amy" not in text for text in found)


def test_a_single_series_has_no_words_of_its_own() -> None:
    batch = batch_of(["Amy", "Amy"])
    assert all(respelled(batch, [0, 1], torch.Generator().manual_seed(seed)).text == batch.text for seed in range(9))


def test_the_same_generator_spells_alike() -> None:
    batch = batch_of(list(STORMS))
    once, again = (respelled(batch, [0, 1, 2], torch.Generator().manual_seed(7)).text for _ in range(2))
    assert once == again
