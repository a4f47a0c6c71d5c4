"""What a sentence mentions is found exactly: sizes are never learned."""

from typing import Any

import pytest

from gssr.sequences.clock import Length
from gssr.sequences.goals import GoalClass, GoalWriter
from gssr.sequences.vocabulary import Range, Vocabulary
from gssr.understanding.mentions import masked, mentions, spelled

NOW = 418_254.0  # 2017-09-18T06:00Z
WRITER = GoalWriter(
    {"any": ["Be at {value}"]},
    class_bounds=[GoalClass("category 3 hurricane", 96, 112, ["a category 3 hurricane"]), GoalClass("calm", 113, 120)],
    words={"unit": ["knots"], "wind": ["wind speed"]},
    values={"sea_level": {"names": ["tide"], "units": ["metres of water"]}},
    step_name="advisories",
)
WORDS = Vocabulary.of(("wind", "sea_level", "share"), ("kt", "m", "%"), WRITER)
PLAIN = Vocabulary.of(("wind",), ("kt",))


def found(text: str, words: Vocabulary = WORDS) -> list[tuple[str, str, Any]]:
    return [(m.kind, text[m.start : m.end], m.value) for m in mentions(text, words, NOW)]


def values(text: str, words: Vocabulary = WORDS) -> list[tuple[str, Any]]:
    return [(kind, value) for kind, _, value in found(text, words) if kind not in ("name", "unit")]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("ninety", 90),
        ("a hundred and ten", 110),
        ("one hundred five", 105),
        ("Twenty-five", 25),
        ("nine hundred and sixty", 960),
        ("three thousand two hundred and one", 3201),
        ("a dozen", 12),
        ("1,200", 1200),
        ("1.2e3", 1200),
        ("-75.5", -75.5),
        ("−5", -5),
        ("3 million", 3e6),
    ],
)
def test_numbers_in_digits_and_in_words(text: str, number: float) -> None:
    assert values(f"Reach {text} knots", PLAIN) == [("number", number)]


def test_a_range_of_numbers_in_words_is_two_numbers() -> None:
    assert values("Between fifty and seventy knots") == [("number", 50), ("number", 70)]
    assert values("60-80 knots") == [("number", 60), ("number", 80)]
    assert spelled("zero") == 0


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("in 48 hours", Length(48, 0)),
        ("at 48h", Length(48, 0)),
        ("+48 h", Length(48, 0)),
        ("after two days", Length(48, 0)),
        ("in a day and a half", Length(36, 0)),
        ("in one and a half days", Length(36, 0)),
        ("half a day from now", Length(12, 0)),
        ("in a week", Length(168, 0)),
        ("for three months", Length(0, 3)),
        ("by next year", None),
        ("after 5 advisories", 5),
        ("after one advisory", 1),
        ("at the next step", 1),
        ("in four steps", 4),
        ("at hour 36", Length(36, 0)),
    ],
)
def test_lengths_of_time(text: str, length: Any) -> None:
    assert values(text) == ([] if length is None else [("length", length)])


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("on 2017-09-19 at 12:00", 30),
        ("2017-09-19T12:00Z", 30),
        ("on 20 September 2017 at 00 UTC", 42),
        ("on September 20", 42),
        ("on the 19th of Sept 12:00", 30),
    ],
)
def test_dates(text: str, hours: float) -> None:
    assert values(text) == [("moment", NOW + hours)]


def test_tomorrow_the_end_and_no_such_day() -> None:
    assert values("tomorrow") == [("moment", Length(24, 0))]
    assert values("the day after tomorrow at 06:00Z") == [("moment", Length(48, 0))]
    assert values("at the end") == [("end", None)]
    assert values("end up here") == []
    assert [kind for kind, _ in values("on 2017-02-31")] != ["moment"]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Double it", "factor", 2),
        ("three times the wind", "factor", 3),
        ("twofold", "factor", 2),
        ("halve it", "factor", 0.5),
        ("by a quarter", "percent", 0.25),
        ("by half", "percent", 0.5),
        ("by 20 percent", "percent", 0.2),
        ("by 20%", "percent", 0.2),
        ("by twenty per cent", "percent", 0.2),
    ],
)
def test_factors_and_shares(text: str, kind: str, value: float) -> None:
    assert values(text, PLAIN) == [(kind, value)]


def test_percent_is_a_number_where_a_value_is_in_percent() -> None:
    assert values("Reach 20 percent") == [("number", 20)]


def test_named_ranges_names_and_units_belong_to_values() -> None:
    assert found("A category three hurricane") == [("range", "category three hurricane", Range(0, 96, 112))]
    assert found("Category 3, calm") == [
        ("range", "Category 3", Range(0, 96, 112)),
        ("range", "calm", Range(0, 113, 120)),
    ]
    assert found("the tides: 3 metres of water") == [
        ("name", "tides", {1}),
        ("number", "3", 3.0),
        ("unit", "metres of water", {1}),
    ]
    assert [part[:2] for part in found("wind speed 30kt")] == [("name", "wind speed"), ("number", "30"), ("unit", "kt")]
    assert found("windy knotted m/s") == []


def test_degrees_of_temperature_are_no_degrees_of_an_angle() -> None:
    words = Vocabulary.of(("latitude",), ("deg",))
    assert ("unit", {0}) in [(kind, value) for kind, _, value in found("30 degrees", words)]
    assert "unit" not in [kind for kind, _, _ in found("30 degrees Celsius", words)]


def test_a_rate_is_no_length_of_time() -> None:
    assert values("60 strikes a week in two weeks") == [("number", 60), ("length", Length(336, 0))]
    assert values("at 60 m a day from now") == [("number", 60), ("length", Length(24, 0))]


def test_the_head_sees_a_word_for_each_kind() -> None:
    text = "Let the tide rise by two metres of water within 36 hours or be calm"
    seen, places = masked(text, mentions(text, WORDS, NOW))
    assert seen == "Let the value rise by 50 units within 10 hours or be class 5"
    assert [seen[a:b] for a, b in places] == ["value", "50", "units", "10 hours", "class 5"]


def test_words_travel_as_text_and_damaged_ones_are_refused() -> None:
    assert Vocabulary.from_json(WORDS.json()) == WORDS
    for damaged in ("", "[]", "{}", WORDS.json().replace('"column": 0', '"column": 7'), WORDS.json()[:-9]):
        with pytest.raises(ValueError, match="words of the values"):
            Vocabulary.from_json(damaged)
