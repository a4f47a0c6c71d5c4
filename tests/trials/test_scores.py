"""Scores, going on with a training, and calls from Python, after symptoms that users of other projects reported."""

import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from callbacks import CsvLog, HonourOptimizerOptions, PlanRollouts, PredictionWriter
from callbacks import TestReport as Reporting  # by its own name pytest would take it for a test
from datamodules.table_sequences import TableSequences
from gssr.commands.main import main
from gssr.network import GoalNetwork
from gssr.runs.folders import find_checkpoint, run_argument, run_path
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from tests.networks import make_network

pytestmark = [
    pytest.mark.trial,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
C, H, ROWS = 4, 3, 160


def network(folder: Path, **options: Any) -> GoalNetwork:
    sizes = {"latent_dim": 4, "hidden_dim": 16, "text_layers": (1,), "goal_layer": 1, "warmup_steps": 1}
    return make_network(folder, **sizes | options)


def trainer(**options: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(accelerator="cpu", **quiet | options)


def table(folder: Path, series: int = 1, text_every: int = 0, goals: str | None = None, gaps: bool = False) -> Path:
    """A table of days with values y and z, few texts, and a file of goals in which few days have one."""
    g, parts = np.random.default_rng(0), []
    for name in range(series):
        part = pd.DataFrame(
            {"date": pd.date_range("2024-01-01", periods=ROWS).strftime("%Y-%m-%d"), "name": f"s{name}"}
        )
        part["y"], part["z"] = g.normal(size=(2, ROWS)).cumsum(1).round(2)
        part["txt"] = [
            "Near 3 knots" if text_every and i % text_every == text_every // 2 else None for i in range(ROWS)
        ]
        if gaps:
            part.loc[g.random(ROWS) < 0.4, "z"] = np.nan
        parts.append(part)
    pd.concat(parts).to_csv(folder / "t.csv", index=False)
    if goals is not None:
        every, low, high = {"sparse": (9, 0.0, 2.0), "unbounded": (9, np.nan, np.nan)}[goals]
        days = pd.date_range("2024-01-01", periods=ROWS)[4::every].strftime("%Y-%m-%d")
        pd.DataFrame({"date": days, "goal": "Be between 0 and 2", "low": low, "high": high}).to_csv(
            folder / "goals.csv", index=False
        )
    return folder / "t.csv"


def data(file: Path, **options: Any) -> TableSequences:
    columns = {"time_column": "date", "value_columns": ["y", "z"], "context": C, "horizon": H, "goals": None}
    return TableSequences(str(file), **columns | options)


# msminhas93/DeepLabv3FineTuning#20, datamol-io/graphium#412, Lightning#2924: means over batches of unequal content
TABLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "few texts": ({"text_every": 9}, {"text_column": "txt"}),
    "a text every day": ({"text_every": 1}, {"text_column": "txt"}),
    "no text at all": ({}, {}),
    "few goals": ({"goals": "sparse"}, {"goals": "goals.csv"}),
    "few goals and texts": ({"goals": "sparse", "text_every": 9}, {"goals": "goals.csv", "text_column": "txt"}),
    "few goals without bounds": ({"goals": "unbounded"}, {"goals": "goals.csv"}),
    "goals of every window": ({}, {"goals": "hindsight"}),
    "borrowed goals": ({"series": 3}, {"goals": "hindsight", "series_column": "name"}),
    "few values": ({"gaps": True}, {}),
    "goals of a part, few values": ({"goals": "sparse", "gaps": True}, {"goals": "goals.csv"}),
}


def validated(folder: Path, file: Path, model: GoalNetwork, **options: Any) -> dict[str, float]:
    if options.get("goals") == "goals.csv":
        options["goals"] = str(folder / "goals.csv")
    return trainer().validate(model, data(file, **options), verbose=False)[0]


@pytest.mark.parametrize("kind", TABLES)
def test_no_score_depends_on_the_batch_size(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    made, options = TABLES[kind]
    file = table(tmp_path, **made)
    model = network(tiny_folder, text_steps=2)
    found = [validated(tmp_path, file, model, batch_size=size, **options) for size in (64, 8, 1)]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert other == pytest.approx(found[0], rel=1e-5, abs=1e-5)
    measured = {name.removeprefix("val/") for name in found[0]}
    assert ("loss_text" in measured) == bool(made.get("text_every"))
    assert ("loss_goal" in measured) == ("goals" in kind and "without" not in kind)
    assert ("hit_borrowed" in measured) == (kind == "borrowed goals")
    assert all(value > 0 for name, value in found[0].items() if "loss_text" in name or name.endswith("mae"))


@pytest.mark.parametrize("limit", [1, 3])
def test_a_part_of_the_validation_is_the_mean_over_that_part(limit: int, tiny_folder: Path, tmp_path: Path) -> None:
    file, model = table(tmp_path, text_every=9), network(tiny_folder)
    first = data(file, text_column="txt", batch_size=4)
    first.setup("validate")
    model_scores = []
    for size, count in ((4, limit), (limit * 4, 1)):
        part = data(file, text_column="txt", batch_size=size)
        model_scores += trainer(limit_val_batches=count).validate(model, part, verbose=False)
    assert model_scores[0] == pytest.approx(model_scores[1], rel=1e-5, abs=1e-5)


# the same reports, in training: a batch without texts or goals showed a loss of 0
@pytest.mark.parametrize("kind", ["few texts", "few goals", "few goals without bounds", "few goals and texts"])
def test_training_logs_nothing_for_what_a_batch_does_not_have(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    made, options = TABLES[kind]
    file = table(tmp_path, **made)
    if "goals" in options:
        options = options | {"goals": str(tmp_path / "goals.csv")}
    seen: list[tuple[bool, bool]] = []

    class Watched(GoalNetwork):
        def training_step(self, batch: Any, index: int) -> Any:
            told = any(
                g is not None and not torch.isnan(b).all() for g, b in zip(batch.goal, batch.goal_low, strict=True)
            )
            seen.append((any(text is not None for texts in batch.text for text in texts), told))
            return super().training_step(batch, index)

    run = trainer(max_steps=12, logger=CsvLog(tmp_path), log_every_n_steps=1, limit_val_batches=0)
    run.fit(network(tiny_folder, kind=Watched), datamodule=data(file, batch_size=1, **options))
    logged = pd.read_csv(tmp_path / "metrics.csv")
    assert len(logged) == len(seen) == 12
    for column, there in (("train/loss_text", [t for t, _ in seen]), ("train/loss_goal", [g for _, g in seen])):
        values = logged[column] if column in logged else pd.Series(math.nan, range(12))
        assert values.notna().tolist() == there, column
    assert logged["train/loss"].notna().all()


def drawn(folder: Path) -> list[str]:
    reader = EventAccumulator(str(folder), size_guidance={"images": 0})
    reader.Reload()
    return reader.Tags()["images"]


# AdityaLab/Time-MMD#2 and #3: goals or labels that only a part of the data has
@pytest.mark.parametrize(
    "kind", ["none in validation", "in no window at all", "of a kind that is written nowhere", "some"]
)
def test_sparse_goals_end_no_run_and_windows_are_drawn_without_them(
    kind: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = table(tmp_path)
    days = {"none in validation": ["2024-01-10"], "in no window at all": ["2024-06-08"], "some": ["2024-05-01"]}
    dates = days.get(kind, ["2024-05-01"])
    pd.DataFrame({"date": dates, "goal": "Be at 1", "low": 0.9, "high": 1.1}).to_csv(tmp_path / "g.csv", index=False)
    source = data(file, goals=str(tmp_path / "g.csv"), batch_size=16)
    if kind == "of no such kind":
        monkeypatch.setattr(source, "windows_evaluation", lambda split, goals: [])
    logger = TensorBoardLogger(str(tmp_path / "board"), "", "")
    pictures = PlanRollouts(windows=2, samples=4, texts=False)
    run = trainer(max_epochs=2, limit_train_batches=1, logger=logger, callbacks=[pictures])
    run.fit(network(tiny_folder), datamodule=source)
    assert run.global_step == 2
    assert drawn(tmp_path / "board") == ["plan/0", "plan/1"]


class NoPictures(TableSequences):
    """Raises what a data module of somebody's own may raise."""

    error: Exception = ValueError("windows of these data have no goals of that kind")

    def windows_evaluation(self, split: str, goals: str = "combinations") -> Any:
        self.asked = getattr(self, "asked", 0) + 1
        raise self.error


# the same reports, and ultralytics-like ones of plots that end a training: what cannot be drawn is told once
@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such goals"),
        RuntimeError("out of memory"),
        AssertionError(),
        KeyError("val"),
        NotImplementedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_picture_that_cannot_be_drawn_is_told_once_and_training_goes_on(
    error: Exception, tiny_folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    source = NoPictures(str(table(tmp_path)), time_column="date", value_columns=["y"], context=C, horizon=H)
    source.error = error
    logger = TensorBoardLogger(str(tmp_path / "board"), "", "")
    run = trainer(max_epochs=3, limit_train_batches=1, logger=logger, callbacks=[PlanRollouts(samples=4)])
    run.fit(network(tiny_folder), datamodule=source)
    assert run.global_step == 3 and source.asked == 1
    assert sum("pictures of plans are not drawn" in str(warning.message) for warning in recwarn) == 1


@pytest.mark.parametrize("kind", ["few goals", "few goals without bounds", "few values", "no text at all"])
def test_a_report_needs_no_goals(
    kind: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, options = TABLES[kind]
    source = data(
        table(tmp_path, **made), **options | ({"goals": str(tmp_path / "goals.csv")} if "goals" in options else {})
    )
    model = network(tiny_folder)
    run = trainer(callbacks=[Reporting(samples=4, quick=True)], default_root_dir=tmp_path / "out")
    run.test(model, datamodule=source, verbose=False)
    assert "mean absolute error" in capsys.readouterr().out
    assert list((tmp_path / "out").glob("*_test.md"))


def test_predictions_are_written_where_their_charts_cannot_be_drawn(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise ValueError("a font is missing")

    monkeypatch.setattr("gssr.evaluation.predictions.fan_chart_of", broken)
    run = trainer(callbacks=[PredictionWriter()], default_root_dir=tmp_path / "out")
    model = network(tiny_folder)
    model.backbone.generate = lambda prefix, *rest: ["a text"] * len(prefix)
    with pytest.warns(match="charts of predictions are not drawn: a font is missing"):
        run.predict(model, datamodule=data(table(tmp_path)), return_predictions=False)
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 1


class Rates(Callback):
    """Keeps the rate of each training step, as the optimizer uses it."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.seen[trainer.global_step] = optimizer.param_groups[0]["lr"]


def rates(folder: Path, backbone: Path, steps: int, resume: bool, changed: bool | None, **options: Any) -> Rates:
    """Train, from the folder's checkpoint if asked; ``changed`` None leaves out what honours new options."""
    kept, last = Rates(), folder / "last.ckpt"
    callbacks = [kept] if changed is None else [kept, HonourOptimizerOptions(changed)]
    source = data(folder / "t.csv", batch_size=16)
    run = trainer(max_epochs=-1, max_steps=steps, limit_val_batches=0, callbacks=callbacks)
    run.fit(network(backbone, **options), datamodule=source, ckpt_path=last if resume else None, weights_only=True)
    run.save_checkpoint(last)
    return kept


def expected(step: int, total: int, lr: float = 3e-3, warmup: int = 1) -> float:
    return lr * min(1, (step + 1) / max(1, warmup)) * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1, step / total))))


# mapbox/robosat#169, Lightning-AI/pytorch-lightning#12118, torch-points3d#630: rate or length changed on resume
@pytest.mark.parametrize(
    ("steps", "changed"),
    [
        (7, {}),
        (9, {"lr": 1e-4}),
        (9, {"warmup_steps": 20}),
        (8, {"lr": 1e-4, "warmup_steps": 0}),
        (9, {"lr": 0.0}),
        (9, {"weight_decay": 0.3}),
    ],
    ids=["longer", "longer, rate", "longer, warm-up", "all", "rate of 0", "longer, decay"],
)
def test_the_first_rate_after_a_resume_is_that_of_the_new_schedule(
    steps: int, changed: dict[str, float], tiny_folder: Path, tmp_path: Path
) -> None:
    table(tmp_path)
    rates(tmp_path, tiny_folder, 4, False, None)
    again = rates(tmp_path, tiny_folder, steps, True, bool(changed), **changed)
    schedule = {"lr": changed.get("lr", 3e-3), "warmup": int(changed.get("warmup_steps", 1))}
    assert again.seen == pytest.approx({step: expected(step, steps, **schedule) for step in range(4, steps)})


def test_a_rate_of_0_can_be_raised(tiny_folder: Path, tmp_path: Path) -> None:
    table(tmp_path)
    rates(tmp_path, tiny_folder, 2, False, None, lr=0.0)
    again = rates(tmp_path, tiny_folder, 4, True, True)
    assert again.seen == pytest.approx({step: expected(step, 4) for step in (2, 3)})


def test_a_resume_without_changes_has_the_same_rates_to_the_last_bit(tiny_folder: Path, tmp_path: Path) -> None:
    table(tmp_path)
    whole = rates(tmp_path, tiny_folder, 6, False, None)
    # The schedule is that of 6 steps in both parts, because an epoch limits them.
    options = {"max_steps": 6, "max_epochs": -1, "limit_val_batches": 0}

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            trainer.should_stop = trainer.global_step == 3

    first = trainer(callbacks=[Stop()], **options)
    first.fit(network(tiny_folder), datamodule=data(tmp_path / "t.csv", batch_size=16))
    first.save_checkpoint(tmp_path / "last.ckpt")
    again = rates(tmp_path, tiny_folder, 6, True, False)
    assert again.seen == {step: rate for step, rate in whole.seen.items() if step >= 3}


@pytest.fixture
def trained(tiny_folder: Path, tmp_path: Path) -> GoalNetwork:
    """A network that was trained for a step, as its checkpoint gives it."""
    table(tmp_path, text_every=9)
    run = trainer(max_steps=1, limit_val_batches=0)
    run.fit(network(tiny_folder), datamodule=data(tmp_path / "t.csv", text_column="txt"))
    run.save_checkpoint(tmp_path / "runs" / "base" / "checkpoints" / "best.ckpt")
    (tmp_path / "runs" / "base" / "config.yaml").write_text("threads: 1\n")
    return GoalNetwork.load_from_checkpoint(tmp_path / "runs" / "base" / "checkpoints" / "best.ckpt")


def loader(tmp_path: Path, **options: Any) -> DataLoader[Any]:
    source = data(tmp_path / "t.csv", text_column="txt")
    source.setup(None)
    records = [source.val_records[i] for i in range(6)]
    return DataLoader(records, **{"collate_fn": collate, "batch_size": 4} | options)


# Lightning-AI/pytorch-lightning#10275: trainer.datamodule is None
@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict", "validate a list", "fit with validation"])
def test_a_trained_network_takes_plain_loaders(stage: str, trained: GoalNetwork, tmp_path: Path) -> None:
    run, batches = trainer(max_steps=2, logger=False), loader(tmp_path)
    trained.backbone.generate = lambda prefix, *rest: ["a text"] * len(prefix)
    match stage:
        case "fit":
            run.fit(trained, batches)
            assert run.global_step == 2
        case "fit with validation":
            run.fit(trained, batches, loader(tmp_path))
            assert run.callback_metrics["val/open_loop_mae"] > 0
        case "validate" | "test":
            (scores,) = getattr(run, stage)(trained, batches, verbose=False)
            assert scores[f"{'val' if stage == 'validate' else stage}/open_loop_mae"] > 0
        case "validate a list":
            (scores,) = run.validate(trained, [batches], verbose=False)
            whole, (one,) = scores, trainer().validate(trained, loader(tmp_path, batch_size=1), verbose=False)
            assert one == pytest.approx(whole, rel=1e-5, abs=1e-5)
        case "predict":
            assert len(run.predict(trained, batches)) == 2


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_a_new_network_asks_for_a_data_module(
    stage: str, trained: GoalNetwork, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="takes the names and the scale of its values from a data module"):
        getattr(trainer(max_steps=1), stage)(network(tiny_folder), loader(tmp_path))
    if stage == "fit":
        named = network(tiny_folder, names=["y", "z"])
        with pytest.raises(ValueError, match="the scale of its values"):
            trainer(max_steps=1).fit(named, loader(tmp_path))


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        ("tensors", {"collate_fn": None}, "gave a list; expected batches of .*collate"),
        ("dicts", {"collate_fn": list}, "gave a list; expected batches of"),
        ("one value", {}, "gave 1 values a step; this network has 2: y, z"),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "predict"])
def test_batches_that_are_none_are_refused_in_a_sentence(
    items: str, options: dict[str, Any], message: str, stage: str, trained: GoalNetwork, tmp_path: Path
) -> None:
    records = {
        "tensors": TensorDataset(torch.zeros(4, 7, 2)),
        "dicts": [{"value": 1.0}] * 4,
        "one value": [Record("s", np.arange(7.0), np.zeros((7, 1)), [None] * 7, goal_start=3)] * 4,
    }[items]
    with pytest.raises(ValueError, match=message):
        getattr(trainer(max_steps=1), stage)(trained, DataLoader(records, **{"collate_fn": collate} | options))


@pytest.mark.parametrize("kind", [PlanRollouts, Reporting, PredictionWriter])
def test_callbacks_do_without_a_data_module(
    kind: Any, trained: GoalNetwork, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    trained.backbone.generate = lambda prefix, *rest: ["a text"] * len(prefix)
    logger = TensorBoardLogger(str(tmp_path / "board"), "", "")
    run = trainer(max_epochs=2, callbacks=[kind()], logger=logger, default_root_dir=tmp_path / "out")
    match kind.__name__:
        case "PlanRollouts":
            run.fit(trained, loader(tmp_path), loader(tmp_path))
        case "TestReport":
            run.test(trained, loader(tmp_path), verbose=False)
        case "PredictionWriter":
            run.predict(trained, loader(tmp_path), return_predictions=False)
            assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 6
    said = sum("this trainer has none" in str(warning.message) for warning in recwarn)
    assert said == (kind is not PredictionWriter)


# as with clones of a hub beside its cache: one name for a run and an export, and names that a shell would split
NAMES = ["plain", "two words", "it's", "$HOME", "a;b", "-x", "été"]


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_commands_mean_the_run_that_was_pulled(
    name: str, trained: GoalNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["push", "base", "--", name] if name.startswith("-") else ["push", "base", name])
    main(["pull", "--", name] if name.startswith("-") else ["pull", name])
    printed = [line.split("python ", 1)[1] for line in capsys.readouterr().out.splitlines() if "train.py" in line]
    assert len(printed) == 2
    for command in printed:
        *_, option, run = shlex.split(command)
        assert option == "--run" and not run.startswith("-")
        assert find_checkpoint("best", run).checkpoint == Path("runs", name, "checkpoints", "best.ckpt")


@pytest.mark.parametrize(
    ("made", "means"),
    [
        (["x/config.yaml", "runs/x/checkpoints/best.ckpt"], "runs/x"),
        (["x/checkpoints/best.ckpt"], "x"),
        (["x/config.yaml"], "runs/x"),
        (["x/checkpoints/best.ckpt", "runs/x/checkpoints/best.ckpt"], "runs/x"),
        (["x/checkpoints/best.ckpt", "runs/x/config.yaml"], "x"),
        ([], "runs/x"),
    ],
)
def test_a_folder_is_a_run_only_with_checkpoints(
    made: list[str], means: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in made:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert run_path("x") == Path(means)
    for run in (Path("x"), Path("runs/x"), tmp_path / "x"):
        (word,) = shlex.split(run_argument(run))
        assert run_path(word).absolute() == run.absolute()
