import re
import zlib

import numpy as np
import pytest

from gssr.sequences.goals import GoalWriter, form_core, tidy, time_spans
from gssr.sequences.record import Record


def writer(**changes) -> GoalWriter:
    settings = {
        "numbers": {
            "any": [
                "Be at {value} {unit} {when}",
                "Aim for {value} {unit} {when}.",
                "{value} {unit} for {span}",
                "X {value}",
            ],
            "lower": ["Weaken to {value} {unit} {when}", "Drop to {value}"],
            "raise": ["Strengthen to {value} {unit} {when}", "Climb to {value}"],
            "hold": ["Stay at {value}", "Keep {value} {unit} {when}"],
        },
        "classes": {"any": [f"Form {n} {{class}} {{when}}" for n in range(20)]},
        "held_out_numbers": {"any": ["Suppose {value} {unit} {when}"]},
        "held_out_classes": {"any": ["Suppose {class} {when}"]},
        "class_bounds": [
            {"key": "calm", "low": 0, "high": 33, "names": ["a calm"]},
            {"key": "storm", "low": 34, "high": 99, "names": ["a storm", "some storm"]},
        ],
        "words": {"unit": ["knots", "kt"]},
        "held_out_values": [30, 60],
    }
    return GoalWriter(**(settings | changes))


def draws(goal_writer: GoalWriter, mode: str, count: int = 600, start: float = 50.0):
    generator = np.random.default_rng(3)
    for _ in range(count):
        target = float(generator.integers(10, 100))
        yield target, goal_writer.sentence(start, target, 48.0, 8, mode, generator)


@pytest.mark.parametrize("mode", ["train", "combinations", "numbers", "forms", "all"])
def test_sentence_and_bounds_say_the_same(mode):
    goal_writer = writer()
    seen = set()
    for target, goal in draws(goal_writer, mode):
        if goal is None:
            assert mode == "numbers"
            continue
        numbers = re.findall(r"\b(\d+)(?= kn| kt|$)", goal.text)
        if goal.low == goal.high:
            assert str(int(goal.low)) in numbers and goal.low == int(goal.low)
            assert abs(goal.low - target) <= (2 if mode in ("train", "all") else 0)
            seen.add("number")
        else:
            assert goal.low <= target <= goal.high
            assert ("calm" if target < 34 else "storm") in goal.text
            seen.add("class")
        assert "{" not in goal.text and "  " not in goal.text and goal.text == goal.text.strip()
    assert seen == ({"number"} if mode == "numbers" else {"number", "class"})


def test_modes_hold_out_numbers_forms_and_combinations():
    goal_writer = writer()

    def held_out(form: str, key: str) -> bool:
        words = " ".join(re.sub(r"[^\w{} ]", "", form.replace("{when}", "").lower()).split())
        return zlib.crc32(f"{words}|{key}".encode()) % 4 == 0

    forbidden = {30, 60} | {v + d for v in (30, 60) for d in (-2, -1, 1, 2)}
    for mode in ("train", "combinations", "numbers", "forms"):
        goals = [goal for _, goal in draws(goal_writer, mode) if goal is not None]
        assert len(goals) > 40
        for goal in goals:
            number = goal.low == goal.high
            key = str(5 * round(goal.low / 5)) if number else ("calm" if goal.low == 0 else "storm")
            assert goal.key == key
            assert ("Suppose" in goal.text) == (mode == "forms") == goal.form.startswith("Suppose")
            if number:
                assert (goal.low in forbidden) == (mode == "numbers")
            if mode in ("train", "combinations"):
                assert (
                    held_out(goal.form, key)
                    == (mode == "combinations")
                    == goal_writer.is_held_out_combination(goal.form, key)
                )


def test_windows_that_end_at_a_held_out_number_get_a_class():
    goal_writer, generator = writer(class_share=0.0), np.random.default_rng(0)
    for mode in ("train", "combinations", "forms"):
        for target in (58.0, 60.0, 62.0):
            goal = goal_writer.sentence(50.0, target, 48.0, 8, mode, generator)
            assert (goal.low, goal.high) == (34, 99)


def test_jitter_stays_near_and_reaches_every_integer():
    generator = np.random.default_rng(0)
    texts = [writer(class_share=0.0).sentence(50.0, 45.0, 48.0, 8, "train", generator) for _ in range(200)]
    assert {goal.low for goal in texts} == {43, 44, 45, 46, 47}
    assert {
        writer(class_share=0.0, jitter=0).sentence(50.0, 45.0, 48, 8, "train", generator).low for _ in range(50)
    } == {45}


@pytest.mark.parametrize(
    ("start", "words"), [(80.0, "Weaken|Drop"), (10.0, "Strengthen|Climb"), (45.0, "Stay|Keep"), (np.nan, "")]
)
def test_verbs_follow_the_direction(start, words):
    generator = np.random.default_rng(0)
    texts = [
        writer(class_share=0.0, jitter=0).sentence(start, 45.0, 48.0, 8, "all", generator).text for _ in range(200)
    ]
    directed = {text.split()[0] for text in texts} & {"Weaken", "Drop", "Strengthen", "Climb", "Stay", "Keep"}
    assert directed == set(filter(None, words.split("|")))


def test_class_share_is_the_share_of_classes():
    generator = np.random.default_rng(0)
    for share in (0.0, 0.3, 1.0):
        goals = [writer(class_share=share).sentence(50.0, 45.0, 48.0, 8, "train", generator) for _ in range(1000)]
        assert abs(np.mean([goal.low != goal.high for goal in goals]) - share) < 0.04


def test_write_sets_the_bounds_of_its_dimension_alone_and_reads_the_goal_step():
    value = np.full((6, 3), 20.0, np.float32)
    value[4, 1] = 45.0
    record = Record("s", np.arange(6) * 6.0, value, [None] * 6, goal_start=1, goal_step=4)
    goal_writer = writer(dimension=1, class_share=0.0, step_name="advisories")
    texts = set()
    for seed in range(100):
        written = goal_writer.write(record, "combinations", np.random.default_rng(seed))
        assert written.goal_low.tolist()[1] == written.goal_high.tolist()[1] == 45
        assert np.isnan(written.goal_low[[0, 2]]).all() and np.isnan(written.goal_high[[0, 2]]).all()
        texts.add(written.goal)
    said = " ".join(texts)
    assert "18 hours" in said and "three advisories" in said and "24" not in said
    assert record.goal is None
    value[4, 1] = np.nan
    assert goal_writer.write(record, "train", np.random.default_rng(0)).goal is None


def test_time_spans():
    assert time_spans(48) == ["48 hours", "2 days", "two days"]
    assert time_spans(6) == ["6 hours"] and time_spans(1) == ["1 hour"]
    assert time_spans(36) == ["36 hours", "one and a half days"]
    assert "one week" in time_spans(168) and "2 weeks" in time_spans(336)
    assert time_spans(2.5) == ["2.5 hours"]


def test_tidy_and_form_core():
    assert tidy(", be at 3 kt .") == "Be at 3 kt."
    assert (
        tidy("35 kt, .") == "35 kt."
        and tidy(": 35 kt") == "35 kt"
        and tidy("Ideally, 3, whatever.") == "Ideally, 3, whatever."
    )
    assert form_core("{when}, be at {value}.") == form_core("Be at {value} {when}") != form_core("Be {value} {when}")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"numbers": {"any": ["Be there {when}"]}}, "lacks {value}"),
        ({"classes": {"any": ["Be {value}"]}}, "lacks {class}"),
        ({"numbers": {"any": ["Be at {value} {speed}"]}}, "speed"),
        ({"numbers": {"up": ["Be at {value}"]}}, "directions"),
        ({"held_out_numbers": {"any": ["X {value}"]}}, "both trained and held out"),
        ({"class_bounds": []}, "class_bounds"),
        ({"class_bounds": [{"key": "b", "low": 5, "high": 3}]}, "must not exceed"),
        ({"jitter": -1}, "jitter"),
        ({"class_share": 1.5}, "class_share"),
    ],
)
def test_configurations_that_cannot_work_are_refused(changes, word):
    with pytest.raises(ValueError, match=re.escape(word)):
        writer(**changes)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'trian'"):
        writer().sentence(1.0, 2.0, 48.0, 8, "trian", np.random.default_rng(0))
