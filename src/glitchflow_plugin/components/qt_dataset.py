"""The step QT-dataset: Q-transform maps of the target and the selected channels."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.components._whitening import check_whitening
from glitchflow_plugin.data.channels import read_channel_list
from glitchflow_plugin.data.ranking_file import ChannelRanking, read_ranking
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.pictures import PictureSettings, save_figure
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.settings import built

logger = logging.getLogger(__name__)


class QTDataset(BaseComponent):
    """Make the spectrogram set with sample pictures.

    Args:
        process: The keys of process.yaml.
        events: Folder of the event set, used where no set comes from the step before.
        scan: Folder of the scan's results, used where no ranking comes from the step before.
        folder: Where the spectrogram set goes.
        ch_list: Witnesses to take in place of the scan's selection: a list, or a text file with one a line.
        engine: Where the shards are made: the keys of engine.yaml, or an engine's name.
        num_pictures: How many events are drawn, the loudest in strain and witnesses.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        pictures: The keys of pictures.yaml.
        name: Name of the step.
    """

    def __init__(
        self,
        process: dict[str, Any],
        events: str,
        scan: str,
        folder: str,
        *,
        ch_list: Sequence[str] | str | None = None,
        engine: Mapping[str, Any] | str | None = None,
        num_pictures: int = 3,
        device: str = "auto",
        pictures: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.save_parameters(
            process=process,
            events=events,
            scan=scan,
            folder=folder,
            ch_list=ch_list,
            engine=engine,
            num_pictures=num_pictures,
            device=device,
            pictures=pictures,
            name=name,
        )
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
        from glitchflow_plugin.preprocessing.spectrograms import event_transform, make_spectrograms

        started = now()
        events = events or EventSet.open(self.events_folder)
        check_whitening(events, self.settings.whiten, "process")
        channels, selection, warnings = self._channels(events, ranking)
        made = make_spectrograms(
            events,
            channels,
            event_transform(events, self.settings),
            self.folder,
            device=choose_device(self.device, self.engine),
            engine=self.engine,
            batch_size=self.settings.num_batch,
            selection=selection,
        )
        peaks = self._peaks(made)
        pictures = self._pictures(made, peaks)
        report(
            RunSummary(
                pipeline="preproc_pipeline/QT-dataset",
                started=started,
                inputs={"events": str(events.folder), "target": made.target, "channels": ", ".join(made.channels[1:])},
                events=EventCounts.from_reasons(len(made), made.manifest.rejected.values()),
                metrics={
                    "channels": Metric(float(len(made.channels))),
                    "rows": Metric(float(len(made.frequencies))),
                    "columns": Metric(float(len(made.times))),
                    "median_target_peak_snr2": Metric(float(np.median(peaks[:, 0]))),
                },
                outputs={"spectrograms": str(self.folder), "pictures": ", ".join(str(path) for path in pictures)},
                warnings=warnings,
            ),
            self.folder,
        )
        return made

    def _channels(
        self, events: EventSet, ranking: ChannelRanking | None
    ) -> tuple[tuple[str, ...], dict[str, Any], tuple[str, ...]]:
        """The witnesses, how they were chosen, and what the user should know of it."""
        given = read_channel_list(self.ch_list)
        if given is not None:
            return given, {"channels": "ch_list"}, ()
        ranking = ranking or read_ranking(self.scan_folder)
        warnings = self._compare(events, ranking)
        limits = {key: ranking.parameters.get(key) for key in ("threshold", "threshold_corr", "threshold_iou", "fdr")}
        if not ranking.selected:
            known = np.isfinite(ranking.correlation)
            best = "no channel gave any information"
            if known.any():
                top = int(np.nanargmax(ranking.correlation))
                best = (
                    f"the best is {ranking.channels[top]} with correlation {ranking.correlation[top]:.3f} "
                    f"(by chance {ranking.chance[top]:.3f}), IoU {ranking.iou[top]:.3f} and false-discovery rate "
                    f"{ranking.q_value[top]:.2g}{', which is unsafe' * (ranking.channels[top] in ranking.unsafe)}"
                )
            raise ConfigurationError(
                f"the scan selected no channel: expected {ranking.requirements} for spikes above "
                f"{limits['threshold']:g} SNR², of a channel that is not unsafe; {best}. Change these limits in "
                "conf/scan.yaml and run [Annalisa-scan,QT-dataset] again, or name channels as ch_list."
            )
        return ranking.selected, {"channels": "scan", "reference": ranking.target, **limits}, warnings

    def _compare(self, events: EventSet, ranking: ChannelRanking) -> tuple[str, ...]:
        """Refuse the scan of another target; warn of the scan of other events, whose selection may still hold."""
        expected = ranking.parameters.get("refchan") or events.target
        if ranking.target != expected:
            raise ConfigurationError(
                f"the scan in {self.scan_folder} ranked channels by their coincidence with {ranking.target}, expected "
                f"{expected}, the target of {events.folder}. Run Annalisa-scan again on this event set."
            )
        if ranking.event_set == events.manifest.fingerprint:
            return ()
        warning = f"the scan in {self.scan_folder} was made on another event set; run Annalisa-scan again"
        logger.warning("%s.", warning)
        return (warning,)

    @staticmethod
    def _peaks(made: SpectrogramSet) -> np.ndarray:
        """Largest energy of each map, shape (event, channel)."""
        return np.concatenate([batch.maps.max(axis=(2, 3)) for batch in made.batches(16)])

    def _pictures(self, made: SpectrogramSet, peaks: np.ndarray) -> list[Path]:
        from glitchflow_plugin.plots.spectrograms import plot_event

        folder = self.folder / "pictures"
        for old in folder.glob("event-*.png"):
            old.unlink(missing_ok=True)
        written, classes = [], self.pictures.classes()
        # Events that are loud in the strain and in a witness show what the network will have to learn.
        loud = np.minimum(peaks[:, 0], peaks[:, 1:].max(axis=1)) if peaks.shape[1] > 1 else peaks[:, 0]
        for place, row in enumerate(np.argsort(-loud, kind="stable")[: self.num_pictures], start=1):
            batch = made.read([int(row)])
            figure = plot_event(
                batch.maps[0],
                made.channels,
                made.frequencies,
                made.times,
                gps_start=float(batch.gps_start[0]),
                gps_event=float(batch.gps_event[0]),
                event_id=batch.event_ids[0],
                label=classes.get(batch.event_ids[0], ""),
                valid=batch.valid[0],
                axis=self.pictures.frequency_axis,
            )
            written.append(save_figure(figure, folder / f"event-{place:02d}.png"))
        return written
