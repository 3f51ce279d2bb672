"""From a section of conf/ to a frozen dataclass; what is misspelt, of another type or out of range gets a sentence."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import reduce, wraps
from operator import or_
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PydanticUserError,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic.dataclasses import dataclass

from glitchflow_plugin.errors import ConfigurationError, nearest
from glitchflow_plugin.types.plain import plain

T = TypeVar("T")
logger = logging.getLogger(__name__)

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A share that is neither nothing nor the whole."""
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
"""A number of which 0 says: none of it."""
Replicates = Annotated[int, Field(ge=100)]
"""Of a bootstrap that decides."""
Number = float | int
"""What is kept as it is written: 256 stays 256 in files."""
PositiveNumber = Annotated[Number, Field(gt=0, lt=float("inf"))]
"""The same, above 0."""


def _all_if_none(value: object, info: ValidationInfo) -> object:
    if type(value) is int and value == 0:
        logger.warning("%s: 0 is taken as null, as many as there is room for. Write null.", info.field_name)
        return None
    return value


CountOrAll = Annotated[Count | None, BeforeValidator(_all_if_none)]
"""A number of which null says: as many as there is room for."""


def _single(value: object) -> object:
    return (value,) if isinstance(value, str) else () if value is None else value


def _rising(pair: Sequence[float]) -> Sequence[float]:
    if not pair[0] <= pair[1]:
        raise ValueError(f"expected [low, high] with low <= high, got {list(pair)}.")
    return pair


Range = Annotated[tuple[float, float], Field(description="two numbers [low, high]"), AfterValidator(_rising)]
"""Lowest and highest."""
AccuracyRange = Annotated[
    Sequence[Annotated[Number, Field(ge=0)]], Field(min_length=2, max_length=2), AfterValidator(_rising)
]
"""Lowest and highest SNR² of accuracy curves, as they are written."""


def _expanded(given: object) -> object:
    return os.path.expanduser(given) if isinstance(given, PurePath | str) else given  # noqa: PTH111  # as data.files


Located = Annotated[str, BeforeValidator(_expanded)]
"""A path, with the folder of the user in place of `~`."""
Texts = Annotated[tuple[str, ...], BeforeValidator(_single)]
"""One text, or several."""

_Q = "has no effect: give the wanted Q as `q`, one number or a list. Remove it."
_WINDOW = "has no effect: tiles always have the bisquare window. Remove it."
_QTILE = "has no effect: maps are always interpolated to num_f_bins x num_t_bins, and spikes found there. Remove it."
FORMER: Mapping[str, Mapping[str, str]] = {
    "ingest": {"workers": "is now engine.workers, for all steps: move it to conf/engine.yaml."},
    "process": {
        "qtile": _QTILE,
        "psd": "has no effect: series are whitened by Data-processor (conf/whiten.yaml). Remove it.",
        "energy_mode": "has no effect: maps are always energies. Remove it.",
        "phase_mode": "has no effect: maps hold energies, no phases. Remove it.",
        "window_param": _WINDOW,
        "tau": "has no effect: maps always cover the whole event; `len` in datasets.yaml sets its length. Remove it.",
        "beta": _WINDOW,
        "shuffle": "has no effect: maps always keep the order of the events, and training shuffles its windows itself. "
        "Remove it.",
        "qslicemin": _Q,
        "qslicemax": _Q,
    },
    "scan": {
        "qtile": _QTILE,
        "significance": "has been replaced by fdr, the largest false-discovery rate over all channels (1: no "
        "requirement). Write fdr in its place.",
    },
    "triggers.classify.settings": {
        "separation": "is now that of the labels that the model has learnt from. Remove it.",
    },
}
"""By section, keys that there were, most of them of the field's first pipeline, and what to do about them."""

_IDLE: Mapping[str, object] = {
    "energy_mode": True,
    "qtile": False,
    "phase_mode": False,
    "shuffle": False,
    **dict.fromkeys(("psd", "window_param", "tau", "beta", "qslicemin", "qslicemax")),
}
"""What files of before say of such a key without any effect."""


def _scalar(value: Any) -> object:
    return value.item() if getattr(value, "shape", None) == () else value  # NumPy's and torch's


def _whole(value: object) -> object:
    value = _scalar(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


_EXACT: Mapping[object, object] = {
    int: Annotated[int, Strict(), BeforeValidator(_whole)],
    float: Annotated[float, Strict(), BeforeValidator(_scalar)],
    bool: Annotated[bool, Strict()],
}
"""Numbers that are written as numbers: neither text nor true is one, but 3.0 is a whole one."""


def _exact(hint: Any) -> Any:
    """The same type with its numbers exact, however deep they are."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return Annotated[_exact(hint.__origin__), *hint.__metadata__]
    if kind in (None, Literal):
        return _EXACT.get(hint, hint)
    parts = tuple(_exact(part) for part in parts)
    return reduce(or_, parts) if kind in (Union, UnionType) else kind[parts]


@dataclass_transform(frozen_default=True)
def section(kind: type[T]) -> type[T]:
    """Make a frozen dataclass of settings, each checked against its annotation before `__post_init__` relates them.

    Whole numbers become floats and lists tuples where the annotation says so, and mappings become the settings that it
    names. What is refused is a `ConfigurationError`; a call with other names is a `TypeError`, as of any function.

    >>> @section
    ... class Sieve:
    ...     threshold: Positive = 1.0
    >>> Sieve(threshold=3)
    Sieve(threshold=3.0)
    >>> Sieve(threshold=-3)
    Traceback (most recent call last):
    ...
    glitchflow_plugin.errors.ConfigurationError: threshold: expected float (above 0), got -3.
    """
    kind.__annotations__ = {key: _exact(hint) for key, hint in kind.__annotations__.items()}
    made: Any = dataclass(frozen=True, config=ConfigDict(extra="forbid"))(kind)
    initialise = made.__init__

    @wraps(initialise)
    def checked(self: Any, *args: Any, **values: Any) -> None:
        try:
            initialise(self, *args, **values)
        except ValidationError as error:
            flaw = _told(error)
            wrong_call = flaw["type"] in _CALL and len(flaw["loc"]) == 1
            raise (TypeError if wrong_call else ConfigurationError)(_sentence(flaw, made, "")) from error

    made.__init__ = checked
    return made


def built(kind: type[T], content: Mapping[str, Any] | None, where: str) -> T:
    """Settings from a section of the configuration.

    Args:
        kind: A dataclass made by `section`, or a model of pydantic's.
        content: Its keys and values as YAML gives them; None: all as they are by default.
        where: The section or file, for the message.

    Raises:
        ConfigurationError: A key is unknown or missing, or a value is of another type or out of range.

    >>> from glitchflow_plugin.data.datasets import EventRange
    >>> built(EventRange, {"mim": 3}, "events")
    Traceback (most recent call last):
    ...
    glitchflow_plugin.errors.ConfigurationError: events: unknown key 'mim'. Nearest: min. It takes min, max.
    """
    if content is not None and not isinstance(content, Mapping):
        raise ConfigurationError(f"{where}: expected keys with values, got {content!r}.")
    try:
        return kind(**plain(_without_former(content or {}, where)))
    except (ConfigurationError, TypeError, ValidationError) as error:
        flaw = error if isinstance(error, ValidationError) else error.__cause__
        if not isinstance(flaw, ValidationError):
            raise
        raise ConfigurationError(_sentence(_told(flaw), kind, where)) from flaw


def former(where: str, key: str) -> str:
    """What became of a key that there was, as a sentence; empty of any other."""
    advice = FORMER.get(where, {}).get(key)
    return f"{where}.{key} {advice}" if advice else ""


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> None:
    """Refuse text, or true and false, in place of a number among the arguments of a function.

    Args:
        function: With annotations.
        arguments: By name.
        where: For the message.

    Raises:
        ConfigurationError: The message names the argument.
    """
    for key, value in arguments.items():
        if not isinstance(value, str | bool):
            continue
        try:
            hint = get_type_hints(function)[key]
            adapter = TypeAdapter(_exact(hint))
        # an array or a record of ours: its class checks itself; annotations of others may be anything
        except (PydanticUserError, NameError, KeyError, AttributeError, TypeError):
            continue
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            raise ConfigurationError(_expected(error.errors()[0], _name(hint), f"{where}.{key}")) from error


def _told(error: ValidationError) -> Mapping[str, Any]:
    """An unknown key, which lacks its right name; else the first flaw, one within a list before that it is a list."""
    flaws = error.errors(include_url=False)
    deepest = max(flaws, key=lambda one: sum(isinstance(part, int) for part in one["loc"]))
    return next((one for one in flaws if one["type"] in _UNKNOWN), deepest)


def _sentence(flaw: Mapping[str, Any], kind: type, where: str) -> str:
    """What pydantic refused, as a sentence: where it stands, what was expected, what came.

    Args:
        flaw: One of `ValidationError.errors`.
        kind: Class of settings that was to be made.
        where: The section or file; empty if it is not known.
    """
    *parents, last = flaw["loc"] or ("",)
    lacks = isinstance(last, str) and flaw["type"] in _CALL
    places, hint, expected, described = [where] if where else [], None, "", None
    for part in parents if lacks else flaw["loc"]:
        known, hints = kind.__pydantic_fields__, get_type_hints(kind)
        key = [*known][part] if isinstance(part, int) and hint is None else part  # an argument without its name
        if isinstance(key, int):
            places[-1] += f"[{key}]"
        elif key in known:
            places.append(key)
            hint = hints[key]
            kind, described = _section_in(hint) or kind, known[key].description
            expected = described or _name(hint)
        elif Mapping in map(get_origin, (hint, *get_args(hint))):
            places.append(key)
        # else it is a member of a union, which is no place
    if lacks:
        known = kind.__pydantic_fields__
        flawed = f"{last} is missing." if flaw["type"] == "missing" else f"unknown key {last!r}.{nearest(last, known)}"
        return f"{_place(places)}{flawed} It takes {', '.join(known)}."
    if flaw["type"] != "value_error":
        return _expected(
            flaw, expected, ".".join(places), explained=described is not None and get_origin(hint) in (Union, UnionType)
        )
    told = flaw["msg"].removeprefix("Value error, ")
    if where and told.startswith(where.partition(".")[0]):
        return told
    if places and told.startswith(places[-1]):
        places.pop()
    return _place(places) + told


def _place(parts: Sequence[str]) -> str:
    return f"{'.'.join(parts)}: " if parts else ""


def _expected(flaw: Mapping[str, Any], expected: str, place: str, *, explained: bool = False) -> str:
    got = f"got {flaw['input']!r}."
    if flaw["type"] == "literal_error":
        choices = flaw["ctx"]["expected"].split("'")[1::2]
        return f"{place} must be one of {', '.join(choices)}, {got}{nearest(flaw['input'], choices)}"
    if flaw["type"] == "bool_type":
        return f"{place} must be true or false without quotes, {got}"
    if flaw["type"] in ("dataclass_type", "mapping_type"):
        return f"{place}: expected keys with values, {got}"
    if explained and not flaw["type"].startswith(("greater", "less")):
        return f"{place}: expected {expected}, {got}"
    words = flaw["msg"].removeprefix("Input should be ")
    for theirs, ours in _WORDS.items():
        words = words.replace(theirs, ours)
    return f"{place}: expected {expected} ({words}), {got}"


def _name(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(map(_name, get_args(hint)))
    if hint is NoneType:
        return "None"
    if get_origin(hint) is Annotated:
        return _name(hint.__origin__)
    if isinstance(kind := get_origin(hint), type):
        return f"{kind.__name__}[{', '.join('...' if part is ... else _name(part) for part in get_args(hint))}]"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("collections.abc.", "")


_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_CALL = (*_UNKNOWN, "missing")
_WORDS = {
    "a valid tuple": "a list",
    "a valid integer": "a whole number",
    "a valid string": "text",
    "a valid number": "a number",
    "a valid sequence": "a list",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "less than inf": "finite",
    "greater than": "above",
    "less than": "below",
    "Field required": "one is missing",
    "'str' instances are not allowed as a Sequence value": "a list",
}


def _section_in(hint: Any) -> Any:
    """The class of settings that an annotation names, if it names one."""
    if hasattr(hint, "__pydantic_fields__"):
        return hint
    return next(filter(None, map(_section_in, get_args(hint))), None)


def _without_former(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys without those that there were, which files of before still name."""
    old = [key for key in content if former(where, key)]
    for key in old:
        value = content[key]
        if key not in _IDLE or value is not _IDLE[key]:
            raise ConfigurationError(f"{former(where, key)} (Got {value!r}.)")
    if old:
        logger.warning("%s: nothing reads %s any more, remove what is there of it.", where, ", ".join(old))
    return {key: value for key, value in content.items() if key not in old}
