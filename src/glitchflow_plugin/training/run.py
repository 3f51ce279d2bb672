"""What follows the last epoch: the best network is calibrated, judged beside its rivals, and described.

Nothing here knows who registers it, or where figures are logged: that is for whoever calls.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from glitchflow_plugin.data.files import read_json
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.inference.figures import score_figures
from glitchflow_plugin.inference.score import Scores
from glitchflow_plugin.models.build import full_settings
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.plots.maps import FrequencyAxis
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary
from glitchflow_plugin.tracking.runs import named_for_test
from glitchflow_plugin.training.baseline import Baseline
from glitchflow_plugin.training.checkpoints import BEST, EARLIER, LAST, ORIGIN, drop_earlier, read_checkpoint, run_of
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.judged_events import gate_notes
from glitchflow_plugin.training.learner import Learner
from glitchflow_plugin.training.registration import Outcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conditions:
    """How a network was trained and is judged; kept with it."""

    run_name: str | None
    epochs: int
    random_seed: int | None
    config: TrainingConfiguration


@dataclass(frozen=True, eq=False)
class Trained:
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


def part_batches(learner: Learner, batch_size: int, part: str) -> "DataLoader[tuple[Tensor, Tensor]]":
    """Windows of a part in the order of the index."""
    return DataLoader(learner.dataset(part), batch_size=batch_size)  # type: ignore[arg-type]


def read_best(root: Path, runs: Collection[str]) -> dict[str, Any]:
    """The checkpoint that was best on validation.

    Args:
        root: Folder of the checkpoints.
        runs: Ids of the runs whose network may be taken: this one, and the one that it goes on from.

    Raises:
        DataError: There is none, or another run has written there meanwhile.
    """
    best = root / BEST
    if best.exists() and run_of(best) in runs:
        return read_checkpoint(best)
    if not best.exists() or run_of(best) == run_of(root / EARLIER / BEST):
        raise DataError("training left no checkpoint: epochs must be at least 1.")
    raise DataError(
        f"{best} is of another run, which has written to {root} at the same time: what this run has trained is lost, "
        "and nothing is registered. Train again with a run_name of its own."
    )


def settle_earlier(root: Path, origin: Mapping[str, str], loss: float) -> None:
    """Remove the training before this one, unless its best network is the better one by the same validation.

    Args:
        root: Folder of the checkpoints.
        origin: What was trained on, as `Learner.origin` gives it: other data make other losses.
        loss: Best validation loss of this training.
    """
    earlier = root / EARLIER / BEST
    note = earlier / f"{ORIGIN}.json"
    if note.exists() and read_json(note) == origin:
        before = float(read_checkpoint(earlier)["state"]["best_validation_metric"])
        if before < loss:
            logger.warning(
                "the earlier training in %s was better (validation loss %.4g, this one %.4g) and stays there; to go "
                "back to it: training.from_checkpoint=%s",
                root / EARLIER,
                before,
                loss,
                root / EARLIER / LAST,
            )
            return
    drop_earlier(root)


def finish(learner: Learner, twin: nn.Module, conditions: Conditions, device: torch.device) -> Trained:
    """Calibrate the best twin, fit its linear rival, and judge both; the test events are looked at this once.

    Args:
        learner: What the twin learned with.
        twin: The best one, which is calibrated in place.
        conditions: How it was trained.
        device: Where the twin is.
    """
    config = conditions.config
    batches, threshold = partial(part_batches, learner, config.batch_size), config.threshold
    learner.calibrate(twin, batches)
    baseline = learner.baseline(twin, batches)
    figures = learner.judge(twin, batches("validation"), twin, device=device, threshold=threshold).figures()
    scores = learner.test_scores(twin, baseline, threshold=threshold)
    bundle = describe(learner, twin, conditions, figures, baseline, scores=scores)
    return Trained(bundle, baseline, figures, scores)


def describe(
    learner: Learner,
    twin: nn.Module,
    conditions: Conditions,
    figures: Mapping[str, float],
    baseline: Baseline,
    *,
    scores: Mapping[str, Scores],
) -> ModelBundle:
    """What is registered: the twin with all that is known of it; arguments as in `Trained` and `finish`."""
    training_set = learner.training_set
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
        "config": conditions.config.model_dump(mode="json"),
        "random_seed": conditions.random_seed,
        "events": {name: len(training_set.split.part(name)) for name in PARTS},
        **gate_notes(training_set),
        "threshold": conditions.config.threshold,
        "baseline": {"representation": baseline.representation, "ridge": baseline.ridge},
    }
    metrics = {f"validation_{key}": value for key, value in figures.items()}
    return learner.bundle(twin, baseline, metrics, notes)


def pictures(
    learner: Learner,
    trained: Trained,
    *,
    threshold: float,
    device: torch.device,
    axis: FrequencyAxis = "log",
    classes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Figures by which a person chooses a twin, by name: examples, and the curves of its scores where there are any."""
    part = "test" if trained.scores else "validation"
    examples = learner.examples(
        lambda witnesses: trained.bundle.twin(witnesses.to(device)),
        learner.dataset(part),
        title=f"{part} events",
        threshold=threshold,
        axis=axis,
        classes=classes,
    )
    curves = score_figures(trained.scores, threshold)
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
    trained: Trained, training_set: TrainingSet, outcome: Outcome, *, started: str, checkpoint: Path
) -> RunSummary:
    """The run summary of a training.

    Args:
        trained: What it has made.
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
    bundle = trained.bundle
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
        metrics=trained.metrics,
        outputs=outputs,
        warnings=(*trained.warnings, *([outcome.trouble] if outcome.trouble else [])),
        details={"test": {key: found.to_dict() for key, found in trained.scores.items()}},
    )
