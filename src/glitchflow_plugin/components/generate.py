"""Generate: a synthetic glitch data set from a registered model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._figures import PictureSettings
from glitchflow_plugin.components._model import model_inputs, model_name
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._results import Sought, Subject, check_result
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.data.results import claim, place
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.products.pictures import save_figure
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now
from glitchflow_plugin.products.veto_table import write_table
from glitchflow_plugin.settings import built

if TYPE_CHECKING:
    from glitchflow_plugin.inference.generate import GeneratedSet
    from glitchflow_plugin.models.bundle import ModelBundle

IMAGES = "images"
"""Folder below that of the set."""


class GenerateGlitches(BaseComponent):
    """Generate strain maps from witness maps and store them, labelled, as a spectrogram set.

    Args:
        settings: The keys of `generate` in inference.yaml.
        folder: Below it the set, its labels, pictures and summary.json go, in a folder named after data and model.
        tensorboard: Folder for TensorBoard, likewise; none if None.
        model: `name` and `version`, used where no model comes from the step before.
        tracking_uri: Of the registry, likewise.
        spectrograms: Folder of the maps, used where none come from the step before.
        events: Folder of the event set that these maps were made of; models of waveforms need it.
        data: Folder of Load-infdata, whose sets are used where `spectrograms` is not given either.
        datasets: What Load-infdata made them of.
        result: Name of the set's folder; None: named after what it is of.
        replace: Whether another set of the name `result` may go.
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
        from glitchflow_plugin.inference.generate import GenerateSettings

        self.settings = built(GenerateSettings, settings, "inference.generate")
        self.folder, self.tensorboard = Path(folder), tensorboard
        self.sought = Sought.of(
            model, tracking_uri, spectrograms=spectrograms, events=events, data=data, datasets=datasets
        )
        self.device = device
        self.result, self.replace = check_result(result), replace
        self.pictures = built(PictureSettings, pictures, "pictures")

    @monitor_exec
    @holding()
    def execute(
        self, bundle: "ModelBundle | None" = None, spectrograms: SpectrogramSet | None = None
    ) -> SpectrogramSet:
        """Generate what is missing of the set and return it."""
        started = now()
        subject = self.sought.find(bundle, spectrograms, self.settings.decisive())
        self.place = place(self.folder, subject.name, subject.what, chosen=self.result)
        return self._generate(subject, started)

    @holding("place")
    def _generate(self, subject: Subject, started: str) -> SpectrogramSet:
        from glitchflow_plugin.inference.generate import GLITCH, generate_glitches

        bundle, spectrograms = subject.bundle, subject.spectrograms
        claim(self.place, subject.what, replace=self.replace)
        made = generate_glitches(
            bundle,
            spectrograms,
            self.place,
            self.settings,
            model=model_name(bundle),
            events=subject.events,
            device=choose_device(self.device),
        )
        labels = write_table(made.labels, self.place, "labels")
        pictures = self._pictures(made, spectrograms, bundle)
        glitches = made.labels["label"].to_numpy() == GLITCH
        report(
            RunSummary(
                pipeline="glitchflow_pipeline/Generate",
                started=started,
                inputs={
                    **model_inputs(bundle),
                    "witnesses": str(spectrograms.folder),
                    "target": bundle.target,
                    "threshold_snr2": self.settings.threshold,
                },
                events=EventCounts.from_reasons(len(made.spectrograms), made.spectrograms.manifest.rejected.values()),
                metrics={
                    "generated_glitches": Metric(float(glitches.sum())),
                    "generated_background": Metric(float((~glitches).sum())),
                    "median_glitch_peak_snr2": Metric(_median(made.labels["peak_snr2"].to_numpy()[glitches])),
                },
                outputs={
                    "spectrograms": str(made.spectrograms.folder),
                    "labels": f"{labels['csv']}, {labels['parquet']}",
                    "images": ", ".join(str(path) for path in pictures) or "none",
                },
                warnings=() if glitches.any() else ("The model generated no glitch: every map is background.",),
            ),
            self.place,
        )
        return made.spectrograms

    def _pictures(self, made: "GeneratedSet", witnesses: SpectrogramSet, bundle: "ModelBundle") -> list[Path]:
        """The loudest generated maps above the witnesses they were made from."""
        from glitchflow_plugin.plots.spectrograms import plot_event
        from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker

        images = self.place / IMAGES
        for old in images.glob("*.png"):
            old.unlink()
        figures, classes = [], self.pictures.classes()
        for row in np.argsort(-made.labels["peak_snr2"].to_numpy(), kind="stable")[: self.settings.examples]:
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
                    axis=self.pictures.frequency_axis,
                )
            )
        if self.tensorboard is not None:
            with TensorBoardTracker(Path(self.tensorboard) / self.place.name) as tracker:
                for place, figure in enumerate(figures):
                    tracker.figure("generated", figure, place)
        return [save_figure(figure, images / f"generated-{place:02d}.png") for place, figure in enumerate(figures, 1)]


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if values.size else None
