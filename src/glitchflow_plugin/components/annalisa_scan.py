"""The step Annalisa-scan: ranks the witness channels by their coincidence with the strain."""

from collections.abc import Mapping
from pathlib import Path

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.components._whitening import check_whitening
from glitchflow_plugin.data.ranking_file import RESULTS_NAME, ChannelRanking, write_ranking
from glitchflow_plugin.data.results import keep_former
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.ranking import ranking_metrics, ranking_warnings
from glitchflow_plugin.products.hveto import write_hveto
from glitchflow_plugin.products.pictures import PictureSettings, save_figure
from glitchflow_plugin.products.summary import EventCounts, RunSummary, now
from glitchflow_plugin.settings import built

_PICTURES = {"correlation": "corr.png", "IoU": "iou.png", "ranking": "ranking.png", "coincidence": "coincidences.png"}


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
        from glitchflow_plugin.plots.scan import scan_pictures
        from glitchflow_plugin.preprocessing.scan import coincidence_examples, overlap_warning, scan_channels

        started = now()
        events = events or EventSet.open(self.events_folder)
        check_whitening(events, self.settings.whiten, "scan")
        device, spikes = choose_device(self.device, self.engine), self.folder / "spikes"
        overlap = overlap_warning(events, self.settings)
        ranking = scan_channels(events, self.settings, spikes, device=device, engine=self.engine)
        same = {"events": ranking.event_set, "scan": ranking.parameters}
        former = keep_former(self.folder, same, stay=(spikes.name,))
        outputs = dict(write_ranking(self.folder, ranking))
        if self.settings.hveto and ranking.rounds:
            outputs["hveto"] = self._write_hveto(events, ranking, spikes)
        examples = coincidence_examples(events, ranking, self.settings, spikes, device=device)
        for name, figure in scan_pictures(ranking, *examples, axis=self.pictures.frequency_axis).items():
            outputs[f"{name} picture"] = save_figure(figure, self.folder / _PICTURES[name])
        usable = events.valid[:, events.channels.index(ranking.target)]
        report(
            RunSummary(
                pipeline="preproc_pipeline/Annalisa-scan",
                started=started,
                inputs={"events": str(events.folder), "target": ranking.target, "channels": len(ranking.channels)},
                events=EventCounts.from_reasons(
                    int(usable.sum()), [f"{ranking.target} not valid"] * int((~usable).sum())
                ),
                metrics=ranking_metrics(ranking),
                outputs={
                    "selected": ", ".join(ranking.selected) or "none",
                    **{name: str(path) for name, path in outputs.items()},
                    **({"former results": str(former)} if former else {}),
                },
                warnings=(*([overlap] if overlap else []), *ranking_warnings(ranking)),
            ),
            self.folder,
        )
        return events, ranking

    def _write_hveto(self, events: EventSet, ranking: ChannelRanking, spikes: Path) -> Path:
        """Write the rounds in Hveto's layout; returns their summary."""
        from glitchflow_plugin.preprocessing.scan import rounds_in_time

        rounds = rounds_in_time(events, ranking, self.settings, spikes)
        written = write_hveto(
            self.folder / "hveto",
            ranking.target,
            rounds,
            configuration=str(self.folder / RESULTS_NAME),
            call="Annalisa-scan",
        )
        return written[0]
