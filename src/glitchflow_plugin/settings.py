"""From the keys of a file of conf/ to a frozen dataclass; what is misspelt or of another type is told in a sentence."""

import json
import logging
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from glitchflow_plugin.errors import ConfigurationError, nearest

T = TypeVar("T")
logger = logging.getLogger(__name__)

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


def built(kind: type[T], content: Mapping[str, Any] | None, where: str) -> T:
    """Settings from a section of the configuration.

    Args:
        kind: A dataclass, which refuses what is out of range.
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
    content = _without_former(content or {}, where)
    known = [one.name for one in fields(kind) if one.init]  # type: ignore[arg-type]  # pyright: ignore
    for key in content:
        if key not in known:
            raise ConfigurationError(
                f"{where}: unknown key {key!r}.{nearest(key, known)} It takes {', '.join(map(str, known))}."
            )
    try:
        made = kind(**content)
    except ConfigurationError as error:
        told = str(error)
        raise ConfigurationError(told if told.startswith(where.partition(".")[0]) else f"{where}: {told}") from error
    except TypeError as error:
        for key, value in content.items():
            _check_type(kind, key, value, where)
        raise ConfigurationError(f"{where}: {error}. Keys: {', '.join(known)}.") from error
    for key in content:  # the class itself may have made a tuple of a list, or a list of one
        _check_type(kind, key, getattr(made, key), where)
    return made


def former(where: str, key: str) -> str:
    """What became of a key that there was, as a sentence; empty of any other."""
    advice = FORMER.get(where, {}).get(key)
    return f"{where}.{key} {advice}" if advice else ""


def as_float(settings: object, key: str) -> None:
    """Make 16 and 16.0, which are the same to YAML, the same in what is stored; called by a frozen dataclass itself."""
    value = getattr(settings, key)
    if type(value) is int:
        object.__setattr__(settings, key, float(value))


def check_arguments(function: Any, arguments: Mapping[str, Any], where: str) -> None:
    """Refuse text, or true and false, in place of a number among the arguments of a function.

    Args:
        function: With annotations.
        arguments: By name.
        where: For the message.

    Raises:
        ConfigurationError: The message names the argument.
    """
    for key, value in arguments.items():
        if isinstance(value, str | bool):
            _check_type(function, key, value, where)


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


@cache
def _adapter(kind: Any, key: str) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(get_type_hints(kind)[key])
    # an array or a record of ours: its class checks itself; annotations of others may be anything
    except (PydanticUserError, NameError, KeyError, AttributeError, TypeError):
        return None


def _check_type(kind: Any, key: str, value: Any, where: str) -> None:
    """Refuse what the annotation of a field does not hold; 3.0 for 3 and a list for a tuple are taken."""
    adapter = _adapter(kind, key)
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):  # no value of YAML's
        return
    if adapter is None:
        return
    try:
        # text in place of a number is no number, although it may look like one
        adapter.validate_json(text, strict=isinstance(value, str | bool))
    except ValidationError as error:
        hint = kind.__annotations__.get(key, "")
        expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        flaw = error.errors(include_url=False)[0]["msg"]
        raise ConfigurationError(f"{where}.{key}: expected {expected} ({flaw}), got {value!r}.") from error
