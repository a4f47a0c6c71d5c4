"""Read numbers, times and texts from columns of any type; errors show the wrong cell."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gssr.shown import quoted

MISSING = ("", "NA", "N/A", "n/a", "na", "NaN", "nan", "NAN", "null", "NULL", "None", "none", "-", "#N/A", "<NA>")
TIME_UNITS = {"s": 1 / 3600, "ms": 1 / 3.6e6, "h": 1.0, "D": 24.0, "step": 1.0, "year": None}
MOST_STEPS = 2.0**53  # beyond, a float skips whole numbers
EARLIEST, LATEST = "1700-01-01", "2300-01-01"
_HOURS = tuple(pd.Timestamp(day).timestamp() / 3600 for day in (EARLIEST, LATEST))
_OFFSET = re.compile(r"(?:\d{2}|\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)\s*(?:Z|[+-]\d{2}:?\d{2})$")
# Forms of cells that are no numbers, and what to do about them; the first that fits counts.
_ADVICE = (
    (
        r"[+-]?\d{1,3}(\.\d{3})*,\d+|[+-]?\d+,\d+",
        "this is a decimal comma; write a decimal point (pandas.read_csv(..., decimal=','))",
    ),
    (r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", "leave out the commas between thousands"),
    (r"(?=\D*\d)\W*[\d.,]+\W*\w{0,4}", "leave out units and signs of currency"),
    (r".*", "correct the cell, leave the column out of value_columns, or name its code in `missing`"),
)
_INFINITY = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
MOST_BYTES = 1 << 30  # of the texts of a chunk
LONGEST_FORM = 100  # characters of a time_format
_LARGEST = float(np.finfo(np.float32).max)


def as_strings(array: pa.Array, name: str, missing: Sequence[str] = MISSING, most: int | None = None) -> pa.Array:
    """A flat column as strings without surrounding blanks, null where a cell is missing; `most` characters of each.

    Raises ValueError for a nested or binary column, and for texts that do not fit into memory.
    """
    kind = array.type
    if pa.types.is_floating(kind):  # a table writes an absent cell among numbers as NaN
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
    if pa.types.is_dictionary(kind):
        distinct = as_strings(array.dictionary, name, missing, most)
        longest = pc.max(pc.binary_length(distinct)).as_py() or 0
        if longest * len(array) > MOST_BYTES:
            raise ValueError(
                f"column {name!r} has texts of {longest:,} bytes; cut them before they are put into a table"
            )
        return distinct.take(array.indices)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise ValueError(
            f"column {name!r} holds {kind}; expected one number, time or text in each cell; write its parts "
            "into columns"
        )
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.string())
    if not pa.types.is_string(kind):
        try:
            array = array.cast(pa.string())
        except pa.ArrowException as error:
            raise ValueError(f"column {name!r} holds {kind}, which cannot be read as text: {error}") from None
    array = pc.utf8_trim_whitespace(array)
    if most is not None:
        array = pc.utf8_slice_codeunits(array, 0, most)
    return pc.if_else(pc.is_in(array, value_set=pa.array(missing, pa.string())), pa.scalar(None, pa.string()), array)


def numbers(array: pa.Array, name: str, first: int, missing: Sequence[str] = MISSING) -> np.ndarray:
    """A column of numbers as (n) float64, NaN where a cell is missing; infinities stay.

    A code of `missing` that is a number means all cells of its value: -9999 also -9999.0 and -9.999e3. `first` is the
    number of the first row, for errors. Raises ValueError for the first cell that is no number, and for a number that
    float32 cannot hold.
    """
    kind = array.type
    codes = np.array([float(word) for word in missing if _is_number(word)])
    if pa.types.is_temporal(kind):
        raise ValueError(
            f"value column {name!r} holds times ({kind}); expected numbers; name it as time_column, or leave it out"
        )
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        array = array.cast(pa.int8()) if pa.types.is_boolean(kind) else array
        values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
        if kind in (pa.float16(), pa.float32()):
            with np.errstate(over="ignore"):
                codes = codes.astype(kind.to_pandas_dtype())  # such a column holds -999.9 rounded
    else:
        words = as_strings(array, name, missing)
        try:
            values = words.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        except pa.ArrowInvalid:
            row, word = _first_wrong(words)
            advice = next(advice for form, advice in _ADVICE if re.fullmatch(form, word[:40], re.DOTALL))
            raise ValueError(
                f"value column {name!r} holds {quoted(word)} in row {first + row}; expected a number; {advice}"
            ) from None
        for row in np.flatnonzero(np.isinf(values)).tolist():
            if not _INFINITY.fullmatch(word := words[row].as_py()):
                raise ValueError(
                    f"value column {name!r} holds {quoted(word)} in row {first + row}, more than a number can hold; "
                    "correct the cell, or name the code of a missing value in `missing`"
                )
    values = np.where(np.isin(values, codes), np.nan, values) if len(codes) else values
    finite = values[np.isfinite(values)]
    if len(finite) and np.abs(finite).max() > _LARGEST:
        raise ValueError(
            f"value column {name!r} holds {finite[np.abs(finite).argmax()]:g}, more than float32 can hold; divide the "
            "column, or name the code of a missing value in `missing`"
        )
    return values


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _first_wrong(words: pa.Array) -> tuple[int, str]:
    """The first of some strings that is no number, and its index; there is one."""
    for i in range(len(words)):
        try:
            words.slice(i, 1).cast(pa.float64())
        except pa.ArrowInvalid:
            return i, words[i].as_py()
    raise AssertionError("a column that could not be cast has no wrong cell")


def names(array: pa.Array, name: str, most: int | None = None) -> list[str | None]:
    """A column of names or texts, None where a cell is empty or null; `most` characters of each are kept.

    A word such as "NA" is a name: of Namibia, of sodium, of a channel.

    Raises ValueError for a column that `as_strings` refuses.
    """
    return as_strings(array, name, ("",), most).to_pylist()


def goals(array: pa.Array, name: str, most: int | None = None) -> list[str | None]:
    """A column of goals, None where a cell is missing or says so: "none" and "NA" are no goals.

    Raises ValueError for a column that `as_strings` refuses.
    """
    return as_strings(array, name, most=most).to_pylist()


def all_numbers(texts: Sequence[str | None]) -> bool:
    """Whether every text that is not missing is a number."""
    return all(text is None or _is_number(text) for text in texts)


@dataclass
class Times:
    """Reads a time column chunk by chunk, to hours since 1970-01-01T00Z; times without a zone are UTC.

    unit: what numbers count: "s" or "ms" since 1970, "h" or "D" since 1970, "year", "step" (no clock: steps are hours);
    None: there are no numbers. form: a strptime format, None: ISO 8601.

    `parse` raises ValueError for missing, unparsable, implausible or mixed times.
    """

    name: str
    unit: str | None = None
    form: str | None = None
    _zoned: dict[bool, tuple[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in TIME_UNITS:
            raise ValueError(f"time_unit is {quoted(self.unit)}; expected one of {', '.join(TIME_UNITS)}, or null")
        if self.form is not None:
            _check_form(self.form)

    def parse(self, array: pa.Array, first: int) -> np.ndarray:
        """Hours (n,) float64; `first`: the number of the chunk's first row, for messages."""
        kind = array.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            zone = getattr(kind, "tz", None)
            self._note_zone(zone is not None, first, str(kind))
            hours = _stamps(array)
        else:
            hours = self._words(as_strings(array, self.name), first)
        bad = np.flatnonzero(~np.isfinite(hours))
        if len(bad):
            what = "infinite" if np.isinf(hours[bad[0]]) else "empty"
            raise ValueError(f"time column {self.name!r} is {what} in row {first + bad[0]}; each row needs a time")
        least, most = (-MOST_STEPS, MOST_STEPS) if self.unit == "step" else _HOURS
        bad = np.flatnonzero((hours < least) | (hours > most))
        if len(bad):
            cell = array.slice(int(bad[0]), 1).cast(pa.string(), safe=False)[0].as_py()
            expected = (
                f"a step below {MOST_STEPS:g}" if self.unit == "step" else f"a time between {EARLIEST} and {LATEST}"
            )
            raise ValueError(
                f"time column {self.name!r} holds {quoted(cell)} in row {first + bad[0]}; expected {expected}; is it a "
                f"placeholder, or is time_unit ({self.unit}) wrong?"
            )
        return hours

    def _words(self, texts: pa.Array, first: int) -> np.ndarray:
        known = texts.drop_null()[:1].to_pylist()
        if self.unit is not None and known:
            return self._counts(texts, first)
        if self.form is None and known and _is_number(known[0]):
            raise ValueError(
                f"time column {self.name!r} holds numbers such as {quoted(known[0])}; give the unit that they count "
                f"with time_unit: {', '.join(TIME_UNITS)}"
            )
        listed = texts.to_pylist()
        for row, text in enumerate(listed, start=first):
            if text is not None:
                self._note_zone(bool(_OFFSET.search(text)) and ":" in text, row, text)
        words = pd.Series(listed, dtype=object)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stamps = pd.to_datetime(words, format=self.form or "ISO8601", utc=True, errors="coerce")
        wrong = np.flatnonzero(stamps.isna() & words.notna())
        if len(wrong):
            expected = "ISO 8601, such as 2024-05-31T18:00Z; for another form give time_format, such as %d/%m/%Y"
            raise ValueError(
                f"time column {self.name!r} holds {quoted(listed[wrong[0]])} in row {first + wrong[0]}; expected "
                + (f"the time_format {self.form!r}" if self.form else expected)
            )
        micro = stamps.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        return np.where(np.isnat(micro), np.nan, micro.astype(np.int64).astype(np.float64) / 3.6e9)

    def _note_zone(self, zoned: bool, row: int, text: str) -> None:
        """Remember the first time with a zone and the first without. Raises ValueError where there are both."""
        self._zoned.setdefault(zoned, (row, text))
        if len(self._zoned) > 1:
            (with_row, with_text), (row, text) = self._zoned[True], self._zoned[False]
            raise ValueError(
                f"time column {self.name!r} mixes times with a time zone ({quoted(with_text)}, row {with_row}) and "
                f"without ({quoted(text)}, row {row}); write all of them in UTC, or all with their offset"
            )

    def _counts(self, texts: pa.Array, first: int) -> np.ndarray:
        try:
            counts = texts.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        except pa.ArrowInvalid:
            row, text = _first_wrong(texts)
            raise ValueError(
                f"time column {self.name!r} holds {quoted(text)} in row {first + row}; with time_unit {self.unit} each "
                "time must be a number; leave time_unit out for dates"
            ) from None
        if self.unit != "year":
            return counts * TIME_UNITS[self.unit]
        known = np.isfinite(counts)
        wrong = np.flatnonzero(known & ((counts != np.round(counts)) | (np.abs(counts - 2000) > 300)))
        if len(wrong):
            raise ValueError(
                f"time column {self.name!r} holds {counts[wrong[0]]:g} in row {first + wrong[0]}; expected whole years "
                "from 1700 to 2300"
            )
        years = (np.where(known, counts, 1970).astype(np.int64) - 1970).astype("datetime64[Y]")
        return np.where(known, years.astype("datetime64[h]").astype(np.float64), np.nan)


def _check_form(form: str) -> None:
    """Raises ValueError for what is no format of strptime."""
    why: object = "it has no directive such as %d"
    if len(form) <= LONGEST_FORM and ("%" in form or form == "ISO8601"):
        try:
            pd.to_datetime(pd.Series(["none"], dtype=object), format=form, utc=True, errors="coerce")
            return
        except re.error:
            why = "a directive comes twice"
        except (ValueError, OverflowError) as error:
            why = error
    raise ValueError(
        f"time_format is {quoted(form)}, which is no format of times ({why}); expected one such as %d/%m/%Y"
    )


def _stamps(array: pa.Array) -> np.ndarray:
    """Hours (n,) float64 of timestamps or dates, NaN where there is none; no range overflows."""
    kind = array.type
    unit = {pa.date32(): "D", pa.date64(): "ms"}.get(kind) or kind.unit
    counts = array.cast(pa.int32() if unit == "D" else pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
    if unit == "ns":  # microseconds are exact as a float
        whole = pc.divide(array.cast(pa.int64()), 1000)
        counts, unit = whole.to_numpy(zero_copy_only=False).astype(np.float64), "us"
    hours = counts * 24 if unit == "D" else counts / {"s": 3600.0, "ms": 3.6e6, "us": 3.6e9}[unit]
    hours[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return hours


def one_time(text: str, unit: str | None, form: str | None, what: str) -> float:
    """A time that was given as an option, in hours. Raises ValueError that names the option `what`."""
    try:
        return float(Times(what, unit, form).parse(pa.array([text], pa.string()), 1)[0])
    except ValueError as error:
        raise ValueError(f"{what} is {quoted(text)}; expected a time as in the time column: {error}") from None
