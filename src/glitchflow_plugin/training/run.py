"""What follows the last epoch: the best network is calibrated, judged beside its rivals, and described."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.inference.closed_loop import NOTE
from glitchflow_plugin.inference.figures import score_figures
from glitchflow_plugin.inference.residual import NOTE as RESIDUAL
from glitchflow_plugin.inference.score import Scores
from glitchflow_plugin.models.build import full_settings
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.plots.maps import FrequencyAxis
from glitchflow_plugin.plots.style import Picture
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
from glitchflow_plugin.tracking.runs import named_for_test
from glitchflow_plugin.training.baseline import Baseline
from glitchflow_plugin.training.gate import GateSettings
from glitchflow_plugin.training.judged_events import Gate, gate_notes
from glitchflow_plugin.training.learner import Review
from glitchflow_plugin.training.registration import Outcome
from glitchflow_plugin.training.trained_twin import TrainedTwin
from glitchflow_plugin.training.veto_notes import veto_notes


@dataclass(frozen=True)
class Conditions:
    """What is kept with a network of how it was trained, beside `training.config`.

    Attributes:
        run_name: Name of the MLflow run.
        epochs: At most.
        random_seed: Of weights and order.
        classes: Class of the glitch by event id, where known.
    """

    run_name: str | None
    epochs: int
    random_seed: int | None
    classes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a training has made.

    Attributes:
        bundle: What can be registered.
        baseline: The linear rival.
        figures: Figures of the validation windows, which chose the network, by name.
        scores: Scores of `model`, `linear` and `zero` on the test events; empty where there is no test event.
    """

    bundle: ModelBundle
    baseline: Baseline
    figures: Mapping[str, float]
    scores: Mapping[str, Scores]

    @property
    def metrics(self) -> dict[str, Metric]:
        """Test figures with those of the rivals, then those of validation, by their stable names."""
        found = {}
        for key, estimate in self.scores["model"].metrics().items() if self.scores else ():
            rivals = {rival: self.scores[rival].metrics()[key].value for rival in ("linear", "zero")}
            found[key] = Metric(estimate.value, estimate.low, estimate.high, rivals)
        for key, value in self.figures.items():
            found[f"validation_{key}"] = Metric(value, baseline={"linear": self.baseline.validation.get(key)})
        return found

    @property
    def test_figures(self) -> dict[str, float]:
        """Test figures of the network and its rivals, as an MLflow run names them; what is undefined is left out."""
        found: dict[str, float] = {}
        for rival, each in self.scores.items():
            found |= named_for_test(rival, {name: estimate.value for name, estimate in each.metrics().items()})
        return found

    @property
    def warnings(self) -> list[str]:
        """What a user must know of the figures."""
        if not self.scores:
            return ["no test event: the figures above are of validation, which chose the checkpoint"]
        judged = self.scores["model"].metrics()
        return [f"{key} is undefined: {each.reason}" for key, each in judged.items() if each.value is None]


def finish(trained: TrainedTwin, conditions: Conditions) -> TrainingResult:
    """Calibrate the best twin, fit its linear rival, and judge both; the test events are looked at this once."""
    review = trained.review()
    baseline = trained.learner.baseline(trained.twin, trained.batches)
    figures = review.results.figures()
    scores = trained.learner.test_scores(trained.twin, baseline, threshold=trained.config.threshold)
    return TrainingResult(
        describe(trained, conditions, figures, baseline, scores, review=review), baseline, figures, scores
    )


def describe(
    trained: TrainedTwin,
    conditions: Conditions,
    figures: Mapping[str, float],
    baseline: Baseline,
    scores: Mapping[str, Scores],
    *,
    review: Review | None = None,
) -> ModelBundle:
    """What can be registered: the twin with all that is known of it."""
    config, training_set = trained.config, trained.learner.training_set
    begins, times = training_set.windows["gps_start"], training_set.open_spectrograms().times
    length = float(times[training_set.settings.size - 1] - times[0])
    notes = {
        "run_name": conditions.run_name,
        "dataset_name": training_set.spectrograms.name,
        "gps": [float(begins.min()), float(begins.max()) + length],
        "test": {
            rival: {name: estimate.to_dict() for name, estimate in found.metrics().items()}
            for rival, found in scores.items()
        },
        "epochs": conditions.epochs,
        "config": config.model_dump(mode="json"),
        "random_seed": conditions.random_seed,
        "events": {name: len(training_set.split.part(name)) for name in PARTS},
        **gate_notes(training_set),
        "threshold": config.threshold,
        **_reviewed(review, conditions.classes),
        "baseline": {"representation": baseline.representation, "ridge": baseline.ridge},
        **veto_notes(trained, {} if review is None else review.ranks),
    }
    metrics = {f"validation_{key}": value for key, value in figures.items()}
    return trained.learner.bundle(trained.twin, baseline, metrics, notes)


def _reviewed(review: Review | None, classes: Mapping[str, str]) -> dict[str, Any]:
    """What later events are compared with: gains of witnesses, and what is left of glitches."""
    found: dict[str, Any] = {}
    if review is not None and review.gains is not None:
        found[NOTE] = review.gains.to_dict()
    if review is not None and review.left is not None:
        found[RESIDUAL] = review.left.reference(classes).to_dict()
    return found


def make_gate(trained: TrainedTwin, challenger: ModelBundle, settings: GateSettings) -> Gate:
    """What decides about a new version, on events that chose nothing."""
    learner, threshold = trained.learner, trained.config.threshold
    losses = learner.event_losses
    return Gate(learner.training_set, learner.events, losses, challenger, settings, trained.device, threshold)


def pictures(
    trained: TrainedTwin,
    scores: Mapping[str, Scores],
    *,
    axis: FrequencyAxis = "log",
    classes: Mapping[str, str] | None = None,
) -> dict[str, Picture]:
    """Figures by which a person chooses a twin, by name: examples, and the curves of its scores where there are any."""
    part, threshold = "test" if scores else "validation", trained.config.threshold
    examples = trained.learner.examples(
        lambda witnesses: trained.twin(witnesses.to(trained.device)),
        trained.learner.dataset(part),
        title=f"{part} events",
        threshold=threshold,
        axis=axis,
        classes=classes,
    )
    curves = score_figures(scores, threshold)
    return {"examples": examples, **{name: curves[name] for name in ("roc", "accuracy") if name in curves}}


def network_settings(model: Mapping[str, Any], num_witnesses: int) -> dict[str, Any]:
    """Name and settings of a network with its own defaults filled in; what the data decide is left out."""
    own = {key: value for key, value in model.items() if key != "name"}
    complete = full_settings(model["name"], in_channels=num_witnesses, **own)
    return {"name": model["name"], **{key: value for key, value in complete.items() if key != "window_size"}}


def parameters(
    training_set: TrainingSet, model: Mapping[str, Any], witnesses: Sequence[str], epochs: int
) -> dict[str, object]:
    """What a tracker shows of a training beside `training.config`."""
    network, counts = network_settings(model, len(witnesses)), training_set.counts()
    return {
        **{f"model_{key}": value for key, value in network.items()},
        **{f"windows_{name}_{kind}": counts[name][kind] for name in PARTS for kind in ("glitch", "background")},
        "witnesses": ", ".join(witnesses),
        "epochs": epochs,
    }


def summarize(
    result: TrainingResult, training_set: TrainingSet, outcome: Outcome, *, started: str, checkpoint: Path
) -> RunSummary:
    """The run summary of a training.

    Args:
        result: What it has made.
        training_set: What it was made from.
        outcome: What became of it in the registry.
        started: When, ISO 8601, UTC.
        checkpoint: Where the network is as well.
    """
    version = outcome.version
    outputs = {"checkpoint": str(checkpoint)}
    if version is not None:
        outputs["registered model"] = f"{version.name} version {version.version} at {version.tracking_uri}"
        if version.promoted is not None:
            outputs["champion"] = f"{'yes' if version.promoted else 'no'}: {version.reason}"
        if version.promoted is False:
            outputs["to use it all the same"] = (
                f"inference.model.version={version.version}, or glitchflow models promote {version.name} "
                f"{version.version}"
            )
    bundle = result.bundle
    settings = network_settings(bundle.model, len(bundle.witnesses))
    return RunSummary(
        pipeline="training_pipeline/Trainer",
        started=started,
        inputs={
            "training set": str(training_set.folder),
            "spectrograms": str(training_set.spectrograms),
            "witnesses": ", ".join(bundle.witnesses),
            "model": ", ".join(f"{key} {value}" for key, value in settings.items()),
        },
        events=EventCounts.from_reasons(len(set(training_set.windows["event_id"])), training_set.unused_events()),
        metrics=result.metrics,
        outputs=outputs,
        warnings=(*result.warnings, *([outcome.trouble] if outcome.trouble else [])),
        details={"test": {key: found.to_dict() for key, found in result.scores.items()}},
    )
