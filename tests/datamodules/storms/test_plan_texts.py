"""The parser of plan texts against every status that the data writes, and agreement against a count by hand."""

import numpy as np
import pytest

from datamodules.storms.best_tracks import advisories, read_storms
from datamodules.storms.plan_texts import (
    HURRICANE,
    STORM,
    WEAK,
    agreement,
    clear_cases,
    named_level,
    turned_to_goal,
    wind_level,
)
from gssr.sequences.collate import collate
from gssr.sequences.record import Record

EXPECTED = {
    "tropical depression": WEAK,
    "subtropical depression": WEAK,
    "tropical wave": WEAK,
    "disturbance": WEAK,
    "other low": WEAK,
    "tropical storm": STORM,
    "subtropical storm": STORM,
    "hurricane": HURRICANE,
    "extratropical": None,
}


def test_every_advisory_of_the_data_is_read_and_agrees_with_its_own_wind() -> None:
    seen, agreeing, judged = set(), 0, 0
    for storm in read_storms(years=range(2000, 2023)):
        for text, status, wind in zip(advisories(storm), storm.status, storm.wind, strict=True):
            level = named_level(text)
            assert level == EXPECTED[status], text
            seen.add(status)
            if level is not None and status not in ("other low", "tropical wave", "disturbance"):
                judged += 1
                agreeing += level == wind_level(wind)
    assert seen == set(EXPECTED)
    assert agreeing / judged > 0.99


@pytest.mark.parametrize("text", ["", "The hurricane is near", "Hurricanes", "Category 3", "Stormy weather"])
def test_what_names_no_status_at_its_start_is_not_judged(text: str) -> None:
    assert named_level(text) is None


@pytest.mark.parametrize(
    ("wind", "level"), [(33.9, WEAK), (34.0, STORM), (63.9, STORM), (64.0, HURRICANE), (150.0, HURRICANE)]
)
def test_winds_have_the_levels_of_the_saffir_simpson_scale(wind: float, level: int) -> None:
    assert wind_level(wind) == level


def test_agreement_counts_texts_and_turns() -> None:
    texts = [
        ["Tropical storm A near", "Hurricane A near", "Hurricane A near"],  # rises like its wind
        ["Hurricane B near", "Extratropical cyclone B centered near", "Tropical storm B near"],  # falls, wind rises
        ["Hurricane C near", "Hurricane C near", "nonsense"],  # no turn
    ]
    wind = np.array([[40.0, 60.0, 80.0], [70.0, 50.0, 90.0], [20.0, 64.0, 64.0]])
    told = agreement(texts, wind, ["A", "B", "C"])
    # exact: A 40 storm, A 80 hurricane, B 70 hurricane, C 64 hurricane; of seven texts that name a level
    assert told.same.value == pytest.approx(4 / 7) and told.judged == pytest.approx(7 / 9)
    assert told.near.value == pytest.approx(6 / 7)  # a hurricane of 20 knots is two classes away
    assert told.direction.value == pytest.approx(1 / 2)


def test_nothing_to_judge_is_not_a_number() -> None:
    told = agreement([["nonsense"]], np.array([[50.0]]), ["A"])
    assert np.isnan(told.same.value) and np.isnan(told.direction.value) and told.judged == 0


def window(start: float, goal: float) -> Record:
    bounds = [goal]
    return Record(f"S{start}{goal}", [0.0, 6.0, 12.0], [[start], [start], [start]], [None] * 3, "x", bounds, bounds, 0)


def test_a_plan_has_turned_when_its_last_status_lies_towards_the_goal_from_its_first() -> None:

    storm, hurricane = "Tropical storm A near", "Hurricane A near"
    cases = [  # now, goal, texts, turned
        (40.0, 80.0, [storm, hurricane], True),
        (40.0, 80.0, [hurricane, hurricane], False),
        (80.0, 20.0, [hurricane, storm], True),
        (80.0, 20.0, [storm, hurricane], False),
        (80.0, 20.0, ["nothing", "nothing"], False),
        (40.0, 50.0, [storm, hurricane], None),  # the same class: nothing to turn to
    ]
    batch = collate([window(now, goal) for now, goal, _, _ in cases])
    told = turned_to_goal([texts for _, _, texts, _ in cases], batch, 0)
    assert told.value == pytest.approx(2 / 5) and told.windows == 5
    # From the class of the wind now, a plan that is at its goal from the first text on has turned, too.
    told = turned_to_goal([texts for _, _, texts, _ in cases], batch, 0, from_now=True)
    assert told.value == pytest.approx(3 / 5) and told.windows == 5


def test_clear_cases_are_another_class_with_room_on_both_sides() -> None:
    cases = [
        (48.0, 90.0, True),
        (48.0, 74.0, True),
        (48.0, 73.0, False),  # the goal is near a bound
        (43.0, 90.0, False),  # the storm is
        (48.0, 50.0, False),  # the same class
        (20.0, 48.0, True),
        (90.0, 20.0, True),
        (48.0, float("nan"), False),
    ]
    batch = collate([window(now, goal) for now, goal, _ in cases])
    assert clear_cases(batch, 0) == [row for row, (_, _, clear) in enumerate(cases) if clear]
