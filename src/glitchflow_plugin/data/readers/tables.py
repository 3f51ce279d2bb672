"""The two rules for every table that somebody gives: how text becomes columns, and how columns become GPS times."""

import csv
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from glitchflow_plugin.data.files import read_text
from glitchflow_plugin.errors import FormatError, nearest

logger = logging.getLogger(__name__)

TIME_COLUMNS = (
    "time",
    "gps_time",
    "gps",
    "GPStime",
    "event_time",
    "peak_time",
    "peakGPS",
    "tc",
    "peak",
    "end_time",
    "geocent_end_time",
    "time_geocent_gps",
    "gps_seconds",
    "gps_s",
    "time_s",
)
"""Names that a column of GPS times goes by, tried in this order; case, underscores and spaces do not count."""

_SECONDS = ("seconds", "second", "secs", "sec", "s")
"""Names that may mean any seconds, but beside nanoseconds mean a time."""

_NANOSECONDS = ("ns", "nsec", "nsecs", "nanosec", "nanosecs", "nanosecond", "nanoseconds", "nano", "nanos")
_FRACTIONS = {
    end: unit
    for unit, ends in (
        (1e-9, _NANOSECONDS),
        (1e-6, ("us", "usec", "usecs", "microsec", "microsecs", "microsecond", "microseconds")),
        (1.0, ("frac", "fraction")),
        (1e-3, ("ms", "msec", "msecs", "millisec", "millisecs", "millisecond", "milliseconds")),
    )
    for end in ends
}
"""How the name of a column with the rest of a second ends, and what one of its units is in s."""

_LIKE_A_REST = re.compile(rf"(^|[^a-z])({'|'.join(_NANOSECONDS)}|frac|fraction)$")
"""A column that may well hold the rest of some second."""

_LIKE_A_DATE = re.compile(r"\d{4}[-/]\d\d?[-/]\d\d?(?!\d)|\d\d?[/.]\d\d?[/.]\d{4}(?!\d)|[A-Za-z]{3,9}\.? \d")
"""The beginning of a date as people and programs write it."""


EARLIEST = 1e8
"""GPS seconds before this (the year 1983) are of no data."""

LATEST = 1e10
"""GPS seconds beyond this (the year 2296) are another unit."""

_AGREE = 1e-6
"""A fraction given twice is one within this (s): float64 holds GPS times to 0.24 microseconds."""

_WHOLE_IN_FLOAT32 = 2.0**24
"""Below this (s) single precision holds every whole second, and rounding cannot be told from round numbers."""


def read_csv(
    path: Path | str,
    comment: str = "#",
    *,
    wanted: Callable[[list[str]], Collection[str]] | None = None,
    headless: Mapping[int, Sequence[str]] | None = None,
) -> dict[str, list[str]]:
    """Columns of a table of text: a header line, then in every row as many values as it has names.

    The separator is the header's: comma, semicolon or tab, or blanks where the rows have them too. Empty values beyond
    the last name (trailing commas) count as none; blank lines and lines that start with `comment` are skipped. Where
    the first row holds numbers, the header is the last comment before it that fits, as numpy and astropy write it, or
    a name with its unit for each column (`# central time [s]`), as Omicron writes them.

    Args:
        path: In UTF-8 or with a byte order mark; `.gz` is unpacked.
        comment: Starts a line that is no row. Empty: every line is one.
        wanted: Gives, of the names in the header, those whose values are kept; all by default.
        headless: Names of the columns of a table that has no header, by their number; by default there must be one.

    Returns:
        Values by column name, stripped. A column without a name, as pandas writes an index, is left out.

    Raises:
        FormatError: The file cannot be read, a name is there twice, or a row does not fit the header. Nothing is
            guessed: of a row with a value too many nobody knows which columns are shifted.
    """
    path = Path(path)
    lines = (line.group() for line in _LINE.finditer(read_text(path)))
    lead, separator, names = _headed(lines, comment, headless or {}, path)
    kept: list[tuple[int, str, list[str]]] | None = None
    rest = ("\n" if comment and line.lstrip().startswith(comment) else line for line in lines)
    reader = csv.reader(chain(lead, rest), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for read in reader:
            row = read
            if kept is None or len(row) != len(names) or not row[-1].strip():
                row = _filled([value.strip() for value in read], len(names))
            if not row:
                continue
            if not names:
                names = row
                continue
            if kept is None:
                kept = _kept(names, wanted, path)
            if len(row) != len(names):
                raise FormatError(
                    f"{path}, line {reader.line_num}: expected {len(names)} values, one for each name in {names}, got "
                    f"{len(row)}: {separator.join(row)!r}. Name every column in the header and give every row "
                    "all values; write decimal points, not commas, and no separators of thousands."
                )
            for place, _, values in kept:
                values.append(row[place].strip())
    except csv.Error as error:
        raise FormatError(f"{path}, line {reader.line_num} cannot be read as CSV with a header ({error}).") from error
    if not names:
        raise FormatError(f"{path} is empty: expected a header line with the names of the columns, and a row each.")
    return {name: values for _, name, values in (_kept(names, wanted, path) if kept is None else kept)}


@dataclass(frozen=True)
class TextLayout:
    """Where the rows of a table of text stand.

    Attributes:
        lines: All lines, with their ends.
        separator: Between values.
        names: Of the columns, as `read_csv` gives them.
        header: Line of the header; None where no line is one.
        rows: Last line of each row, in order.
    """

    lines: tuple[str, ...]
    separator: str
    names: tuple[str, ...]
    header: int | None
    rows: tuple[int, ...]


def text_layout(path: Path | str, headless: Mapping[int, Sequence[str]] | None = None) -> TextLayout:
    """Where the rows of a table stand that `read_csv` reads.

    Args:
        path: As there.
        headless: Likewise.

    Raises:
        FormatError: As there.
    """
    path, comment = Path(path), "#"
    every = tuple(line.group() for line in _LINE.finditer(read_text(path)))
    lines = iter(every)
    lead, separator, given = _headed(lines, comment, headless or {}, path)
    rest = ("\n" if line.lstrip().startswith(comment) else line for line in lines)
    reader = csv.reader(chain(lead, rest), delimiter=separator, skipinitialspace=True, strict=True)
    names, header, rows = list(given), None, []
    for read in reader:
        row = _filled([value.strip() for value in read], len(names))
        if row and not names:
            names, header = row, reader.line_num - 1
        elif row:
            rows.append(reader.line_num - 1)
    return TextLayout(every, separator, tuple(names), header, tuple(rows))


def _filled(values: list[str], width: int) -> list[str]:
    """The values of a row without empty ones beyond the last name; none of a blank line."""
    if not any(values):
        return []
    while len(values) > width and not values[-1]:
        values.pop()
    return values


def _kept(
    names: list[str], wanted: Callable[[list[str]], Collection[str]] | None, path: Path
) -> list[tuple[int, str, list[str]]]:
    """Place and name of each column whose values are kept, and where these go."""
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise FormatError(f"{path}: the header names {twice} more than once. Give every column its own name.")
    named = list(filter(None, names))
    chosen = set(named if wanted is None else wanted(named))
    return [(place, name, []) for place, name in enumerate(names) if name in chosen]


def _headed(
    lines: Iterator[str], comment: str, headless: Mapping[int, Sequence[str]], path: Path
) -> tuple[list[str], str, list[str]]:
    """The first lines with nothing in place of comments, what separates values, and the names if no line gives them."""
    lead, comments = _up_to_a_row(lines, comment)
    first = lead[-1] if lead else ""
    headers = [place for place, text in comments.items() if _heads(text, first)]
    if headers:
        lead[headers[-1]] = f"{comments[headers[-1]]}\n"
    else:
        separator, names = _named_otherwise(list(comments.values()), first, headless, path)
        if names:
            return lead, separator, names
        lead += _up_to_a_row(lines, comment)[0]
    header, row = (*(line.strip() for line in lead if line.strip()), "", "")[:2]
    separators = [one for one in ",;\t" if one in header] or [_blank_or_comma(header, row)]
    if len(separators) > 1:
        raise FormatError(f"{path}: the header {header!r} mixes separators. Use commas, semicolons or tabs only.")
    return lead, separators[0], []


def _up_to_a_row(lines: Iterator[str], comment: str) -> tuple[list[str], dict[int, str]]:
    """Lines up to the next that is neither blank nor a comment, and the comments before it by their place."""
    lead: list[str] = []
    comments: dict[int, str] = {}
    for line in lines:
        if comment and line.lstrip().startswith(comment):
            comments[len(lead)] = line.strip().lstrip(comment).strip()
            lead.append("\n")
            continue
        lead.append(line)
        if line.strip():
            break
    return lead, comments


def _named_otherwise(
    comments: Sequence[str], first: str, headless: Mapping[int, Sequence[str]], path: Path
) -> tuple[str, list[str]]:
    """What separates values, and the names of the columns where the first row holds numbers and no line is a header."""
    if not first.strip():
        names = _with_units(comments)
        return " ", names if "time" in names else []  # a table of Omicron's without a row
    separator, values = _split(first)
    if not all(map(_is_number, values)):
        return "", []
    names = _with_units(comments, len(values)) or list(headless.get(len(values), ()))
    if names and names[0] == "time" and float(values[0]) < EARLIEST:
        raise FormatError(f"{path}: expected GPS times in the first column, got {first.strip()!r}.")
    return separator or " ", names


_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
"""A line with its end. (A StringIO would take four bytes a character.)"""

_WITH_UNIT = re.compile(r"([^\[\]]*[^\[\]\s])\s*\[([^\[\]]*)\]")
"""A name and its unit: `central time [s]`."""

_OMICRON = {
    "central time": "time",
    "peak time": "time",
    "gps time": "time",
    "central frequency": "frequency",
    "peak frequency": "frequency",
    "starting time": "tstart",
    "ending time": "tend",
    "starting frequency": "fstart",
    "ending frequency": "fend",
}
"""Omicron's names in text, and what it calls the same columns in ROOT and HDF5."""


def _with_units(comments: Sequence[str], count: int | None = None) -> list[str]:
    """Names of so many columns out of comments that name each with its unit; none where these are too few."""
    found = [
        (name.strip(" -,;|\t").lower(), unit.strip()) for text in comments for name, unit in _WITH_UNIT.findall(text)
    ]
    names = [
        _OMICRON[name] if name in _OMICRON and (unit in ("s", "") or "time" not in name) else name
        for name, unit in found[-(count or len(found)) :]
    ]
    return names if count in (None, len(names)) else []


def _split(line: str) -> tuple[str | None, list[str]]:
    """What separates the values of a line (None: blanks), and the values up to the last that is not empty."""
    separator = next((one for one in ",;\t" if one in line), None)
    return separator, [value.strip().strip('"') for value in line.strip().rstrip(separator).split(separator)]


def _heads(text: str, line: str) -> bool:
    """Whether a text has a name for every value of a line that has numbers in it, and so is no header itself."""
    (between_names, names), (between_values, values) = _split(text), _split(line)
    fits = between_names == between_values and len(names) == len(values)
    if between_names is None and "[" in text:
        return False  # `central frequency [Hz]` is one name
    return fits and any(map(_is_number, values)) and all(names) and not any(map(_is_number, names))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _blank_or_comma(header: str, row: str) -> str:
    """What separates values where there is no other sign: names may hold blanks, so the row decides."""
    return " " if _split(row)[0] is None and len(header.split()) == len(row.split()) > 1 else ","


class NoColumnError(FormatError):
    """A table lacks a column that is asked for by its name."""


def column_of(columns: Mapping[str, object], name: str, path: Path | str) -> Any:
    """One column by its name.

    Raises:
        NoColumnError: The table does not have it.
    """
    if name not in columns:
        near = nearest(name, columns)
        raise NoColumnError(
            f"{path} has no column {name!r}; it has {list(columns)}.{near} Correct the name or the table."
        )
    return columns[name]


def gps_times(columns: Mapping[str, object], path: Path | str, name: str | None = None) -> np.ndarray:
    """GPS times of a table, s, float64, joined from two columns where whole seconds and the rest are apart.

    `X` is joined with `X_ns` (or `_us`, `_ms`, `_nanoseconds`, `_frac`, and so on; also `gps_s` with `gps_ns`,
    `end_time` with `end_ns`, anything with `ns`). If `X` holds the fraction already, the other column must agree.

    Args:
        columns: By name: numbers, or text as it stands in the file.
        path: The file, for messages.
        name: Column of the times; the first of `TIME_COLUMNS` by default.

    Raises:
        FormatError: There is no such column, or it does not hold times to better than a second.
    """
    name = _time_column(list(columns), path) if name is None else name
    times = _numbers(column_of(columns, name, path), f"{path}: column {name!r}", precise=True)
    other = _rest_column(name, list(columns), path)
    if other is not None:
        unit = _unit_of(other)
        rest = unit * _numbers(columns[other], f"{path}: column {other!r}", unit=unit)
        where = f"{path}: the columns {name!r} and {other!r}"
        if not np.all((rest >= 0) & (rest < 1)):
            raise FormatError(f"{where}: expected whole seconds and the rest of a second, got {other} beyond a second.")
        if np.all(times == np.floor(times)):
            times = times + rest
        elif not np.all(np.abs((times - rest + 0.5) % 1 - 0.5) <= _AGREE):
            raise FormatError(f"{where} hold different fractions of a second. Leave out the one that is wrong.")
    elif len(times) and np.all(times == np.floor(times)):
        _warn_if_not_joined(name, list(columns), path)
    _warn_if_rounded(times, f"{path}: column {name!r}")
    return times


def gps_nanoseconds(columns: Mapping[str, object], path: Path | str, name: str | None = None) -> np.ndarray:
    """GPS times of a table as `gps_times` reads them, ns, int64: exact where text or whole numbers are.

    Times in float64 seconds are known to 0.1 us (half of their spacing).

    Args:
        columns: As there.
        path: As there.
        name: As there.

    Raises:
        FormatError: As there.
    """
    name = _time_column(list(columns), path) if name is None else name
    times = gps_times(columns, path, name)
    if not np.all(np.isfinite(times) & (np.abs(times) < LATEST)):
        raise FormatError(f"{path}: the column {name!r} holds times that are none. Leave these rows out.")
    seconds, rest = np.asarray(column_of(columns, name, path)), _rest_column(name, list(columns), path)
    if rest is None and seconds.dtype.kind in "SUO":
        exact = [int((Decimal(str(text).strip()) * 1_000_000_000).to_integral_value()) for text in seconds.tolist()]
        return np.array(exact, dtype=np.int64)
    if rest is not None and _unit_of(rest) == 1e-9 and np.all(seconds.astype(np.float64) % 1 == 0):
        parts = (np.asarray(one).astype(np.float64).astype(np.int64) for one in (seconds, columns[rest]))
        return next(parts) * 1_000_000_000 + next(parts)
    whole = np.floor(times)
    return whole.astype(np.int64) * 1_000_000_000 + np.rint((times - whole) * 1e9).astype(np.int64)


def peak_nanoseconds(columns: Mapping[str, object], path: Path | str) -> np.ndarray:
    """Times of triggers or glitches as of `gps_nanoseconds`: of their peaks, where whole ns stand beside these.

    Args:
        columns: As there.
        path: As there.

    Raises:
        FormatError: As there.
    """
    return gps_nanoseconds(columns, path, "peak_time" if {"peak_time", "peak_time_ns"} <= set(columns) else None)


def time_columns(names: Sequence[str], path: Path | str, name: str | None = None) -> tuple[str, set[str]]:
    """The column of GPS times, and all that `gps_times` looks at beside it.

    Args:
        names: All columns.
        path: The file, for messages.
        name: Column of the times; the first of `TIME_COLUMNS` by default.

    Raises:
        FormatError: There is no such column.
    """
    held = list(names)
    name = _time_column(held, path) if name is None else name
    column_of(dict.fromkeys(held), name, path)
    other = _rest_column(name, held, path)
    return name, {name, *([other] if other else []), *(one for one in held if _LIKE_A_REST.search(one.lower()))}


def gps_numbers(texts: Iterable[str], where: str) -> np.ndarray:
    """GPS times from text, s, float64.

    Raises:
        FormatError: One is no number, or is rounded to whole seconds or worse (`1.12626e9`).
    """
    times = np.array([_number(text, where, row, precise=True) for row, text in enumerate(texts, 1)], dtype=np.float64)
    _warn_if_rounded(times, where)
    return times


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _unit_of(name: str) -> float:
    """What the unit in a column's name is in s, by its longest ending."""
    return next(_FRACTIONS[end] for end in sorted(_FRACTIONS, key=len, reverse=True) if _plain(name).endswith(end))


def _time_column(held: list[str], path: Path | str) -> str:
    for known in TIME_COLUMNS:
        if known in held:
            return known
        alike = [name for name in held if _plain(name) == _plain(known)]
        if len(alike) == 1:
            return alike[0]
    seconds = [name for name in held if _plain(name) in _SECONDS]
    if len(seconds) == 1 and any(_plain(name) in _NANOSECONDS for name in held):
        return seconds[0]
    raise FormatError(
        f"{path}: none of the columns {held} looks like GPS times. Name it in `time_column`, or call it "
        "time. The first line must be the header."
    )


def _rest_column(name: str, held: list[str], path: Path | str) -> str | None:
    """The column that holds the rest of the seconds in `name`; None if they are whole times by themselves."""
    plain = _plain(name)
    stems = dict.fromkeys((plain, re.sub(r"(s|secs?|seconds?)$", "", plain), plain.removesuffix("time")))
    names = [{stem + end for end in _FRACTIONS} for stem in stems if stem] + [set(_NANOSECONDS)]
    if plain in names[-1] or any(
        plain.endswith(end) and _plain(one) + end == plain for one in held for end in _FRACTIONS
    ):
        raise FormatError(f"{path}: the column {name!r} holds the rest of seconds, no times. Name that of the seconds.")
    for wanted in names:
        found = [one for one in held if one != name and _plain(one) in wanted]
        if len(found) > 1:
            raise FormatError(f"{path}: {found} may each hold the rest of the seconds in {name!r}. Keep one of them.")
        if found:
            return found[0]
    return None


def _numbers(column: object, where: str, *, unit: float = 1.0, precise: bool = False) -> np.ndarray:
    """A column as float64; refuses what would lose something on the way."""
    if np.any(getattr(column, "mask", False)):
        raise FormatError(f"{where} lacks values in {int(np.sum(column.mask))} row(s). Fill them in or drop the rows.")
    named = str(getattr(column, "unit", None) or "s")
    if named != "s" and _FRACTIONS.get(named) != unit:
        raise FormatError(f"{where}: expected times in s, got the unit {named}. Convert them.")
    try:
        values = np.asarray(getattr(column, "gps", column))  # astropy's Time may count from another epoch
    except Exception as error:  # columns of classes that are not numpy's
        raise FormatError(f"{where} holds no numbers ({error}).") from error
    if values.ndim != 1:
        raise FormatError(f"{where}: expected one number a row, got the shape {values.shape[1:]} a row.")
    if not values.size:
        return np.zeros(0)
    if values.dtype.kind == "U" and not np.any(np.char.find(values, "e") + 1 | np.char.find(values, "E") + 1):
        with suppress(ValueError):  # what is no number is told below, with its row
            return values.astype(np.float64)
    if values.dtype.kind in "SUO":
        texts = (one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in values.tolist())
        return np.array([_number(text, where, row, precise=precise) for row, text in enumerate(texts, 1)])
    if values.dtype.kind not in "fiu":
        raise FormatError(f"{where}: expected numbers, got {values.dtype}.")
    if precise and values.dtype.kind == "f" and values.dtype.itemsize < 8:
        raise FormatError(
            f"{where} is stored as {values.dtype}, in which GPS times are known to 64 or 128 s only. "
            "Write the table again with times in float64."
        )
    return values.astype(np.float64)


def _number(text: str, where: str, row: int, *, precise: bool) -> float:
    try:
        value = float(text)
        rough = precise and is_rounded(text)
    except ValueError as error:
        advice = " Write a decimal point, and no separators of thousands." if "," in text else ""
        if _LIKE_A_DATE.match(text.strip()):
            advice = " It looks like a date: convert it to GPS seconds, for instance by gwpy.time.to_gps (of UTC)."
        raise FormatError(f"{where}, row {row}: expected a number, got {text.strip()!r}.{advice}") from error
    if rough:
        raise FormatError(f"{where}, row {row}: {text.strip()} is rounded to whole seconds or worse. Write all digits.")
    return value


def is_rounded(text: str) -> bool:
    """Whether a number in text is rounded to whole units or worse: `1.264e9` has no digit after its decimal point.

    Raises:
        ValueError: It is no number.
    """
    mantissa, _, exponent = text.lower().partition("e")
    return bool(exponent) and np.isfinite(float(text)) and int(exponent) >= len(mantissa.partition(".")[2].strip())


def _warn_if_not_joined(name: str, held: list[str], path: Path | str) -> None:
    """Warn of columns that may hold the rest of seconds which are all whole, but by their names belong to others."""
    maybe = [one for one in held if one != name and _LIKE_A_REST.search(one.lower())]
    if maybe:
        logger.warning(
            "%s: all times in %r are whole seconds, and %s is not joined with them. If it holds the rest of a second, "
            "call it %s_ns (or %s_frac); else events are cut up to 1 s off.",
            path,
            name,
            maybe,
            name,
            name,
        )


def _warn_if_rounded(times: np.ndarray, where: str) -> None:
    """Warn of times that all look as if they had been through single precision: that leaves no trace but this."""
    distinct = np.unique(times)
    if len(distinct) < 2 or not np.all((distinct > _WHOLE_IN_FLOAT32) & (distinct < 1e12)):
        return
    single = distinct.astype(np.float32)
    if np.all((single == distinct) | (single.astype(str).astype(np.float64) == distinct)):
        logger.warning(
            "%s: all %d times are as round as single precision makes them (known to 64 or 128 s only). Unless they "
            "were meant so, write the table again from times in float64.",
            where,
            len(times),
        )
