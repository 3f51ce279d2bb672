"""The recipe of a spectrogram set, which a model keeps: how its maps were made, and where two recipes differ."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as shortened
from typing import Any, Literal, Self

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.types.plain import JsonObject, plain

Part = Literal["events", "qtransform", "selection"]
_PARTS: tuple[Part, ...] = ("events", "qtransform", "selection")
#: What recipes of earlier versions do not say, as it was then.
_BEFORE: Mapping[Part, Mapping[str, object]] = {
    "events": {"whiten": True, "order": 4, "flat_length": 1.0, "crop_jitter": 0.0, "crop_seed": 0},
    "qtransform": {"norm": "median"},
}
#: Which events there are and where their crops lie, not what is done to them.
_WHICH = ("target", "crop_jitter", "crop_seed")
#: Conditioning brings recordings to a common rate and scale.
_RECORDING = ("unit", "recorded_sample_rate")
_MOST_SHOWN = 6


@dataclass(frozen=True)
class Recipe:
    """How maps were made.

    Attributes:
        events: How the series were conditioned: the recipe of the event set. None if that is not said.
        qtransform: Settings of the Q-transform; None if they are not said.
        selection: How the channels were chosen; None if that is not said.
        more: What else was done, by name.
    """

    events: JsonObject | None = None
    qtransform: JsonObject | None = None
    selection: JsonObject | None = None
    more: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Self:
        """The recipe that is stored with a set or a model.

        Raises:
            FormatError: A part is not what it must be.
        """
        parts: dict[str, Any] = {name: content[name] for name in _PARTS if name in content}
        channels = (parts.get("events") or {}).get("channels") if _is_record(parts.get("events")) else None
        entries = list(channels.values()) if isinstance(channels, Mapping) else [channels]
        if not all(map(_is_record, [*parts.values(), *entries])):
            raise FormatError(f"expected a recipe of named values in each part, got {shortened(parts)}. Make it again.")
        return cls(**parts, more={name: value for name, value in content.items() if name not in _PARTS})

    def to_dict(self) -> dict[str, Any]:
        """As it is stored; the inverse of `from_dict`."""
        parts = {name: getattr(self, name) for name in _PARTS}
        return {**{name: dict(value) for name, value in parts.items() if value is not None}, **self.more}

    def part(self, name: Part) -> JsonObject:
        """A part that is needed.

        Raises:
            FormatError: The recipe does not have it.
        """
        found: JsonObject | None = getattr(self, name)
        if found is None:
            raise FormatError(
                f"the recipe has no {name!r}: it does not say how maps are made. Make spectrograms by Data-processor "
                "and QT-dataset, and train a model with the training pipeline."
            )
        return found

    def treatment(self, channels: Collection[str]) -> dict[str, Any]:
        """What changes the numbers in the maps of some channels, whatever the data.

        Not what says where data come from: target, place of the crops, other channels, how channels were chosen.
        """
        full = self._full(channels)
        events = {key: value for key, value in full["events"].items() if key not in _WHICH}
        return {"events": events, "qtransform": full["qtransform"]}

    def differences(self, other: "Recipe", channels: Collection[str], *, origin: bool = False) -> list[str]:
        """Where another recipe treats channels differently: `path: expected ..., got ...`.

        Args:
            other: What was got; this one is what is expected.
            channels: Those that matter.
            origin: Whether it counts too which events the maps are of: target, place of the crops, and what else was
                done, as with generated ones.
        """
        if origin:
            return differences(self._full(channels), other._full(channels))
        return differences(self.treatment(channels), other.treatment(channels))

    def _full(self, channels: Collection[str]) -> dict[str, Any]:
        """All but how channels were chosen; what earlier versions did not say is said."""
        events = said(self.events or {}, "events")
        entries = events.get("channels") or {}
        treated = {
            name: {key: value for key, value in entries[name].items() if key not in _RECORDING}
            for name in channels
            if name in entries
        }
        return {
            **self.more,
            "events": {**events, "channels": treated},
            "qtransform": None if self.qtransform is None else said(self.qtransform, "qtransform"),
        }


def said(content: Mapping[str, object], part: Part) -> dict[str, Any]:
    """A part of a recipe with what earlier versions did not say."""
    return {**_BEFORE[part], **content}


def differences(expected: object, found: object) -> list[str]:
    """Where two JSON-like values differ: `path: expected ..., got ...`. What is missing is the same as null."""
    return list(_differences(plain(expected), plain(found), ""))


def told(differing: Sequence[str]) -> str:
    """Differences in a sentence for the user; of many the first."""
    more = len(differing) - _MOST_SHOWN
    return "; ".join(differing[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _differences(expected: object, found: object, path: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            yield from _differences(expected.get(key), found.get(key), f"{path}.{key}" if path else key)
    elif expected != found:
        yield f"{path}: expected {shortened(expected)}, got {shortened(found)}"


def _is_record(value: object) -> bool:
    return value is None or isinstance(value, Mapping)
