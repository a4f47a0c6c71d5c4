"""Measures of thoughts on cases that are known beforehand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.reasoning import costs, measures, pictures, plain_models
from benchmarks.reasoning.__main__ import tables
from benchmarks.reasoning.models import AnswersAtOnce
from datamodules.lookups.data import IDS
from datamodules.lookups.tasks import ASK, END
from gssr.backbone import FrozenBackbone
from gssr.reasoning.thinker import Memory, Thinker
from gssr.reasoning.thoughts import SoftToken, WrittenToken


def known() -> measures.Course:
    """Four problems of 1 to 4 lookups over six steps: right from the last lookup on; a head that knows, a confidence
    that is always high.
    """
    step, need = torch.arange(1, 7), torch.arange(1, 5)[:, None]
    right = (step >= need).float()
    return measures.Course(right, right * 0.98 + 0.01, torch.full(right.shape, 0.9))


def test_a_head_that_knows_saves_what_can_be_saved() -> None:
    found = measures.halting(known(), deepest=4, threshold=0.9)
    assert found["head"] == found["fixed"] == 1.0
    assert found["steps"] == 2.5 and found["saved"] == pytest.approx(0.5)
    assert found["same_for_all"] == pytest.approx(0.625)  # two steps solve the first two, three the third
    assert found["position"] == 1.0 and found["steps_of_position"] == 4.0  # the number alone saves nothing
    assert found["calibration_error"] == pytest.approx(0.01, abs=1e-5)


def test_confidence_is_compared_at_the_heads_number_of_steps() -> None:
    right, chance, _ = known()
    found = measures.halting(measures.Course(right, chance, chance), deepest=4, threshold=0.9)
    assert found["confidence"] == 1.0 and found["steps_of_confidence"] == 2.5


@pytest.mark.parametrize("memory, computed", [("read_only", {1000, 100_000}), ("write", {1000, 100_000})])
def test_bytes_that_are_computed_are_those_that_would_be_measured(
    tiny: FrozenBackbone, memory: Memory, computed: set[int]
) -> None:
    thinker = Thinker(tiny, WrittenToken(), memory)
    prompt = torch.tensor([[0, 5, 6, 7]])
    sizes, found = costs.kept(thinker, prompt, 20)
    assert found == computed
    assert sizes[1000] == measures.bytes_kept(thinker, prompt, [1000])[1000]


def test_the_control_learns_answers_of_trained_depths_alone() -> None:
    words = {token: word for word, token in IDS.items()}
    for task, deepest in (("chains", 4), ("pointers", 4), ("permutations", 8)):
        rows = AnswersAtOnce([task], "train", 200, 4, seed=0)
        for i in range(200):
            row = rows[i]
            said = [words[token] for token in row["tokens"].tolist()]
            begin = said.index(ASK) + 1
            asked, answer, between = said[begin], said[-1], said[begin + 1 : -1]
            assert row["weights"].sum() == row["weights"][-1] == 1
            assert set(between) <= {END} and len(between) < deepest and asked != answer
            if task == "pointers":
                assert 1 <= int(asked.split("x")[1]) <= deepest and answer.endswith("x0")


def test_a_table_and_pictures_of_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = measures.by_step(known(), threshold=0.9)
    about = {"halting, trained depths": {"0": measures.halting(known(), deepest=4, threshold=0.9)}}
    ways = {"soft token": {str(d): {"0": cell, "1": cell} for d in measures.SIZES["chains"]}}
    (tmp_path / "reasoning.json").write_text(json.dumps({"chains": {"ways": ways, "about": about}}))
    row = {"bytes": {"1": 10, "10": 100}, "computed": []}
    (tmp_path / "costs.json").write_text(json.dumps({"Mamba-2, write": row}))
    pictures.main(["--results", str(tmp_path), "--out", str(tmp_path)])
    assert {file.name for file in tmp_path.glob("*.png")} == {"thoughts-depth.png", "thoughts-bytes.png"}
    for table in tables({"chains": {"ways": ways, "about": about}}):
        Console(width=160).print(table)
    shown = capsys.readouterr().out
    assert "0.25" in shown and "1.00" in shown  # a fourth after one step, all after four


def test_thoughts_change_places_once(tiny: FrozenBackbone) -> None:
    def steps(at: int | None) -> list[torch.Tensor]:
        thought = SoftToken()
        thought.prepare(tiny)
        thinker = Thinker(tiny, thought if at is None else measures.Swapped(thought, at))
        prompt = torch.tensor([[0, 40, 50, 60], [0, 70, 80, 90]])
        with torch.no_grad():
            return [state.step.thought for state, _ in zip(thinker.states(prompt), range(4), strict=False)]

    plain, swapped = steps(None), steps(2)
    assert torch.equal(plain[1], swapped[1]) and torch.equal(plain[2], swapped[2].flip(0))


@pytest.mark.parametrize("lookups", [1, 2, 4])
def test_problems_in_sentences_have_the_answer_that_their_text_gives(lookups: int) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        item = plain_models.problem(lookups, generator)
        like = dict(re.findall(r"The (\w+) is like the (\w+)\.", item.prompt))
        colours = dict(re.findall(r"The (\w+) is (\w+)\.", item.prompt))
        asked = item.prompt.removesuffix(" is").split()[-1]
        for _ in range(lookups - 1):
            asked = like[asked]
        assert item.answer == f" {colours[asked]}" and set(item.choices) == {f" {c}" for c in colours.values()}
