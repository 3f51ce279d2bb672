"""A synthetic glitch data set: strain that a registered twin makes from its witnesses, as they were or changed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm import tqdm

from glitchflow_plugin.data.records import EventBatch, SpectrogramBatch
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.sharded_writer import ShardedWriter, ShardPlan
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.asked import AskedSeries, AskedTwin, ask
from glitchflow_plugin.inference.attribution import term_shares
from glitchflow_plugin.inference.run import UNITS
from glitchflow_plugin.inference.subject import model_inputs, weights_fingerprint
from glitchflow_plugin.inference.wanted_snr import by_drive, by_waveform, drawn_snr
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.plots.spectrograms import plot_event
from glitchflow_plugin.preprocessing.channel_recipe import slow_channels
from glitchflow_plugin.products.pictures import IMAGES, PictureSettings, save_figures
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
from glitchflow_plugin.settings import Count, CountOrNone, Positive, Range, section
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.intervention import Intervention
from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.verdict import GLITCH_THRESHOLD, holds_glitch

GLITCH, BACKGROUND = "glitch", "background"
"""Labels of generated maps."""

NO_WITNESS = "no valid witness"
QUIET = "predicted peak not above the threshold"
UNREACHED = "too little predicted to be scaled, or the wanted SNR is out of reach"
"""Reasons for which an event is left out."""

NOTES = ("event_id", "snr", "wanted_snr", "factor", "witness")
"""What is known of an event beside its map."""
STRAIN = "strain"
"""Folder of the waveforms below that of the set."""


@section
class GenerateSettings:
    """What to generate; conf/inference.yaml explains the keys."""

    threshold: Positive = GLITCH_THRESHOLD
    only_glitches: bool = False
    keep_witnesses: bool = False
    interventions: tuple[Intervention, ...] = ()
    snr: Range | None = None
    scale: Literal["drive", "waveform"] = "drive"
    bank_size: Count = 2000
    seed: int = 0
    stride: int | None = 32
    batch_size: Count = 64
    batch_events: Count = 32
    examples: CountOrNone = 4

    def __post_init__(self) -> None:
        """Refuse an SNR that is none."""
        if self.snr is not None and not self.snr[0] > 0:
            raise ConfigurationError(f"snr: expected [low, high] above 0, got {list(self.snr)}.")

    def decisive(self) -> dict[str, object]:
        """The settings that change what is generated; the others change how much is shown, and the speed."""
        shown = ("batch_size", "batch_events", "examples")
        return {key: value for key, value in asdict(self).items() if key not in shown}


@dataclass(frozen=True, eq=False)
class GeneratedSet:
    """What was generated.

    Attributes:
        spectrograms: The set; its target holds generated strain.
        labels: One row an event of the set: `event_id`, `gps_start`, `gps_event`, `label`, the SNR², GPS time and
            frequency (Hz) of the largest pixel, `snr` of the whole, `wanted_snr` and the `factor` that led there (empty
            if none was wanted), and the `witness` that brings most of a glitch. Id and times are those of the event
            whose witnesses it was made of.
        strain: The waveforms, whitened; None of a twin of energies.
    """

    spectrograms: SpectrogramSet
    labels: pd.DataFrame
    strain: EventSet | None = None

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
        ChannelMismatchError: The maps lack a witness, or the model one that is to be changed.
        ConfigurationError: A change is none of these events.
        FormatError: The maps were made another way.
        NoEventsError: Nothing was generated that could be kept.
    """
    twin = bundle.twin.to(device)
    options = {"stride": settings.stride, "batch_size": settings.batch_size, "seed": settings.seed}
    asked = ask(bundle, twin, spectrograms, events, **options)
    for change in settings.interventions:
        asked.changed([0], [change])  # refused before anything is written
    steady = slow_channels(bundle.recipe.get("events") or {})
    writers = _writers(bundle, asked, Path(folder), settings, dict(model or {}))
    pending = {plan.index: plan for writer in writers for plan in writer.pending()}
    left = sum(len(plan.event_ids) for plan in pending.values())
    with tqdm(total=left, desc="Generate", unit="event", disable=not progress) as bar:
        for _, plan in sorted(pending.items()):
            _write(asked, plan, writers, settings, steady)
            bar.update(len(plan.event_ids))
    made, *waveforms = [writer.finish() for writer in writers]
    assert isinstance(made, SpectrogramSet)  # noqa: S101  # tells the type checker what the writer's kind decides
    notes = pd.DataFrame([row for rows in writers[0].notes() for row in rows], columns=list(NOTES))
    labels = label_table(made, settings.threshold, settings.batch_events).merge(notes, on="event_id", how="left")
    strain = next((one for one in waveforms if isinstance(one, EventSet)), None)
    return GeneratedSet(made, labels, strain)


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
    snr = made.labels["snr"].to_numpy(float)[glitches]
    peaks = made.labels["peak_snr2"].to_numpy()[glitches]
    return {
        "generated_glitches": Metric(float(glitches.sum())),
        "generated_background": Metric(float((~glitches).sum())),
        "median_glitch_peak_snr2": Metric(float(np.median(peaks)) if peaks.size else None),
        "median_glitch_snr": Metric(float(np.median(snr)) if snr.size else None),
    }


def generated_summary(
    made: GeneratedSet,
    bundle: ModelBundle,
    witnesses: SpectrogramSet,
    settings: GenerateSettings,
    *,
    written: Mapping[str, Sequence[object]],
    started: str,
) -> RunSummary:
    """What was generated.

    Args:
        made: From `generate_glitches`.
        bundle: The model.
        witnesses: The maps that it was made from.
        settings: The keys of `inference.generate`.
        written: Other files by what they hold.
        started: When, ISO 8601, UTC.
    """
    return RunSummary(
        pipeline="glitchflow_pipeline/Generate",
        started=started,
        inputs={
            **model_inputs(bundle),
            "witnesses": str(witnesses.folder),
            "target": bundle.target,
            "threshold_snr2": settings.threshold,
            "changes": ", ".join(map(str, settings.interventions)) or "none",
            "wanted_snr": "any" if settings.snr is None else f"{list(settings.snr)} by the {settings.scale}",
        },
        events=EventCounts.from_reasons(len(made.spectrograms), made.spectrograms.manifest.rejected.values()),
        metrics=generated_metrics(made),
        outputs={
            "spectrograms": str(made.spectrograms.folder),
            "strain": str(made.strain.folder) if made.strain is not None else "none (a model of energies)",
            **{name: ", ".join(map(str, paths)) or "none" for name, paths in written.items()},
        },
        warnings=() if made.glitches.any() else ("The model generated no glitch: every map is background.",),
    )


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
    named = {f"generated-{place:02d}": figure for place, figure in enumerate(figures, 1)}
    paths = save_figures(named, folder / IMAGES)
    if board is not None:
        with TensorBoardTracker(board) as tracker:
            for place, path in enumerate(paths):
                tracker.figure("generated", path, place)
    return paths


def _writers(
    bundle: ModelBundle, asked: AskedTwin, folder: Path, settings: GenerateSettings, model: dict[str, object]
) -> list[ShardedWriter]:
    """Of the maps and, of a twin of waveforms, of the strain."""
    spectrograms = asked.spectrograms
    told = ("threshold", "only_glitches", "stride", "interventions", "snr", "scale", "seed")
    made = {"model": model, **{key: value for key, value in asdict(settings).items() if key in told}}
    shared: dict[str, Any] = {
        "target": bundle.target,
        "event_ids": spectrograms.event_ids,
        "shard_size": settings.batch_events,
        "inputs": f"{spectrograms.manifest.fingerprint} {weights_fingerprint(bundle.twin)}",
    }
    maps = ShardedWriter(
        folder=folder,
        kind="spectrograms",
        channels=bundle.channels if settings.keep_witnesses else (bundle.target,),
        axes=dict(spectrograms.manifest.axes),
        units=UNITS,
        recipe={**spectrograms.recipe, "generated": made},
        **shared,
    )
    if not isinstance(asked, AskedSeries):
        return [maps]
    events = asked.predictor.events
    strain = ShardedWriter(
        folder=folder / STRAIN,
        kind="events",
        channels=(bundle.target,),
        axes=dict(events.manifest.axes),
        units=events.manifest.units,
        recipe={**events.recipe, "generated": made},
        **shared,
    )
    return [maps, strain]


def _write(
    asked: AskedTwin,
    plan: ShardPlan,
    writers: list[ShardedWriter],
    settings: GenerateSettings,
    steady: tuple[str, ...],
) -> None:
    """Make the events of one shard."""
    spectrograms = asked.spectrograms
    rows = [spectrograms.row_of[name] for name in plan.event_ids]
    seen = asked.changed(rows, settings.interventions)
    wanted, factor = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    if settings.snr is None:
        answer = asked.answer(seen)
    else:
        wanted = drawn_snr(plan.event_ids, settings.snr, settings.seed)
        scale = settings.scale == "drive"
        seen, answer, factor = by_drive(asked, seen, wanted, steady) if scale else by_waveform(asked, seen, wanted)
    maps = host(asked.maps(answer).float())
    present = host(seen.flatten(2).abs().amax(dim=2) > 0)
    peak = maps.max(axis=(1, 2))
    reasons = _reasons(plan.event_ids, present, peak, np.isnan(factor) & np.isfinite(wanted), settings)
    kept = [place for place, name in enumerate(plan.event_ids) if name not in reasons]
    loud = holds_glitch(peak, settings.threshold)
    columns = (host(asked.snr(answer).double()), wanted, factor)
    notes = []
    for place in kept:
        numbers = [None if np.isnan(column[place]) else float(column[place]) for column in columns]
        witness = asked.witnesses[term_shares(asked, seen[place]).argmax()] if loud[place] else ""
        notes.append(dict(zip(NOTES, (plan.event_ids[place], *numbers, witness), strict=True)))
    content = maps[:, None]
    valid = np.ones((len(rows), 1), dtype=np.bool_)
    if settings.keep_witnesses:
        content = np.concatenate([content, _witness_maps(asked, rows, seen, settings)], axis=1)
        valid = np.concatenate([valid, present], axis=1)
    known = _columns(asked, rows, kept)
    batch = SpectrogramBatch(maps=content[kept], valid=valid[kept], **known) if kept else None
    writers[0].write(plan, batch, reasons, notes)
    if len(writers) > 1:
        series = host(answer.float())[kept][:, None]
        batch = EventBatch(series=series, valid=valid[kept][:, :1], **known) if kept else None
        writers[1].write(plan, batch, reasons)


def _reasons(
    event_ids: tuple[str, ...],
    present: Bool[np.ndarray, "event witness"],
    peak: np.ndarray,
    unreached: Bool[np.ndarray, " event"],
    settings: GenerateSettings,
) -> dict[str, str]:
    """Why events are left out."""
    quiet = ~holds_glitch(peak, settings.threshold) & settings.only_glitches
    told = {NO_WITNESS: ~present.any(axis=1), UNREACHED: unreached, QUIET: quiet}
    found: dict[str, str] = {}
    for reason, flags in told.items():
        for place in np.flatnonzero(flags):
            found.setdefault(event_ids[place], reason)
    return found


def _witness_maps(asked: AskedTwin, rows: list[int], seen: Tensor, settings: GenerateSettings) -> np.ndarray:
    """As they were measured, or as they are after what was done to them."""
    unchanged = not settings.interventions and (settings.snr is None or settings.scale == "waveform")
    if unchanged:
        return asked.spectrograms.read(rows, asked.witnesses).maps
    return host(asked.witness_maps(seen).float())


def _columns(asked: AskedTwin, rows: list[int], kept: list[int]) -> dict[str, Any]:
    spectrograms, index = asked.spectrograms, np.array(rows, dtype=np.int64)[kept]
    return {
        "event_ids": tuple(spectrograms.event_ids[row] for row in index),
        "gps_start": spectrograms.gps_start[index],
        "gps_event": spectrograms.gps_event[index],
        "groups": tuple(spectrograms.groups[row] for row in index),
    }
