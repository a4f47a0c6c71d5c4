"""Read numbers and texts from columns of any type; errors show the wrong cell."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gssr.shown import quoted

MISSING = ("", "NA", "N/A", "n/a", "na", "NaN", "nan", "NAN", "null", "NULL", "None", "none", "-", "#N/A", "<NA>")
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
    codes = np.array([float(word) for word in missing if is_number(word)])
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
            row, word = first_wrong(words)
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


def is_number(word: str) -> bool:
    """Whether a word is a finite number."""
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def first_wrong(words: pa.Array) -> tuple[int, str]:
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
    return all(text is None or is_number(text) for text in texts)
