"""Variants of nano at equal CPU time: the budget, the schedule, and going on after an interruption."""

import argparse
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from benchmarks import nano_variants
from benchmarks.nano_variants import VARIANTS, Trial, Variant
from benchmarks.recall.text import MEAN
from gssr.training.optimizers import MuonAdamWConfig

TINY = (
    Variant("plain", 96, 4, vocab_size=300),
    Variant("attends twice, averaged", 96, 4, attend=2, vocab_size=300, average=True),
)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second passes between two looks at the clock."""
    ticks = itertools.count()
    monkeypatch.setattr(nano_variants, "time", SimpleNamespace(process_time=lambda: next(ticks) / 10))


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    text = "Strong winds over the coast, moving north at 9 knots. " * 8
    rows = [
        {"source": source, "split": split, "text": f"{source} {number} {text}"}
        for source in ("python", "strikes", "storms")
        for split in ("train", "heldout")
        for number in range(6)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "corpus.parquet")
    corpus, out = str(tmp_path / "corpus.parquet"), str(tmp_path / "out")
    return ["--corpus", corpus, "--out", out, "--quick", "--seconds", "1.5"]


def saves(monkeypatch: pytest.MonkeyPatch, after: int | None) -> list[float]:
    """The CPU seconds at each save; an interruption comes behind one of them."""
    seen: list[float] = []
    save = Trial._save

    def counting(self: Trial, *state: object) -> None:
        save(self, *state)
        seen.append(state[-1])
        if len(seen) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trial, "_save", counting)
    return seen


def test_each_variant_trains_once_and_ends_in_the_table(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nano_variants.main(given, TINY)
    found = json.loads((tmp_path / "out" / "variants.json").read_text())
    assert list(found) == [variant.name for variant in TINY]
    assert all(x["steps"] == 15 and x["bits per byte"][MEAN] > 0 for x in found.values())
    assert "attends twice, averaged" in capsys.readouterr().out
    monkeypatch.setattr(Trial, "_train", lambda *_: pytest.fail("a finished variant is trained again"))
    nano_variants.main(given, TINY)
    assert json.loads((tmp_path / "out" / "variants.json").read_text()) == found


def test_an_interrupted_variant_goes_on_from_its_last_save(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nano_variants, "SAVE_EVERY", 0.15)  # every second step
    with monkeypatch.context() as interrupted:
        before = saves(interrupted, after=4)
        with pytest.raises(KeyboardInterrupt):
            nano_variants.main(given, TINY[:1])
    assert not (tmp_path / "out" / "variants.json").exists()
    after = saves(monkeypatch, after=None)
    nano_variants.main(given, TINY[:1])
    assert before + after == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4])
    result = json.loads((tmp_path / "out" / "variants.json").read_text())["plain"]
    assert result["steps"] == 15
    assert not (tmp_path / "out" / "plain" / "state.ckpt").exists()
    uninterrupted = [*given[:3], str(tmp_path / "again"), *given[4:]]
    nano_variants.main(uninterrupted, TINY[:1])
    again = json.loads((tmp_path / "again" / "variants.json").read_text())["plain"]
    assert again["bits per byte"] == result["bits per byte"]


def test_the_rate_follows_the_share_of_cpu_time(tmp_path: Path) -> None:
    trial = Trial(TINY[0], argparse.Namespace(out=tmp_path, seconds=100.0, seed=0, quick=True, corpus="c"))
    schedule = MuonAdamWConfig(lr=2.0, warmup_steps=10, decay_share=0.4)
    assert trial._rate(schedule, 0, 0.0) == pytest.approx(0.2)
    assert trial._rate(schedule, 500, 50.0) == 2.0
    assert trial._rate(schedule, 500, 80.0) == pytest.approx(1.0)
    assert trial._rate(schedule, 5000, 99.99) < 0.01
    constant = MuonAdamWConfig(lr=2.0, warmup_steps=10, decay_share=0.0)
    assert trial._rate(constant, 500, 90.0) == 2.0


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_is_a_nano_of_the_size_that_is_allowed(variant: Variant, tmp_path: Path) -> None:
    options = argparse.Namespace(out=tmp_path, seconds=1.0, seed=0, quick=True, corpus="c")
    with torch.device("meta"):
        module = Trial(variant, options)._module()
    assert sum(p.numel() for p in module.model.parameters()) <= 8_000_000
    kinds = module.model.config.layer_types
    assert kinds.count("full_attention") == variant.layers // variant.attend
    assert len({v.name for v in VARIANTS}) == len(VARIANTS)
