"""What-if: what a registered model would foretell of other witnesses, and which of them its predictions come from."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from itwinai.components import monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._inference import InferenceStep
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.ranking_file import RESULTS_NAME, read_ranking
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.truth_file import read_truth, truth_path
from glitchflow_plugin.inference.subject import Subject
from glitchflow_plugin.inference.what_if import WhatIfSettings
from glitchflow_plugin.inference.what_if_report import what_if_summary, write_what_if
from glitchflow_plugin.inference.what_if_run import Known, run_what_if
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.summary import RunSummary, now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.simulation.coupling import linear_response

logger = logging.getLogger(__name__)


class WhatIf(InferenceStep[WhatIfSettings]):
    """Ask a registered model about events with changed witnesses.

    Args:
        settings: The keys of `settings` in what_if.yaml.
        folder: Below it everything goes, in a folder named after what it is of.
        truth: Folder of the simulation that made the events, or its truth file; passed over where there is none.
        ranking: Folder of the scan whose ranking the twin is compared with; passed over where there is none.
        given: Arguments of `InferenceStep`.
    """

    kind, section = WhatIfSettings, "what_if.settings"

    @keeping_arguments
    def __init__(
        self,
        settings: dict[str, Any],
        folder: str,
        *,
        truth: str | None = None,
        ranking: str | None = None,
        **given: Any,
    ) -> None:
        super().__init__(settings, folder, **given)
        self.truth, self.ranking = truth, ranking

    @monitor_exec
    @holding()
    def execute(self, bundle: ModelBundle | None = None, spectrograms: SpectrogramSet | None = None) -> RunSummary:
        """Ask, and write what is answered."""
        started = now()
        return self._ask(self.find(bundle, spectrograms), started)

    @holding("place")
    def _ask(self, subject: Subject, started: str) -> RunSummary:
        self.claim()
        known = self._known()
        result, asked, warnings = run_what_if(
            subject, self.place, self.settings, known, device=choose_device(self.device)
        )
        outputs = write_what_if(result, asked, self.place, examples=self.settings.examples, pictures=self.pictures)
        summary = what_if_summary(result, subject, str(known.folder or "none"), started)
        return report(replace(summary, outputs=outputs, warnings=tuple(warnings)), self.place)

    def _known(self) -> Known:
        """What is known beside the model; what is not there is passed over."""
        path = None if self.truth is None else Path(self.truth)
        path = truth_path(path) if path is not None and path.is_dir() else path
        if path is None or not path.exists():
            logger.info("No truth at %s: attributions are not compared with true witnesses.", self.truth)
            return Known(ranking=self._ranking())
        return Known(read_truth(path), path.parent, linear_response, self._ranking())

    def _ranking(self) -> tuple[str, ...]:
        there = self.ranking is not None and (Path(self.ranking) / RESULTS_NAME).exists()
        return read_ranking(self.ranking).selected if there and self.ranking else ()
