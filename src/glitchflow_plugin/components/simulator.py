"""Step `Simulator` of simulate_pipeline: simulated events with known truth."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from itwinai.components import DataGetter, monitor_exec

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.truth_file import truth_path
from glitchflow_plugin.products.summary import EventCounts, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.simulation.continuous import SimulatedStream, simulate_stream
from glitchflow_plugin.simulation.detector import SimulatedSet, simulate
from glitchflow_plugin.simulation.sets import Own, settings_by_set


class Simulator(DataGetter):
    """Write one or more sets of simulated events, and data that run on, each into a folder of its own.

    Args:
        folder: Parent of the sets' folders.
        sets: By name of the set: the settings in which it differs from `detector`; parts such as `bank` are merged key
            by key, so that a set can name other `indices` of the same bank.
        detector: Settings that all sets share; the keys are those of `SimulationSettings`.
        streams: By name of the folder the same of data that run on: the glitches of so many events, on noise without a
            seam.
        workers: Processes; None takes one for each core.
        progress: Show progress bars.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        folder: str,
        sets: Own,
        detector: Mapping[str, object] | None = None,
        *,
        streams: Own | None = None,
        workers: int | None = None,
        progress: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.folder, self.workers, self.progress = Path(folder), workers, progress
        self.sets, self.streams = settings_by_set(sets, detector, streams)

    @monitor_exec
    @holding("folder")
    def execute(self, _before: object = None) -> dict[str, SimulatedSet]:
        """Simulate every set, keep what is there already, and return the sets of events by name."""
        started = now()
        made = {
            key: simulate(settings, self.folder / key, workers=self.workers, progress=self.progress)
            for key, settings in self.sets.items()
        }
        running = {key: simulate_stream(settings, self.folder / key) for key, settings in self.streams.items()}
        number = sum(map(len, made.values()))
        report(
            RunSummary(
                pipeline="simulate_pipeline/Simulator",
                started=started,
                inputs={
                    key: f"{one.num_events} events, seed {one.seed}" for key, one in (self.sets | self.streams).items()
                },
                events=EventCounts(read=number, kept=number),
                outputs={
                    name: value for key, one in (made | running).items() for name, value in _outputs(key, one).items()
                },
            ),
            self.folder,
        )
        return made


def _outputs(key: str, simulated: SimulatedSet | SimulatedStream) -> dict[str, object]:
    """What the summary tells of one set."""
    truth = simulated.truth()
    counts = Counter(glitch.label for event in truth.events.values() for glitch in event.glitches)
    return {
        key: str(simulated.folder),
        f"{key} truth": str(truth_path(simulated.folder)),
        f"{key} glitches": ", ".join(f"{label} {number}" for label, number in sorted(counts.items())),
        f"{key} mergers": sum(len(event.signals) for event in truth.events.values()),
        f"{key} true witnesses": ", ".join(truth.true_witnesses),
    }
