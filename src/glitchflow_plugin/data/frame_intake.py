"""Frames as they appear in folders: read once each, put in order, and handed out stride by stride.

Low-latency distribution leaves a file a second or a few, named as in LIGO-T010150, in a folder from which something
else deletes the old ones. A file may be late, missing, half-written, there twice, or bear a wrong time; what came of
each is counted and told, and no stride is handed out twice.
"""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.data.readers.continuous import span_in_name
from glitchflow_plugin.data.units import same_unit
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.settings import Positive, section

logger = logging.getLogger(__name__)

_READERS = {".gwf": frames.read, ".h5": hdf5.read, ".hdf5": hdf5.read}

_PACE = 0.25
"""Least time between two attempts to read a file that could not be read, s."""

_CREDIBLE = 3
"""Files beyond the horizon, one after the other, that it takes to believe that the clock has jumped."""

LATE, BROKEN, DUPLICATE, DIFFERENT, CHANGED, FUTURE = "late", "broken", "duplicate", "different", "changed", "future"
MISSING, UNUSABLE, JUMPS = "missing", "unusable", "jumps"
"""What is counted: files, but for strides with a channel `missing`, pieces that are `unusable`, and `jumps`."""


@section
class IntakeSettings:
    """How long is waited for what; conf/online.yaml explains the keys."""

    poll: Positive = 0.1
    patience: Positive = 8.0
    horizon: Positive = 64.0


@dataclass(frozen=True, eq=False)
class Arrived:
    """Channels of a stretch of time.

    Attributes:
        start: GPS s.
        stop: GPS s.
        channels: By name, each from `start` to `stop`, NaN where nothing came; what is missing is left out.
        waited: Time for which it was waited after something later had come, s.
    """

    start: float
    stop: float
    channels: Mapping[str, Channel]
    waited: float = 0.0


@dataclass
class _Seen:
    """A file that could not be read yet: its size and time of change, since when, and when to try again.

    Once it is given up it is tried again only if it changes.
    """

    stat: tuple[int, int]
    since: float
    again: float


@dataclass
class _Far:
    """A file beyond the horizon.

    Attributes:
        span: GPS start and end in its name, s.
        position: What was waited for when it was there already, GPS s; None: nothing was.
        told: Whether it was counted as a stray one.
    """

    span: tuple[float, float]
    position: float | None = None
    told: bool = False


@dataclass(eq=False)
class FrameIntake:
    """Files of some folders as they appear, as strides of some channels.

    Args:
        folders: Where frames appear, flat; those that vanish and come back are waited for.
        expected: By name of a channel its unit; None: any.
        stride: Length of what is handed out at once, s; strides begin at multiples of it in GPS time.
        settings: How long is waited for what.
        clock: Seconds, for the waiting.
    """

    folders: Sequence[Path]
    expected: Mapping[str, str | None]
    stride: float
    settings: IntakeSettings = field(default_factory=IntakeSettings)
    clock: Callable[[], float] = time.monotonic
    position: float | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _read: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _unread: dict[Path, _Seen] = field(default_factory=dict)
    _far: dict[Path, _Far] = field(default_factory=dict)
    _pieces: dict[str, list[Channel]] = field(default_factory=dict)
    _absent: set[str] = field(default_factory=set)
    _ends: deque[tuple[float, float]] = field(default_factory=deque)
    _later: float | None = None
    _began: float | None = None
    _news: float | None = None
    _told: set[tuple[str, str]] = field(default_factory=set)

    def begin(self, gps: float | None) -> None:
        """Hand out what comes from a GPS time on (s); None: from the earliest that lies there."""
        if gps is not None:
            self.position = self.stride * math.floor(gps / self.stride)

    @property
    def empty(self) -> bool:
        """Whether nothing has been read yet."""
        return self._news is None

    def idle(self) -> float:
        """For how long nothing was there to be read, handed out or given up, s; from the first look on."""
        if self._later is not None or any(one.again < math.inf for one in self._unread.values()):
            return 0.0
        return self.clock() - self._quiet_since()

    def _quiet_since(self) -> float:
        """When something was read or handed out last, or else when it was looked first; s, by the clock."""
        self._began = self.clock() if self._began is None else self._began
        return self._began if self._news is None else self._news

    def earliest(self) -> float | None:
        """Start of the earliest data that lie in the folders, GPS s; None: there are none."""
        return min((span[0] for _, span, _ in self._listed()), default=None)

    def next(self) -> Arrived | None:
        """The next stride once it is whole or given up, None as long as it is neither; looks into the folders once.

        After data that never came the next one begins later than the last one ended.
        """
        self._look()
        if self.position is None:
            return None
        start = self.position
        lacking = [name for name in self.expected if name not in self._absent and not self._whole(name, start)]
        later = self._first_after(start + self.stride)
        now = self.clock()
        self._later = None if later is None else now if self._later is None else self._later
        waited = 0.0 if self._later is None else now - self._later
        if not lacking and len(self._absent) < len(self.expected):
            return self._hand_out(start, waited)
        if later is None:
            return self.next() if self._jumped(now) else None
        if waited < self.settings.patience:
            return None
        if not any(self._parts(name, start) for name in self.expected):
            self.begin(later)
            self._later = None
            return self.next()
        return self._hand_out(start, waited)

    def rest(self) -> Arrived | None:
        """At an end, what there is of the stride that is waited for: nothing later comes that would give the rest up.

        None where nothing of it has come.
        """
        start = self.position
        if start is None or not any(self._parts(name, start) for name in self.expected):
            return None
        return self._hand_out(start, self.idle())

    def _hand_out(self, start: float, waited: float) -> Arrived:
        stop = start + self.stride
        channels = {name: one for name in self.expected if (one := self._cut(name, start)) is not None}
        absent = set(self.expected) - set(channels)
        for name in sorted(absent - self._absent):
            logger.warning("%s: nothing came from GPS %.3f on; it is masked until it does.", name, start)
        for name in sorted(self._absent - absent):
            logger.info("%s is there again from GPS %.3f on.", name, start)
        self.counts[MISSING] += bool(absent)
        # whoever is absent is not waited for, until something of it comes
        self._absent, self.position, self._later, self._news = absent, stop, None, self.clock()
        for name, parts in self._pieces.items():
            self._pieces[name] = [one for one in parts if one.t0 + one.duration > stop + 1e-9]
        return Arrived(start, stop, channels, waited)

    def _jumped(self, now: float) -> bool:
        """Go to what lies beyond the horizon, where nothing nearer comes and it is more than stray files."""
        start = self._credible()
        if start is None or now - self._quiet_since() <= self.settings.patience:
            self._tell_strays()
            return False
        self.begin(start)
        self.counts[JUMPS] += 1
        logger.warning("the data go on at GPS %.3f: what lies between never came.", start)
        for one in self._far.values():
            one.position = None
        return True

    def _credible(self) -> float | None:
        """Start of the first files beyond the horizon of which enough follow each other, GPS s."""
        run: list[tuple[float, float]] = []
        for span in sorted({one.span for one in self._far.values()}):
            run = [*run, span] if run and span[0] < run[-1][1] + self.settings.horizon else [span]
            if len(run) == _CREDIBLE:
                return run[0][0]
        return None

    def _tell_strays(self) -> None:
        """Count the files beyond the horizon that nearer ones have followed: their clock is wrong."""
        position = self.position
        assert position is not None  # noqa: S101  # something is waited for
        strays = []
        for path, one in self._far.items():
            one.position = position if one.position is None else one.position
            if one.position < position and not one.told:
                one.told = True
                strays.append(path.name)
        if strays:
            named = strays[0] if len(strays) == 1 else f"{strays[0]} and {len(strays) - 1} more"
            self._note(FUTURE, f"far ahead of GPS {position:.3f} lies {named}: set aside.", len(strays))

    # Files

    def _listed(self) -> Iterator[tuple[Path, tuple[float, float], tuple[int, int]]]:
        """Files with the GPS span in their names, size and time of change."""
        for folder in self.folders:
            try:
                entries = sorted(folder.iterdir())
            except OSError as error:
                self._tell(
                    "folder", str(folder), f"{folder} cannot be looked into ({error.strerror}); it is waited for."
                )
                continue
            if ("folder", str(folder)) in self._told:
                self._told.remove(("folder", str(folder)))
                logger.info("%s is there again.", folder)
            for path in entries:
                span = span_in_name(path)
                if path.suffix not in _READERS or path.name.startswith((".", "_")) or span is None:
                    continue
                try:
                    stat = path.stat()
                except OSError:  # deleted meanwhile
                    continue
                yield path, span, (stat.st_size, stat.st_mtime_ns)

    def _look(self) -> None:
        now = self.clock()
        self._quiet_since()
        here = set()
        listed = sorted(self._listed(), key=lambda one: one[1])
        if self.position is None and listed:
            self.begin(listed[0][1][0])
        for path, span, stat in listed:
            here.add(path)
            if path in self._read:
                if self._read[path] != stat:
                    self._note(CHANGED, f"{path.name} has changed after it was read: what was read first counts.")
                    self._read[path] = stat
            elif self.position is not None and span[1] <= self.position and not self._just_missed(span, now):
                self._pass_over(path, stat)
            elif self.position is not None and span[0] >= self.position + self.settings.horizon:
                self._far.setdefault(path, _Far(span))
            else:
                self._far.pop(path, None)
                self._try(path, stat, now)
        for kept in (self._read, self._unread, self._far):
            for path in [one for one in kept if one not in here]:
                del kept[path]

    def _just_missed(self, span: tuple[float, float], now: float) -> bool:
        """Whether a file with that span would have come in time, had a channel that lacks been waited for."""
        return bool(self._absent) and 0 < now - self._followed(span[1], now) <= self.settings.patience

    def _pass_over(self, path: Path, stat: tuple[int, int]) -> None:
        """What comes after its time is over: told but for what lay there at the start, or was given up as broken."""
        seen = self._unread.pop(path, None)
        if not self.empty and (seen is None or seen.again < math.inf):
            self._note(LATE, f"{path.name} came after its time was given up, or again: it is not used.")
        self._read[path] = stat

    def _try(self, path: Path, stat: tuple[int, int], now: float) -> None:
        seen = self._unread.get(path)
        if seen is None or seen.stat != stat:
            seen = self._unread[path] = _Seen(stat, now, now)
        if now < seen.again:
            return
        span = span_in_name(path) or (-math.inf, math.inf)
        try:
            read = _READERS[path.suffix](path, list(self.expected), *span)
        except (FormatError, OSError) as error:
            seen.again = now + _PACE
            if now - seen.since >= self.settings.patience:
                seen.again = math.inf
                self._note(BROKEN, f"{path.name} cannot be read, and no longer changes: {error}")
            return
        found = [(name, [one] if isinstance(one, Channel) else one) for name, one in read.items()]
        if self.position is not None and span[1] <= self.position:
            self._pass_over(path, stat)
            self._wait_again(name for name, parts in found if parts)
            return
        self._read[path] = stat
        del self._unread[path]
        self._news = now
        self._note_ends((one.t0 + one.duration for _, parts in found for one in parts), now)
        for name, parts in found:
            for piece in parts:
                self._keep(name, piece, path)

    def _wait_again(self, names: Iterable[str]) -> None:
        """Let those that lack be waited for, as they come a little later than the others.

        Only a file that waiting would have brought does so: what is dead, or always too late, holds up nothing.
        """
        for name in sorted(self._absent.intersection(names)):
            logger.info("%s comes, but later than the others: it is waited for again.", name)
            self._absent.discard(name)

    def _note_ends(self, ends: Iterable[float], now: float) -> None:
        """Remember since when there are data up to where, as far back as anything is waited for."""
        end = max(ends, default=-math.inf)
        if not self._ends or end > self._ends[-1][0]:
            self._ends.append((end, now))
        while len(self._ends) > 1 and now - self._ends[1][1] > self.settings.patience:
            self._ends.popleft()

    def _followed(self, gps: float, now: float) -> float:
        """Since when there are data beyond a GPS time, s by the clock; now where there are none."""
        return next((when for end, when in self._ends if end > gps + 1e-9), now)

    # Samples

    def _keep(self, name: str, piece: Channel, path: Path) -> None:
        """Put a piece to the others, where it is of the kind that is expected and says nothing that was said."""
        unit = self.expected[name]
        known = next((one.sample_rate for one in self._pieces.get(name, ())), None)
        if known is not None and piece.sample_rate != known:
            self._unusable(name, f"expected {known:g} Hz, got {piece.sample_rate:g} Hz in {path.name}")
            return
        if unit and piece.unit and not same_unit(unit, piece.unit):
            self._unusable(name, f"expected {unit}, got {piece.unit} in {path.name}")
            return
        parts = self._pieces.setdefault(name, [])
        for one in parts:
            common = max(one.t0, piece.t0), min(one.t0 + one.duration, piece.t0 + piece.duration)
            if common[1] - common[0] > 0.5 / piece.sample_rate:
                here, there = (_between(each, *common) for each in (one, piece))
                same = len(here) == len(there) and np.array_equal(here, there, equal_nan=True)
                kind = DUPLICATE if same else DIFFERENT
                what = "the same as another file" if same else "other samples than another file, which counts"
                self._note(kind, f"{path.name} has from GPS {common[0]:.3f} on {what}: {name}.")
                first, last = one.t0, one.t0 + one.duration
                before, after = _cut_before(piece, first), _cut_after(piece, last)
                for rest in (before, after):
                    if len(rest.series):
                        self._keep(name, rest, path)
                return
        parts.append(piece)
        parts.sort(key=lambda one: one.t0)

    def _unusable(self, name: str, why: str) -> None:
        self.counts[UNUSABLE] += 1
        self._tell(UNUSABLE, name, f"{name} is not used: {why}.")

    def _parts(self, name: str, start: float) -> list[Channel]:
        stop = start + self.stride
        return [
            one for one in self._pieces.get(name, ()) if one.t0 < stop - 1e-9 and one.t0 + one.duration > start + 1e-9
        ]

    def _whole(self, name: str, start: float) -> bool:
        covered = start
        for one in self._parts(name, start):
            if one.t0 > covered + 0.5 / one.sample_rate:
                return False
            covered = max(covered, one.t0 + one.duration)
        return covered >= start + self.stride - 1e-9

    def _first_after(self, gps: float) -> float | None:
        """Start of the earliest samples at a GPS time or after it, s."""
        ends = [
            max(one.t0, gps) for parts in self._pieces.values() for one in parts if one.t0 + one.duration > gps + 1e-9
        ]
        return min(ends, default=None)

    def _cut(self, name: str, start: float) -> Channel | None:
        parts = self._parts(name, start)
        if not parts:
            return None
        rate = parts[0].sample_rate
        if len(parts) == 1 and self._whole(name, start):
            return replace(parts[0], series=_between(parts[0], start, start + self.stride), t0=start)
        series = np.full(round(self.stride * rate), np.nan)
        for one in parts:
            first = round((max(one.t0, start) - start) * rate)
            here = _between(one, start, start + self.stride)[: len(series) - first]
            series[first : first + len(here)] = here
        whole = np.isfinite(series).all() and len({one.series.dtype for one in parts}) == 1
        return replace(parts[0], series=series.astype(parts[0].series.dtype) if whole else series, t0=start)

    def _note(self, kind: str, message: str, number: int = 1) -> None:
        """Count, and tell the first of a kind, the tenth, the hundredth and so on; status.json has the number."""
        before = self.counts[kind]
        self.counts[kind] += number
        digits = [len(str(count)) for count in (before, self.counts[kind])]
        logger.log(logging.WARNING if not before or digits[0] < digits[1] else logging.DEBUG, "%s", message)

    def _tell(self, kind: str, whose: str, message: str) -> None:
        if (kind, whose) not in self._told:
            self._told.add((kind, whose))
            logger.warning("%s", message)


def _between(channel: Channel, start: float, stop: float) -> np.ndarray:
    first, last = (round((edge - channel.t0) * channel.sample_rate) for edge in (start, stop))
    return channel.series[max(first, 0) : max(last, 0)]


def _cut_before(channel: Channel, gps: float) -> Channel:
    return replace(channel, series=_between(channel, channel.t0, gps))


def _cut_after(channel: Channel, gps: float) -> Channel:
    first = max(round((gps - channel.t0) * channel.sample_rate), 0)
    return replace(channel, series=channel.series[first:], t0=channel.t0 + first / channel.sample_rate)
