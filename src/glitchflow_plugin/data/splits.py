"""Training, validation and test events, kept apart in time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Self

import numpy as np

from glitchflow_plugin.data.files import read_record, write_json
from glitchflow_plugin.errors import ConfigurationError, FormatError, LeakageError, NoEventsError

FORMAT_VERSION = 1
SPLIT_NAME = "split.json"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitSettings:
    """How events are divided.

    Attributes:
        train: Share of the events for training.
        validation: Share that chooses the checkpoint and the learning rate.
        test: Share that is looked at once, at the end.
        block_length: Events whose trigger times lie in the same block of this length (s) stay together: detector
            noise drifts, and neighbours in time are too alike to judge on.
        seed: Of the drawing.
    """

    train: float = 0.7
    validation: float = 0.15
    test: float = 0.15
    block_length: float = 256.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        shares = [self.train, self.validation, self.test]
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or self.train == 0 or self.validation == 0:
            message = (
                "expected shares train > 0, validation > 0, test >= 0 that add up to 1, got "
                f"{shares[0]}, {shares[1]}, {shares[2]}. Correct split.yaml."
            )
            raise ConfigurationError(message)
        if not self.block_length > 0:
            message = f"expected block_length > 0 (s), got {self.block_length}. Correct split.yaml."
            raise ConfigurationError(message)


@dataclass(frozen=True, eq=False)
class SplitPart:
    """Events of one part.

    Attributes:
        event_ids: One id an event.
        gps_start: Left edge of each event's maps, GPS s, float64.
        gps_stop: Right edge, GPS s, float64.
        gps_event: Trigger time, GPS s, float64.
    """

    event_ids: tuple[str, ...]
    gps_start: np.ndarray
    gps_stop: np.ndarray
    gps_event: np.ndarray

    def __post_init__(self) -> None:
        """Refuse rows that do not belong together."""
        for name in ("gps_start", "gps_stop", "gps_event"):
            times = getattr(self, name)
            if times.shape != (len(self.event_ids),) or times.dtype != np.float64:
                message = (
                    f"expected {name} as float64 of shape ({len(self.event_ids)},), got {times.dtype} of shape "
                    f"{times.shape} (float32 rounds GPS times to 128 s)."
                )
                raise FormatError(message)
        if not (np.isfinite(self.gps_event) & (self.gps_start < self.gps_stop) & np.isfinite(self.gps_stop)).all():
            raise FormatError("expected finite times with gps_start < gps_stop for every event.")
        if len(set(self.event_ids)) != len(self.event_ids):
            raise FormatError("expected each event once in a part.")

    def __len__(self) -> int:
        return len(self.event_ids)

    def blocks(self, block_length: float) -> np.ndarray:
        """Number of the GPS block of each trigger time."""
        return np.floor(self.gps_event / block_length).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test events; refuses to exist if they overlap.

    Attributes:
        train: Events to learn from.
        validation: Events that choose.
        test: Events that judge.
        block_length: Length of a GPS block, s.
        seed: With which the blocks were drawn.
        source: The spectrogram set: `folder` and `fingerprint`.
    """

    train: SplitPart
    validation: SplitPart
    test: SplitPart
    block_length: float
    seed: int
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse leakage: shared events, shared blocks, overlapping stretches of time."""
        for first, second in combinations(PARTS, 2):
            _refuse_leakage(first, self.part(first), second, self.part(second), self.block_length)

    def part(self, name: str) -> SplitPart:
        """One part by its name.

        Raises:
            ConfigurationError: There is no such part.
        """
        if name not in PARTS:
            message = f"expected one of {PARTS}, got {name!r}."
            raise ConfigurationError(message)
        return getattr(self, name)

    def part_of(self) -> dict[str, str]:
        """Name of the part by event id."""
        return {event_id: name for name in PARTS for event_id in self.part(name).event_ids}

    def save(self, folder: Path | str) -> Path:
        """Write `split.json` into a folder and return its path."""
        path = Path(folder) / SPLIT_NAME
        parts = {
            name: [
                {"event_id": i, "gps_start": float(a), "gps_stop": float(b), "gps_event": float(c)}
                for i, a, b, c in zip(part.event_ids, part.gps_start, part.gps_stop, part.gps_event, strict=True)
            ]
            for name, part in ((name, self.part(name)) for name in PARTS)
        }
        head = {"block_length": self.block_length, "seed": self.seed, "source": dict(self.source)}
        write_json(path, {"format_version": FORMAT_VERSION, **head, **parts})
        return path

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read a split from its file or the folder that holds it.

        Raises:
            FormatError: The file is missing or is no split.
            LeakageError: It has been edited so that parts overlap.
        """
        path = Path(path)
        path = path / SPLIT_NAME if path.is_dir() else path
        stored = read_record(path, _StoredSplit, "the Splitter")
        try:
            parts = {name: _read_part(getattr(stored, name)) for name in PARTS}
            return cls(**parts, block_length=stored.block_length, seed=stored.seed, source=stored.source)
        except FormatError as error:
            raise FormatError(f"{path} is not a split ({error}) Run the Splitter again.") from error


@dataclass(frozen=True)
class _StoredEvent:
    """An event as it stands in split.json."""

    event_id: str
    gps_start: float
    gps_stop: float
    gps_event: float


@dataclass(frozen=True)
class _StoredSplit:
    """Content of split.json."""

    format_version: int
    block_length: float
    seed: int
    source: dict[str, str]
    train: list[_StoredEvent]
    validation: list[_StoredEvent]
    test: list[_StoredEvent]

    def __post_init__(self) -> None:
        """Refuse what this program does not read."""
        if self.format_version != FORMAT_VERSION:
            raise FormatError(f"format version {self.format_version}, this program reads {FORMAT_VERSION}")
        if not self.block_length > 0 or not self.train:
            raise FormatError(f"expected block_length > 0 (s) and training events, got {self.block_length}")


def make_split(
    event_ids: Sequence[str],
    gps_start: np.ndarray,
    gps_stop: np.ndarray,
    gps_event: np.ndarray,
    *,
    settings: SplitSettings,
    source: Mapping[str, str] | None = None,
) -> Split:
    """Divide events by GPS block.

    Blocks, joined where events of neighbouring blocks overlap in time, are drawn in random order, each to the part
    that is farthest from its share.

    Args:
        event_ids: One id an event.
        gps_start: Left edge of each event's maps, GPS s, float64.
        gps_stop: Right edge, GPS s, float64.
        gps_event: Trigger time, GPS s, float64.
        settings: Shares, block length, seed.
        source: Kept in the split.

    Returns:
        The split; events of each part in the order of GPS time.

    Raises:
        NoEventsError: There are no events, or a part with a share gets none.
    """
    if not len(event_ids):
        message = "expected events to split, got none. Check the spectrogram set."
        raise NoEventsError(message)
    everything = SplitPart(tuple(event_ids), gps_start, gps_stop, gps_event)
    groups = _groups(everything, settings.block_length)
    wanted: dict[str, float] = {name: getattr(settings, name) for name in PARTS}
    rows: dict[str, list[int]] = {name: [] for name in PARTS}
    order = np.random.default_rng(settings.seed).permutation(len(groups))
    for group in order:
        # the part that lacks most of its share; a part without a share never gets anything
        lacking = {name: share - len(rows[name]) / len(event_ids) for name, share in wanted.items() if share}
        rows[max(lacking, key=lambda name: lacking[name] / wanted[name])].extend(groups[group])
    empty = [name for name, share in wanted.items() if share and not rows[name]]
    if empty:
        message = (
            f"{len(event_ids)} events fall into {len(groups)} groups of {settings.block_length:g} s or more, "
            f"too few for a part each: nothing is left for {', '.join(empty)}. "
            "Choose a smaller block_length in split.yaml, or bring more data."
        )
        raise NoEventsError(message)
    parts = {name: _take(everything, chosen) for name, chosen in rows.items()}
    return Split(**parts, block_length=settings.block_length, seed=settings.seed, source=dict(source or {}))


def _groups(events: SplitPart, block_length: float) -> list[list[int]]:
    """Rows that must stay together: same block, or overlapping in time, or joined through others."""
    order = np.argsort(events.gps_start, kind="stable")
    blocks = events.blocks(block_length)
    parent = list(range(len(events)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first_of_block: dict[int, int] = {}
    latest = -1
    for row in (int(row) for row in order):
        parent[root(row)] = root(first_of_block.setdefault(int(blocks[row]), row))
        if latest >= 0 and events.gps_start[row] < events.gps_stop[latest]:
            parent[root(row)] = root(latest)
        if latest < 0 or events.gps_stop[row] > events.gps_stop[latest]:
            latest = row
    groups: dict[int, list[int]] = {}
    for row in order:
        groups.setdefault(root(int(row)), []).append(int(row))
    return list(groups.values())


def _take(events: SplitPart, rows: list[int]) -> SplitPart:
    ordered = sorted(rows, key=lambda row: (events.gps_start[row], events.event_ids[row]))
    chosen = np.asarray(ordered, dtype=np.int64)
    ids = tuple(events.event_ids[row] for row in ordered)
    return SplitPart(ids, events.gps_start[chosen], events.gps_stop[chosen], events.gps_event[chosen])


def _read_part(rows: list[_StoredEvent]) -> SplitPart:
    times = {
        name: np.array([getattr(row, name) for row in rows], dtype=np.float64)
        for name in ("gps_start", "gps_stop", "gps_event")
    }
    return SplitPart(tuple(row.event_id for row in rows), **times)


def _refuse_leakage(first: str, a: SplitPart, second: str, b: SplitPart, block_length: float) -> None:
    advice = "Make the split with the Splitter instead of by hand."
    shared = sorted(set(a.event_ids) & set(b.event_ids))
    if shared:
        raise LeakageError(f"{first} and {second} share {len(shared)} events ({shared[:5]}). {advice}")
    blocks = np.intersect1d(a.blocks(block_length), b.blocks(block_length))
    if blocks.size:
        start = blocks[0] * block_length
        raise LeakageError(
            f"{first} and {second} share {blocks.size} GPS blocks of {block_length:g} s "
            f"(the first is {start:g}..{start + block_length:g}). {advice}"
        )
    start, stop = np.concatenate([a.gps_start, b.gps_start]), np.concatenate([a.gps_stop, b.gps_stop])
    owner = np.repeat([0, 1], [len(a), len(b)])
    order = np.argsort(start, kind="stable")
    latest = [-np.inf, -np.inf]
    for row in order:
        if start[row] < latest[1 - owner[row]]:
            raise LeakageError(
                f"{first} and {second} overlap in time about GPS {start[row]:.3f}: "
                f"one stretch of noise would be in both. {advice}"
            )
        latest[owner[row]] = max(latest[owner[row]], float(stop[row]))
