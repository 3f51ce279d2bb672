"""Generate: a synthetic glitch data set from a registered model."""

from itwinai.components import monitor_exec

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._inference import InferenceStep
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.inference.generate import (
    GenerateSettings,
    generate_glitches,
    generated_summary,
    write_pictures,
)
from glitchflow_plugin.inference.generated_bank import write_banks
from glitchflow_plugin.inference.subject import Subject, registered
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.products.veto_table import write_table
from glitchflow_plugin.report.step import report


class GenerateGlitches(InferenceStep[GenerateSettings]):
    """Generate strain from witnesses and store it, labelled: maps, waveforms, and a bank of glitches."""

    kind, section = GenerateSettings, "inference.generate"

    @monitor_exec
    @holding()
    def execute(self, bundle: ModelBundle | None = None, spectrograms: SpectrogramSet | None = None) -> SpectrogramSet:
        """Generate what is missing of the set and return it."""
        started = now()
        return self._generate(self.find(bundle, spectrograms), started)

    @holding("place")
    def _generate(self, subject: Subject, started: str) -> SpectrogramSet:
        self.claim()
        bundle, witnesses = subject.bundle, subject.spectrograms
        made = generate_glitches(
            bundle,
            witnesses,
            self.place,
            self.settings,
            model=registered(bundle),
            events=subject.events,
            device=choose_device(self.device),
        )
        settings = self.settings
        banks = write_banks(
            made, self.place, classes=self.pictures.classes(), bank_size=settings.bank_size, seed=settings.seed
        )
        labels = write_table(made.labels, self.place, "labels")
        images = write_pictures(
            made,
            witnesses,
            bundle,
            self.place,
            count=self.settings.examples,
            board=self.board,
            pictures=self.pictures,
        )
        tables = {"bank": banks, "labels": [labels["csv"], labels["parquet"]], "images": images}
        report(generated_summary(made, bundle, witnesses, settings, written=tables, started=started), self.place)
        return made.spectrograms
