"""From the keys of a file of conf/ to a frozen dataclass; what is misspelt or of another type is told in a sentence."""

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from glitchflow_plugin.errors import ConfigurationError, nearest

T = TypeVar("T")


def built(kind: type[T], content: Mapping[str, Any] | None, where: str) -> T:
    """Settings from a section of the configuration.

    Args:
        kind: A dataclass, which refuses what is out of range.
        content: Its keys and values as YAML gives them; None: all as they are by default.
        where: The section or file, for the message.

    Raises:
        ConfigurationError: A key is unknown or missing, or a value is of another type or out of range.

    >>> from glitchflow_plugin.data.sources import EventRange
    >>> built(EventRange, {"mim": 3}, "events")
    Traceback (most recent call last):
    ...
    glitchflow_plugin.errors.ConfigurationError: events: unknown key 'mim'. Nearest: min. It takes min, max.
    """
    if content is not None and not isinstance(content, Mapping):
        raise ConfigurationError(f"{where}: expected keys with values, got {content!r}.")
    content = dict(content or {})
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
