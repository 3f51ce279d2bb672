"""A look at somebody's files and triggers: channels, rates, units, GPS ranges, length of the data about a trigger.

Metadata alone are read, of a bounded number of files, by the readers that Data-processor uses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.apart import shown
from glitchflow_plugin.data.listing import middles
from glitchflow_plugin.data.readers.triggers import TriggerSettings, read_columns, read_table
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.preprocessing.found_files import MOST_FILES, find_files
from glitchflow_plugin.preprocessing.inspection import (
    SeenData,
    aligned_with,
    describe_group,
    joined,
    joined_folders,
    lengths_about,
    seen_events,
    seen_files,
)

_UNIX_EPOCH = 315964800.0
"""Unix time of GPS 0, s."""
_LEAP_SECONDS = 20.0
"""More than there have been since GPS 0, s."""


@dataclass(frozen=True, eq=False)
class Survey:
    """All that was found.

    Attributes:
        data: The data sets.
        cuts: GPS time (s) at which continuous data are to be cut, by id: the triggers, or the events of event files, or
            the middles of stretches.
        triggers: The table of triggers that was given.
        ignored: By name, files that hold no data that can be read, and why.
    """

    data: tuple[SeenData, ...]
    cuts: Mapping[str, float] = field(default_factory=dict)
    triggers: str | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def events(self) -> dict[str, float]:
        """GPS time (s) of all events that were looked at, by id, in the order of the ids."""
        own = {event_id: gps for seen in self.data for event_id, gps in seen.events.items()}
        return dict(sorted((own | dict(self.cuts)).items()))


def look(paths: Sequence[Path | str], triggers: Path | str | None = None, *, progress: bool = True) -> Survey:
    """Look at files and triggers.

    Args:
        paths: Files, folders (with all below them), glob patterns or cache files.
        triggers: A table of GPS times, or many, as `triggers.path` in datasets.yaml.
        progress: Whether to show bars.

    Raises:
        ConfigurationError: A path names no file, or the triggers are no GPS times; the message says what they may be.
        FormatError: The table of triggers cannot be read, or two folders have different events of one id.
        NoEventsError: No file holds data, or no trigger lies in them.
    """
    table = None if triggers is None else Path(triggers).absolute()
    given: dict[str, float] | None = None
    wrong: ConfigurationError | None = None
    times = np.zeros(0)
    spoilt: Mapping[str, str] = {}
    if table is not None:
        settings = TriggerSettings(path=str(table))
        try:
            read = read_table(settings, progress=progress)
            spoilt = read.report.unreadable
            given = {one.event_id: one.gps_time for one in read.triggers()}
            times = np.array(list(given.values()))
        except ConfigurationError as error:
            wrong, times = error, read_columns(settings)[0]  # told together with what the times may be
        if not len(times):
            raise NoEventsError(f"{table} holds no trigger. Give another table, or leave --triggers out.")
    found, ignored = find_files([Path(path) for path in paths], table, progress)
    if not found:
        reasons = "".join(f" {reason}" for reason in list(ignored.values())[:3])
        raise NoEventsError(
            f"{', '.join(shown(path) for path in paths)}: none of {len(ignored)} file(s) holds data that can be read. "
            f"Expected event files, GWOSC files, GWF frames, or HDF5 as gwpy writes it.{reasons}"
        )
    # event files that tell when to cut other files must tell it all
    most = MOST_FILES if table is not None or all(one.kind == "events" for one in found) else None
    single = joined_folders([seen_events(one, most, progress=progress) for one in found if one.kind == "events"])
    stored = [describe_group(one, progress=progress) for one in found if one.kind != "events"]
    own = _own_events(single)
    stretches = joined((file.start, file.stop) for one in stored for file in one.stored)
    if table is not None and (wrong or stretches):
        _refuse_astray(table, times, stretches, wrong)
    cuts = given if given is not None else own or dict(middles([file for one in stored for file in one.stored]))
    data = [*single, *(seen_files(one, np.array(list(cuts.values()))) for one in stored)]
    unread = {**spoilt, **ignored} | {name: why for seen in data for name, why in seen.unreadable.items()}
    data = sorted((seen for seen in data if seen.channels), key=lambda seen: str(seen.path or seen.files[0]))
    if not data:
        raise NoEventsError(f"No file holds data that can be read. {' '.join(list(unread.values())[:3])}")
    survey = Survey(tuple(data), cuts if stretches else {}, str(table) if table else None, unread)
    places = {event_id: place for place, event_id in enumerate(survey.events)}
    return replace(survey, data=tuple(aligned_with(seen, list(seen.events or cuts), places) for seen in data))


def _own_events(single: Sequence[SeenData]) -> dict[str, float]:
    """Events of event files; the same id in two folders is the same event."""
    own: dict[str, float] = {}
    for seen in single:
        for event_id, gps in seen.events.items():
            if abs(own.setdefault(event_id, gps) - gps) > 1:
                raise FormatError(
                    f"The event {event_id} is in two folders, at GPS {own[event_id]:.3f} and {gps:.3f} (there: "
                    f"{shown(seen.path or seen.files[0].parent)}). Data sets are merged on the event id: give every "
                    "event its own, or look at one folder at a time."
                )
    return own


def _refuse_astray(
    table: Path, times: np.ndarray, stretches: Sequence[tuple[float, float]], wrong: ConfigurationError | None
) -> None:
    """Refuse triggers none of which lies in the data, and say what the times may be."""
    inside = int(np.count_nonzero(lengths_about(stretches, times)))
    if inside and wrong is None:
        return
    guess = guess_unit(times, stretches)
    if wrong is not None and guess is None:
        raise wrong
    reach = f"from {times.min():.3f} to {times.max():.3f}, the data from GPS {stretches[0][0]:.3f} to "
    advice = guess or "Correct --triggers or --data, or bring the data of these times."
    raise NoEventsError(
        f"{table}: {len(times) - inside} of {len(times)} triggers lie outside the data: the triggers reach {reach}"
        f"{stretches[-1][1]:.3f}. {advice}"
    )


def guess_unit(times: np.ndarray, stretches: Sequence[tuple[float, float]]) -> str | None:
    """What times that lie outside the data may be instead of GPS seconds; None if nothing makes them fit.

    Args:
        times: The numbers in the table.
        stretches: Disjoint intervals of the data [start, stop), rising, GPS s.
    """
    wider = joined((start - _LEAP_SECONDS, stop) for start, stop in stretches)
    for unit, length in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        for epoch, offset, within in (("GPS", 0.0, stretches), ("Unix", _UNIX_EPOCH, wider)):
            count = int(np.count_nonzero(lengths_about(within, times * length - offset)))
            if not count or (unit, epoch) == ("s", "GPS"):
                continue
            scaled = "t" if unit == "s" else f"t * {length:g}"
            how = scaled if epoch == "GPS" else f"gwpy.time.to_gps(datetime.fromtimestamp({scaled}, UTC))"
            return (
                f"Read as {epoch} time in {unit}, {count} of {len(times)} would lie inside: convert the column to GPS "
                f"seconds, {how}."
            )
    return None
