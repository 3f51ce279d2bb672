"""A synthetic glitch data set: strain maps that a registered twin makes from the maps of its witnesses."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from tqdm import tqdm

from glitchflow_plugin.data.records import SpectrogramBatch
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.inference.model_data import check_events, check_spectrograms
from glitchflow_plugin.inference.predict import make_predictor
from glitchflow_plugin.inference.run import UNITS
from glitchflow_plugin.inference.subject import weights_fingerprint
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.plots.spectrograms import plot_event
from glitchflow_plugin.products.pictures import IMAGES, PictureSettings, save_figures
from glitchflow_plugin.products.summary import Metric
from glitchflow_plugin.settings import Count, CountOrNone, Positive, section
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.verdict import GLITCH_THRESHOLD, holds_glitch

GLITCH, BACKGROUND = "glitch", "background"
"""Labels of generated maps."""

NO_WITNESS = "no valid witness"
QUIET = "predicted peak not above the threshold"
"""Reasons for which an event is left out."""


@section
class GenerateSettings:
    """What to generate; conf/inference.yaml explains the keys."""

    threshold: Positive = GLITCH_THRESHOLD
    only_glitches: bool = False
    keep_witnesses: bool = False
    stride: int | None = 32
    batch_size: Count = 64
    batch_events: Count = 32
    examples: CountOrNone = 4

    def decisive(self) -> dict[str, object]:
        """The settings that change what is generated; the others change how much is shown, and the speed."""
        shown = ("batch_size", "batch_events", "examples")
        return {key: value for key, value in asdict(self).items() if key not in shown}


@dataclass(frozen=True, eq=False)
class GeneratedSet:
    """What was generated.

    Attributes:
        spectrograms: The set; its target holds generated strain.
        labels: One row an event of the set: `event_id`, `gps_start`, `gps_event`, `label`, and the SNR², GPS time and
            frequency (Hz) of the largest pixel.
    """

    spectrograms: SpectrogramSet
    labels: pd.DataFrame

    @property
    def glitches(self) -> Bool[np.ndarray, " event"]:
        """Events that are labelled a glitch."""
        return self.labels["label"].to_numpy() == GLITCH


def generate_glitches(
    bundle: ModelBundle,
    spectrograms: SpectrogramSet,
    folder: Path | str,
    settings: GenerateSettings,
    *,
    model: Mapping[str, object] | None = None,
    events: EventSet | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> GeneratedSet:
    """Generate the strain that the witnesses explain; measured strain is not looked at.

    Args:
        bundle: The model.
        spectrograms: Maps of the witnesses, made by the model's recipe.
        folder: Where the set goes.
        settings: What to generate.
        model: Name and version, kept in the recipe of the set.
        events: The event set that the maps were made of; a model of waveforms needs it.
        device: Where to compute.
        progress: Show a progress bar.

    Returns:
        The set and its labels.

    Raises:
        ChannelMismatchError: The maps lack a witness.
        FormatError: The maps were made another way.
        NoEventsError: Nothing was generated that could be kept.
    """
    check_spectrograms(bundle, spectrograms)
    check_events(spectrograms, events)
    twin = bundle.twin.to(device)
    predict = make_predictor(bundle, twin, events, stride=settings.stride, batch_size=settings.batch_size)
    writer = ShardedWriter(
        folder=Path(folder),
        kind="spectrograms",
        target=bundle.target,
        channels=bundle.channels if settings.keep_witnesses else (bundle.target,),
        axes=dict(spectrograms.manifest.axes),
        units=UNITS,
        recipe={
            **spectrograms.recipe,
            "generated": {
                "model": dict(model or {}),
                "threshold": settings.threshold,
                "only_glitches": settings.only_glitches,
                "stride": settings.stride,
            },
        },
        event_ids=spectrograms.event_ids,
        shard_size=settings.batch_events,
        inputs=f"{spectrograms.manifest.fingerprint} {weights_fingerprint(twin)}",
    )
    pending = writer.pending()
    left = sum(len(plan.event_ids) for plan in pending)
    with tqdm(total=left, desc="Generate", unit="event", disable=not progress) as bar:
        for plan in pending:
            batch = spectrograms.read([spectrograms.row_of[name] for name in plan.event_ids], bundle.witnesses)
            predicted = host(predict(batch).predicted.float())
            kept, rejected = _select(batch, predicted.max(axis=(1, 2)), settings)
            writer.write(plan, _made(batch, predicted, kept, settings), rejected)
            bar.update(len(batch))
    made = writer.finish()
    assert isinstance(made, SpectrogramSet)  # noqa: S101  # tells the type checker what the writer's kind decides
    return GeneratedSet(made, label_table(made, settings.threshold, settings.batch_events))


def label_table(spectrograms: SpectrogramSet, threshold: float, batch_events: int = 32) -> pd.DataFrame:
    """Label generated maps by their largest pixel.

    Args:
        spectrograms: Set whose target was generated.
        threshold: A larger pixel makes a glitch, SNR².
        batch_events: Events in memory at a time.

    Returns:
        One row an event, in order of the set; see `GeneratedSet.labels`.
    """
    rows = []
    for batch in spectrograms.batches(batch_events, channels=[spectrograms.target]):
        flat = batch.maps[:, 0].reshape(len(batch), -1)
        frequency, time = np.unravel_index(flat.argmax(axis=1), batch.maps.shape[2:])
        peak = flat.max(axis=1)
        rows.append(
            pd.DataFrame(
                {
                    "event_id": list(batch.event_ids),
                    "gps_start": batch.gps_start,
                    "gps_event": batch.gps_event,
                    "label": np.where(holds_glitch(peak, threshold), GLITCH, BACKGROUND),
                    "peak_snr2": peak.astype(np.float64),
                    "peak_gps": batch.gps_start + Columns(spectrograms.times).centre[time],
                    "peak_frequency": spectrograms.frequencies[frequency],
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def generated_metrics(made: GeneratedSet) -> dict[str, Metric]:
    """How many glitches there are, and how loud, for the run summary."""
    glitches = made.glitches
    peaks = made.labels["peak_snr2"].to_numpy()[glitches]
    return {
        "generated_glitches": Metric(float(glitches.sum())),
        "generated_background": Metric(float((~glitches).sum())),
        "median_glitch_peak_snr2": Metric(float(np.median(peaks)) if peaks.size else None),
    }


def write_pictures(
    made: GeneratedSet,
    witnesses: SpectrogramSet,
    bundle: ModelBundle,
    folder: Path,
    *,
    count: int,
    pictures: PictureSettings,
    board: Path | None = None,
) -> list[Path]:
    """Draw the loudest generated maps above the witnesses that they were made from, the loudest first.

    Args:
        made: The generated set.
        witnesses: The maps that it was made from.
        bundle: The model.
        folder: Folder of the set.
        count: How many.
        pictures: How they look.
        board: Folder for TensorBoard; none if None.

    Returns:
        Paths.
    """
    figures, classes = [], pictures.classes()
    for row in np.argsort(-made.labels["peak_snr2"].to_numpy(), kind="stable")[:count]:
        strain = made.spectrograms.read([int(row)], [bundle.target])
        seen = witnesses.read([witnesses.row_of[strain.event_ids[0]]], bundle.witnesses)
        figures.append(
            plot_event(
                np.concatenate([strain.maps[0], seen.maps[0]]),
                [f"{bundle.target} generated", *bundle.witnesses],
                witnesses.frequencies,
                witnesses.times,
                gps_start=float(strain.gps_start[0]),
                gps_event=float(strain.gps_event[0]),
                event_id=strain.event_ids[0],
                label=classes.get(strain.event_ids[0], ""),
                valid=np.concatenate([strain.valid[0], seen.valid[0]]),
                axis=pictures.frequency_axis,
            )
        )
    if board is not None:
        with TensorBoardTracker(board) as tracker:
            for place, figure in enumerate(figures):
                tracker.figure("generated", figure, place)
    return save_figures({f"generated-{place:02d}": figure for place, figure in enumerate(figures, 1)}, folder / IMAGES)


def _select(batch: SpectrogramBatch, peak: np.ndarray, settings: GenerateSettings) -> tuple[np.ndarray, dict[str, str]]:
    """Rows to keep, and why the others are not."""
    blind = ~batch.valid.any(axis=1)
    quiet = ~blind & ~holds_glitch(peak, settings.threshold) if settings.only_glitches else np.zeros_like(blind)
    reasons = {batch.event_ids[row]: NO_WITNESS for row in np.flatnonzero(blind)}
    reasons |= {batch.event_ids[row]: QUIET for row in np.flatnonzero(quiet)}
    return np.flatnonzero(~blind & ~quiet), reasons


def _made(
    batch: SpectrogramBatch, predicted: np.ndarray, kept: np.ndarray, settings: GenerateSettings
) -> SpectrogramBatch | None:
    if not kept.size:
        return None
    maps, valid = predicted[kept][:, None], np.ones((len(kept), 1), dtype=np.bool_)
    if settings.keep_witnesses:
        maps = np.concatenate([maps, batch.maps[kept]], axis=1)
        valid = np.concatenate([valid, batch.valid[kept]], axis=1)
    return SpectrogramBatch(
        event_ids=tuple(batch.event_ids[row] for row in kept),
        gps_start=batch.gps_start[kept],
        gps_event=batch.gps_event[kept],
        maps=maps,
        valid=valid,
        groups=tuple(batch.groups[row] for row in kept),
    )
