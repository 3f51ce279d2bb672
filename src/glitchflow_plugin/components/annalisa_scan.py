"""The step Annalisa-scan: ranks the witness channels by their coincidence with the strain."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.components._whitening import check_whitening
from glitchflow_plugin.data.ranking_file import ChannelRanking, write_ranking
from glitchflow_plugin.data.results import keep_former
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.pictures import PictureSettings, save_figure
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.settings import built

#: A channel that shares more than this part of the strain's spikes is likely to be made from the strain.
_ECHO = 0.9

logger = logging.getLogger(__name__)


class AnnalisaScan(BaseComponent):
    """Scan the channels of an event set and write the ranking, as files and as pictures.

    Args:
        scan: The keys of scan.yaml.
        events: Folder of the event set, used where no set comes from the step before.
        folder: Where the results go; the spikes are kept below it, in `spikes`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        engine: Where spikes are looked for: the keys of engine.yaml, or an engine's name.
        pictures: The keys of pictures.yaml.
        name: Name of the step.
    """

    def __init__(
        self,
        scan: dict[str, Any],
        events: str,
        folder: str,
        *,
        device: str = "auto",
        engine: Mapping[str, Any] | str | None = None,
        pictures: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.save_parameters(
            scan=scan, events=events, folder=folder, device=device, engine=engine, pictures=pictures, name=name
        )
        from glitchflow_plugin.preprocessing.scan_settings import ScanSettings

        self.settings = ScanSettings.from_yaml(scan)
        self.events_folder, self.folder, self.device = Path(events), Path(folder), device
        self.engine = EngineSettings.of(engine)
        self.pictures = built(PictureSettings, pictures, "pictures")

    @monitor_exec
    @holding("folder", reads=("events_folder",))
    def execute(self, events: EventSet | None = None) -> tuple[EventSet, ChannelRanking]:
        """Scan, write the results, and return the event set with the ranking."""
        from glitchflow_plugin.preprocessing.scan import overlap_warning, scan_channels

        started = now()
        events = events or EventSet.open(self.events_folder)
        check_whitening(events, self.settings.whiten, "scan")
        device = choose_device(self.device, self.engine)
        overlap = overlap_warning(events, self.settings)
        ranking = scan_channels(events, self.settings, self._spikes, device=device, engine=self.engine)
        former = keep_former(
            self.folder, {"events": ranking.event_set, "scan": ranking.parameters}, stay=(self._spikes.name,)
        )
        outputs = {name: str(path) for name, path in write_ranking(self.folder, ranking).items()}
        outputs |= {name: str(path) for name, path in self._pictures(events, ranking, device).items()}
        usable = events.valid[:, events.channels.index(ranking.target)]
        counts = EventCounts.from_reasons(int(usable.sum()), [f"{ranking.target} not valid"] * int((~usable).sum()))
        report(
            RunSummary(
                pipeline="preproc_pipeline/Annalisa-scan",
                started=started,
                inputs={"events": str(events.folder), "target": ranking.target, "channels": len(ranking.channels)},
                events=counts,
                metrics=_metrics(ranking),
                outputs={
                    "selected": ", ".join(ranking.selected) or "none",
                    **outputs,
                    **({"former results": str(former)} if former else {}),
                },
                warnings=(*([overlap] if overlap else []), *_warnings(ranking)),
            ),
            self.folder,
        )
        return events, ranking

    @property
    def _spikes(self) -> Path:
        return self.folder / "spikes"

    def _pictures(self, events: EventSet, ranking: ChannelRanking, device: str) -> dict[str, Path]:
        from glitchflow_plugin.plots.scan import plot_coincidences, plot_families, plot_ranking
        from glitchflow_plugin.preprocessing.scan import coincidence_examples

        common: dict[str, Any] = {"selected": ranking.selected, "target": ranking.target, "unsafe": ranking.unsafe}
        correlation = plot_ranking(
            ranking.channels,
            ranking.correlation,
            threshold=self.settings.threshold_corr,
            quantity="correlation: share of the target's spikes that the channel shares",
            chance=ranking.chance,
            **common,
        )
        iou = plot_ranking(
            ranking.channels,
            ranking.iou,
            threshold=self.settings.threshold_iou,
            quantity="IoU: shared spikes over all spikes of the two",
            **common,
        )
        examples, frequencies, times = coincidence_examples(events, ranking, self.settings, self._spikes, device=device)
        coincidences = plot_coincidences(
            examples, frequencies, times, target=ranking.target, axis=self.pictures.frequency_axis
        )
        return {
            "correlation picture": save_figure(correlation, self.folder / "corr.png"),
            "IoU picture": save_figure(iou, self.folder / "iou.png"),
            "ranking picture": save_figure(plot_families(ranking), self.folder / "ranking.png"),
            "coincidence picture": save_figure(coincidences, self.folder / "coincidences.png"),
        }


def _metrics(ranking: ChannelRanking) -> dict[str, Metric]:
    known = np.isfinite(ranking.correlation)
    return {
        "channels_selected": Metric(float(len(ranking.selected))),
        "channels_without_information": Metric(float((~known).sum())),
        "channels_unsafe": Metric(float(len(ranking.unsafe))),
        "rounds": Metric(float(len(ranking.rounds))),
        "strain_spikes_explained": Metric(_explained(ranking)),
        "best_correlation": Metric(float(ranking.correlation[known].max()) if known.any() else None),
        "best_iou": Metric(float(ranking.iou[known].max()) if known.any() else None),
    }


def _explained(ranking: ChannelRanking) -> float | None:
    """Share of the target's spikes that the rounds explain together."""
    if not ranking.rounds:
        return None
    return sum(one.explained for one in ranking.rounds) / ranking.rounds[0].remaining


def _warnings(ranking: ChannelRanking) -> tuple[str, ...]:
    found = [f"{name} is left out: {why}" for name, why in ranking.unsafe.items() if why != "listed"]
    found += [f"{name} may be selected by safe_override: {why}" for name, why in ranking.overridden.items()]
    if not ranking.strain_spikes.any():
        limit = ranking.parameters["threshold"]
        nothing = f"no spike of {ranking.target} above {limit:g} SNR²: nothing to compare; lower threshold in scan.yaml"
        return (*found, nothing)
    silent = [name for name, value in zip(ranking.channels, ranking.correlation, strict=True) if np.isnan(value)]
    if silent:
        found.append(
            f"no information about {len(silent)} channel(s): {', '.join(silent[:5])}{'...' * (len(silent) > 5)}"
        )
    columns = zip(ranking.channels, ranking.correlation, strict=True)
    echoes = [name for name, value in columns if name in ranking.selected and value > _ECHO]
    if echoes:
        found.append(
            f"{', '.join(echoes)} share nearly all spikes of {ranking.target}: if they see the strain itself, list "
            "them as unsafe in conf/scan.yaml, or cleaning will remove signals"
        )
    if not ranking.selected:
        found.append(
            f"no channel is selected: expected {ranking.requirements}; see in ranking.csv what the best lack, and "
            "change threshold or these limits in conf/scan.yaml"
        )
    if ranking.parameters["num_slides"] and np.isnan(ranking.chance).all():
        found.append("level of chance not estimated: time_window is too short for time slides")
    return tuple(found)
