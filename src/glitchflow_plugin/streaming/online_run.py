"""Frames in, clean frames out, stride by stride: what is kept so that a killed run goes on where it was.

A stride is finished once its record is there, which is written after its files. A run that begins again reads the last
record and those after the last state of the closed loop, and feeds the twin what decides about the next stride: from
the state that was kept a while ago on, or out of frames that still lie there. It takes no longer after a longer run.
A disk that is full holds the run up, and ends nothing.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.files import content_hash, new_hdf5, read_record, sealed_hdf5, write_json
from glitchflow_plugin.data.frame_intake import Arrived, FrameIntake
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.products.clean_strain import load_writers
from glitchflow_plugin.products.folder import (
    RECORDS,
    BlockRecord,
    Stop,
    parts_of,
    read_block_record,
    write_block_record,
)
from glitchflow_plugin.products.summary import Metric, RunSummary
from glitchflow_plugin.settings import Count, Positive, section
from glitchflow_plugin.signal.gain_watch import WatchState
from glitchflow_plugin.streaming.loop import left_out, watch
from glitchflow_plugin.streaming.online import OnlineTwin, Output, Stride
from glitchflow_plugin.streaming.run import StreamJob, told_of, write_found, write_whole

logger = logging.getLogger(__name__)

STATUS_NAME, STATE_NAME, LOOP_NAME = "status.json", "state.h5", "closed_loop.json"

_REMEMBERED = 3600
"""Strides of which the status tells how long they took."""


@section
class OnlineRunSettings:
    """When a run begins and ends, and what it keeps; conf/online.yaml explains the keys."""

    start: float | None = None
    until: float | None = None
    idle: Positive | None = None
    awaited: Positive | None = None
    checkpoint: Positive = 256.0
    folder_length: Count = 4096


@dataclass(eq=False)
class Latency:
    """How long strides took, by stage, from when all of a stride had come until its files were there.

    Attributes:
        seconds: By stage the latest of them, s; `all` is the sum of a stride's. Beside these stands `keeping`, what is
            kept every `OnlineRunSettings.checkpoint` seconds, after the files of a stride and before the next one.
    """

    seconds: dict[str, deque[float]] = field(default_factory=dict)

    def add(self, spent: Mapping[str, float]) -> None:
        """One stride."""
        for stage, one in {**spent, "all": sum(spent.values())}.items():
            self._append(stage, one)

    def keeping(self, spent: float) -> None:
        """What was kept once, s: of no stride."""
        self._append("keeping", spent)

    def _append(self, stage: str, spent: float) -> None:
        self.seconds.setdefault(stage, deque(maxlen=_REMEMBERED)).append(spent)

    def told(self) -> dict[str, dict[str, float]]:
        """Median, 99th percentile and largest by stage, s."""
        return {
            stage: dict(zip(("p50", "p99", "max"), map(float, np.quantile(list(one), (0.5, 0.99, 1.0))), strict=True))
            for stage, one in self.seconds.items()
        }


@dataclass(frozen=True)
class KeptLoop:
    """Where the closed loop stands.

    Attributes:
        what: Checksum of all that decides about the products.
        until: End of the last stride whose gains it has seen, GPS s.
        stops: What it has stopped.
        watched: From where it goes on; None where no gain was seen yet.
    """

    what: str
    until: float
    stops: tuple[Stop, ...] = ()
    watched: WatchState | None = None


@dataclass(eq=False)
class OnlineRun:
    """A model at work on what appears in folders.

    Args:
        job: Model, products and provenance; its folder is that of the whole run.
        twin: Fresh.
        intake: What appears.
        settings: When it begins and ends, and what it keeps.
        ended: Whether somebody has asked it to end.
    """

    job: StreamJob
    twin: OnlineTwin
    intake: FrameIntake
    settings: OnlineRunSettings
    ended: Callable[[], bool] = lambda: False
    latency: Latency = field(default_factory=Latency)
    made: int = 0
    stops: tuple[Stop, ...] = ()
    _watched: WatchState | None = None
    _records: list[BlockRecord] = field(default_factory=list)
    _part: Path | None = None
    _next: float | None = None
    _done: float | None = None
    _checked: float = -math.inf

    @property
    def what(self) -> dict[str, object]:
        """All that decides about the products, but for the data."""
        return {**told_of(self.job.provenance), "products": self.job.products.decisive()}

    def run(self) -> None:
        """Work until the end that the settings name, or until somebody asks for one.

        Raises:
            ConfigurationError: The folder holds others than those that this run makes.
        """
        self._check_parts()
        self.twin.warm_up()
        load_writers(self.job.products.formats)
        self._resume()
        while not self.ended():
            before = time.perf_counter()
            arrived = self.intake.next()
            if arrived is None and not self._over(None):
                time.sleep(self.intake.settings.poll)
                continue
            arrived = self.intake.rest() if arrived is None else arrived
            if arrived is None or self._over(arrived.start):
                break
            self._take(arrived, time.perf_counter() - before)
        self._persist(self.keep)

    def _persist(self, work: Callable[[], None]) -> None:
        """Write something; where the disk is full or the folder cannot be written, wait until it can.

        Raises:
            DataError: Somebody asked for an end meanwhile, or it is something else.
        """
        told = False
        while True:
            try:
                return work()
            except DataError as error:
                if not isinstance(error.__cause__, OSError) or self.ended():
                    raise
                if not told:
                    logger.warning("%s It is tried again until it can be done.", error)
                told = True
                time.sleep(self.intake.settings.poll)

    def _over(self, gps: float | None) -> bool:
        until = self.settings.until
        position = gps if gps is not None else self.intake.position
        if until is not None and position is not None and position >= until + self.twin.settings.lookahead:
            return True
        if gps is not None:
            return False
        limit = self.settings.idle if not self.intake.empty or self.settings.awaited is None else self.settings.awaited
        return limit is not None and self.intake.idle() > limit

    def _take(self, arrived: Arrived, reading: float) -> None:
        for output in self._lost(arrived.start):
            self._persist(partial(self._write, output, reading))
        stopped = self._stopped
        used = {name: one for name, one in arrived.channels.items() if arrived.start < stopped.get(name, math.inf)}
        stride = Stride(arrived.start, used)
        self._next = arrived.stop
        if self._done is not None and arrived.stop - self.twin.settings.lookahead <= self._done:
            self.twin.feed(stride)
        else:
            self._persist(partial(self._write, self.twin.push(stride), reading))
        if arrived.stop - self._checked >= self.settings.checkpoint:
            begun = time.perf_counter()
            self._persist(self.keep)
            self.latency.keeping(time.perf_counter() - begun)

    def _lost(self, start: float) -> Iterator[Output]:
        """Outputs of what was never followed by anything, up to where data begin again."""
        if self._next is None or start <= self._next:
            return
        logger.warning("nothing came from GPS %.3f to %.3f.", self._next, start)
        # after so long nothing of before counts, and nothing is left to be said
        forgotten = self._next + self.twin.memory
        yield from self.twin.gap(self._next, min(start, forgotten))
        if start > forgotten:
            self.twin.restore({})

    def _write(self, output: Output, reading: float) -> None:
        """Files first, then the record, which makes them count."""
        if output.strain is None or output.found is None or (self._done is not None and output.span[0] < self._done):
            return
        begun = time.perf_counter()
        job = replace(self.job, folder=self._enter(output.span[0]))
        record = BlockRecord(*output.span, content_hash([self.what, output.span, sorted(self._stopped)]))
        told = {"glitchflow_stopped": [asdict(one) for one in self.stops]} if self.stops else {}
        _, record = write_found(job, record, output.strain, output.found, told)
        write_block_record(job.folder, record)
        self._records.append(record)
        self._done = output.span[1]
        self._watch(record)
        self.made += 1
        self.latency.add({"reading": reading, **output.seconds, "writing": time.perf_counter() - begun})

    def _watch(self, record: BlockRecord) -> None:
        """The closed loop: a witness that the strain no longer follows is left out of what comes in from then on."""
        reference, settings = self.job.model.reference, self.job.settings.closed_loop
        if not record.gains or reference is None or not settings.enabled:
            return
        found = watch(record.gains, reference, settings, self._watched)
        self._watched = found.loop.watch.state
        # what has come until then was used already
        new = [replace(one, since=record.stop + self.twin.settings.lookahead) for one in found.stops]
        for one in new:
            logger.warning("the strain no longer follows %s: it is left out from GPS %.3f on.", one.part, one.since)
        self.stops = tuple(sorted([*self.stops, *new], key=lambda one: reference.parts.index(one.part)))

    @property
    def _stopped(self) -> dict[str, float]:
        """By witness that is left out the GPS time from which on it is, s."""
        return left_out(self.stops, [one.name for one in self.job.model.witnesses])

    def _enter(self, gps: float) -> Path:
        """The folder of the products of that time; what the one of the time before holds is written down."""
        part = self.job.folder / part_name(gps, self.settings.folder_length)
        if part != self._part:
            there = parts_of(self.job.folder)
            # a run that was killed may not have written down what its last folder holds
            if self._part is None and there and there[-1] != part:
                self._part, self._records = there[-1], read_records(there[-1])
            self._close()
            self._part, self._records = part, read_records(part)
        return part

    def _close(self) -> None:
        if self._part is not None and self._records:
            span = [self._records[0].start, self._records[-1].stop]
            job = replace(self.job, folder=self._part)
            write_whole(job, {**self.what, "gps": span}, tuple(self._records), self.stops)

    def keep(self) -> None:
        """Write down what the folder holds, how the run is, and the states of closed loop and twin."""
        self._close()
        if self._done is not None:
            loop = KeptLoop(content_hash(self.what), self._done, self.stops, self._watched)
            write_json(self.job.folder / LOOP_NAME, asdict(loop))
        write_json(self.job.folder / STATUS_NAME, self.status())
        if self._next is not None:
            self._checked = self._next
            write_state(self.job.folder / STATE_NAME, self._next, self.what, self.twin.state())

    def status(self) -> dict[str, object]:
        """What a monitor wants to know."""
        return {
            "gps": self._done,
            "strides": self.made,
            "stopped": sorted(self._stopped),
            "lookahead": self.twin.settings.lookahead,
            "latency": self.latency.told(),
            "frames": dict(sorted(self.intake.counts.items())),
        }

    # Going on

    def _check_parts(self) -> None:
        """Refuse folders of other names: which is the last one could no longer be told by these."""
        length = self.settings.folder_length
        for part in parts_of(self.job.folder):
            gps = _gps_of(part)
            if math.isnan(gps) or part.name != part_name(gps, length):
                raise ConfigurationError(
                    f"expected folders of {length} s (online.run.folder_length) in {self.job.folder}, got {part.name}. "
                    "Set it back, take that folder elsewhere, or give online.result another name."
                )

    def _resume(self) -> None:
        """Find out where to go on, and feed the twin what decides about that."""
        self._done = last_written(self.job.folder)
        if self._done is None:
            self.intake.begin(self.settings.start)
            return
        self._resume_loop(self._done)
        newest = self._done + self.twin.settings.lookahead
        needed = newest - self.twin.memory
        there = self.intake.earliest()
        fed = there is not None and there <= needed
        kept = read_state(self.job.folder / STATE_NAME, self.what)
        # the state is of what came in time, and spares feeding again what it has seen
        if kept is not None and kept[0] <= newest + 1e-9 and (kept[0] >= needed or not fed):
            self.twin.restore(kept[1])
            begin = self._next = kept[0]
        elif fed:
            begin = needed
        else:
            begin = max(needed, there if there is not None else needed)
            logger.warning(
                "frames from GPS %.3f on are gone and no state was kept: until the twin has seen %.0f s it says less.",
                needed,
                self.twin.memory,
            )
        logger.info("%s: it goes on at GPS %.3f.", self.job.folder, self._done)
        self.intake.begin(begin)

    def _resume_loop(self, done: float) -> None:
        """Bring the closed loop to the end of the last stride, GPS s: records that it has seen are not read again."""
        kept = None
        with suppress(FormatError):
            kept = read_record(self.job.folder / LOOP_NAME, KeptLoop, "online_pipeline")
        seen = -math.inf
        # what was kept may be of strides whose records are gone: they are made, and seen, again
        if kept is not None and kept.what == content_hash(self.what) and kept.until <= done:
            seen, self.stops, self._watched = kept.until, kept.stops, kept.watched
        for part in parts_of(self.job.folder):
            if _gps_of(part) + self.settings.folder_length > seen:
                for record in read_records(part, seen):
                    self._watch(record)


def expected_channels(job: StreamJob) -> dict[str, str | None]:
    """Units of the channels of a model, by name."""
    return {one.name: one.unit for one in (job.model.target, *job.model.witnesses)}


def part_name(gps: float, length: int) -> str:
    """Folder of the products of a time.

    >>> part_name(1400000001.0, 4096)
    '1399996416-4096'
    """
    return f"{math.floor(gps / length) * length}-{length}"


def _gps_of(part: Path) -> float:
    """GPS time at which a folder of products begins, s, as its name tells; NaN where it tells none."""
    try:
        return float(part.name.partition("-")[0])
    except ValueError:
        return math.nan


def record_spans(folder: Path) -> list[tuple[float, float]]:
    """Start and end of the strides that a folder has records of, in order of time, GPS s; none is read."""
    found = []
    for path in (folder / RECORDS).glob("*-*.json"):
        start, _, length = path.stem.partition("-")
        with suppress(ValueError):
            found.append((float(start), float(start) + float(length)))
    return sorted(found)


def read_records(folder: Path, since: float = -math.inf) -> list[BlockRecord]:
    """The records of a folder from a GPS time on (s), in order of time.

    One that is damaged does not count, and its stride is made again.
    """
    found = []
    for span in record_spans(folder):
        if span[0] >= since:
            with suppress(FormatError):
                found.append(read_block_record(folder, *span))
    return found


def last_written(folder: Path) -> float | None:
    """End of the last stride that a run has finished, GPS s; None: there is none."""
    for part in reversed(parts_of(folder)):
        for span in reversed(record_spans(part)):
            with suppress(FormatError):
                return read_block_record(part, *span).stop
    return None


def write_state(path: Path, gps: float, what: Mapping[str, object], state: Mapping[str, np.ndarray]) -> None:
    """Keep the state of a twin that was fed up to a GPS time, s; whole or not at all."""
    with new_hdf5(path) as file:
        file.attrs["gps"], file.attrs["what"] = gps, content_hash(what)
        for name, values in state.items():
            file[name] = values


def read_state(path: Path, what: Mapping[str, object]) -> tuple[float, dict[str, np.ndarray]] | None:
    """The state that was kept, and up to when it was fed, GPS s; None where there is none of the same model."""
    try:
        with sealed_hdf5(path) as file:
            if file.attrs["what"] != content_hash(what):
                return None
            found: dict[str, np.ndarray] = {}
            file.visititems(lambda name, one: found.update({name: one[()]}) if hasattr(one, "shape") else None)
            return float(file.attrs["gps"]), found
    except (FormatError, FileNotFoundError):
        return None


def online_summary(run: OnlineRun, inputs: Mapping[str, object], started: str) -> RunSummary:
    """What a run made, and how long it took.

    Args:
        run: After `OnlineRun.run`.
        inputs: Model and version.
        started: ISO 8601, UTC.
    """
    spent = run.latency.told()
    metrics = {f"{stage}_{what}_s": Metric(value) for stage, one in spent.items() for what, value in one.items()}
    return RunSummary(
        pipeline="online_pipeline/Online",
        started=started,
        inputs={**inputs, "strain": run.job.model.target.name, "lookahead_s": run.twin.settings.lookahead},
        metrics={"strides": Metric(float(run.made)), **metrics},
        outputs={"files": str(run.job.folder), "status": str(run.job.folder / STATUS_NAME)},
        warnings=(
            *(f"frames or strides {kind}: {number}" for kind, number in sorted(run.intake.counts.items()) if number),
            *(f"{one.part} is left out from GPS {one.since:.3f} on: {one.reason}" for one in run.stops),
        ),
    )
