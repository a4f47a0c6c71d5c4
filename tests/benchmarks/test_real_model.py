"""The goals phrased freely: as many as promised, with bounds, and in no template's words."""

import re
from collections import Counter

import numpy as np
import pytest

from benchmarks.real_model.__main__ import free_cases, read_goals
from datamodules.storms.datamodule import GOALS_FILE
from gssr.sequences.record import Record
from gssr.sequences.templates import read_templates

# Words of grammar, the unit, and the class "tropical storm", which goals cannot do without.
ALLOWED = set(
    re.findall(r"\w+", "a as are at for from i in into is it its more of the this to until with knots kt storm")
)


def test_sixty_english_goals_and_twenty_in_other_languages_have_bounds() -> None:
    goals = read_goals()
    assert Counter(goal.language == "en" for goal in goals) == {True: 60, False: 20}
    assert len({goal.text for goal in goals}) == 80 and all(10 <= goal.low < goal.high <= 165 for goal in goals)


def test_english_goals_share_no_word_of_meaning_with_the_templates_of_training() -> None:
    templates = read_templates(GOALS_FILE)
    forms = [form for kind in ("numbers", "classes") for part in templates[kind].values() for form in part]
    forms += [word for part in templates["words"].values() for word in part]
    known = {word for form in forms for word in re.findall(r"[a-z]+", re.sub(r"{[^}]*}", "", form.lower()))}
    for goal in read_goals():
        if goal.language == "en":
            shared = set(re.findall(r"[a-z]+", goal.text.lower())) & known
            assert shared <= ALLOWED, (goal.text, shared - ALLOWED)


@pytest.mark.parametrize(("wind", "fits"), [(50.0, True), (78.0, False), (80.0, False), (20.0, False), (130.0, True)])
def test_a_free_goal_is_asked_where_the_wind_is_some_way_off(wind: float, fits: bool) -> None:
    record = Record("A", 6.0 * np.arange(3), [[wind]] * 3, [None] * 3, goal_start=1)
    _, goals = free_cases([record], 3)
    assert any((goal.low, goal.high) == (85.0, 95.0) for goal in goals) == fits
