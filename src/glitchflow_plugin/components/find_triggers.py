"""Find: triggers of continuous data."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.channels import read_channel_list
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.readers.segments import as_given, read_segments
from glitchflow_plugin.data.triggers.glitchgram import glitchgram
from glitchflow_plugin.data.triggers.live import LIVE_NAME, LiveTime
from glitchflow_plugin.data.triggers.store import TriggerManifest, open_triggers
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.pictures import IMAGES, save_figures
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.streaming.blocks import find_segments, plan_blocks, with_sources
from glitchflow_plugin.streaming.trigger_search import SearchSettings
from glitchflow_plugin.types.intervals import union


class FindTriggers(BaseComponent):
    """Search channels of continuous data for transients, and keep them as a table of triggers.

    Args:
        datasets: Where the data are, as in datasets.yaml; `processing`, `triggers` and `segment` are not used.
        folder: Where the triggers go; the loud tiles of each block are kept below it, in `tiles`.
        channels: Those that are searched, the first of which tells what times there are; None: those that the data sets
            name.
        segments: Times that are searched: a file that gwpy reads, several, or pairs of GPS s; None: all that there is.
        segments_flag: Name of the flag in such files where they hold several.
        settings: The keys of `find.settings` in triggers.yaml.
        drawn: Pictures are made of so many channels, those with the most triggers.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        engine: Where the blocks are searched: the keys of engine.yaml, or an engine's name.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        datasets: Sequence[Mapping[str, object]],
        folder: str,
        *,
        channels: Sequence[str] | None = None,
        segments: object = None,
        segments_flag: str | None = None,
        settings: Mapping[str, object] | None = None,
        drawn: int = 12,
        device: str = "auto",
        engine: Mapping[str, object] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.datasets, self.folder, self.device = DatasetSettings.listed(datasets), Path(folder), device
        self.channels = tuple(map(str, channels or _named(self.datasets)))
        if isinstance(channels, str):
            raise ConfigurationError(f"triggers.find.channels: expected a list of names, got {channels!r}.")
        self.segments, self.segments_flag = None if segments is None else as_given(segments), segments_flag
        self.settings = built(SearchSettings, settings, "triggers.find.settings")
        self.engine = EngineSettings.of(engine)
        if isinstance(drawn, bool) or not isinstance(drawn, int) or drawn < 0:
            raise ConfigurationError(f"triggers.find.drawn: expected a number of channels, got {drawn!r}.")
        self.drawn = drawn

    @monitor_exec
    @holding("folder")
    def execute(self, _before: object = None) -> Path:
        """Search the blocks that were not searched yet; returns the folder of the triggers."""
        from glitchflow_plugin.streaming.find_triggers import FinderJob, find_triggers, searched_spans

        if not self.channels:  # told now: the other steps of the pipeline need none
            raise ConfigurationError(
                "triggers.find.channels: expected a list of names, got none, and no data set names any. Give the "
                "channels that shall be searched."
            )
        started, settings = now(), self.settings
        device = choose_device(self.device, self.engine)
        asked = None if self.segments is None else read_segments(self.segments, self.segments_flag).tolist()
        segments = find_segments(self.datasets, self.channels[0], asked)
        blocks = plan_blocks(segments, settings.block_length)
        blocks, catalogue = with_sources(self.datasets, blocks, self.channels, settings.around)
        job = FinderJob(self.folder, self.channels, settings, device, catalogue.fingerprint)
        found = find_triggers(job, blocks, self.engine.on_device(device))
        if live := union(searched_spans(job, blocks, self.channels[0])).tolist():
            LiveTime(self.channels[0], tuple((start, stop) for start, stop in live)).write(self.folder)
        else:
            (self.folder / LIVE_NAME).unlink(missing_ok=True)  # that of a run before
        seconds = sum(found.searched.values())
        span = blocks[0].span[0], blocks[-1].span[1]
        report(
            RunSummary(
                pipeline="triggers_pipeline/Find",
                started=started,
                inputs={
                    "channels": len(self.channels),
                    "planes": ", ".join(f"Q {q:.1f}" for q in settings.qs),
                    "from GPS": span[0],
                    "to GPS": span[1],
                },
                events=EventCounts(found.manifest.rows, found.manifest.rows),
                metrics={
                    "channels_searched": Metric(len(found.searched)),
                    "channels_broken": Metric(len(found.broken)),
                    "searched_seconds": Metric(seconds),
                    "triggers_per_second": Metric(found.manifest.rows / seconds if seconds else None),
                },
                outputs={"triggers": str(self.folder), "pictures": str(self._draw(found.manifest, span))},
                warnings=tuple(
                    f"{name}: {reason} ({count} of {len(blocks)} blocks)"
                    for name, why in found.broken.items()
                    for reason, count in why.items()
                ),
                details={"triggers_by_channel": found.manifest.channels, "seconds_by_channel": dict(found.searched)},
            ),
            self.folder,
        )
        return self.folder

    def _draw(self, manifest: TriggerManifest, span: tuple[float, float]) -> Path:
        """Draw the channels with the most triggers; returns the folder of the pictures."""
        from glitchflow_plugin.plots.triggers import plot_glitchgram

        triggers, folder = open_triggers(self.folder), self.folder / IMAGES
        most = sorted(manifest.channels, key=lambda name: (-manifest.channels[name], name))[: self.drawn]
        figures = {}
        for place, name in enumerate(most, start=1):
            found = glitchgram(triggers, name, span, self.settings.band)
            file = f"{place:02d}-" + re.sub(r"[^\w.-]", "_", name)  # a channel's name may hold what no file's can
            figures[file] = plot_glitchgram(found, name, threshold=self.settings.snr)
        save_figures(figures, folder)
        return folder


def _named(datasets: Sequence[DatasetSettings]) -> list[str]:
    """Channels that data sets name: their targets, then those of their lists."""
    targets = [one.target for one in datasets if one.target]
    return list(dict.fromkeys([*targets, *(name for one in datasets for name in read_channel_list(one.ch_list) or ())]))
