"""Training, validation, gate and test events, kept apart by group and in time."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, compress
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from glitchflow_plugin.data.files import parsed, read_json, write_json
from glitchflow_plugin.data.groups import group_keys, group_numbers
from glitchflow_plugin.errors import ConfigurationError, FormatError, LeakageError
from glitchflow_plugin.settings import NotNegative, PositiveNumber, section

FORMAT_VERSION = 2
SPLIT_NAME = "split.json"
_STEP = "the Splitter"
PARTS = ("train", "validation", "gate", "test")


@section
class SplitSettings:
    """How events are divided; conf/split.yaml explains the keys."""

    train: NotNegative = 0.6
    validation: NotNegative = 0.15
    gate: NotNegative = 0.15
    test: NotNegative = 0.1
    block_length: PositiveNumber = 256.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that are none of a whole."""
        shares = self.shares()
        if abs(sum(shares.values()) - 1) > 1e-6 or not self.train * self.validation:
            raise ConfigurationError(
                "expected shares train > 0, validation > 0, gate >= 0, test >= 0 that add up to 1, got "
                f"{', '.join(f'{name} {share:g}' for name, share in shares.items())}. Correct split.yaml."
            )

    def shares(self) -> dict[str, float]:
        """Share of the events by part."""
        return {name: float(getattr(self, name)) for name in PARTS}


@dataclass(frozen=True, eq=False)
class SplitPart:
    """Events of one part.

    Attributes:
        event_ids: One id an event.
        gps_start: Left edge of each event's maps, GPS s, float64.
        gps_stop: Right edge, GPS s, float64.
        gps_event: Trigger time, GPS s, float64.
        group: One label an event, "" where unknown (data/groups.py); none at all counts as unknown.
    """

    event_ids: tuple[str, ...]
    gps_start: np.ndarray
    gps_stop: np.ndarray
    gps_event: np.ndarray
    group: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that do not belong together."""
        object.__setattr__(self, "group", self.group or ("",) * len(self.event_ids))
        if len(self.group) != len(self.event_ids):
            raise FormatError(f"expected a group for each of {len(self.event_ids)} events, got {len(self.group)}.")
        for name in ("gps_start", "gps_stop", "gps_event"):
            times = getattr(self, name)
            if times.shape != (len(self.event_ids),) or times.dtype != np.float64:
                raise FormatError(
                    f"expected {name} as float64 of shape ({len(self.event_ids)},), got {times.dtype} of shape "
                    f"{times.shape} (float32 rounds GPS times to 128 s)."
                )
        if not (np.isfinite(self.gps_event) & (self.gps_start < self.gps_stop) & np.isfinite(self.gps_stop)).all():
            raise FormatError("expected finite times with gps_start < gps_stop for every event.")
        if len(set(self.event_ids)) != len(self.event_ids):
            raise FormatError("expected each event once in a part.")

    def __len__(self) -> int:
        return len(self.event_ids)

    def only(self, event_ids: Collection[str]) -> Self:
        """The part with these of its events alone, in its own order."""
        kept = np.array([name in event_ids for name in self.event_ids], dtype=bool)
        times = {name: getattr(self, name)[kept] for name in ("gps_start", "gps_stop", "gps_event")}
        names, labels = (tuple(compress(each, kept)) for each in (self.event_ids, self.group))
        return replace(self, event_ids=names, group=labels, **times)

    def group_keys(self, block_length: float) -> list[str | int]:
        """Label of each event, or the number of its GPS block: who shares it is one case."""
        return group_keys(self.group, self.gps_event, block_length)

    def group_numbers(self, block_length: float) -> NDArray[np.int64]:
        """Number of each event's group, consecutive from 0, shape (event,)."""
        return group_numbers(self.group, self.gps_event, block_length)

    def num_groups(self, block_length: float) -> int:
        """Independent cases among the events."""
        return len(set(self.group_keys(block_length)))

    def group_of(self, block_length: float) -> dict[str, int]:
        """Number of each event's group by event id."""
        return dict(zip(self.event_ids, self.group_numbers(block_length).tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Split:
    """Events by part; refuses to exist if the parts share a group or overlap.

    Attributes:
        train: Events to learn from.
        validation: Events that choose the checkpoint and limits.
        gate: Events by which a champion is chosen.
        test: Events that are looked at once, at the end.
        block_length: Length of a GPS block, s.
        seed: With which the groups were drawn.
        source: The spectrogram set: `folder` and `fingerprint`.
    """

    train: SplitPart
    validation: SplitPart
    gate: SplitPart
    test: SplitPart
    block_length: float
    seed: int
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse leakage: shared events, shared groups, overlapping stretches of time."""
        for first, second in combinations(PARTS, 2):
            _refuse_leakage(first, self.part(first), second, self.part(second), self.block_length)

    def part(self, name: str) -> SplitPart:
        """One part by its name.

        Raises:
            ConfigurationError: There is no such part.
        """
        if name not in PARTS:
            raise ConfigurationError(f"expected one of {PARTS}, got {name!r}.")
        return getattr(self, name)

    def part_of(self) -> dict[str, str]:
        """Name of the part by event id."""
        return {event_id: name for name in PARTS for event_id in self.part(name).event_ids}

    def save(self, folder: Path | str) -> Path:
        """Write `split.json` into a folder and return its path."""
        path = Path(folder) / SPLIT_NAME
        parts = {
            name: [
                {"event_id": i, "gps_start": float(a), "gps_stop": float(b), "gps_event": float(c), "group": group}
                for i, a, b, c, group in zip(
                    part.event_ids, part.gps_start, part.gps_stop, part.gps_event, part.group, strict=True
                )
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
        content = read_json(path, _STEP)
        _refuse_earlier(path, content.get("format_version"))
        stored = parsed(content, _StoredSplit, path, _STEP)
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
    group: str


@dataclass(frozen=True)
class _StoredSplit:
    """Content of split.json."""

    format_version: int
    block_length: float
    seed: int
    source: dict[str, str]
    train: list[_StoredEvent]
    validation: list[_StoredEvent]
    gate: list[_StoredEvent]
    test: list[_StoredEvent]

    def __post_init__(self) -> None:
        """Refuse what this program does not read."""
        if self.format_version != FORMAT_VERSION:
            raise FormatError(f"format version {self.format_version}, this program reads {FORMAT_VERSION}")
        if not self.block_length > 0 or not self.train:
            raise FormatError(f"expected block_length > 0 (s) and training events, got {self.block_length}")


def _read_part(rows: list[_StoredEvent]) -> SplitPart:
    times = {
        name: np.array([getattr(row, name) for row in rows], dtype=np.float64)
        for name in ("gps_start", "gps_stop", "gps_event")
    }
    return SplitPart(tuple(row.event_id for row in rows), **times, group=tuple(row.group for row in rows))


def _refuse_earlier(path: Path, found: object) -> None:
    """Say of a split of an earlier version that it is one; whatever else is wrong is told by reading it."""
    if isinstance(found, int) and found < FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {found}, this program reads {FORMAT_VERSION}: it has no part for the gate, and "
            "its events may share groups. Run the Splitter and the Processor again, and train anew."
        )


def _refuse_leakage(first: str, a: SplitPart, second: str, b: SplitPart, block_length: float) -> None:
    advice = "Make the split with the Splitter instead of by hand."
    shared = sorted(set(a.event_ids) & set(b.event_ids))
    if shared:
        raise LeakageError(f"{first} and {second} share {len(shared)} events ({shared[:5]}). {advice}")
    common = set(a.group_keys(block_length)) & set(b.group_keys(block_length))
    labels = sorted(key for key in common if isinstance(key, str))
    if labels:
        raise LeakageError(
            f"{first} and {second} share {len(labels)} groups ({', '.join(labels[:5])}), whose events are no "
            f"independent cases. {advice}"
        )
    blocks = sorted(key for key in common if isinstance(key, int))
    if blocks:
        start = blocks[0] * block_length
        raise LeakageError(
            f"{first} and {second} share {len(blocks)} GPS blocks of {block_length:g} s "
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
