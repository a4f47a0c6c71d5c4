"""The words of some values: what they, their units and their named ranges are called."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gssr.sequences.goals import GoalWriter

# Wordings of units, the first of each line being the sign.
_UNITS = (
    "kt|knots|knot|kts|kn",
    "hPa|hectopascals|hectopascal|millibars|millibar|mbar|mb",
    "deg|degrees|degree|°",
    "°C|degrees Celsius|degrees centigrade|degrees|degree|C",
    "°F|degrees Fahrenheit|degrees|degree|F",
    "K|kelvin|kelvins",
    "%|percent|per cent|percentage points|points",
    "m/s|metres per second|meters per second|m s-1",
    "km/h|kilometres per hour|kilometers per hour|kph",
    "mph|miles per hour",
    "m|metres|meters|metre|meter",
    "cm|centimetres|centimeters",
    "mm|millimetres|millimeters",
    "km|kilometres|kilometers",
    "kg|kilograms|kilos|kilogrammes",
    "g|grams|grammes",
    "t|tonnes|tons",
    "l|litres|liters|litre|liter",
    "EUR|euros|euro|€",
    "USD|dollars|dollar|$",
    "GBP|pounds|pound|£",
    "W|watts|watt",
    "kW|kilowatts|kilowatt",
    "MW|megawatts|megawatt",
    "kWh|kilowatt hours|kilowatt-hours",
    "MWh|megawatt hours|megawatt-hours",
    "V|volts|volt",
    "A|amperes|amps",
    "Hz|hertz",
    "Pa|pascals|pascal",
    "bar|bars",
    "ppm|parts per million",
)
_KEPT = ("names", "units", "wordings", "unit_wordings", "column", "steps")
_ALIKE = {"euro": "EUR", "€": "EUR", "$": "USD", "£": "GBP", "knots": "kt", "degrees": "deg", "°": "deg", "C": "°C"}


@dataclass(frozen=True)
class Range:
    """A named range of a column, both ends included."""

    column: int
    low: float
    high: float


@dataclass(frozen=True)
class Vocabulary:
    """What may be written for Y values.

    names, units:   Y names and units, as conditions and outputs have them
    wordings, unit_wordings:  Y lists of further words for each
    ranges:         named ranges by wording, without an article before it
    column:         the value that is meant where none is named
    steps:          nouns for the steps, in the plural
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    wordings: tuple[tuple[str, ...], ...]
    unit_wordings: tuple[tuple[str, ...], ...]
    ranges: Mapping[str, Range] = field(default_factory=dict)
    column: int = 0
    steps: tuple[str, ...] = ("steps",)

    @classmethod
    def of(
        cls, names: Sequence[str], units: Sequence[str], writer: GoalWriter | None = None, column: int = 0
    ) -> Vocabulary:
        """The words for values: their names, the usual words for their units, and those of a goal writer."""
        column = column if writer is None else writer.dimension
        wordings = [[name, re.sub(r"[_\s]+", " ", name).strip()] for name in names]
        of_units = [_unit_words(unit) for unit in units]
        ranges: dict[str, Range] = {}
        steps = ["steps"]
        if writer is not None and column < len(names):
            for slot, words in writer.words.items():
                (of_units if slot == "unit" else wordings)[column].extend(words)
            for name, more in writer.values.items():
                if name in names:
                    wordings[list(names).index(name)] += more.get("names", [])
                    of_units[list(names).index(name)] += more.get("units", [])
            for each in writer.class_bounds:
                for name in {each.key, *each.names}:
                    for wording in _short(re.sub(r"^(?:an?|the)\s+", "", name)):
                        ranges[wording] = Range(column, float(each.low), float(each.high))
            steps += [writer.step_name] if writer.step_name else []
        return cls(
            tuple(names),
            tuple(units),
            *(
                tuple(tuple(dict.fromkeys(w for w in words if w.strip())) for words in each)
                for each in (wordings, of_units)
            ),
            ranges=ranges,
            column=column,
            steps=tuple(steps),
        )

    def json(self) -> str:
        """As a text that `from_json` reads."""
        kept = {name: getattr(self, name) for name in _KEPT}
        ranges = {name: [each.column, each.low, each.high] for name, each in self.ranges.items()}
        return json.dumps(kept | {"ranges": ranges}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Raises ValueError for a text that `json` did not make."""
        try:
            found = json.loads(text)
            names, units, steps = (_texts(found[name]) for name in ("names", "units", "steps"))
            wordings, unit_wordings = (tuple(map(_texts, found[name])) for name in ("wordings", "unit_wordings"))
            ranges = {
                str(name): Range(int(c), float(low), float(high)) for name, (c, low, high) in found["ranges"].items()
            }
            column = int(found["column"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(f"the words of the values cannot be read: {error}") from error
        columns = {column, *(each.column for each in ranges.values())}
        if {len(units), len(wordings), len(unit_wordings)} != {len(names)} or columns - set(range(len(names))):
            raise ValueError("the words of the values are not those of as many values; train the network again")
        return cls(names, units, wordings, unit_wordings, ranges, column, steps)


def _texts(given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError("expected lists of words")
    return tuple(given)


def _unit_words(unit: str) -> list[str]:
    unit = unit.strip()
    sign = _ALIKE.get(unit, unit)
    line = next((line.split("|") for line in _UNITS if line.split("|")[0] == sign), [])
    return [unit, *line] if unit else []


def _short(name: str) -> list[str]:
    """A name, and what is left of "category 3 hurricane" and "hurricane of category 3": its label and number."""
    label = re.search(r"\b([^\W\d_]+) (\d+)\b", name)
    return [name] if label is None or label[0] == name else [name, label[0]]
