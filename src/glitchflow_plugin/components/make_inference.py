"""Make-inference: predicted and cleaned maps, veto tables, pictures and figures from a model and maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._drift import drift_metrics, drift_of, drift_warnings
from glitchflow_plugin.components._figures import PictureSettings
from glitchflow_plugin.components._model import model_inputs, model_name
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._results import Sought, Subject, check_result
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.data.results import claim, place
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.products.pictures import save_figure
from glitchflow_plugin.products.summary import EventCounts, RunSummary, now
from glitchflow_plugin.products.veto_table import write_table
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.drift import DriftSettings

if TYPE_CHECKING:
    from glitchflow_plugin.inference.run import InferenceResult
    from glitchflow_plugin.models.bundle import ModelBundle

MAPS, IMAGES = "maps", "images"
"""Folders below that of a result."""


class MakeInference(BaseComponent):
    """Predict, clean, veto and score a spectrogram set with a registered model.

    Args:
        settings: The keys of `settings` in inference.yaml.
        folder: Below it maps, tables, images and summary.json go, in a folder named after data, model and threshold.
        tensorboard: Folder for TensorBoard, likewise; none if None.
        model: `name` and `version`, used where no model comes from the step before.
        tracking_uri: Of the registry, likewise.
        spectrograms: Folder of the maps, used where none come from the step before.
        events: Folder of the event set that these maps were made of; models of waveforms need it.
        data: Folder of Load-infdata, whose sets are used where `spectrograms` is not given either.
        datasets: What Load-infdata made them of.
        result: Name of the result's folder; None: named after what it is of.
        replace: Whether another result of the name `result` may go.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        pictures: The keys of pictures.yaml.
        name: Of the step.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        folder: str,
        *,
        tensorboard: str | None = None,
        model: Mapping[str, Any] | None = None,
        tracking_uri: str = "sqlite:///mlflow.db",
        spectrograms: str | None = None,
        events: str | None = None,
        data: str | None = None,
        datasets: Sequence[Mapping[str, Any]] | None = None,
        result: str | None = None,
        replace: bool = False,
        device: str = "auto",
        pictures: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.save_parameters(
            settings=settings,
            folder=folder,
            tensorboard=tensorboard,
            model=model,
            tracking_uri=tracking_uri,
            spectrograms=spectrograms,
            events=events,
            data=data,
            datasets=datasets,
            result=result,
            replace=replace,
            device=device,
            pictures=pictures,
            name=name,
        )
        from glitchflow_plugin.inference.run import InferenceSettings

        self.settings = built(InferenceSettings, settings, "inference.settings")
        self.folder, self.tensorboard = Path(folder), tensorboard
        self.sought = Sought.of(
            model, tracking_uri, spectrograms=spectrograms, events=events, data=data, datasets=datasets
        )
        self.device = device
        self.result, self.replace = check_result(result), replace
        self.pictures = built(PictureSettings, pictures, "pictures")

    @monitor_exec
    @holding()
    def execute(self, bundle: "ModelBundle | None" = None, spectrograms: SpectrogramSet | None = None) -> RunSummary:
        """Run the model over the maps and write everything that comes of it."""
        started = now()
        subject = self.sought.find(bundle, spectrograms, self.settings.decisive())
        name = f"{subject.name}-t{self.settings.threshold:g}"
        self.place = place(self.folder, name, subject.what, chosen=self.result)
        return self._analyse(subject, started)

    @holding("place")
    def _analyse(self, subject: Subject, started: str) -> RunSummary:
        from glitchflow_plugin.inference.report import run_warnings, summary_details, summary_metrics, time_metrics
        from glitchflow_plugin.inference.run import run_inference

        bundle, spectrograms = subject.bundle, subject.spectrograms
        claim(self.place, subject.what, replace=self.replace)
        result = run_inference(
            bundle,
            spectrograms,
            self.place / MAPS,
            self.settings,
            model=model_name(bundle),
            events=subject.events,
            device=choose_device(self.device),
        )
        outputs = self._write(result, spectrograms, bundle.target)
        drift = drift_of(spectrograms, bundle.witnesses, bundle.notes, DriftSettings())
        details = {} if drift is None else {"drift": drift.to_dict()}
        return report(
            RunSummary(
                pipeline="inference_pipeline/Make-inference",
                started=started,
                inputs={
                    **model_inputs(bundle),
                    "spectrograms": str(spectrograms.folder),
                    "target": bundle.target,
                    "threshold_snr2": self.settings.threshold,
                },
                events=EventCounts.from_reasons(len(spectrograms), spectrograms.manifest.rejected.values()),
                metrics={**summary_metrics(result.scores), **time_metrics(result), **drift_metrics(drift)},
                outputs=outputs,
                warnings=(*run_warnings(result), *drift_warnings(drift)),
                details={**summary_details(result), **details},
            ),
            self.place,
        )

    def _write(self, result: "InferenceResult", spectrograms: SpectrogramSet, target: str) -> dict[str, Any]:
        from glitchflow_plugin.inference.report import (
            event_figures,
            example_figures,
            score_figures,
            timeline_figure,
            track_result,
        )
        from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker, picture_name

        segments = write_table(result.segments, self.place, "segments")
        events = write_table(result.events, self.place, "events")
        classes = self.pictures.classes()
        maps = {"axis": self.pictures.frequency_axis, "classes": classes}
        overview = {
            "timeline": timeline_figure(result, self.settings),
            **score_figures(result.scores, self.settings.threshold),
        }
        figures = {**overview, **example_figures(result, spectrograms, target, self.settings, **maps)}
        images = self.place / IMAGES
        for old in images.glob("*.png"):
            old.unlink()  # of a run before, which may have had examples that this one has not
        written = [save_figure(figure, images / f"{name}.png") for name, figure in figures.items()]
        board = None if self.tensorboard is None else Path(self.tensorboard) / self.place.name
        if board is not None:
            with TensorBoardTracker(board) as tracker:
                # the examples are there one by one, under the number of their row
                track_result(tracker, result, overview, self.settings, classes)
                for row, figure in event_figures(result, spectrograms, target, self.settings, **maps):
                    gps = float(result.events["gps_event"].iloc[row])
                    tracker.figure(picture_name(row), figure, row, gps=gps)
        return {
            "maps": str(result.maps.folder),
            "segments": f"{segments['csv']}, {segments['parquet']}",
            "events": f"{events['csv']}, {events['parquet']}",
            "images": f"{images} ({', '.join(path.stem for path in written)})",
            **({"tensorboard": str(board)} if board is not None else {}),
        }
