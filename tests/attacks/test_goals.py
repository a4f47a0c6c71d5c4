"""Goal templates that are damaged or hostile: each is one paragraph that names the argument."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.sequence_data import SequenceData
from datamodules.table_sequences import TableSequences
from datamodules.tables.goals import check_typed_goal, goal_writer
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record
from gssr.sequences.templates import read_templates

pytestmark = pytest.mark.attack

FORMS = {"any": ["Be at {value} {when}"]}
GOOD = {"numbers": FORMS}
CALM = {"key": "calm", "low": 0, "high": 5}


def forms(*texts: Any) -> dict[str, Any]:
    return {"numbers": {"any": list(texts)}}


def classes(*entries: Any) -> dict[str, Any]:
    return GOOD | {"classes": {"any": ["Be {class}"]}, "class_bounds": list(entries)}


# name: templates, and what the message says
TEMPLATES: dict[str, tuple[Any, str]] = {
    "no mapping": (["Be at {value}"], "goal templates are .*expected a mapping"),
    "nothing": (None, "goal templates are None"),
    "no forms": ({}, "lack the forms `numbers`"),
    "an unknown key": (GOOD | {"jiter": 2}, "unknown keys .'jiter'.*did you mean 'jitter'"),
    "a key of a million letters": (GOOD | {"j" * 1_000_000: 2}, "unknown keys"),
    "a key that is a number": (GOOD | {7: 2}, "unknown keys .7."),
    "a private key": (GOOD | {"_memory": {}}, "unknown keys .'_memory'"),
    "a key of Python's": (GOOD | {"__class__": "x"}, "unknown keys .'__class__'"),
    # numbers
    "jitter: a fraction": (GOOD | {"jitter": 2.5}, "jitter is 2.5; expected a whole number from 0 to 1,000"),
    "jitter: below nothing": (GOOD | {"jitter": -1}, "jitter is -1; expected"),
    "jitter: a billion": (GOOD | {"jitter": 10**9}, "jitter is 1000000000; expected"),
    "jitter: 5,000 digits": (GOOD | {"jitter": 10**5_000}, "jitter is an integer of [0-9]* digits; expected"),
    "jitter: yes": (GOOD | {"jitter": True}, "jitter is True; expected a whole number"),
    "jitter: words": (GOOD | {"jitter": "two"}, "jitter is 'two'; expected a whole number"),
    "jitter: a list": (GOOD | {"jitter": [2]}, r"jitter is \[2\]; expected"),
    "dimension: words": (GOOD | {"dimension": "price"}, "dimension is 'price'; expected a whole number"),
    "dimension: below nothing": (GOOD | {"dimension": -1}, "dimension is -1; expected"),
    "dimension: not of this table": (
        GOOD | {"dimension": 7},
        "dimension 7, but goals of .* of the value 0",
    ),
    "number_step: nothing": (GOOD | {"number_step": 0}, "number_step is 0; expected a number above 0"),
    "number_step: not a number": (GOOD | {"number_step": float("nan")}, "number_step is nan; expected"),
    "rounding: infinite": (GOOD | {"rounding": float("inf")}, "rounding is inf; expected"),
    "rounding: 400 digits": (GOOD | {"rounding": 10**400}, "rounding is .*; expected a number above 0"),
    "still: not a number": (GOOD | {"still": float("nan")}, "still is nan; expected a number of at least 0"),
    "class_share: two": (GOOD | {"class_share": 2}, "class_share is 2; expected a number from 0 to 1"),
    "combination_share: one": (GOOD | {"combination_share": 1}, "combination_share is 1; expected"),
    "span_count: nothing": (GOOD | {"span_count": 0}, "span_count is 0; expected"),
    "held_out_margin: below nothing": (GOOD | {"held_out_margin": -2}, "held_out_margin is -2; expected"),
    "held_out_values: a number": (GOOD | {"held_out_values": 30}, "held_out_values is 30; expected a list"),
    "held_out_values: not a number": (GOOD | {"held_out_values": [1, float("nan")]}, r"held_out_values\[1\] is nan"),
    "held_out_values: words": (GOOD | {"held_out_values": ["x"]}, r"held_out_values\[0\] is 'x'"),
    "held_out_values: a million": (GOOD | {"held_out_values": [1] * 10**6}, "has 1,000,000 entries"),
    # forms
    "forms: words": ({"numbers": "Be at {value}"}, "numbers is 'Be at {value}'; expected lists of forms under"),
    "forms: words in a direction": ({"numbers": {"any": "Be at {value}"}}, "numbers.any is 'Be at .*expected a list"),
    "forms: nothing": ({"numbers": None}, "numbers is None; expected lists"),
    "forms: an empty list": ({"numbers": {"any": []}}, "numbers has no form; give at least one"),
    "forms: an unknown direction": ({"numbers": {"up": ["{value}"]}}, "directions of the forms in numbers.*'up'"),
    "forms: a number": (forms(7), r"numbers.any\[0\] is 7; expected words; put quotes"),
    "forms: a date": (forms(np.datetime64("2024-01-01")), r"numbers.any\[0\] is .*expected words"),
    "forms: a list": (forms(["{value}"]), r"numbers.any\[0\] is \['{value}'\]; expected words"),
    "forms: no value": (forms("Go up"), "lacks {value}"),
    "forms: an unknown slot": (forms("{value} {speed}"), "unknown slots .'speed'"),
    "forms: an attribute": (forms("{value} {0.__class__}"), r"\[0\] is .*braces that are no slot"),
    "forms: an index": (forms("{value} {words[0]}"), "braces that are no slot"),
    "forms: a width of a billion": (forms("{value:1000000000d}"), "braces that are no slot"),
    "forms: a conversion": (forms("{value!r}"), "braces that are no slot"),
    "forms: a nested slot": (forms("{value:{when}}"), "braces that are no slot"),
    "forms: an open brace": (forms("{value} {"), "braces that are no slot"),
    "forms: Python's name as a slot": (forms("{value} {__class__}"), "unknown slots .'__class__'"),
    "forms: a million characters": (forms("{value}" + "x" * 10**6), "has 1,000,007 characters"),
    "forms: 100,000 of them": (forms(*["{value}"] * 100_000), "has 100,000 entries; expected at most 5,000"),
    "forms: trained and held out": (GOOD | {"held_out_numbers": FORMS}, "both trained and held out"),
    # words
    "words: a list": (GOOD | {"words": ["kt"]}, "words is .'kt'.; expected lists of wordings by slot"),
    "words: one wording": (GOOD | {"words": {"unit": "knots"}}, "words.unit is 'knots'; expected a list"),
    "words: an empty list": (GOOD | {"words": {"unit": []}}, "words.unit is an empty list"),
    "words: a number": (GOOD | {"words": {"unit": [1]}}, r"words.unit\[0\] is 1; expected words"),
    "words: a slot of its own": (GOOD | {"words": {"value": ["x"]}}, "words has the slot 'value'"),
    "words: a slot of two words": (GOOD | {"words": {"a b": ["x"]}}, "words has the slot 'a b'"),
    "words: a slot that is a number": (GOOD | {"words": {1: ["x"]}}, "words has the slot 1"),
    "step_name: a list": (GOOD | {"step_name": ["a"]}, r"step_name is \['a'\]; expected words"),
    "step_name: an attribute": (GOOD | {"step_name": "{span.__class__}"}, "step_name is .*without braces"),
    "step_name: a width of a billion": (GOOD | {"step_name": "{span:>1000000000}"}, "step_name is .*without braces"),
    "span_unit: blank": (GOOD | {"span_unit": " "}, "span_unit is ' '; expected a noun"),
    # classes
    "classes: none": (GOOD | {"classes": {"any": ["Be {class}"]}}, "need class_bounds"),
    "classes: words": (classes("calm"), r"class_bounds\[0\] is 'calm'; expected key, low, high"),
    "classes: no ends": (classes({"key": "calm"}), r"class_bounds\[0\] has no low and no high"),
    "classes: an unknown key": (classes(CALM | {"hihg": 3}), r"class_bounds\[0\].*'hihg'.*did you mean 'high'"),
    "classes: reversed": (classes(CALM | {"low": 9}), "low 9 must not exceed high 5"),
    "classes: not a number": (classes(CALM | {"high": float("nan")}), r"class_bounds\[0\].high is nan"),
    "classes: words as ends": (classes(CALM | {"high": "five"}), r"class_bounds\[0\].high is 'five'"),
    "classes: out of order": (classes(CALM | {"key": "b", "low": 3}, CALM), "in ascending order"),
    "classes: one key twice": (classes(CALM, CALM | {"low": 3}), "give each its own"),
    "classes: a key that is a word of YAML": (classes(CALM | {"key": False}), r"class_bounds\[0\].key is False"),
    "classes: a name": (classes(CALM | {"names": "calm"}), r"class_bounds\[0\].names is 'calm'; expected a list"),
}


def table(folder: Path) -> str:
    file = folder / "t.csv"
    file.write_text("date,price\n" + "".join(f"2024-01-{day:02},{day % 7}\n" for day in range(1, 32)))
    return str(file)


def refused(message: str, make: Any) -> None:
    with pytest.raises(ValueError, match=message) as told:
        make()
    assert len(str(told.value)) < 900 and "\x1b" not in str(told.value)


@pytest.mark.parametrize("case", TEMPLATES)
def test_templates_that_are_refused(case: str) -> None:
    given, message = TEMPLATES[case]
    refused(message, lambda: goal_writer(given, 0, {}, {}) if given is not None else GoalWriter.of(given))


@pytest.mark.parametrize("case", ["jitter: a fraction", "forms: an unknown slot", "dimension: not of this table"])
def test_a_table_refuses_templates_before_it_is_read(case: str, tmp_path: Path) -> None:
    given, message = TEMPLATES[case]
    refused(message, lambda: TableSequences(table(tmp_path), time_column="date", goals=given))


# name: YAML, and what the message says
FILES: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "cannot be used: goal templates are None"),
    "words": ("Be at {value}", "cannot be used"),
    "a list": ("- a\n", r"goal templates are \['a'\]"),
    "half a mapping": ("numbers: {any: [", "cannot be used"),
    "a tab": ("numbers:\n\tany: []", "cannot be used"),
    "an object of Python": ("!!python/object/apply:os.system [id]", "cannot be used.*"),
    "a class of Python": ("numbers: !!python/name:os.system", "cannot be used"),
    "5,000 lists in each other": ("numbers: " + "[" * 5_000 + "]" * 5_000, "nested too deeply|cannot be used"),
    "50,000 open lists": ("[" * 50_000, "nested too deeply|cannot be used"),
    "2,000 mappings in each other": ("{a: " * 2_000 + "}" * 2_000, "nested too deeply|cannot be used"),
    "aliases that multiply": (
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)),
        "more than 100,000 values",
    ),
    "aliases that multiply in a form": (
        "numbers:\n  any:\n  - &a0 [x, x]\n" + "".join(f"  - &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)),
        "more than 100,000 values",
    ),
    "an alias of itself": ("numbers: &n {any: [*n]}", r"numbers.any\[0\] is|alias|cycl"),
    "an integer of 5,000 digits": ("jitter: " + "9" * 5_000, "cannot be used"),
    "a month of 13": ("jitter: 2024-13-45", "cannot be used"),
    "a list as a key": ("? [a]\n: b\n", "cannot be used"),
    "not UTF-8": (b"numbers: \xff", "cannot be used"),
    "zero bytes": (b"numbers: \0", "cannot be used"),
    "UTF-16": ("numbers: {any: []}".encode("utf-16"), "cannot be used"),
    "a megabyte": ("# " + "x" * 1_000_000, "larger than 256 KB"),
    "escape sequences": ("numbers: {any: ['\x1b[31m']}", "cannot be used"),
    "several documents": ("a: 1\n---\nb: 2\n", "cannot be used"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_refused(case: str, tmp_path: Path) -> None:
    content, message = FILES[case]
    file = tmp_path / "goals.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(message, lambda: read_templates(file))
    with pytest.raises(ValueError, match="goals.yaml"):
        TableSequences(table(tmp_path), time_column="date", goals=str(file))


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "goals.yaml")
    refused("no regular file", lambda: read_templates(tmp_path / "goals.yaml"))


def test_a_writer_of_another_dimension_is_refused(tmp_path: Path) -> None:
    data = TableSequences(table(tmp_path), time_column="date", context=4, horizon=2)
    data.setup()
    windows = data.read_windows()
    other = SequenceData(context=4, horizon=2)
    other.value_names, other.read_windows = ("price",), lambda: windows
    other.goal_writer = GoalWriter(numbers=FORMS, dimension=3)
    refused("the dimension 3; expected the index of one of .'price'", other.setup)


@pytest.mark.parametrize("wording", ["{0.__class__}", "{value:9999999999}", "%s%n", "\\1\\g<0>", "$x$", "\x1b[2J"])
def test_wordings_are_never_formatted(wording: str) -> None:
    writer = GoalWriter(numbers={"any": ["{value} {unit} {when}"]}, words={"unit": [wording]}, step_name="rows")
    value = np.arange(6, dtype=np.float32)[:, None]
    record = Record("s", np.arange(6) * 6.0, value, [None] * 6, goal_start=1, goal_step=5)
    for seed in range(20):
        goal = writer.write(record, "all", np.random.default_rng(seed)).goal
        assert goal is not None and wording in goal and len(goal) < 200


@pytest.mark.parametrize("goal", ["1" * 200_000, "1 " * 100_000, "1." * 100_000, "-" * 200_000])
def test_goals_that_search_for_ever_are_checked(goal: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_typed_goal(goal, (0.0, 5.0))  # in time


def test_what_is_valid_is_used() -> None:
    given = classes(CALM, CALM | {"key": "storm", "low": 5.0, "high": 9.5, "names": ["a storm"]})
    given |= {"jitter": np.int64(1), "number_step": np.float32(0.5), "words": {"unit": ("kt", "knots")}, "still": 0}
    assert goal_writer(given, 0, {}, {"name": ["a {brace}"]}).class_bounds[1].names == ["a storm"]
