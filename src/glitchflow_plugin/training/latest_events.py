"""What a champion says of the latest events: whether anything has changed since it was trained."""

from dataclasses import dataclass
from pathlib import Path

from glitchflow_plugin.data.buffer import is_event_set
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.inference import model_data
from glitchflow_plugin.inference.closed_loop import ClosedLoop, close_loop, loop_details, loop_warnings
from glitchflow_plugin.inference.drift import drift_or_refuse, drift_warnings
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.tracking.versions import ModelVersion
from glitchflow_plugin.training.residual import watch_residual
from glitchflow_plugin.training.retraining import Finding, RetrainSettings, decide, pinned, residual_warnings


@dataclass(frozen=True)
class Look:
    """How the latest events are looked at.

    Attributes:
        cycle: Folder of the events that a run has begun with, and of what is made of them.
        settings: The keys of retrain.yaml.
        pictures: Knows the classes of glitches.
        block_length: Events within so many seconds are one group.
        engine: Processes that make the shards.
        device: The one that computes; `maps_device` may be another one, where the engine cannot use it.
        maps_device: The one that computes the maps.
    """

    cycle: Path
    settings: RetrainSettings
    pictures: PictureSettings
    block_length: float
    engine: EngineSettings
    device: str
    maps_device: str

    def at(self, champion: ModelVersion, bundle: ModelBundle) -> tuple[SpectrogramSet, Finding]:
        """Maps of the events by the champion's recipe, so that both can be judged on them, and what has changed."""
        events, settings = pinned(self.cycle), self.settings
        maps, counts, quality = model_data.make_maps(
            bundle,
            EventSet.open(events) if is_event_set(events) else [{"path": str(events)}],
            self.cycle,
            engine=self.engine,
            device=self.maps_device,
            require_target=True,
        )
        if settings.force:
            return maps, Finding(champion, decide(None), counts, warnings=tuple(quality))
        drift = drift_or_refuse(maps, bundle.witnesses, bundle.notes, settings.drift)
        loop = self.coupling(bundle, maps)
        left = None
        if loop is not None:
            classes, length = self.pictures.classes(), self.block_length
            left = watch_residual(bundle, maps, loop, classes, settings.residual, block_length=length)
        decision = decide(drift, None if loop is None else loop.stopped, None if left is None else left.grown)
        coupling = None if loop is None else loop_details(loop, maps)
        warnings = (*quality, *drift_warnings(drift), *loop_warnings(loop, maps), *residual_warnings(left))
        return maps, Finding(champion, decision, counts, drift, coupling, left, warnings)

    def coupling(self, bundle: ModelBundle, maps: SpectrogramSet) -> ClosedLoop | None:
        """Whether the strain still follows the champion's witnesses as it did; None where that cannot be told."""
        events = EventSet.open(event_set_of(self.cycle)) if bundle.representation == "waveform" else None
        return close_loop(bundle, maps, events, self.settings.closed_loop, device=self.device)


def event_set_of(cycle: Path) -> Path:
    """The event set that the maps of a cycle are made of."""
    events = pinned(cycle)
    return events if is_event_set(events) else cycle / model_data.EVENTS
