"""Data that a registered model is given: made by the recipe stored with it, found again, or refused."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.recipe import Recipe, differences, told
from glitchflow_plugin.data.results import gps_range, name_of_path, place
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.errors import ChannelMismatchError, FormatError
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.ingest import ingest_with_recipe
from glitchflow_plugin.preprocessing.quality import read_quality
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.products.summary import EventCounts
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.qtransform import QTransformSettings

EVENTS, SPECTROGRAMS = "events", "spectrograms"
"""Folders of the two sets below that of the data."""

Datasets: TypeAlias = Sequence[Mapping[str, object]]
"""Entries as in datasets.yaml."""


def data_record(bundle: ModelBundle, datasets: Datasets, spectrograms: Path | None = None) -> dict[str, object]:
    """All that decides about the sets of these data: two versions with one recipe share them.

    Args:
        bundle: The model.
        datasets: What is read.
        spectrograms: An existing set that is used in place of `datasets`.
    """
    recipe = Recipe.from_dict(bundle.recipe)
    digest = content_hash({"events": recipe.events, "qtransform": recipe.qtransform})
    given = {"spectrograms": str(spectrograms)} if spectrograms else {"datasets": [dict(entry) for entry in datasets]}
    return {**given, "channels": list(bundle.channels), "recipe": digest}


def data_folder(root: Path, bundle: ModelBundle, datasets: Datasets, spectrograms: Path | None = None) -> Path:
    """Where below `root` the sets of these data lie; arguments as for `data_record`."""
    first = spectrograms or datasets[0].get("path") or datasets[0].get("format")
    return place(root, name_of_path(str(first)), data_record(bundle, datasets, spectrograms))


class MadeMaps(NamedTuple):
    """Maps that were made, how many events were read, kept and rejected, and what the user should know."""

    maps: SpectrogramSet
    counts: EventCounts
    warnings: tuple[str, ...] = ()


def make_maps(
    bundle: ModelBundle,
    data: Datasets | EventSet,
    folder: Path,
    *,
    engine: EngineSettings,
    device: str,
    batch_events: int = 8,
    require_target: bool = False,
) -> MadeMaps:
    """Put data through a model's recipe; a run that was cut off goes on at the missing shards.

    Args:
        bundle: The model.
        data: Entries as in datasets.yaml, or an event set that the same recipe made.
        folder: Where the event set and the spectrogram set go.
        engine: Where the shards are made.
        device: Where to compute.
        batch_events: Events transformed at a time.
        require_target: Leave out events without a usable target.

    Raises:
        FormatError: The model's recipe is incomplete, or the event set was made by another one.
    """
    recipe = Recipe.from_dict(bundle.recipe)
    conditioning, transform = recipe.part("events"), recipe.part("qtransform")
    if isinstance(data, EventSet):
        known = [name for name in bundle.channels if name in data.channels]
        differing = recipe.differences(replace(recipe, events=data.recipe), known, origin=True)
        if differing:
            raise FormatError(
                f"{data.folder} was made by another recipe than the model's events; they differ in {told(differing)}. "
                "Bring event files, which go through the model's own recipe, or an event set that was made by it."
            )
        events = data
    else:
        events = ingest_with_recipe(
            data, conditioning, bundle.channels, folder / EVENTS, engine=engine, require_target=require_target
        )
    made = make_spectrograms(
        events,
        bundle.witnesses,
        QTransformSettings.from_recipe(transform),
        folder / SPECTROGRAMS,
        device=device,
        engine=engine,
        batch_size=batch_events,
        selection={"channels": "model"},
        require_target=require_target,
    )
    if isinstance(data, EventSet):
        return MadeMaps(made, EventCounts.from_reasons(len(made), made.manifest.rejected.values()))
    quality = read_quality(events.folder)
    counts = EventCounts(quality.events_read, len(made), quality.events_rejected)
    return MadeMaps(made, counts, tuple(quality.warnings()))


def gps_of(spectrograms: SpectrogramSet) -> str:
    """First and last GPS second of a set, for instance `1400100000-1400106353`."""
    if not len(spectrograms):
        return "empty"
    return gps_range(spectrograms.gps_start.tolist(), Columns(spectrograms.times).duration)


def check_spectrograms(bundle: ModelBundle, spectrograms: SpectrogramSet) -> None:
    """Refuse maps that were not made the way the model's maps were.

    Args:
        bundle: The model.
        spectrograms: Maps it is to be used on.

    Raises:
        ChannelMismatchError: Witnesses of the model are missing; the message lists them.
        FormatError: The axes or the recipe differ; the message says where.
    """
    missing = [name for name in bundle.witnesses if name not in spectrograms.channels]
    if missing:
        msg = (
            f"{spectrograms.folder} lacks the channels {missing}, which the model needs. It holds "
            f"{list(spectrograms.channels)}. Make the spectrograms from data with the model's channels, or choose "
            "another model."
        )
        raise ChannelMismatchError(msg)
    for name in ("frequencies", "times"):
        expected, found = np.asarray(getattr(bundle, name)), getattr(spectrograms, name)
        if expected.shape != found.shape or not np.allclose(expected, found, rtol=1e-6, atol=1e-9):
            msg = (
                f"{spectrograms.folder} has other {name} than the model: expected {_span(expected)}, got "
                f"{_span(found)}. Leave `spectrograms` empty in inference.yaml so that the maps are made by the "
                "model's own recipe."
            )
            raise FormatError(msg)
    channels = [name for name in bundle.channels if name in spectrograms.channels]
    differing = Recipe.from_dict(bundle.recipe).differences(Recipe.from_dict(spectrograms.recipe), channels)
    if differing:
        msg = (
            f"{spectrograms.folder} was made by another recipe than the model's maps; they differ in "
            f"{told(differing)}. Leave `spectrograms` empty in inference.yaml so that the maps are made by "
            "the model's own recipe."
        )
        raise FormatError(msg)


def check_events(spectrograms: SpectrogramSet, events: EventSet | None) -> None:
    """Refuse an event set that the maps were not made of.

    Raises:
        FormatError: Its recipe is another one.
    """
    made_of = Recipe.from_dict(spectrograms.recipe).events
    if events is None or made_of is None:
        return
    differing = differences(made_of, events.recipe)
    if differing:
        msg = (
            f"the maps of {spectrograms.folder} were not made of the event set {events.folder}: their recipes differ "
            f"in {told(differing)}. Give the event set that they were made of."
        )
        raise FormatError(msg)


def _span(values: np.ndarray) -> str:
    return f"{len(values)} from {values[0]:g} to {values[-1]:g}" if len(values) else "none"
