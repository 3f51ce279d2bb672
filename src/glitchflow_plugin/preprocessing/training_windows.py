"""Windows to learn from, out of the maps of a split: which there are, how energies are scaled, and a reference."""

from pathlib import Path

import numpy as np

from glitchflow_plugin.data.reference_file import write_reference
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.splits import PARTS, Split
from glitchflow_plugin.data.training_set import TrainingSet, WindowSettings, index_windows
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
from glitchflow_plugin.signal.drift import ExceedanceCount, Reference
from glitchflow_plugin.signal.scaling import ScaleFit, Scaling, ScalingSettings
from glitchflow_plugin.signal.windows import window_starts


def scaling_of(settings: WindowSettings) -> ScalingSettings:
    """How energies are scaled.

    Raises:
        ConfigurationError: The clamp or the quantile is out of range.
    """
    return ScalingSettings(clamp=settings.clamp, quantile=settings.scale_quantile, transform=settings.transform)


def make_training_set(maps: SpectrogramSet, split: Split, settings: WindowSettings, folder: Path) -> TrainingSet:
    """Index the windows of a split, fit the scaling on its training events, and write both.

    Args:
        maps: The spectrogram set.
        split: Of these maps.
        settings: Which windows.
        folder: Folder for the results.

    Raises:
        FormatError: The split is of other maps, or the maps have another number of rows than windows.
    """
    if split.source.get("fingerprint") not in (None, maps.manifest.fingerprint):
        raise FormatError(f"the split was made for another spectrogram set than {maps.folder}. Run the Splitter again.")
    if len(maps.frequencies) != settings.size:
        raise FormatError(
            f"windows are square: expected maps of {settings.size} rows (windows.size), got "
            f"{len(maps.frequencies)} in {maps.folder}. Give maps.num_f_bins and windows.size the same value."
        )
    index = index_windows(maps, split, window_starts(len(maps.times), settings.size), settings)
    scaling, reference = _fit(maps, split, settings)
    training = TrainingSet(
        folder=folder,
        spectrograms=maps.folder,
        fingerprint=maps.manifest.fingerprint,
        split=split,
        windows=index,
        scaling=scaling.to_dict(),
        settings=settings,
    )
    # before the training set, whose description is written last
    write_reference(folder, reference.to_dict())
    training.save()
    return training


def _fit(maps: SpectrogramSet, split: Split, settings: WindowSettings) -> tuple[Scaling, Reference]:
    """Scales, and statistics to recognise drift by, from training events alone, a few in memory at a time."""
    rows = np.flatnonzero(np.isin(maps.event_ids, split.train.event_ids))
    fit, count = ScaleFit(maps.channels, scaling_of(settings)), ExceedanceCount(maps.channels)
    for first in range(0, len(rows), settings.batch_events):
        batch = maps.read(rows[first : first + settings.batch_events])
        fit.add(batch.maps, batch.valid)
        count.add(batch.maps, batch.valid)
    return fit.result(), count.reference()


def training_summary(training: TrainingSet, started: str) -> RunSummary:
    """What there is to learn from.

    Args:
        training: From `make_training_set`.
        started: When, ISO 8601, UTC.
    """
    counts, channels = training.counts(), training.open_spectrograms().channels
    without = [name for name in PARTS if len(training.split.part(name)) and not counts[name]["glitch"]]
    return RunSummary(
        pipeline="training_pipeline/Processor",
        started=started,
        inputs={"spectrograms": str(training.spectrograms), "witnesses": ", ".join(channels[1:])},
        events=EventCounts.from_reasons(len(set(training.windows["event_id"])), training.unused_events()),
        metrics={
            f"{name}_{kind}_windows": Metric(float(counts[name][kind]))
            for name in PARTS
            for kind in ("glitch", "background")
        },
        outputs={"training set": str(training.folder)},
        warnings=(
            f"no window above SNR² {training.settings.threshold:g} in {', '.join(without)}: "
            "its share of cleaned glitches is undefined. Lower threshold in windows.yaml or bring more events.",
        )
        if without
        else (),
    )
