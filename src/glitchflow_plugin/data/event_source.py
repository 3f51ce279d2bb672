"""One event, to be read from wherever its channels are, alone and in any process."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, cast

from glitchflow_plugin.data.event_files import Channel, RawEvent


@dataclass(frozen=True, eq=False)
class LoadedEvent:
    """What was read of an event, and by channel what went wrong: a reason to count by, `: ` and details."""

    event: RawEvent
    problems: dict[str, str] = field(default_factory=dict)


class Loader(Protocol):
    """Reads some channels of one event; small enough to be sent to another process."""

    def __call__(self, channels: Sequence[str]) -> tuple[dict[str, Channel], dict[str, str]]:
        """Channels found by name, and reasons by name; a channel may have both."""
        ...


@dataclass(frozen=True)
class EventSource:
    """One event, to be read from wherever its channels are.

    Attributes:
        event_id: Its name in all data sets.
        gps_event: Trigger time, GPS s, of the first data set that has the event.
        loaders: By data set, with the channels to take from there.
        group: Label that it shares with the events that it is not independent of; empty if unknown.
    """

    event_id: str
    gps_event: float
    loaders: tuple[tuple[Loader, tuple[str, ...]], ...]
    group: str = ""

    def within(self, start: float, stop: float) -> "EventSource":
        """The same, of which no more is read than a stretch in GPS s; for what is cut out of continuous data."""
        # such loaders take a stretch of their own as keywords, which a later one replaces
        narrow = cast("Callable[..., Loader]", partial)
        loaders = tuple((narrow(one, start=start, stop=stop), names) for one, names in self.loaders)
        return replace(self, loaders=loaders)

    def copies(self, channels: Sequence[str], done: Collection[str]) -> Iterator[LoadedEvent]:
        """Read the event from one data set after the other.

        Args:
            channels: Names wanted.
            done: Names that no further data set is asked for; the caller adds to it what it can use.
        """
        asked = set(channels)
        for loader, offered in self.loaders:
            wanted = [name for name in offered if name in asked and name not in done]
            if wanted:
                read, reasons = loader(wanted)
                yield LoadedEvent(RawEvent(self.event_id, self.gps_event, read, self.group), reasons)

    def load(self, channels: Sequence[str] | None = None) -> LoadedEvent:
        """Read the event; a channel that several data sets have comes from the first that has no problem with it."""
        found: dict[str, Channel] = {}
        problems: dict[str, str] = {}
        offered = [name for _, names in self.loaders for name in names]
        done: set[str] = set()
        for loaded in self.copies(offered if channels is None else channels, done):
            for name in {*loaded.event.channels, *loaded.problems}:
                if name not in loaded.problems:
                    done.add(name)
                    problems.pop(name, None)
                    found[name] = loaded.event.channels[name]
                else:
                    problems.setdefault(name, loaded.problems[name])
                    if name in loaded.event.channels:
                        found.setdefault(name, loaded.event.channels[name])
        return LoadedEvent(RawEvent(self.event_id, self.gps_event, found, self.group), problems)
