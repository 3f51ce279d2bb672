"""Triggers as columns, and the account of where those fell that are not taken."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

REPEATED, CLUSTER, SEGMENTS, RANGE = "repeated", "cluster", "segments", "index range"
"""Where triggers fall after the conditions of `select`."""


@dataclass(frozen=True)
class Trigger:
    """When to cut an event.

    Attributes:
        event_id: Its name; data sets are merged on it.
        gps_time: GPS s.
        group: Label that it shares with the triggers that it is not independent of; empty if unknown.
        within: GPS interval (s) outside which nothing may be taken: its science segment.
    """

    event_id: str
    gps_time: float
    group: str = ""
    within: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True, eq=False)
class TriggerTable:
    """Triggers of one or many files, as far as they pass the selection, each once, sorted by time.

    Attributes:
        times: GPS s, shape (trigger,).
        ids: Event ids, shape (trigger,); None where they are made from the times.
        groups: Labels, shape (trigger,).
        loudness: SNR or alike, shape (trigger,), NaN where unknown; None where there is no such column or no need.
        within: Science segment of each (GPS s), shape (trigger, 2).
        report: What was read, and what became of it.
    """

    times: np.ndarray
    ids: np.ndarray | None
    groups: np.ndarray
    loudness: np.ndarray | None
    within: np.ndarray
    report: "TriggerReport"

    def __len__(self) -> int:
        """Number of triggers."""
        return len(self.times)

    def take(self, rows: np.ndarray, reason: str) -> "TriggerTable":
        """These rows alone; the others fell for this reason."""
        return TriggerTable(
            self.times[rows],
            None if self.ids is None else self.ids[rows],
            self.groups[rows],
            None if self.loudness is None else self.loudness[rows],
            self.within[rows],
            self.report.without(reason, len(self) - len(self.times[rows])),
        )

    def triggers(self) -> list[Trigger]:
        """One record each."""
        times = self.times.tolist()
        ids = map(event_id_at, times) if self.ids is None else self.ids.tolist()
        columns = (ids, times, self.groups.tolist(), map(tuple, self.within.tolist()))
        return [Trigger(*one) for one in zip(*columns, strict=True)]


@dataclass(frozen=True)
class TriggerReport:
    """How many triggers were read, and where they fell: `read` is the sum of `fell`, `rejected` and `events`.

    Attributes:
        source: Where they are from.
        read: Triggers in all files.
        files: Files that were read.
        unreadable: By name of the file why it cannot be read.
        fell: By reason in the order of the steps: the conditions of `select`, repeated, cluster, segments, index range.
        events: Those of the rest that are in the event set (before it is made: all of them).
        rejected: By reason, those of the rest whose data cannot be used.
        crowded: Those of the rest within half a second of the one before.
        overlapping: Those of the rest whose crop overlaps that of the one before.
    """

    source: str
    read: int
    files: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    fell: Mapping[str, int] = field(default_factory=dict)
    events: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    crowded: int = 0
    overlapping: int = 0

    @property
    def left(self) -> int:
        """Triggers that became events of the data set, whether or not their data could be used."""
        return self.events + sum(self.rejected.values())

    def without(self, reason: str, number: int) -> "TriggerReport":
        """The report after so many more fell."""
        return replace(self, fell={**self.fell, reason: self.fell.get(reason, 0) + number}, events=self.events - number)

    def settled(self, events: int, rejected: Mapping[str, int]) -> "TriggerReport":
        """The report once the event set is made."""
        return replace(self, events=events, rejected=dict(rejected))

    def __str__(self) -> str:
        """One line for a table."""
        of = f" from {self.files} files" if self.files > 1 else ""
        lost = f" ({len(self.unreadable)} more cannot be read)" if self.unreadable else ""
        fallen = {**self.fell, **self.rejected}
        parts = [f"{number} fell to {reason}" for reason, number in fallen.items() if number]
        return f"{self.source}: {self.read} triggers{of}{lost}; {'; '.join([*parts, f'{self.events} events'])}"


def event_id_at(gps_time: float) -> str:
    """Event id for a trigger without a name: its GPS time to the microsecond.

    >>> event_id_at(1126259462.4)
    '1126259462.400000'
    """
    return f"{gps_time:.6f}"
