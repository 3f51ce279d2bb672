"""What the closed loop knows after a run, kept so that a witness that was stopped stays so in the runs that follow.

One file for each version of a model holds where the watch stood after each run. A run goes on from the run that reached
furthest of those that began before it in GPS time, so a run that is repeated begins where it began before.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from glitchflow_plugin.data.files import read_record, write_json
from glitchflow_plugin.data.lock import take
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.inference.closed_loop import NOTE, ClosedLoop
from glitchflow_plugin.inference.subject import registered, weights_fingerprint
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.gain_watch import WatchState

logger = logging.getLogger(__name__)

#: Runs that are kept: those that reached furthest.
_MOST_RUNS = 1000
#: Seconds to wait for another run that writes the file.
_PATIENCE = 10.0


@dataclass(frozen=True)
class StoredRun:
    """Where the watch stood after a run on events from `gps_start` to `gps_end`, s."""

    gps_start: float
    gps_end: float
    state: WatchState


@dataclass(frozen=True)
class StoredLoop:
    """What the file holds.

    Attributes:
        weights: Checksum of the weights that the gains are of.
        parts: Names of the parts of a prediction.
        runs: In the order in which they were written.
    """

    weights: str
    parts: tuple[str, ...]
    runs: tuple[StoredRun, ...] = ()

    def __post_init__(self) -> None:
        """Refuse states of other parts."""
        lengths = {len(column) for run in self.runs for column in vars(run.state).values()}
        if not lengths <= {len(self.parts)}:
            raise ValueError("expected a state for each part")  # told with the file by `read_record`

    def before(self, gps_start: float) -> WatchState | None:
        """The state from which a run on events that begin then goes on; None if nothing came before."""
        earlier = [run for run in self.runs if run.gps_start < gps_start]
        return max(earlier, key=lambda run: run.gps_end).state if earlier else None

    def with_run(self, run: StoredRun) -> "StoredLoop":
        """With one more run, in place of one that began at the same time."""
        runs = [*(each for each in self.runs if each.gps_start != run.gps_start), run]
        return replace(self, runs=tuple(sorted(runs, key=lambda each: each.gps_end)[-_MOST_RUNS:]))


@dataclass(frozen=True)
class LoopFile:
    """The file of one version of a model.

    Attributes:
        path: Where it is, or will be.
        fresh: What holds where there is none.
    """

    path: Path
    fresh: StoredLoop

    @classmethod
    def of(cls, bundle: ModelBundle, folder: Path | str | None) -> "LoopFile | None":
        """That of a registered model; None without a folder, and of one that is not registered or has no loop."""
        known, reference = registered(bundle), bundle.notes.get(NOTE)
        if folder is None or not known or not isinstance(reference, Mapping):
            return None
        name = check_name(f"{known['name']}-v{known['version']}", "the model's name")
        parts = tuple(map(str, reference.get("parts") or ()))
        return cls(Path(folder) / f"{name}.json", StoredLoop(weights_fingerprint(bundle.twin), parts))

    def read(self) -> StoredLoop:
        """What is stored of this model.

        Raises:
            FormatError: The file is damaged. It is not passed over: a witness may have been stopped.
        """
        if not self.path.exists():
            return self.fresh
        try:
            found = read_record(self.path, StoredLoop, "Make-inference")
        except FormatError as error:
            raise FormatError(f"{error} Without it the closed loop begins anew, with all witnesses.") from error
        if (found.weights, found.parts) != (self.fresh.weights, self.fresh.parts):
            logger.warning("%s is of another model of this name and version: the closed loop begins anew.", self.path)
            return self.fresh
        return found

    def before(self, spectrograms: SpectrogramSet) -> WatchState | None:
        """The state from which a run on these events goes on."""
        return self.read().before(_span(spectrograms)[0])

    def keep(self, loop: ClosedLoop | None, spectrograms: SpectrogramSet) -> None:
        """Write down where the watch stands after a run on these events, of which none will count a second time."""
        if loop is None:
            return
        start, end = _span(spectrograms)
        state = replace(loop.watch.state, until=(end,) * len(loop.reference.parts))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        hold = take(self.path.with_name(f".{self.path.stem}.lock"), "the closed loop", patience=_PATIENCE)
        try:
            write_json(self.path, asdict(self.read().with_run(StoredRun(start, end, state))))
        finally:
            hold.close()

    def how_to_reset(self, loop: ClosedLoop | None) -> list[str]:
        """For the run summary: what to do once a stopped witness has been looked at."""
        if loop is None or not loop.stopped:
            return []
        return [
            f"{', '.join(loop.stopped)}: left out of later runs too, until somebody has looked. To use all witnesses "
            f"again remove {self.path}."
        ]


def _span(spectrograms: SpectrogramSet) -> tuple[float, float]:
    """GPS start and end of the events, s."""
    starts = spectrograms.gps_start
    return float(starts.min()), float(starts.max()) + Columns(spectrograms.times).duration
