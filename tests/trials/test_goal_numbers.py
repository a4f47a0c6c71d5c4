"""What a goal says is compared with what was seen: levels are told apart from everything else that has digits."""

import warnings
from pathlib import Path

import pytest
import torch

from datamodules import TableSequences
from gssr.commands.plan import _warn_of_strange_goal
from gssr.sequences.goal_numbers import is_unseen, levels
from tests.networks import make_network
from tests.trials.test_meaning import DAYS, FORMATS, WAVE, written

pytestmark = pytest.mark.trial

# goal, the levels that it names
LEVELS: list[tuple[str, list[float]]] = [
    # thousands
    ("Reach 1,200,000 by then", [1_200_000]),
    ("Reach 1,200", [1200]),
    ("Reach 1 200 000.5", [1_200_000.5]),
    ("Reach 1\u202f200\u202f000", [1_200_000]),
    ("Reach 1\u00a0200", [1200]),
    ("Reach 1'200'000", [1_200_000]),
    ("Reach 1’200", [1200]),
    ("Reach 1.200.000", [1_200_000]),
    ("Reach 1.234,56", [1234.56]),
    ("Reach $12,500.75", [12500.75]),
    ("Reach 3 million", [3e6]),
    ("Reach 2.5bn", [2.5e9]),
    ("Reach 40k", [40_000]),
    # a comma that separates something else
    ("Reach 1,5", [1.5]),
    ("Reach 0,200", [0.2]),
    ("35, 40 or 45", [35, 40, 45]),
    # exponents
    ("Reach 1e5", [1e5]),
    ("Reach 1.5E-3", [1.5e-3]),
    ("Reach 2e−4", [2e-4]),
    ("Reach 2 × 10^6", [2e6]),
    ("Reach 2x10**6", [2e6]),
    ("Reach 3·10⁻⁵", [3e-5]),
    ("Reach 10⁶", [1e6]),
    # signs
    ("Fall to -5", [-5]),
    ("Fall to −5", [-5]),
    ("Fall to －5.5", [-5.5]),
    ("Fall to -.5", [-0.5]),
    ("Rise to +5", [5]),
    ("Stay at 30-40", [30, 40]),
    ("Stay at 30–40", [30, 40]),
    # shares
    ("Rise by 5 %", []),
    ("Rise by 5 percent", []),
    ("Rise by 5pct to 30", [30]),
    # dates
    ("Reach 35 by 2024-05-31", [35]),
    ("Reach 35 by 2024-05-31T18:00Z", [35]),
    ("Reach 35 by 31/05/2024", [35]),
    ("Reach 35 on 31.05.2024 at 18:30", [35]),
    ("Reach 35 by May 31, 2024", [35]),
    ("Reach 35 on the 31st of May 2024", [35]),
    ("Reach 35 in 2031", [35]),
    ("Reach 35 by the end of 2031", [35]),
    ("Reach 35 in Q3 2031", [35]),
    ("Reach 35 at 5 pm", [35]),
    ("Fall to 1950", [1950]),
    # lengths of time
    ("Reach 35 in 48 hours", [35]),
    ("Reach 35 in 48h", [35]),
    ("The 48-hour target is 35", [35]),
    ("Reach 35 in 3-4 weeks", [35]),
    ("Reach 35 in 3 to 4 weeks", [35]),
    ("Reach 35 within 1,000 hours", [35]),
    ("Reach 35 after 2 business days", [35]),
    ("Reach 35 in 1.5 days", [35]),
    ("Reach 35 km/h in 5 min", [35]),
    ("Reach 35 m/s", [35]),
    # ordinals, labels, names
    ("Reach 35 on the 3rd day", [35]),
    ("Become a category 3 hurricane", []),
    ("Reach 35 in week 22", [35]),
    ("Bring PM10 to 35", [35]),
    ("COVID-19 falls to 35", [35]),
    ("Reach 35 in release 1.2.3", [35]),
    ("Reach 35kt", [35]),
    ("Reach 35 m²", [35]),
    ("Reach 35.", [35]),
    ("Grow", []),
]


@pytest.mark.parametrize(("goal", "found"), LEVELS, ids=[goal for goal, _ in LEVELS])
def test_levels_are_told_apart(goal: str, found: list[float]) -> None:
    assert levels(goal) == pytest.approx(found)


@pytest.mark.parametrize(
    ("goal", "unit", "found"),
    [
        ("Reach 55 % in 3 days", "%", [55]),
        ("Reach 55 percent", "%", [55]),
        ("Take 40 hours within 3 days", "hours", [40]),
        ("Take 40 s within 3 days", "s", [40]),
        ("Be at 5 m in 3 days", "m", [5]),
        ("Be at 5 k", "k", [5]),
        ("Be at 2031 kt", "kt", [2031]),
        ("Be at 5 (a|b", "(a|b", [5]),
    ],
)
def test_what_stands_before_the_unit_is_a_level(goal: str, unit: str, found: list[float]) -> None:
    assert levels(goal, [unit]) == found


@pytest.mark.parametrize(
    ("goal", "unseen"),
    [("Reach 0.0021", False), ("Reach 2.1e-3", False), ("Reach 0.0031", True), ("In 3 days", False), ("1e999", True)],
)
def test_ends_that_were_rounded_to_float32_were_seen(goal: str, unseen: bool) -> None:
    seen = [tuple(torch.tensor([0.0018, 0.0021]).tolist())]
    assert is_unseen(goal, seen) == unseen


UNSEEN = ["Reach 1,200", "Fall to −50", "Reach 1.2e3 in 3 days", "Reach 1 200 by 2024-05-20", "Reach 4 in 20 hours"]
SEEN = ["Reach 20 by 2031", "Reach 2.0e1", "Rise by 300 %", "Reach 20 in 1,000 hours", "The 99th day", "Reach 20,5"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("goal", UNSEEN + SEEN)
def test_a_typed_goal_is_compared_with_the_table(kind: str, goal: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, [("date", DAYS), ("y", WAVE)])
    data = TableSequences(path, time_column="date", value_columns=["y"], context=4, horizon=2, goal=goal)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data.setup("fit")
    assert any("lies outside anything seen" in str(warning.message) for warning in told) == (goal in UNSEEN)


@pytest.mark.parametrize("goal", UNSEEN + SEEN)
def test_a_plan_compares_its_goal_with_training(goal: str, tiny_folder: Path, capsys: pytest.CaptureFixture) -> None:
    network = make_network(tiny_folder, latent_dim=4, hidden_dim=8, text_layers=(2,), goal_layer=2, names=["y", "z"])
    network.world.scaler.fit(torch.tensor([[min(WAVE), 15.0], [max(WAVE), 25.0]]))
    _warn_of_strange_goal(goal, network)
    assert ("lies outside anything seen in training" in capsys.readouterr().err) == (goal in UNSEEN)
