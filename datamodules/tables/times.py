"""Read times from columns of any type, on the clock of their zone; errors show the wrong cell."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.tables.cells import as_strings, first_wrong, is_number
from datamodules.tables.facts import Clock
from datamodules.tables.zones import check_zone, offset_words, shown, when, zone_with
from gssr.shown import quoted

UNITS = {"s": 1 / 3600, "ms": 1 / 3.6e6, "h": 1.0, "D": 24.0, "step": 1.0, "year": None}
MOST_STEPS = 2.0**53  # beyond, a float skips whole numbers
EARLIEST, LATEST = "1700-01-01", "2300-01-01"
_HOURS = tuple(pd.Timestamp(day).timestamp() / 3600 for day in (EARLIEST, LATEST))
_OFFSET = r"(?:T\d{2,6}|:\d{2})(?:[.,]\d+)?\s*(?:[AaPp][Mm]\s*)?(?P<offset>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
LONGEST_FORM = 100  # characters of a time_format


@dataclass
class Times:
    """Reads a time column chunk by chunk, to hours since 1970-01-01T00Z.

    unit: what numbers count: "s" or "ms" since 1970, "h" or "D" since 1970, "year", "step" (no clock: steps are hours);
        None: there are no numbers.
    form: a strptime format, None: ISO 8601.
    zone: whose clock shows times without an offset; None: UTC.
    of: the clock of the column that these times are beside, as those that a user gives as options; None: they are it.

    `later` (n) of the last chunk is when the clock shows the same again, which differs where it goes back.

    `parse` raises ValueError for missing, unparsable, implausible or mixed times, and for those that no clock shows.
    """

    name: str
    unit: str | None = None
    form: str | None = None
    zone: str | None = None
    of: Clock | None = None
    later: np.ndarray = field(default_factory=lambda: np.zeros(0), init=False, repr=False)
    _seen: dict[str, tuple[int, str, float]] = field(default_factory=dict, init=False, repr=False)  # by offset
    _own: str | None = field(default=None, init=False, repr=False)  # the zone of the type of the column

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in UNITS:
            raise ValueError(f"time_unit is {quoted(self.unit)}; expected one of {', '.join(UNITS)}, or null")
        if self.form is not None:
            _check_form(self.form)
        if self.zone is not None:
            check_zone(self.zone)
            if self.unit not in (None, "s", "ms"):
                raise ValueError(f"time_zone is {quoted(self.zone)}, but time_unit {self.unit} counts without a zone")

    @property
    def clock(self) -> Clock:
        """The clock of the column, after all of it was parsed."""
        offsets = {offset: (hours, _hours_of(offset)) for offset, (_, _, hours) in self._seen.items() if offset}
        if self.zone or self._own:
            return Clock(self.zone or self._own or "")
        if len({offset for _, offset in offsets.values()}) > 1:
            return Clock("UTC", tuple(sorted(offsets)), zone_with(list(offsets.values())))
        of_unit = "UTC" if self.unit in ("s", "ms") else ""
        return Clock(offset_words(next(iter(offsets.values()))[1]) if offsets else of_unit)

    def parse(self, array: pa.Array, first: int) -> np.ndarray:
        """Hours (n,) float64; `first`: the number of the chunk's first row, for messages."""
        kind, naive = array.type, np.zeros(len(array), bool)
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            zone = getattr(kind, "tz", None)
            hours = _stamps(array)
            self._note({"Z" if zone else "": 0}, array, hours, first)
            naive[:] = zone is None
            self._own = _known(zone)
        else:
            hours = self._words(as_strings(array, self.name), naive, first)
        bad = np.flatnonzero(~np.isfinite(hours))
        if len(bad):
            what = "infinite" if np.isinf(hours[bad[0]]) else "empty"
            raise ValueError(f"time column {self.name!r} is {what} in row {first + bad[0]}; each row needs a time")
        least, most = (-MOST_STEPS, MOST_STEPS) if self.unit == "step" else _HOURS
        bad = np.flatnonzero((hours < least) | (hours > most))
        if len(bad):
            expected = (
                f"a step below {MOST_STEPS:g}" if self.unit == "step" else f"a time between {EARLIEST} and {LATEST}"
            )
            raise ValueError(
                f"time column {self.name!r} holds {quoted(_cell(array, bad[0]))} in row {first + bad[0]}; expected "
                f"{expected}; is it a placeholder, or is time_unit ({self.unit}) wrong?"
            )
        zone = self.zone or (self.of.zone if self.of else "")
        self.later = hours
        return self._on_clock(hours, naive, zone, array, first) if zone and naive.any() else hours

    def _on_clock(self, clock: np.ndarray, naive: np.ndarray, zone: str, array: pa.Array, first: int) -> np.ndarray:
        """Times in UTC of those times that have no offset."""
        hours, self.later = clock.copy(), clock.copy()
        hours[naive], self.later[naive] = when(clock[naive], zone)
        # A day begins later where its midnight is skipped.
        never = np.flatnonzero(naive & (np.abs(shown(hours, zone) - clock) > 1e-6) & (clock % 24 != 0))
        never = never[naive[never]]
        if len(never):
            row = int(never[0])
            before = float(clock[row] - 24 - when(clock[row : row + 1] - 24, zone)[0][0])
            raise ValueError(
                f"time column {self.name!r} holds {quoted(_cell(array, row))} in row {first + row}, which the clock of "
                f"{zone} never shows, since it goes forward then; give time_zone: {offset_words(before)}, or UTC, if "
                "the times are of a clock that does not"
            )
        twice = np.flatnonzero(self.later - hours > 1e-6)
        if self.of is not None and len(twice):
            row = int(twice[0])
            text = _cell(array, row)
            both = " or ".join(f"{text}{offset_words(clock[row] - at[row])}" for at in (hours, self.later))
            raise ValueError(
                f"{self.name} holds {quoted(text)} in row {first + row}, which the clock of {zone} shows twice; write "
                f"{both}"
            )
        return hours

    def _words(self, texts: pa.Array, naive: np.ndarray, first: int) -> np.ndarray:
        """Hours (n) of words; `naive` is set where the clock of the column counts."""
        known = texts.drop_null()[:1].to_pylist()
        counts = known and (self.unit is not None and not (self.of and self.unit != "step" and not is_number(known[0])))
        if counts:
            return self._counts(texts, first)
        if self.form is None and known and is_number(known[0]):
            raise ValueError(
                f"time column {self.name!r} holds numbers such as {quoted(known[0])}; give the unit that they count "
                f"with time_unit: {', '.join(UNITS)}"
            )
        words = pd.Series(texts.to_pylist(), dtype=object)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stamps = pd.to_datetime(words, format=self.form or "ISO8601", utc=True, errors="coerce")
        wrong = np.flatnonzero(stamps.isna() & words.notna())
        if len(wrong):
            # pandas 2 cannot read years far from now; pandas 3 can, and they are refused where times are checked.
            expected = (
                f"ISO 8601, such as 2024-05-31T18:00Z, between {EARLIEST} and {LATEST}; for another form give "
                "time_format, such as %d/%m/%Y"
            )
            raise ValueError(
                f"time column {self.name!r} holds {quoted(words[wrong[0]])} in row {first + wrong[0]}; expected "
                + (f"the time_format {self.form!r}" if self.form else expected)
            )
        micro = stamps.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        hours = np.where(np.isnat(micro), np.nan, micro.astype(np.int64).astype(np.float64) / 3.6e9)
        found = pc.struct_field(pc.extract_regex(texts, _OFFSET), "offset").fill_null("")
        names = found.dictionary_encode()
        codes = names.indices.to_numpy(zero_copy_only=False)
        rows = {name: int(np.argmax(codes == code)) for code, name in enumerate(names.dictionary.to_pylist())}
        naive[:] = codes == list(rows).index("") if "" in rows else False
        self._note({name: row for name, row in rows.items() if name or texts[row].is_valid}, texts, hours, first)
        return hours

    def _note(self, rows: dict[str, int], cells: pa.Array, hours: np.ndarray, first: int) -> None:
        """Remember the first time of each offset ("" is none). Raises ValueError for those that do not fit together."""
        for offset, row in rows.items() if len(cells) else ():
            self._seen.setdefault(offset, (first + row, _cell(cells, row), float(hours[row])))
        zoned = [seen for offset, seen in self._seen.items() if offset]
        if self.of is not None:
            self._check_given(zoned)
        elif self.zone is None and zoned and "" in self._seen:
            (with_row, with_text, _), (row, text, _) = zoned[0], self._seen[""]
            raise ValueError(
                f"time column {self.name!r} mixes times with a time zone ({quoted(with_text)}, row {with_row}) and "
                f"without ({quoted(text)}, row {row}); write all of them in UTC, or all with their offset, or give "
                "time_zone, the zone of those without"
            )

    def _check_given(self, zoned: list[tuple[int, str, float]]) -> None:
        """Raises ValueError for given times that cannot be placed on the clock of the column."""
        assert self.of is not None
        other = [offset for offset in self._seen if offset and _hours_of(offset)]
        if not self.of.zone and other:
            row, text, _ = self._seen[other[0]]
            raise ValueError(
                f"{self.name} holds {quoted(text)} in row {row}, but the times of the table have no zone; write "
                f"{text.removesuffix(other[0]).rstrip()} as on their clock, or give time_zone, their zone"
            )
        if self.of.offsets and "" in self._seen:
            row, text, _ = self._seen[""]
            zone = f", or give time_zone: {self.of.likely}" if self.of.likely else ""
            day = "" if ":" in text else "T00:00"
            raise ValueError(
                f"{self.name} holds {quoted(text)} in row {row}, but the times of the table have the offsets "
                f"{' and '.join(self.of.offsets)}; write its own, such as {text}{day}{self.of.offsets[0]}{zone}"
            )

    def _counts(self, texts: pa.Array, first: int) -> np.ndarray:
        try:
            counts = texts.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        except pa.ArrowInvalid:
            row, text = first_wrong(texts)
            raise ValueError(
                f"time column {self.name!r} holds {quoted(text)} in row {first + row}; with time_unit {self.unit} each "
                "time must be a number; leave time_unit out for dates"
            ) from None
        if self.unit != "year":
            return counts * UNITS[self.unit]
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


def _known(zone: str | None) -> str | None:
    """The zone of a type of a column; "UTC" where its name is of no known one, since such times are in UTC."""
    if zone is None:
        return None
    try:
        check_zone(zone)
    except ValueError:
        return "UTC"
    return zone


def _hours_of(offset: str) -> float:
    """Hours of an offset such as +05:30, +0530, +05 or Z."""
    if offset[0] not in "+-":
        return 0.0
    digits = offset[1:].replace(":", "").ljust(4, "0")
    return (int(digits[:2]) + int(digits[2:]) / 60) * (-1 if offset[0] == "-" else 1)


def _cell(array: pa.Array, row: int) -> str:
    return array.slice(int(row), 1).cast(pa.string(), safe=False)[0].as_py()


def one_time(text: str, times: Times, clock: Clock, what: str) -> float:
    """A time that was given as an option, in hours, on the clock of the time column that `times` read.

    Raises ValueError that names the option `what`.
    """
    given = replace(times, name=what, of=clock)
    try:
        return float(given.parse(pa.array([text], pa.string()), 1)[0])
    except ValueError as error:
        raise ValueError(f"{what} is {quoted(text)}; expected a time as in the time column: {error}") from None
