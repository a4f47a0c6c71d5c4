"""Rows of values in words: by name, unit and resolution, by a template, and what is refused."""

import pytest
import torch

from datamodules.storms import Storms
from datamodules.storms.best_tracks import read_storms
from datamodules.text.advisory_runs import row_in_words
from gssr.sequences.row_in_words import RowInWords

STORMS = Storms.value_names, Storms.value_units, Storms.value_resolution
SIDES = "wind {wind} kt, pressure {pressure} hPa, {latitude:north|south} {longitude:east|west}:"
NAN = float("nan")


@pytest.mark.parametrize("template", [SIDES, "{values}:"])
def test_rows_of_storms_are_those_that_the_nano_model_has_seen(template: str) -> None:
    write, odd = RowInWords(template, *STORMS), 0
    for storm in read_storms(years=range(2005, 2007)):
        for step, row in enumerate(zip(storm.wind, storm.pressure, storm.latitude, storm.longitude, strict=True)):
            odd += row[0] % 5 != 0
            if row[3] != 0:  # at longitude 0 both words are right
                assert write(row) == row_in_words(storm, step, named=template != SIDES)
    assert odd == 0  # or rounding to the resolution would differ


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([83.0, 970.4, -17.44, 0.0], "wind 85 kt, pressure 970 hPa, 17.4 south 0.0 east:"),
        ([NAN, 970, 17.4, -78.3], "pressure 970 hPa, 17.4 north 78.3 west:"),
        ([85, NAN, NAN, -78.3], "wind 85 kt:"),
        ([NAN, NAN, 17.4, NAN], None),
        ([-1.0, NAN, NAN, NAN], "wind 0 kt:"),
    ],
)
def test_numbers_have_the_resolution_and_unknown_ones_are_left_out(values: list[float], words: str | None) -> None:
    assert RowInWords(SIDES, *STORMS)(values) == words


@pytest.mark.parametrize(
    ("resolution", "value", "words"),
    [(0.0, 1234.56, "1235"), (0.25, 1.3, "1.25"), (0.01, 2.0, "2.00"), (1000.0, 1_234_567.0, "1235000")],
)
def test_any_resolution_is_kept(resolution: float, value: float, words: str) -> None:
    assert RowInWords("{a}", ["a"], [""], [resolution])([value]) == words


def test_rounded_values_are_those_that_are_told() -> None:
    write, given = RowInWords(SIDES, *STORMS), torch.tensor([63.2, 974.6, -17.44, 78.36])
    told = write.rounded(given)
    torch.testing.assert_close(told, torch.tensor([65.0, 975.0, -17.4, 78.4]))
    assert write(told.tolist()) == write(given.tolist())
    unknown = RowInWords("{a}", ["a"], [""], [0.0])
    assert torch.equal(unknown.rounded(torch.tensor([1.23456])), torch.tensor([1.23456]))


def test_names_may_hold_what_a_template_uses() -> None:
    names = ["low, high", "a{b}", "x:y"]
    write = RowInWords("{values}.", names, ["", "m", ""], [1.0, 1.0, 1.0])
    assert write([1, 2, 3]) == "low, high 1, a{b} 2 m, x:y 3."
    assert RowInWords("now {x:y}\n", names, ["", "", ""], [1, 1, 1])([1, 2, 3]) == "now 3\n"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "names no value"),
        ("the wind:", "names no value"),
        ("wind {winds}", "has {winds}; expected"),
        ("{0}", "has {0}; expected"),
        ("{wind.__class__}", "expected"),
        ("{latitude:north}", "{name:word|word}"),
        ("{latitude:a|b|c}", "{name:word|word}"),
        ("{}", "expected"),
        ("{values} and {values}", "has {values}"),
        ("{wind", "a brace without its partner"),
        ("{'wind {wind} kt': None}", "needs quotes of its own"),  # what YAML makes of a colon at the end
    ],
)
def test_a_template_that_says_nothing_is_refused(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match="the row in words .*") as error:
        RowInWords(template, *STORMS)
    assert reason in str(error.value)
