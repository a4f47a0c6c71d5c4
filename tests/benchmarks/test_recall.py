"""The recall benchmark's own arithmetic: states mixed, answers rated, half-lives measured, checkpoints read."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from benchmarks.recall import __main__ as command
from benchmarks.recall import measures
from benchmarks.recall.decays import decays, measured_half_lives, picture
from benchmarks.recall.model import load
from benchmarks.recall.questions import CHOICES, KINDS, Question, questions
from benchmarks.recall.reading import CONV, KEYS, RECURRENT, rate, read
from benchmarks.recall.text import MEAN
from datamodules.text.facts import is_held_out_name
from gssr import checkpoint
from gssr.backbone import FrozenBackbone
from gssr.training.architectures import Nano
from gssr.training.initialisation import half_lives, initialise_mamba
from gssr.training.objectives import predictions
from tests.conftest import enliven


@pytest.fixture(scope="module")
def backbone(tiny_folder: Path) -> FrozenBackbone:
    made = enliven(FrozenBackbone(str(tiny_folder)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        initialise_mamba(made.model)
    return made


@pytest.fixture
def asked() -> list[Question]:
    """Two questions of different lengths, with answers of different lengths."""
    g = np.random.default_rng(0)

    def words(count: int) -> list[int]:
        return g.integers(2, 400, count).tolist()

    return [Question(words(n), words(n + 2), words(n - 3), [words(length) for length in (3, 1, 2, 3)]) for n in (9, 12)]


def by_hand(backbone: FrozenBackbone, question: Question, choice: int, cut: bool) -> tuple[float, bool]:
    """Log-probability of an answer in one call without a cache; ``cut``: attention sees nothing before the question."""
    before = [backbone.start_id, *question.facts]
    answer = question.answers[choice]
    row = torch.tensor([[*before, *question.question, *answer]])
    first = torch.where(torch.arange(row.shape[1]) < len(before), 0, len(before) if cut else 0)[None]
    logits, _ = predictions(backbone.model, {"tokens": row, "first": first})
    log_probs = F.log_softmax(logits[0, -len(answer) :].double(), -1)
    greedy = log_probs.argmax(-1).tolist() == answer
    return log_probs[range(len(answer)), answer].sum().item(), greedy


@torch.no_grad()
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "without keys"])
def test_answers_are_rated_as_in_one_call(backbone: FrozenBackbone, asked: list[Question], cut: bool) -> None:
    context = read(backbone, [question.facts for question in asked])
    scores, _ = rate(backbone, context.without_keys() if cut else context, asked)
    for row, question in enumerate(asked):
        wanted = [by_hand(backbone, question, choice, cut)[0] for choice in range(CHOICES)]
        assert scores[row].tolist() == pytest.approx(wanted, abs=2e-3)


@torch.no_grad()
def test_an_answer_is_written_when_it_is_the_greedy_one(backbone: FrozenBackbone, asked: list[Question]) -> None:
    context = read(backbone, [question.facts for question in asked])
    assert not rate(backbone, context, asked)[1].any()
    for question in asked:
        answer: list[int] = []
        for _ in range(3):
            row = torch.tensor([[backbone.start_id, *question.facts, *question.question, *answer]])
            answer.append(int(backbone.model(input_ids=row).logits[0, -1].argmax()))
        question.answers[0][:] = answer
    assert rate(backbone, context, asked)[1].all()


@torch.no_grad()
def test_parts_come_from_the_other_context(backbone: FrozenBackbone, asked: list[Question]) -> None:
    stated, other = (read(backbone, [getattr(q, part) for q in asked]) for part in ("facts", "another"))
    whole, nothing = rate(backbone, stated, asked)[0], rate(backbone, other, asked)[0]
    mixed = {parts: rate(backbone, other.with_parts(stated, parts), asked)[0] for parts in (RECURRENT, CONV, KEYS)}
    torch.testing.assert_close(rate(backbone, other.with_parts(stated, RECURRENT + CONV + KEYS), asked)[0], whole)
    torch.testing.assert_close(rate(backbone, other.with_parts(stated, ()), asked)[0], nothing)
    for scores in mixed.values():
        assert (scores - whole).abs().max() > 1e-4 and (scores - nothing).abs().max() > 1e-4


@pytest.mark.parametrize("name", KINDS)
def test_questions_have_held_out_names_and_four_answers(name: str, tiny: FrozenBackbone) -> None:
    spelled: dict[tuple[int, ...], str] = {}

    def spell(text: str) -> list[int]:
        ids = tiny.tokenize([text])[0]
        spelled[tuple(ids)] = text
        return ids

    kind = KINDS[name]
    made = list(questions(kind, 12, spell, seed=1))
    assert made == list(questions(kind, 12, spell, seed=1)) != list(questions(kind, 12, spell, seed=2))
    for question in made:
        facts, another, asks = (spelled[tuple(part)] for part in (question.facts, question.another, question.question))
        answers = [spelled[tuple(answer)].strip(" .") for answer in question.answers]
        assert len(set(answers)) == CHOICES
        assert answers[0].lower() in facts.lower() and not asks.endswith(answers[0])
        assert answers[-1].lower() in another.lower()
        names = [word for word in answers if word[0].isupper()]
        assert all(map(is_held_out_name, names))
        if kind.alike:
            assert all(answer.lower() in facts.lower() for answer in answers)


def test_other_text_has_the_length_that_was_asked_for() -> None:
    texts = [list(range(50)), list(range(100, 130))]
    found = measures.fillers(texts, 40, 20, seed=0)
    assert found == measures.fillers(texts, 40, 20, seed=0)
    assert all(len(part) == 40 and part == list(range(part[0], part[0] + 40)) and part[-1] < 50 for part in found)
    with pytest.raises(ValueError, match="no held-out text has 200 tokens"):
        measures.fillers(texts, 200, 1, seed=0)


def test_half_lives_on_text_count_what_the_input_adds(backbone: FrozenBackbone) -> None:
    rows = torch.randint(2, 400, (3, 40), generator=torch.Generator().manual_seed(0))
    found, bias = measured_half_lives(backbone, rows), half_lives(backbone.model)
    assert list(found) == list(bias) and any(not torch.allclose(found[n].float(), bias[n]) for n in found)
    # The first layer by hand: what stays of a state after the text is 2 ** (−tokens / half-life).
    layer, mixer = backbone.layers[0], backbone.layers[0].mamba
    given = layer.input_layernorm(backbone.embed(rows) * backbone.model.config.embedding_multiplier)
    dt = F.softplus(mixer.in_proj(given)[..., -len(mixer.dt_bias) :] + mixer.dt_bias)
    kept = (-(mixer.A_log.exp() * dt).sum((0, 1))).double()
    torch.testing.assert_close(-rows.numel() / found[next(iter(found))] * math.log(2), kept, rtol=1e-4, atol=1e-6)


def test_a_share_of_heads_is_long(backbone: FrozenBackbone) -> None:
    report = decays(backbone, torch.randint(2, 400, (2, 20), generator=torch.Generator().manual_seed(0)))
    lives = [x for part in report["at the bias"]["layers"].values() for x in part]
    assert report["at the bias"]["share above 100 tokens"] == pytest.approx(np.mean(np.array(lives) > 100))
    assert len(picture({"before": report, "after": report}).axes) == 2


def test_a_model_that_copies_recalls_everything(backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def copying(model: object, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = batch["tokens"]
        distance = (tokens.shape[1] - 1) // 2
        guess = tokens[:, 1:].roll(distance, 1) if "first" not in batch else torch.zeros_like(tokens[:, 1:])
        return F.one_hot(guess, 400).float(), tokens[:, 1:]

    monkeypatch.setattr(measures, "predictions", copying)
    ticks: list[None] = []
    report = measures.repeats(backbone, 26, 0, lambda: ticks.append(None))
    assert set(report) == {str(d) for d in measures.DISTANCES}
    assert all(x == {"whole": 1.0, "no keys of the first pass": 0.0} for x in report.values())
    assert len(ticks) == measures.steps(["repeats"], 1, 26)


def test_a_checkpoint_of_the_training_is_a_backbone(tiny_folder: Path, tmp_path: Path) -> None:
    model = Nano(400, 96, 4, state_size=48).build()
    saved = {
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "global_step": 7,
        "datamodule_hyper_parameters": {"tokenizer": str(tiny_folder)},
    }
    checkpoint.write(saved, tmp_path / "last.ckpt")
    backbone, steps = load(str(tmp_path / "last.ckpt"))
    assert steps == 7 and backbone.config.mamba_d_state == 48
    assert all(torch.equal(w, model.state_dict()[name]) for name, w in backbone.model.state_dict().items())
    with pytest.raises(ValueError, match="no tokenizer at .*; give the one of the training with --tokenizer"):
        load(str(tmp_path / "last.ckpt"), str(tmp_path))
    checkpoint.write({"state_dict": {"speaker.weight": torch.zeros(2)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="holds no nano"):
        load(str(tmp_path / "other.ckpt"))


def test_the_command_writes_a_report(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measures, "DISTANCES", (8,))
    monkeypatch.setattr(measures, "KINDS", {"one fact": KINDS["one fact"]})
    monkeypatch.setattr(measures, "TRANSPLANTED", ("one fact",))
    monkeypatch.setattr(measures, "BETWEEN", 8)
    text = "Strong winds over the coast, moving north at 9 knots. " * 8
    rows = [
        {"source": source, "split": split, "text": f"{source} {text}"}
        for source in ("python", "strikes", "storms")
        for split in ("train", "heldout")
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "corpus.parquet")
    given = ["--model", str(tiny_folder), "--corpus", str(tmp_path / "corpus.parquet"), "--out", str(tmp_path / "out")]
    command.main([*given, "--questions", "1", "--repeated", "1"])
    report = json.loads((tmp_path / "out" / "recall.json").read_text())
    assert set(report) == {"about", "half-lives", "facts", "repeats", "transplants", "bytes"}
    assert report["transplants"]["one fact"]["only recurrent"]["against another answer"] is not None
    for column in ("model", "xz -9"):
        by_source = report["bytes"][column]
        assert by_source[MEAN] == pytest.approx((by_source["python"] + by_source["strikes"]) / 2)
    assert (tmp_path / "out" / "half-lives.png").stat().st_size > 1000
    shown = capsys.readouterr().out
    assert (
        "half-lives of heads" in shown and "facts with held-out names" in shown and "states from the context" in shown
    )
    file = str(tmp_path / "out" / "recall.json")
    command.main(["--picture", file, file, "--out", str(tmp_path / "both")])
    assert (tmp_path / "both" / "half-lives.png").exists()
    with pytest.raises(SystemExit):
        command.main([*given[:3], str(tmp_path / "none.parquet")])
