"""Simulated data that run on: the glitches of a set of events, on noise without a seam, in files of one length."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.signal import windows

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import content_hash, read_json, write_json
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.data.truth_file import EventTruth, Truth, read_truth, truth_path, write_truth
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.simulation.detector import SIMULATOR_VERSION
from glitchflow_plugin.simulation.instrument import Detector
from glitchflow_plugin.simulation.settings import MergerSettings, SimulationSettings

FRAMES = "frames"
"""Folder of the files, below that of the set."""

_STATE_FILE = "simulation.json"

_TAPER = 1.0
"""Time in which what an event adds begins and ends, s: beams wander in it from end to end."""


@dataclass(frozen=True)
class SimulatedStream:
    """A folder of continuous data.

    Attributes:
        folder: Holds `frames` and the truth file.
        target: Name of the strain channel.
        span: First and last GPS second.
    """

    folder: Path
    target: str
    span: tuple[float, float]

    @property
    def frames(self) -> Path:
        """Folder of the files."""
        return self.folder / FRAMES

    def truth(self) -> Truth:
        """Read the truth."""
        return read_truth(truth_path(self.folder))


def simulate_stream(
    settings: SimulationSettings, folder: Path | str, *, file_length: float = 64.0, suffix: str = "h5"
) -> SimulatedStream:
    """Write data that run on from the first event of a set to its last, with the glitches of its events.

    Noise is drawn for the whole stretch at once, which is held in memory; event `i` adds its glitch and the transients
    of its auxiliary channels, which are those of `Detector.event(i)`. There are no mergers and no gaps. What is there
    already, from the same settings, is kept; what is there of others is replaced.

    Args:
        settings: The set; `spacing` decides how often a glitch comes.
        folder: Gets the files, in `frames`, and `truth.h5` with a record for each event.
        file_length: Length of a file, s.
        suffix: `h5` (as gwpy writes it) or `gwf`.

    Raises:
        ConfigurationError: The folder holds files that no simulation made.
    """
    folder, detector = Path(folder), Detector(settings)
    length = settings.num_events * settings.spacing
    made = SimulatedStream(folder, detector.target, (settings.gps_start, settings.gps_start + length))
    digest = content_hash([SIMULATOR_VERSION, asdict(settings), file_length, suffix])
    if _is_there(made, digest, math.ceil(length / file_length)):
        return made
    quiet = replace(
        settings,
        num_events=1,
        duration=length,
        spacing=length,
        families={},
        bank=None,
        mergers=MergerSettings(fraction=0.0),
        distractor_rate=0.0,
        gap_fraction=0.0,
    )
    recorded = dict(Detector(quiet).event(0)[0].channels)
    truths = [_add_event(recorded, detector, index) for index in range(settings.num_events)]
    for start, channels in _pieces(recorded, settings.gps_start, length, file_length):
        write = frames.write if suffix == "gwf" else hdf5.write
        span = f"{start:.0f}-{channels[detector.target].duration:.0f}"
        write(folder / FRAMES / f"{settings.ifo[0]}-{settings.ifo}_SIM-{span}.{suffix}", channels)
    truth = Truth(
        target=detector.target,
        sample_rate=settings.sample_rate,
        roles=detector.roles,
        families=detector.witnesses_by_family,
        events={one.event_id: one for one in truths},
        recipe={"settings": settings.recipe(), "continuous": True},
    )
    write_truth(truth_path(folder), truth)
    write_json(folder / _STATE_FILE, {"digest": digest, "finished": True})
    return made


def _is_there(stream: SimulatedStream, digest: str, num_files: int) -> bool:
    """Whether a folder holds this stream, whole; what is left of another one is removed."""
    state = stream.folder / _STATE_FILE
    present = sorted(stream.frames.glob("*")) if stream.frames.is_dir() else []
    if present and not state.exists():
        raise ConfigurationError(
            f"{stream.frames} holds {len(present)} files that were not simulated. Choose another folder."
        )
    told = read_json(state) if state.exists() else {}
    whole = len(present) == num_files and truth_path(stream.folder).exists()
    if whole and told.get("finished") and told.get("digest") == digest:
        return True
    write_json(state, {"digest": digest, "finished": False})
    for path in present:
        path.unlink()
    return False


def _add_event(recorded: Mapping[str, Channel], detector: Detector, index: int) -> EventTruth:
    """Add what an event adds to the noise, and tell what that is."""
    gps_start, settings = detector.gps_start(index), detector.settings
    rng = detector.generators(index)
    noise = detector.noises[int(rng["strain"].integers(len(detector.noises)))]
    glitch = detector.draw_glitch(index, rng["glitch"], noise)
    arrivals = [*([] if glitch is None else [glitch]), *detector.draw_bystanders(rng["bystanders"], noise)]
    for arrival in arrivals:
        share = 1.0 if arrival is glitch else settings.coupling
        _add(recorded[detector.target], share * arrival.strain, gps_start)
        for name, seen in arrival.seen.items():
            _add(recorded[detector.full_name(name)], seen, gps_start)
    for name, _, seen in detector.draw_distractions(rng["distractors"]):
        _add(recorded[detector.full_name(name)], seen, gps_start)
    heard = glitch is not None and settings.coupling > 0
    return EventTruth(
        event_id=detector.event_id(index),
        gps_start=gps_start,
        gps_event=gps_start + settings.duration / 2.0,
        duration=settings.duration,
        group=detector.event_id(index),
        glitches=(detector.waveform_truth(glitch, noise, gps_start),) if heard and glitch is not None else (),
    )


def _add(channel: Channel, addition: np.ndarray, gps_start: float) -> None:
    first = round((gps_start - channel.t0) * channel.sample_rate)
    taper = windows.tukey(len(addition), 2 * _TAPER * channel.sample_rate / len(addition))
    channel.series[first : first + len(addition)] += (addition * taper).astype(channel.series.dtype)


def _pieces(
    recorded: Mapping[str, Channel], start: float, length: float, file_length: float
) -> Iterator[tuple[float, dict[str, Channel]]]:
    """GPS start of each file, and its part of every channel."""
    for begin in np.arange(0.0, length, file_length):
        end = min(begin + file_length, length)
        yield (
            start + begin,
            {
                name: replace(
                    one,
                    series=one.series[round(begin * one.sample_rate) : round(end * one.sample_rate)],
                    t0=start + begin,
                )
                for name, one in recorded.items()
            },
        )
