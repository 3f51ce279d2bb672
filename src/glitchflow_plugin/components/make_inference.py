"""Make-inference: predicted and cleaned maps, veto tables, pictures and figures from a model and maps."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from itwinai.components import monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._inference import InferenceStep
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.inference.drift import drift_of
from glitchflow_plugin.inference.loop_state import LoopFile
from glitchflow_plugin.inference.report import inference_summary, write_result
from glitchflow_plugin.inference.run import InferenceSettings, run_inference
from glitchflow_plugin.inference.subject import Subject, registered
from glitchflow_plugin.inference.veto_report import VETOES, veto_report, with_false_alarms
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.summary import RunSummary, now
from glitchflow_plugin.report.step import report
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
        summary = inference_summary(
            bundle,
            spectrograms,
            result,
            self.settings,
            vetoes=vetoes,
            drift=drift,
            how_to_reset=() if self.loop_file is None else self.loop_file.how_to_reset(result.loop),
            outputs=outputs,
            started=started,
        )
        return report(summary, self.place)
