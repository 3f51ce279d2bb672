"""Load-infdata: a registered model, and data that have gone through the recipe stored with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from itwinai.components import DataGetter, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.results import claim
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.model_data import check_spectrograms, data_folder, data_record, make_maps
from glitchflow_plugin.inference.subject import check_model, load_model, model_inputs
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.report.step import report


class LoadInfdata(DataGetter):
    """Load a model and make the maps it needs, or open those that exist.

    Args:
        model: `name` and `version` (a number or an alias) of the registered model.
        tracking_uri: Address of the registry.
        folder: Below it the event set and the spectrogram set go, in a folder named after the data.
        datasets: Data to read, as in datasets.yaml; `processing` is the model's.
        spectrograms: An existing spectrogram set to use in place of `datasets`.
        engine: Where the shards are made: the keys of engine.yaml, or an engine's name. As an array, the tasks make
            the event set first, and the maps when the array is submitted again.
        batch_events: Events transformed at a time.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        model: Mapping[str, object],
        tracking_uri: str,
        folder: str,
        *,
        datasets: Sequence[Mapping[str, object]] | None = None,
        spectrograms: str | None = None,
        engine: Mapping[str, object] | str | None = None,
        batch_events: int = 8,
        device: str = "auto",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
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
    def execute(self) -> tuple[ModelBundle, SpectrogramSet]:
        """Load the model, make what is missing of the maps, and return both."""
        started = now()
        bundle = load_model(self.model, self.tracking_uri)
        self.place = data_folder(self.folder, bundle, self.datasets, self.spectrograms)
        return bundle, self._make(bundle, started)

    @holding("place")
    def _make(self, bundle: ModelBundle, started: str) -> SpectrogramSet:
        claim(self.place, data_record(bundle, self.datasets, self.spectrograms))
        if self.spectrograms is not None:
            data, warnings = str(self.spectrograms), ()
            made = SpectrogramSet.open(self.spectrograms)
            counts = EventCounts.from_reasons(len(made), made.manifest.rejected.values())
        else:
            data = ", ".join(str(entry.get("path") or entry.get("format")) for entry in self.datasets)
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
                    "data": data,
                    "target": bundle.target,
                    "witnesses": ", ".join(bundle.witnesses),
                },
                events=counts,
                metrics={"witnesses": Metric(float(len(bundle.witnesses)))},
                outputs={"spectrograms": str(made.folder)},
                warnings=warnings,
            ),
            self.place,
        )
        return made
