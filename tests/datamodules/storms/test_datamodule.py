import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

import datamodules.storms.datamodule as module
from datamodules.storms.best_tracks import read_storms
from datamodules.storms.datamodule import GOALS_FILE, Storms, storm_record
from gssr.sequences.goals import GoalWriter, form_core

SAFFIR_SIMPSON = {
    "tropical depression": (10, 33),
    "tropical storm": (34, 63),
    "category 1": (64, 82),
    "category 2": (83, 95),
    "category 3": (96, 112),
    "category 4": (113, 136),
    "category 5": (137, 165),
}
HELD_OUT = {value + offset for value in (30, 55, 80, 105, 130) for offset in range(-2, 3)}


@pytest.fixture(scope="module")
def storms() -> Storms:
    data = Storms(batch_size=50)
    data.setup()
    return data


def sharing(storms: Storms, **arguments) -> Storms:
    """Another data module with the windows that are cut already."""
    data = Storms(**arguments)
    data._windows, data.scaler = storms._windows, storms.scaler
    return data


@pytest.fixture(scope="module")
def training_goals(storms) -> list:
    records = storms.train_records
    return [records[epoch, index] for epoch in range(2) for index in range(epoch, len(records), 5)]


def number_of(goal: str) -> int | None:
    found = re.findall(r"\b(\d+) (?:knots|kt)\b", goal)
    assert len(found) <= 1
    return int(found[0]) if found else None


def core(goal: str) -> str:
    """A goal without time phrases, punctuation, synonyms and the last digit of its number: one text a combination."""
    time = r"((\d+|[a-z]+) (hours|days|advisories))"
    goal = re.sub(rf"(?i)(within the next|over the next|after|in) {time}|{time} from now", "", goal)
    goal = re.sub(r"(?i)\b(maximum wind|sustained wind|peak wind|wind speed)\b", "wind", goal)
    goal = re.sub(r"\b(\d+) (knots|kt)\b", lambda m: f"{5 * round(int(m[1]) / 5)} kt", goal)
    goal = re.sub(r"(?i)a hurricane of (category \d)", r"a \1 hurricane", goal)
    return " ".join(re.findall(r"[\w']+", goal.lower()))


def test_splits_are_disjoint_by_storm_and_by_year(storms):
    splits = {name: getattr(storms, f"{name}_records").records for name in ("train", "val", "test")}
    assert {name: (len(w), len({r.series for r in w})) for name, w in splits.items()} == {
        "train": (6405, 305),
        "val": (1415, 70),
        "test": (2203, 106),
    }
    years = {name: [int(r.series.rsplit(" ", 1)[1]) for r in w] for name, w in splits.items()}
    assert max(years["train"]) < 2010 <= min(years["val"]) and max(years["val"]) < 2016 <= min(years["test"])
    steps = [{(r.series, t) for r in w for t in r.time.tolist()} for w in splits.values()]
    assert not (steps[0] & steps[1] or steps[0] & steps[2] or steps[1] & steps[2])


def test_training_through_validation_takes_its_storms():
    data = Storms(train_through="val")
    data.setup("fit")
    assert len(data.train_records) == 6405 + 1415
    assert max(int(r.series.rsplit(" ", 1)[1]) for r in data.train_records.records) == 2015


def test_windows_are_16_six_hourly_steps_of_the_track(storms):
    tracks = {s.series: s for s in read_storms()}
    for record in storms.test_records.records[::20] + storms.train_records.records[::50]:
        track = tracks[record.series]
        rows = np.searchsorted(track.time, record.time)
        assert np.array_equal(np.diff(rows), np.ones(15)) and np.all(np.diff(record.time) == 6)
        expected = np.stack([track.wind, track.pressure, track.latitude, track.longitude], axis=1)[rows]
        assert np.array_equal(record.value, expected.astype(np.float32))
        assert record.step_label == [track.status[row] for row in rows] and (record.goal_start, record.goal_step) == (
            7,
            15,
        )


def test_a_text_is_read_only_from_the_step_at_which_it_was_known():
    """Whatever a storm does after a step, the texts and values up to that step are what they were."""
    track = max(read_storms(), key=len)
    whole = storm_record(track)
    for last in (0, 3, len(track) // 2):
        later = np.arange(len(track)) > last
        changed = replace(
            track,
            latitude=np.where(later, 10.0, track.latitude),
            wind=np.where(later, 150.0, track.wind),
            pressure=np.where(later, 900.0, track.pressure),
            status=["hurricane" if after else own for after, own in zip(later, track.status, strict=True)],
        )
        other = storm_record(changed)
        assert other.text[: last + 1] == whole.text[: last + 1] and other.text[last + 1] != whole.text[last + 1]
        np.testing.assert_array_equal(other.value[: last + 1], whole.value[: last + 1])


def test_the_scaler_is_fitted_on_training_rows_counted_once(storms, monkeypatch):
    rows = {
        (r.series, t): v for r in storms.train_records.records for t, v in zip(r.time.tolist(), r.value, strict=True)
    }
    table = np.stack(list(rows.values())).astype(np.float64)
    for name, reference in (
        ("mean", table.mean(0)),
        ("std", table.std(0)),
        ("low", table.min(0)),
        ("high", table.max(0)),
    ):
        np.testing.assert_allclose(getattr(storms.scaler, name).numpy(), reference, rtol=1e-5)

    tracks = read_storms()[::6]

    def refitted(years: range) -> dict:
        """The scaler when the storms of some years are other ones."""
        stormier = [replace(s, wind=s.wind * 3, latitude=s.latitude + 40) if s.year in years else s for s in tracks]
        monkeypatch.setattr(module, "read_storms", lambda: stormier)
        data = Storms()
        data.setup("validate")
        return data.scaler.state_dict()

    state = refitted(range(0))
    assert all(torch.equal(state[name], buffer) for name, buffer in refitted(range(2010, 2030)).items())
    assert not torch.equal(state["mean"], refitted(range(2000, 2010))["mean"])


def test_the_configuration_has_the_variety_that_generalisation_needs():
    writer = GoalWriter.read(GOALS_FILE)
    assert len({form_core(form) for form in writer.numbers}) >= 60 and len(writer.classes) >= 20
    assert len({form_core(form) for form in writer.held_out_numbers}) >= 8
    trained = {form_core(form) for form in [*writer.numbers, *writer.classes]}
    assert not trained & {form_core(form) for form in [*writer.held_out_numbers, *writer.held_out_classes]}
    for direction in ("lower", "raise", "hold"):
        assert len(writer.numbers.fitting(direction)) > len(writer.numbers.any)
    assert [(c.low, c.high) for c in writer.class_bounds] == list(SAFFIR_SIMPSON.values())


def test_no_training_goal_holds_anything_held_out(storms, training_goals):
    assert len(training_goals) > 2000
    writer = storms.goal_writer
    held_out_forms = [
        re.compile(re.sub(r"\\{\w+\\}", ".*", re.escape(form.strip("."))).replace(r"\ .*", ".*"), re.IGNORECASE)
        for form in [*writer.held_out_numbers, *writer.held_out_classes]
    ]
    trained = set()
    for record in training_goals:
        assert number_of(record.goal) not in HELD_OUT
        assert not any(form.match(record.goal) for form in held_out_forms)
        trained.add(core(record.goal))
    for kind in ("combinations", "numbers", "forms"):
        tested = {core(r.goal) for r in storms.windows_evaluation("val", kind)}
        assert len(tested) > 100 and not trained & tested
    assert len(trained) > 1000


def test_goals_tell_what_happened(storms, training_goals):
    classes = 0
    for record, jitter in [(r, 2) for r in training_goals] + [(r, 0) for r in storms.val_records]:
        wind, number = record.value[record.goal_step, 0], number_of(record.goal)
        low, high = record.goal_low[0], record.goal_high[0]
        if number is None:
            classes += jitter == 2
            name = next(name for name in SAFFIR_SIMPSON if name in record.goal.lower())
            assert (low, high) == SAFFIR_SIMPSON[name] and low <= wind <= high
        else:
            assert low == high == number and abs(number - wind) <= jitter
            start = record.value[record.goal_start, 0]
            if re.match(r"(Weaken|Fade|Drop|Fall|Reduce)\b", record.goal):
                assert number < start
            if re.match(r"(Strengthen|Intensify|Climb|Raise)\b", record.goal):
                assert number > start
        assert np.isnan(record.goal_low[1:]).all()
        assert not re.search(r"\b(24|36|72) hours|one day|three|[0-79] advisories", record.goal)
    assert 0.27 < classes / len(training_goals) < 0.37


def test_evaluation_goals_are_of_their_kind_and_stay_the_same(storms):
    counts = {}
    for kind in ("combinations", "numbers", "forms"):
        records = storms.windows_evaluation("val", kind)
        again = sharing(storms, batch_size=3).windows_evaluation("val", kind)
        assert [r.goal for r in records] == [r.goal for r in again]
        counts[kind] = len(records)
        for record in records:
            number = number_of(record.goal)
            assert number is not None if kind == "numbers" else True
            assert number is None or (number in HELD_OUT) == (kind == "numbers")
    endings = [r.value[15, 0] for r in storms.val_records.records]
    assert counts == {"combinations": 1415, "numbers": sum(w in (30, 55, 80, 105, 130) for w in endings), "forms": 1415}
    forms = storms.windows_evaluation("val", "forms")
    assert any(r.goal.startswith("Suppose the anemometer") for r in forms)
    assert not any(re.match("(Be|Become|Reach|Goal)", r.goal) for r in forms)


def test_a_held_out_combination_is_one_by_an_independent_count(storms):
    goals = [r.goal for r in storms.windows_evaluation("val", "combinations")]
    weaken = {number_of(goal) for goal in goals if re.fullmatch(r"Weaken to \d+ (knots|kt)\b.*", goal)}
    key = "weaken to {value} {unit}"
    assert weaken and all(zlib.crc32(f"{key}|{number}".encode()) % 4 == 0 for number in weaken)


def test_a_typed_goal_replaces_every_goal_of_prediction():
    goal = "Become a category 3 hurricane in 48 hours"
    data = Storms(goal=f"{goal} ", goal_step=11, storm="ian 2022", batch_size=8)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert {typed for batch in batches for typed in batch.goal} == {goal}
    assert {name for batch in batches for name in batch.series} == {"Ian 2022"}
    for batch in batches:
        assert batch.goal_low.isnan().all() and batch.goal_high.isnan().all()
        assert (batch.goal_step == 11).all() and (batch.goal_start == 7).all() and batch.value_mask.all()


def test_texts_are_those_of_the_splits_set_up(storms):
    data = sharing(storms)
    data.setup("fit")
    fit = set(data.texts())
    assert len(fit) == len(data.texts()) and fit < set(storms.texts())
    assert all(t in fit for r in data.train_records.records[::40] + data.val_records.records[::40] for t in r.text)


def test_validation_goals_are_held_out_combinations_always(storms):
    assert [r.goal for r in storms.val_records] == [r.goal for r in storms.windows_evaluation("val", "combinations")]
    batch = next(iter(storms.val_dataloader()))
    assert batch.goal == [storms.val_records[i].goal for i in range(50)] and batch.value.shape == (50, 16, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_resumes_in_mid_epoch_and_leaves_global_random_state_alone(storms, workers):
    def loader():
        data = Storms(batch_size=400, stride=4, num_workers=workers, seed=3)
        data._windows, data.scaler = {k: v[::4] for k, v in storms._windows.items()}, storms.scaler
        data.setup("fit")
        return data.train_dataloader()

    before = torch.get_rng_state()
    first = loader()
    iterator = iter(first)
    next(iterator), next(iterator)
    state = first.state_dict()
    rest = list(iterator)
    second = loader()
    second.load_state_dict(state)
    resumed = list(second)
    assert len(resumed) == len(rest) == 3
    for a, b in zip(rest, resumed, strict=True):
        assert (
            a.goal == b.goal and a.series == b.series and torch.equal(a.value, b.value) and torch.equal(a.time, b.time)
        )
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"stride": -1}, "stride is -1"),
        ({"context": 0}, "context is 0"),
        ({"goal_step": 16}, "from step 8 to 15"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"goal": "  "}, "goal is empty"),
        ({"class_share": 2.0}, "class_share"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        Storms(**arguments)


def test_late_errors_say_what_to_do(storms):
    with pytest.raises(ValueError, match="'Ian 2022'"):
        sharing(storms, storm="Ivan 2022").setup("predict")
    with pytest.raises(ValueError, match="shorter context"):
        Storms(context=500).setup("fit")
    with pytest.raises(ValueError, match="split 'valid'"):
        storms.windows_evaluation("valid", "forms")
    with pytest.raises(ValueError, match="'words'"):
        storms.windows_evaluation("val", "words")
    with pytest.raises(RuntimeError, match="setup"):
        Storms().train_dataloader()
