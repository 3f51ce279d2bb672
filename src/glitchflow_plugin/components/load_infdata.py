"""Load-infdata: a registered model, and data that have gone through the recipe stored with it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwinai.components import DataGetter, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._model import check_model, load_model, model_inputs, open_events, require
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.recipe import Recipe, told
from glitchflow_plugin.data.results import claim, name_of_path, place
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.quality import read_quality
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now

if TYPE_CHECKING:
    from glitchflow_plugin.models.bundle import ModelBundle

EVENTS, SPECTROGRAMS = "events", "spectrograms"
"""Folders of the two sets below that of the data."""


class LoadInfdata(DataGetter):
    """Load a model and make the maps it needs, or open those that exist.

    Args:
        model: `name` and `version` (a number or an alias) of the registered model.
        tracking_uri: Of the registry.
        folder: Below it the event set and the spectrogram set go, in a folder named after the data.
        datasets: Data to read, as in datasets.yaml; `processing` is the model's.
        spectrograms: An existing spectrogram set to use in place of `datasets`.
        engine: Where the shards are made: the keys of engine.yaml, or an engine's name. As an array, the tasks make
            the event set first, and the maps when the array is submitted again.
        batch_events: Events transformed at a time.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        name: Of the step.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        tracking_uri: str,
        folder: str,
        *,
        datasets: Sequence[Mapping[str, Any]] | None = None,
        spectrograms: str | None = None,
        engine: Mapping[str, Any] | str | None = None,
        batch_events: int = 8,
        device: str = "auto",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.save_parameters(
            model=model,
            tracking_uri=tracking_uri,
            folder=folder,
            datasets=datasets,
            spectrograms=spectrograms,
            engine=engine,
            batch_events=batch_events,
            device=device,
            name=name,
        )
        if not datasets and not spectrograms:
            raise ConfigurationError(
                "inference.yaml: give `datasets` (a list) or `spectrograms` (a folder), got neither."
            )
        self.model, self.tracking_uri = check_model(model), tracking_uri
        self.folder = Path(folder)
        DatasetSettings.listed(datasets or ())  # refused before a model is loaded
        self.datasets = list(datasets or ())
        self.spectrograms = Path(spectrograms) if spectrograms else None
        self.engine, self.batch_events, self.device = EngineSettings.of(engine), batch_events, device

    @monitor_exec
    @holding()
    def execute(self) -> "tuple[ModelBundle, SpectrogramSet]":
        """Load the model, make what is missing of the maps, and return both."""
        started = now()
        bundle = load_model(self.model, self.tracking_uri)
        self.place = data_place(self.folder, bundle, self.datasets, self.spectrograms)
        return bundle, self._make(bundle, started)

    @holding("place")
    def _make(self, bundle: "ModelBundle", started: str) -> SpectrogramSet:
        from glitchflow_plugin.inference.run import check_spectrograms

        claim(self.place, _what(bundle, self.datasets, self.spectrograms))
        if self.spectrograms is not None:
            made = SpectrogramSet.open(self.spectrograms)
            counts, warnings = EventCounts.from_reasons(len(made), made.manifest.rejected.values()), ()
        else:
            made, counts, warnings = make_maps(
                bundle,
                self.datasets,
                self.place,
                engine=self.engine,
                device=choose_device(self.device, self.engine),
                batch_events=self.batch_events,
            )
        check_spectrograms(bundle, made)
        report(
            RunSummary(
                pipeline="inference_pipeline/Load-infdata",
                started=started,
                inputs={
                    **model_inputs(bundle),
                    "data": str(self.spectrograms) if self.spectrograms else _paths(self.datasets),
                    "target": bundle.target,
                    "witnesses": ", ".join(bundle.witnesses),
                },
                events=counts,
                metrics={"witnesses": Metric(float(len(bundle.witnesses)))},
                outputs={"spectrograms": str(made.folder)},
                warnings=tuple(warnings),
            ),
            self.place,
        )
        return made


def make_maps(
    bundle: "ModelBundle",
    data: Sequence[Mapping[str, Any]] | EventSet,
    folder: Path,
    *,
    engine: EngineSettings,
    device: str,
    batch_events: int = 8,
    require_target: bool = False,
) -> tuple[SpectrogramSet, EventCounts, tuple[str, ...]]:
    """Put data through a model's recipe; a run that was cut off goes on at the missing shards.

    Args:
        bundle: The model.
        data: Entries as in datasets.yaml, or an event set that the same recipe made.
        folder: Where the event set and the spectrogram set go.
        engine: Where the shards are made.
        device: Where to compute.
        batch_events: Events transformed at a time.
        require_target: Leave out events without a usable target.

    Returns:
        The maps, how many events were read, kept and rejected, and what the user should know.

    Raises:
        FormatError: The model's recipe is incomplete, or the event set was made by another one.
    """
    from glitchflow_plugin.preprocessing.ingest import ingest_with_recipe
    from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
    from glitchflow_plugin.signal.qtransform import QTransformSettings

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
        return made, EventCounts.from_reasons(len(made), made.manifest.rejected.values()), ()
    quality = read_quality(events.folder)
    return made, EventCounts(quality.events_read, len(made), quality.events_rejected), tuple(quality.warnings())


def data_place(
    root: Path, bundle: "ModelBundle", datasets: Sequence[Mapping[str, Any]], spectrograms: Path | None = None
) -> Path:
    """Where the sets of these data, made by the recipe of this model, lie: two versions with one recipe share them.

    Args:
        root: Folder of Load-infdata.
        bundle: The model.
        datasets: Entries as in datasets.yaml.
        spectrograms: An existing set that is used in place of `datasets`.
    """
    first = spectrograms or datasets[0].get("path") or datasets[0].get("format")
    return place(root, name_of_path(str(first)), _what(bundle, datasets, spectrograms))


def find_sets(
    bundle: "ModelBundle",
    made: SpectrogramSet | None,
    *,
    spectrograms: str | None,
    events: str | None,
    data: str | None,
    datasets: Sequence[Mapping[str, Any]] | None,
) -> tuple[SpectrogramSet, EventSet | None]:
    """The maps that a step looks at, and for a model of waveforms the event set that they were made of.

    Args:
        bundle: The model.
        made: Maps from the step before.
        spectrograms: Folder of maps, used where there are none from the step before.
        events: Folder of the event set.
        data: Folder of Load-infdata, whose sets are used where the former two are not given.
        datasets: What Load-infdata made them of.

    Raises:
        ConfigurationError: Nothing says where the maps are.
        FormatError: There are none.
    """
    if made is None and spectrograms is None and data:
        if not datasets:
            raise ConfigurationError(
                "this step runs alone, and its maps lie below `data` in a folder named after `datasets`, which it "
                "lacks. Give it `datasets: ${inference.datasets}` in conf/pipelines/, as a new run folder has it, or "
                "`spectrograms`."
            )
        made = SpectrogramSet.open(data_place(Path(data), bundle, datasets) / SPECTROGRAMS)
    found = made or SpectrogramSet.open(require(spectrograms, "spectrograms"))
    beside = found.folder.parent / EVENTS
    if events is None and data and Path(data).resolve() in found.folder.resolve().parents and beside.exists():
        events = str(beside)
    return found, open_events(bundle, events)


def _what(bundle: "ModelBundle", datasets: Sequence[Mapping[str, Any]], spectrograms: Path | None) -> dict[str, Any]:
    recipe = Recipe.from_dict(bundle.recipe)
    digest = content_hash({"events": recipe.events, "qtransform": recipe.qtransform})
    given = {"spectrograms": str(spectrograms)} if spectrograms else {"datasets": [dict(entry) for entry in datasets]}
    return {**given, "channels": list(bundle.channels), "recipe": digest}


def _paths(datasets: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(entry.get("path") or entry.get("format")) for entry in datasets)
