"""Sets of simulated events with known truth: one function, `simulate`, writes them."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from glitchflow_plugin.data.event_files import list_event_files, write_event
from glitchflow_plugin.data.files import content_hash, read_json, sha256, write_json
from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.data.truth_file import (
    EventTruth,
    Truth,
    read_event_truths,
    read_truth,
    truth_path,
    write_event_truth,
    write_truth,
)
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.preprocessing.engine import EngineSettings, map_shards
from glitchflow_plugin.simulation.instrument import Detector
from glitchflow_plugin.simulation.settings import SimulationSettings

log = logging.getLogger(__name__)

SIMULATOR_VERSION = 2
"""Raised whenever the same settings would give other events."""

_STATE_FILE = "simulation.json"
_PARTS_FOLDER = ".truth-parts"


@dataclass(frozen=True)
class SimulatedSet:
    """A folder of simulated events.

    Attributes:
        folder: Event files, truth file and the recipe.
        target: Name of the strain channel.
        channels: Names of all other channels, sorted.
        event_ids: In order of time.
    """

    folder: Path
    target: str
    channels: tuple[str, ...]
    event_ids: tuple[str, ...]

    @property
    def truth_path(self) -> Path:
        """The truth file."""
        return truth_path(self.folder)

    def truth(self) -> Truth:
        """Read the truth."""
        return read_truth(self.truth_path)

    def __len__(self) -> int:
        """Number of events."""
        return len(self.event_ids)


def simulate(
    settings: SimulationSettings, folder: Path | str, workers: int | None = 1, progress: bool = False
) -> SimulatedSet:
    """Write a set of simulated events and its truth file.

    Events that are there already, from the same recipe, are kept; those of another recipe are replaced.

    Args:
        settings: The set.
        folder: Gets the event files and `truth.h5`.
        workers: Processes; None takes one for each core. What is written does not depend on it.
        progress: Show a progress bar.

    Raises:
        ConfigurationError: The folder holds event files that no simulation made.
        ShardError: An event could not be made; those that were finished stay.
    """
    folder = Path(folder)
    detector = Detector(settings)
    ids = [detector.event_id(index) for index in range(settings.num_events)]
    finished = _prepare_folder(folder, settings, ids)
    pending = [ShardPlan(index, (event_id,)) for index, event_id in enumerate(ids) if event_id not in finished]
    if finished:
        log.info("%d of %d events are already in %s", len(finished), len(ids), folder)
    if pending and settings.mergers.fraction > 0.0:
        _ = detector.mergers  # kept by the detector, so that no worker computes them again
    engine = EngineSettings(workers=None if workers is None else max(workers, 1))
    make = partial(_make_event, detector, folder)
    map_shards(make, pending, engine, f"simulate {folder.name}", progress=progress)
    if pending or not truth_path(folder).exists() or list(read_truth(folder).events) != ids:
        _collect_truth(folder, detector, ids)
    return SimulatedSet(folder, detector.target, tuple(sorted(detector.roles)), tuple(ids))


def event_path(folder: Path | str, event_id: str) -> Path:
    """File of a simulated event."""
    return Path(folder) / f"event-{event_id}.h5"


def _make_event(detector: Detector, folder: Path, plan: ShardPlan) -> None:
    """Simulate one event and write it. Runs in a worker."""
    event, truth = detector.event(plan.index)
    # the truth first: an event file then always has one
    write_event_truth(_part_path(folder, event.event_id), truth)
    write_event(event_path(folder, event.event_id), event)


def _part_path(folder: Path, event_id: str) -> Path:
    return folder / _PARTS_FOLDER / f"{event_id}.h5"


def _prepare_folder(folder: Path, settings: SimulationSettings, ids: list[str]) -> set[str]:
    """Make the folder fit the recipe and return the ids of the events that are finished."""
    folder.mkdir(parents=True, exist_ok=True)
    background, bank = settings.background, settings.bank
    inputs = [*(background.files if background else ()), *([bank.path] if bank else ())]
    recipe = {
        "simulator_version": SIMULATOR_VERSION,
        "settings": settings.recipe(),
        "inputs": {path: sha256(path) for path in inputs},
    }
    digest = content_hash(recipe)
    state = folder / _STATE_FILE
    present = list_event_files(folder)
    if present and not state.exists():
        raise ConfigurationError(
            f"{folder} holds {len(present)} event files that were not simulated. Choose another folder."
        )
    if state.exists() and read_json(state).get("digest") != digest:
        log.warning("%s was simulated with another recipe; its events are replaced", folder)
        for path in (*present, truth_path(folder), *_parts(folder)):
            path.unlink(missing_ok=True)
        present = []
    wanted = {event_path(folder, event_id) for event_id in ids}
    for path in present:
        if path not in wanted:
            path.unlink()
    write_json(state, {"digest": digest, "num_events": settings.num_events, **recipe})
    known = set(_known_truths(folder))
    return {event_id for event_id in ids if event_id in known and event_path(folder, event_id).exists()}


def _parts(folder: Path) -> list[Path]:
    return sorted((folder / _PARTS_FOLDER).glob("[!.]*.h5"))


def _known_truths(folder: Path) -> dict[str, EventTruth]:
    """Truths of the finished events: from an earlier whole run, and from parts of an interrupted one."""
    known: dict[str, EventTruth] = {}
    if truth_path(folder).exists():
        try:
            known.update(read_truth(folder).events)
        except FormatError as error:
            log.warning("%s; its events are simulated again", error)
    return known | read_event_truths(_parts(folder))


def _collect_truth(folder: Path, detector: Detector, ids: list[str]) -> None:
    """Put the truth of all events into one file and remove the parts."""
    known = _known_truths(folder)
    truth = Truth(
        target=detector.target,
        sample_rate=detector.settings.sample_rate,
        roles=detector.roles,
        families=detector.witnesses_by_family,
        events={event_id: known[event_id] for event_id in ids},
        recipe={
            "simulator_version": SIMULATOR_VERSION,
            "settings": detector.settings.recipe(),
            "outside": list(detector.outside),
        },
    )
    write_truth(truth_path(folder), truth)
    parts = folder / _PARTS_FOLDER
    if parts.is_dir():
        for part in parts.iterdir():
            part.unlink()
        parts.rmdir()
