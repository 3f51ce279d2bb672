"""Step `Simulator` of simulate_pipeline: simulated events with known truth."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from itwinai.components import DataGetter, monitor_exec

from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.summary import EventCounts, RunSummary, now
from glitchflow_plugin.simulation.detector import SimulatedSet, simulate
from glitchflow_plugin.simulation.settings import SimulationSettings


class Simulator(DataGetter):
    """Write one or more sets of simulated events, each into a folder of its own.

    Args:
        folder: Parent of the sets' folders.
        sets: By name of the set: the settings in which it differs from `detector`; parts such as `bank` are merged key
            by key, so that a set can name other `indices` of the same bank.
        detector: Settings that all sets share; the keys are those of `SimulationSettings`.
        workers: Processes; None takes one for each core.
        progress: Show progress bars.
        name: Of the step.
    """

    def __init__(
        self,
        folder: str,
        sets: Mapping[str, Mapping[str, Any]],
        detector: Mapping[str, Any] | None = None,
        *,
        workers: int | None = None,
        progress: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.save_parameters(folder=folder, sets=sets, detector=detector, workers=workers, progress=progress, name=name)
        self.folder, self.workers, self.progress = Path(folder), workers, progress
        if not sets:
            raise ConfigurationError("simulate.sets is empty. Name at least one set, for instance `training: {}`.")
        for key in sets:
            check_name(key, "simulate.sets: name of a set")
        self.sets = {key: _settings(key, _merged(detector or {}, own or {})) for key, own in sets.items()}
        _refuse_overlap(self.sets)

    @monitor_exec
    @holding("folder")
    def execute(self, _before: Any = None) -> dict[str, SimulatedSet]:
        """Simulate every set; events that are there already are kept.

        Returns:
            The sets by name.
        """
        started = now()
        made = {
            key: simulate(settings, self.folder / key, workers=self.workers, progress=self.progress)
            for key, settings in self.sets.items()
        }
        report(self._summary(started, made), self.folder)
        return made

    def _summary(self, started: str, made: Mapping[str, SimulatedSet]) -> RunSummary:
        outputs: dict[str, Any] = {}
        for key, simulated in made.items():
            truth = simulated.truth()
            counts = Counter(glitch.label for event in truth.events.values() for glitch in event.glitches)
            signals = sum(len(event.signals) for event in truth.events.values())
            outputs[key] = str(simulated.folder)
            outputs[f"{key} truth"] = str(simulated.truth_path)
            outputs[f"{key} glitches"] = ", ".join(f"{label} {number}" for label, number in sorted(counts.items()))
            outputs[f"{key} mergers"] = signals
            outputs[f"{key} true witnesses"] = ", ".join(truth.true_witnesses)
        number = sum(map(len, made.values()))
        return RunSummary(
            pipeline="simulate_pipeline/Simulator",
            started=started,
            inputs={key: f"{one.num_events} events, seed {one.seed}" for key, one in self.sets.items()},
            events=EventCounts(read=number, kept=number),
            outputs=outputs,
        )


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The set's own values over the shared ones; dictionaries are merged key by key."""
    return dict(shared) | {
        key: {**shared[key], **value} if isinstance(value, Mapping) and isinstance(shared.get(key), Mapping) else value
        for key, value in own.items()
    }


def _settings(key: str, content: Mapping[str, Any]) -> SimulationSettings:
    try:
        return SimulationSettings.from_yaml(content)
    except ConfigurationError as error:
        raise ConfigurationError(f"simulate.sets.{key}: {error}") from error


def _refuse_overlap(sets: Mapping[str, SimulationSettings]) -> None:
    """Two sets of one detector must not share time: events are merged on ids made of the GPS second."""
    spans = sorted(
        (one.ifo, one.gps_start, one.gps_start + one.num_events * one.spacing, key) for key, one in sets.items()
    )
    for (ifo, _, end, key), (next_ifo, start, _, next_key) in pairwise(spans):
        if ifo == next_ifo and start < end:
            raise ConfigurationError(
                f"Simulated sets {key!r} (until GPS {end}) and {next_key!r} (from GPS {start}) overlap in time. "
                f"Set simulate.sets.{next_key}.gps_start to {end} or later."
            )
