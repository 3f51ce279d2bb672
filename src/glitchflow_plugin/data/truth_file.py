"""What a simulation knows about its events: waveforms of glitches and signals alone, their causes, and the channels.

One HDF5 file beside the event files. Root attributes: `format_version`, `target`, `sample_rate`, `channels` (JSON: role
by channel), `recipe` (JSON). Group `events/<event id>` holds the event's times as attributes, the groups `glitches/<n>`
and `signals/<n>` with a dataset `waveform` each, and two attributes in JSON: `transients` and `gaps`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.data.event_files import TRUTH_FILE_NAME
from glitchflow_plugin.data.files import HDF5_DAMAGE, new_hdf5, sealed_hdf5
from glitchflow_plugin.errors import DataError, FormatError
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.plain import JsonObject, plain

FORMAT_VERSION = 1
#: What the records raise as well.
_DAMAGE = (*HDF5_DAMAGE, AttributeError)


@dataclass(frozen=True, eq=False)
class WaveformTruth:
    """A glitch or a signal in the strain, alone.

    Attributes:
        label: Family of the glitch, class of the bank's glitch, or `merger`.
        gps_time: Its time (centre; merger time of a signal), GPS s.
        t0: GPS time of the waveform's first sample, s.
        sample_rate: Hz.
        waveform: Strain, float64, shape (time,).
        segment: GPS interval that holds 99 % of its SNR².
        snr: Optimal SNR against the noise.
        witnesses: Channels that see it; empty for a glitch without witness and for signals.
        witness_snr: Optimal SNR in each of them.
        coupling: How it got from the first witness to the strain.
        parameters: What was drawn.
    """

    label: str
    gps_time: float
    t0: float
    sample_rate: float
    waveform: Series
    segment: tuple[float, float]
    snr: float
    witnesses: tuple[str, ...] = ()
    witness_snr: Mapping[str, float] = field(default_factory=dict)
    coupling: JsonObject = field(default_factory=dict)
    parameters: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class TransientTruth:
    """A transient in an auxiliary channel that is no glitch of the strain.

    Attributes:
        channel: Where.
        gps_time: Its centre, GPS s.
        reason: `distractor`, `out of band` or `below threshold`.
        snr: In that channel.
        strain_snr: What little of it reaches the strain.
    """

    channel: str
    gps_time: float
    reason: str
    snr: float
    strain_snr: float = 0.0


@dataclass(frozen=True, eq=False)
class EventTruth:
    """What is known about one event.

    Attributes:
        event_id: Name of the event.
        gps_start: First sample of all its channels, GPS s.
        gps_event: Trigger time, GPS s.
        duration: s.
        group: Events that share it (a waveform of a bank, a stretch of measured strain) are no independent cases.
        background: File and GPS start of measured background; empty for simulated noise.
        glitches: In the strain.
        signals: In the strain.
        transients: In auxiliary channels only.
        gaps: GPS interval without data by channel.
    """

    event_id: str
    gps_start: float
    gps_event: float
    duration: float
    group: str = ""
    background: str = ""
    glitches: tuple[WaveformTruth, ...] = ()
    signals: tuple[WaveformTruth, ...] = ()
    transients: tuple[TransientTruth, ...] = ()
    gaps: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def glitch_segments(self) -> list[tuple[float, float]]:
        """GPS intervals of the glitches, in order of time."""
        return sorted(glitch.segment for glitch in self.glitches)

    def glitch_strain(self, sample_rate: float) -> Series:
        """Sum of the glitches over the whole event, float64, shape (time,)."""
        return _sum(self, self.glitches, sample_rate)

    def signal_strain(self, sample_rate: float) -> Series:
        """Sum of the signals over the whole event, float64, shape (time,)."""
        return _sum(self, self.signals, sample_rate)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known about a simulated set.

    Attributes:
        target: Name of the strain channel.
        sample_rate: Rate of the strain, Hz.
        roles: `witness`, `cause`, `distractor`, `unsafe` or `dead` by auxiliary channel.
        families: True witnesses by family of glitches.
        events: By event id, in order of time.
        recipe: Settings that made the set.
    """

    target: str
    sample_rate: float
    roles: Mapping[str, str]
    families: Mapping[str, tuple[str, ...]]
    events: Mapping[str, EventTruth]
    recipe: JsonObject = field(default_factory=dict)

    def channels(self, role: str) -> tuple[str, ...]:
        """Names of the auxiliary channels with that role, sorted."""
        return tuple(sorted(name for name, its_role in self.roles.items() if its_role == role))

    @property
    def true_witnesses(self) -> tuple[str, ...]:
        """Channels that see the glitches in the band in which a scan looks."""
        return self.channels("witness")

    @property
    def glitch_segments(self) -> dict[str, list[tuple[float, float]]]:
        """GPS intervals of the glitches by event id."""
        return {event_id: event.glitch_segments for event_id, event in self.events.items()}


def truth_path(folder: Path | str) -> Path:
    """The truth file of a folder of simulated events."""
    return Path(folder) / TRUTH_FILE_NAME


def write_truth(path: Path | str, truth: Truth) -> None:
    """Write a truth file, whole or not at all."""
    with new_hdf5(path) as file:
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["target"] = truth.target
        file.attrs["sample_rate"] = truth.sample_rate
        file.attrs["roles"] = json.dumps(dict(truth.roles))
        file.attrs["families"] = json.dumps({name: list(channels) for name, channels in truth.families.items()})
        file.attrs["recipe"] = json.dumps(dict(truth.recipe), default=plain)
        events = file.create_group("events")
        for event in truth.events.values():
            _write_event(events, event)


def read_truth(path: Path | str) -> Truth:
    """Read a truth file, given by its path or its folder.

    Raises:
        FormatError: The file is missing, truncated, or no truth file.
    """
    with _opened(path) as file:
        events = sorted((_read_event(group) for group in file["events"].values()), key=lambda one: one.gps_event)
        return Truth(
            target=str(file.attrs["target"]),
            sample_rate=float(file.attrs["sample_rate"]),
            roles=json.loads(file.attrs["roles"]),
            families={name: tuple(names) for name, names in json.loads(file.attrs["families"]).items()},
            events={event.event_id: event for event in events},
            recipe=json.loads(file.attrs["recipe"]),
        )


def read_truth_labels(path: Path | str) -> dict[str, str]:
    """Class of the loudest glitch of each event, `merger` for one that has a signal alone, or `no glitch`.

    Waveforms stay on disk.

    Raises:
        FormatError: The file is missing, truncated, or no truth file.
    """
    with _opened(path) as file:
        return {str(name): _label(group) for name, group in file["events"].items()}


def _label(event: h5py.Group) -> str:
    for kind in ("glitches", "signals"):
        parts = [part.attrs for part in event[kind].values()] if kind in event else []
        if parts:
            return str(max(parts, key=lambda part: part["snr"])["label"])
    return "no glitch"


@contextmanager
def _opened(path: Path | str) -> Iterator[h5py.File]:
    path = Path(path)
    path = truth_path(path) if path.is_dir() else path
    try:
        with sealed_hdf5(path) as file:
            version = int(file.attrs["format_version"])
            if version != FORMAT_VERSION:
                raise FormatError(f"{path} has format {version}, this program reads {FORMAT_VERSION}. Simulate again.")
            yield file
    except _DAMAGE as error:
        raise FormatError(f"{path} is no truth file of a simulation ({error}). Run simulate_pipeline again.") from error


def write_event_truth(path: Path | str, event: EventTruth) -> None:
    """Write the truth of one event, whole or not at all; `read_event_truths` collects such parts."""
    with new_hdf5(path) as file:
        _write_event(file, event)


def read_event_truths(paths: Iterable[Path | str]) -> dict[str, EventTruth]:
    """Read parts written by `write_event_truth`, sorted by time.

    Raises:
        FormatError: A part is missing or truncated.
    """
    events: list[EventTruth] = []
    for path in paths:
        try:
            with sealed_hdf5(path) as file:
                events += [_read_event(group) for group in file.values()]
        except _DAMAGE as error:
            raise FormatError(f"{path} cannot be read ({error}). Delete its folder and simulate again.") from error
    return {event.event_id: event for event in sorted(events, key=lambda one: one.gps_event)}


def _write_event(parent: h5py.Group, event: EventTruth) -> None:
    group = parent.create_group(event.event_id)
    for name in ("gps_start", "gps_event", "duration", "group", "background"):
        group.attrs[name] = getattr(event, name)
    group.attrs["transients"] = json.dumps([vars(transient) for transient in event.transients], default=plain)
    group.attrs["gaps"] = json.dumps({name: list(gap) for name, gap in event.gaps.items()}, default=plain)
    for kind in ("glitches", "signals"):
        for number, part in enumerate(getattr(event, kind)):
            _write_waveform(group.create_group(f"{kind}/{number}"), part)


def _write_waveform(group: h5py.Group, part: WaveformTruth) -> None:
    # stored as float32 relative to the largest sample: strain itself (1e-22) squares below float32's range
    scale = float(np.abs(part.waveform).max()) or 1.0
    dataset = group.create_dataset("waveform", data=(part.waveform / scale).astype(np.float32))
    dataset.attrs["scale"] = scale
    dataset.attrs["t0"] = np.float64(part.t0)
    dataset.attrs["sample_rate"] = np.float64(part.sample_rate)
    for name in ("label", "gps_time", "segment", "snr"):
        group.attrs[name] = getattr(part, name)
    group.attrs["witnesses"] = json.dumps(list(part.witnesses))
    for name in ("witness_snr", "coupling", "parameters"):
        group.attrs[name] = json.dumps(dict(getattr(part, name)), default=plain)


def _read_event(group: h5py.Group) -> EventTruth:
    parts = {
        kind: tuple(_read_waveform(group[kind][number]) for number in sorted(group[kind], key=int))
        for kind in ("glitches", "signals")
        if kind in group
    }
    return EventTruth(
        event_id=str(group.name).rsplit("/", 1)[-1],
        gps_start=float(group.attrs["gps_start"]),
        gps_event=float(group.attrs["gps_event"]),
        duration=float(group.attrs["duration"]),
        group=str(group.attrs["group"]),
        background=str(group.attrs["background"]),
        transients=tuple(TransientTruth(**content) for content in json.loads(group.attrs["transients"])),
        gaps={name: (gap[0], gap[1]) for name, gap in json.loads(group.attrs["gaps"]).items()},
        **parts,
    )


def _read_waveform(group: h5py.Group) -> WaveformTruth:
    dataset = group["waveform"]
    low, high = (float(edge) for edge in group.attrs["segment"])
    return WaveformTruth(
        label=str(group.attrs["label"]),
        gps_time=float(group.attrs["gps_time"]),
        t0=float(dataset.attrs["t0"]),
        sample_rate=float(dataset.attrs["sample_rate"]),
        waveform=dataset[()].astype(np.float64) * float(dataset.attrs["scale"]),
        segment=(low, high),
        snr=float(group.attrs["snr"]),
        witnesses=tuple(json.loads(group.attrs["witnesses"])),
        **{name: json.loads(group.attrs[name]) for name in ("witness_snr", "coupling", "parameters")},
    )


def _sum(event: EventTruth, parts: Iterable[WaveformTruth], sample_rate: float) -> Series:
    total = np.zeros(round(event.duration * sample_rate))
    for part in parts:
        if part.sample_rate != sample_rate:
            raise DataError(f"Truth is sampled at {part.sample_rate:g} Hz, asked for {sample_rate:g} Hz.")
        start = round((part.t0 - event.gps_start) * sample_rate)
        total[start : start + part.waveform.size] += part.waveform
    return total
