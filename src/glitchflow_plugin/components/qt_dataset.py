"""The step QT-dataset: Q-transform maps of the target and the selected channels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.channels import read_channel_list
from glitchflow_plugin.data.ranking_file import ChannelRanking, read_ranking
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.ranking import Witnesses, selected_witnesses
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built


class QTDataset(BaseComponent):
    """Make the spectrogram set with sample pictures.

    Args:
        process: The keys of process.yaml.
        events: Folder of the event set, used where no set comes from the step before.
        scan: Folder of the scan's results, used where no ranking comes from the step before.
        folder: Folder for the spectrogram set.
        ch_list: Witnesses to take in place of the scan's selection: a list, or a text file with one a line.
        engine: The keys of engine.yaml, or an engine's name.
        num_pictures: How many events are drawn, the loudest in strain and witnesses.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        pictures: The keys of pictures.yaml.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        process: Mapping[str, object],
        events: str,
        scan: str,
        folder: str,
        *,
        ch_list: Sequence[str] | str | None = None,
        engine: Mapping[str, object] | str | None = None,
        num_pictures: int = 3,
        device: str = "auto",
        pictures: Mapping[str, object] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        from glitchflow_plugin.preprocessing.spectrograms import ProcessSettings

        self.settings = built(ProcessSettings, process, "process")
        self.events_folder, self.scan_folder, self.folder = Path(events), Path(scan), Path(folder)
        self.ch_list, self.num_pictures, self.device = ch_list, num_pictures, device
        self.engine = EngineSettings.of(engine)
        self.pictures = built(PictureSettings, pictures, "pictures")

    @monitor_exec
    @holding("folder", reads=("events_folder", "scan_folder"))
    def execute(self, events: EventSet | None = None, ranking: ChannelRanking | None = None) -> SpectrogramSet:
        """Make what is missing of the set and return it."""
        from glitchflow_plugin.preprocessing.overview import draw_loudest, map_peaks, set_summary
        from glitchflow_plugin.preprocessing.spectrograms import event_transform, make_spectrograms

        started = now()
        events = events or EventSet.open(self.events_folder)
        self.settings.check_whitening(events, "process")
        given = read_channel_list(self.ch_list)
        if given is None:
            witnesses = selected_witnesses(ranking or read_ranking(self.scan_folder), events, self.scan_folder)
        else:
            witnesses = Witnesses(given, {"channels": "ch_list"})
        made = make_spectrograms(
            events,
            witnesses.channels,
            event_transform(events, self.settings),
            self.folder,
            device=choose_device(self.device, self.engine),
            engine=self.engine,
            batch_size=self.settings.num_batch,
            selection=witnesses.selection,
        )
        peaks = map_peaks(made)
        pictures = draw_loudest(made, peaks, self.folder / "pictures", self.num_pictures, self.pictures)
        report(set_summary(made, events, peaks, pictures, warnings=witnesses.warnings, started=started), self.folder)
        return made
