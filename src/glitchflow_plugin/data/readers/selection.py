"""Conditions on the columns of a table: ranges of numbers, flags, and labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from glitchflow_plugin.errors import ConfigurationError, FormatError

_TRUE, _FALSE = ("true", "t", "yes", "1"), ("false", "f", "no", "0")
_MOST_VALUES = 200
"""Different labels that are remembered of a column, to tell what could have been asked for."""


@dataclass(frozen=True)
class Seen:
    """What a column holds: the reach of its numbers, and its values where some are asked for."""

    low: float = np.inf
    high: float = -np.inf
    values: frozenset[str] = frozenset()

    def with_(self, other: "Seen") -> "Seen":
        """Both."""
        values = frozenset(sorted(self.values | other.values)[:_MOST_VALUES])
        return Seen(min(self.low, other.low), max(self.high, other.high), values)

    def __str__(self) -> str:
        """For a message."""
        if self.values and self.low > self.high:
            return ", ".join(sorted(self.values)[:10]) + (" and more" if len(self.values) > 10 else "")
        return f"{self.low:g} to {self.high:g}" if self.low <= self.high else "no values"


@dataclass(frozen=True)
class Condition:
    """What one column must hold: a range, ends included, or one of some values.

    Attributes:
        column: Its name.
        low: Lower end.
        high: Upper end.
        values: Numbers, truths or labels, in place of the range.
    """

    column: str
    low: float = -np.inf
    high: float = np.inf
    values: tuple[float | bool | str, ...] = ()

    def of(self, column: object, where: str) -> tuple[np.ndarray, np.ndarray, Seen]:
        """Rows that fulfil it, rows without a value, and what the column holds.

        Args:
            column: Numbers, truths, or text as it stands in a file, shape (row,).
            where: File and column, for messages.

        Raises:
            FormatError: A range is asked of what is no number.
        """
        if not self.values:
            try:
                found = numbers(column, where)
            except FormatError as error:
                raise FormatError(f"{error} Select labels by a list of them.") from error
            finite = found[np.isfinite(found)]
            seen = Seen(finite.min(), finite.max()) if finite.size else Seen()
            return (found >= self.low) & (found <= self.high), np.isnan(found), seen
        held = texts(column)
        lowered = np.char.lower(held.astype(np.str_)) if len(held) else np.zeros(0, np.str_)
        holds = np.zeros(len(held), dtype=bool)
        for value in self.values:
            if isinstance(value, bool):
                holds |= np.isin(lowered, [*_TRUE, "1.0"] if value else [*_FALSE, "0.0"])
            elif isinstance(value, str):
                holds |= held == value
            else:
                holds |= _as_numbers(held) == value
        distinct = frozenset(sorted(set(held.tolist()) - {""})[:_MOST_VALUES])
        measured = _as_numbers(held[held != ""])
        if len(measured) and np.isfinite(measured).all():
            return holds, held == "", Seen(measured.min(), measured.max(), distinct)
        return holds, held == "", Seen(values=distinct)

    def __str__(self) -> str:
        """As it is asked for."""
        if self.values:
            return f"{self.column} in {', '.join(map(str, self.values))}"
        ends = (f"{end:.12g}" if np.isfinite(end) else "null" for end in (self.low, self.high))
        return f"{self.column} in [{', '.join(ends)}]"


def conditions(select: Mapping[str, object]) -> tuple[Condition, ...]:
    """Conditions from `select` in the configuration.

    Raises:
        ConfigurationError: It is no mapping, a range is upside down, or a value is of another kind.

    >>> [str(one) for one in conditions({"snr": [8, None], "label": "Blip"})]
    ['snr in [8, null]', 'label in Blip']
    """
    if not isinstance(select, Mapping):
        raise ConfigurationError(
            f"triggers.select: expected columns with what they must hold, as in {{snr: [8, null]}}, got {select!r}"
        )
    return tuple(_condition(str(column), asked) for column, asked in select.items())


def _condition(column: str, asked: object) -> Condition:
    given = [asked] if isinstance(asked, str | bool | int | float) else asked
    where = f"triggers.select.{column}"
    if not isinstance(given, Sequence) or not given:
        raise ConfigurationError(
            f"{where}: expected a range [low, high] (null for no end), a value, or a list of values, got {asked!r}"
        )
    real = [one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in given]
    if given is asked and len(given) == 2 and all(real):
        low, high = (end if one is None else float(one) for one, end in zip(given, (-np.inf, np.inf), strict=True))
        if not low <= high:
            raise ConfigurationError(f"{where}: expected a range [low, high], got {list(given)}: no number is in it")
        return Condition(column, low, high)
    if any(not isinstance(one, str | bool | int | float) or one != one for one in given):  # noqa: PLR0124  # NaN
        raise ConfigurationError(f"{where}: expected numbers, true or false, or texts, got {list(given)!r}")
    return Condition(column, values=tuple(given))


def numbers(column: object, where: str) -> np.ndarray:
    """A column as float64; NaN where a value is hidden or empty.

    Raises:
        FormatError: Something else than numbers is there.
    """
    hidden = np.ma.getmaskarray(column)
    values = np.ma.getdata(column) if np.ma.isMaskedArray(column) else np.asarray(column)
    if values.ndim != 1:
        raise FormatError(f"{where}: expected one number a row, got the shape {values.shape[1:]} a row.")
    if not values.size:
        return np.zeros(0)
    if values.dtype.kind in "SUO":
        held = texts(column)
        found = _as_numbers(held)
        bad = np.flatnonzero(np.isnan(found) & ~np.isin(np.char.lower(held.astype(np.str_)), _EMPTY))
        if len(bad):
            raise FormatError(f"{where}, row {bad[0] + 1}: expected a number, got {held[bad[0]]!r}.")
        return found
    if values.dtype.kind not in "biuf":
        raise FormatError(f"{where}: expected numbers, got {values.dtype}.")
    return np.where(hidden, np.nan, values.astype(np.float64))


_EMPTY = ("", "nan", "+nan", "-nan", "none", "null", "n/a", "na", "--")
"""What stands in text where there is no number."""


def texts(column: object) -> np.ndarray:
    """A column as text, stripped; empty where a value is hidden."""
    values = np.asarray(np.ma.getdata(column) if np.ma.isMaskedArray(column) else column).tolist()
    held = np.array([""] * len(values), dtype=object)
    held[:] = [
        one if type(one) is str else one.decode(errors="replace").strip() if isinstance(one, bytes) else str(one)
        for one in values
    ]
    held[np.ma.getmaskarray(column)] = ""
    return held


def _as_numbers(held: np.ndarray) -> np.ndarray:
    """Texts as numbers; NaN of those that are none."""
    try:
        return np.where(held == "", "nan", held).astype(np.float64)
    except ValueError:
        return np.array([_number(one) for one in held.tolist()])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
