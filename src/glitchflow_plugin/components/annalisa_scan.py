"""The step Annalisa-scan: ranks the witness channels by their coincidence with the strain."""

from collections.abc import Mapping
from pathlib import Path

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.ranking_file import ChannelRanking
from glitchflow_plugin.data.results import keep_former
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built


class AnnalisaScan(BaseComponent):
    """Scan the channels of an event set and write the ranking, as files and as pictures.

    Args:
        scan: The keys of scan.yaml.
        events: Folder of the event set, used where no set comes from the step before.
        folder: Folder for the results; the spikes are kept below it, in `spikes`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        engine: The keys of engine.yaml, or an engine's name.
        pictures: The keys of pictures.yaml.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        scan: Mapping[str, object],
        events: str,
        folder: str,
        *,
        device: str = "auto",
        engine: Mapping[str, object] | str | None = None,
        pictures: Mapping[str, object] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        from glitchflow_plugin.preprocessing.scan_settings import ScanSettings

        self.settings = built(ScanSettings, scan, "scan")
        self.events_folder, self.folder, self.device = Path(events), Path(folder), device
        self.engine = EngineSettings.of(engine)
        self.pictures = built(PictureSettings, pictures, "pictures")

    @monitor_exec
    @holding("folder", reads=("events_folder",))
    def execute(self, events: EventSet | None = None) -> tuple[EventSet, ChannelRanking]:
        """Scan, write the results, and return the event set with the ranking."""
        from glitchflow_plugin.preprocessing.scan import overlap_warning, scan_channels
        from glitchflow_plugin.preprocessing.scan_results import scan_summary, write_scan

        started = now()
        events = events or EventSet.open(self.events_folder)
        self.settings.check_whitening(events, "scan")
        device, spikes = choose_device(self.device, self.engine), self.folder / "spikes"
        overlap = overlap_warning(events, self.settings)
        ranking = scan_channels(events, self.settings, spikes, device=device, engine=self.engine)
        same = {"events": ranking.event_set, "scan": ranking.parameters}
        former = keep_former(self.folder, same, stay=(spikes.name,))
        outputs = write_scan(
            events, ranking, self.settings, self.folder, spikes=spikes, device=device, axis=self.pictures.frequency_axis
        )
        outputs |= {"former results": str(former)} if former else {}
        report(scan_summary(events, ranking, outputs, overlap, started), self.folder)
        return events, ranking
