"""Make-inference: predicted and cleaned maps, veto tables, pictures and figures from a model and maps."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from itwinai.components import monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._inference import InferenceStep
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.inference.drift import drift_metrics, drift_of, drift_warnings
from glitchflow_plugin.inference.loop_state import LoopFile
from glitchflow_plugin.inference.report import (
    run_warnings,
    summary_details,
    summary_metrics,
    time_metrics,
    write_result,
)
from glitchflow_plugin.inference.run import InferenceSettings, run_inference
from glitchflow_plugin.inference.subject import Subject, model_inputs, registered
from glitchflow_plugin.inference.veto_report import VETOES, veto_report, with_false_alarms
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.summary import EventCounts, RunSummary, now
from glitchflow_plugin.signal.drift import DriftSettings

MAPS = "maps"
"""Folder below that of a result."""


class MakeInference(InferenceStep[InferenceSettings]):
    """Predict, clean, veto and score a spectrogram set with a registered model.

    Args:
        settings: The keys of `inference.settings`.
        folder: Below it everything goes, in a folder named after what it is of.
        loop_state: Folder in which the closed loop's state stays between runs, one file a version of a model; None: a
            run begins anew.
        given: Other arguments of `InferenceStep`.
    """

    kind, section = InferenceSettings, "inference.settings"

    @keeping_arguments
    def __init__(
        self, settings: Mapping[str, object], folder: str, *, loop_state: str | None = None, **given: Any
    ) -> None:
        super().__init__(settings, folder, **given)
        self.loop_state = loop_state

    @monitor_exec
    @holding()
    def execute(self, bundle: ModelBundle | None = None, spectrograms: SpectrogramSet | None = None) -> RunSummary:
        """Run the model over the maps and write everything that comes of it."""
        started = now()
        return self._analyse(self.find(bundle, spectrograms, f"-t{self.settings.threshold:g}"), started)

    def record_of(self, subject: Subject) -> dict[str, object]:
        """All that decides about the result: where the closed loop stands before it, if something was seen."""
        self.loop_file = LoopFile.of(subject.bundle, self.loop_state if self.settings.closed_loop.enabled else None)
        self.state = None if self.loop_file is None else self.loop_file.before(subject.spectrograms)
        before = {} if self.state is None else {"closed_loop_before": content_hash(asdict(self.state))}
        return {**super().record_of(subject), **before}

    @holding("place")
    def _analyse(self, subject: Subject, started: str) -> RunSummary:
        self.claim()
        bundle, spectrograms = subject.bundle, subject.spectrograms
        result = run_inference(
            bundle,
            spectrograms,
            self.place / MAPS,
            self.settings,
            model=registered(bundle),
            events=subject.events,
            state=self.state,
            device=choose_device(self.device),
        )
        notes = bundle.notes.get(VETOES)
        result = replace(result, segments=with_false_alarms(result.segments, notes))
        vetoes = veto_report(result, spectrograms, notes, self.settings)
        outputs = write_result(
            result,
            spectrograms,
            bundle.target,
            self.settings,
            self.place,
            pictures=self.pictures,
            board=self.board,
            vetoes=vetoes,
        )
        if self.loop_file is not None:
            self.loop_file.keep(result.loop, spectrograms)
        drift = drift_of(spectrograms, bundle.witnesses, bundle.notes, DriftSettings())
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
                metrics={
                    **summary_metrics(result.scores),
                    **({} if vetoes is None else vetoes.metrics(self.settings.threshold)),
                    **time_metrics(result),
                    **drift_metrics(drift),
                },
                outputs=outputs,
                warnings=(
                    *run_warnings(result),
                    *([] if self.loop_file is None else self.loop_file.how_to_reset(result.loop)),
                    *([] if vetoes is None else vetoes.warnings()),
                    *drift_warnings(drift),
                ),
                details={**summary_details(result), **({} if drift is None else {"drift": drift.to_dict()})},
            ),
            self.place,
        )
