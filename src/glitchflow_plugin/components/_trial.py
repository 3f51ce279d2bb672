"""One trial of a search: a training whose network is judged on validation windows and then forgotten."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.data.files import write_json
from glitchflow_plugin.training.objectives import Objectives, ObjectiveSettings, objectives


class TrialTrainer(Trainer):
    """A Trainer that registers nothing and never looks at a test event: its result are the figures of validation.

    Args:
        objective: Gives the deadtime.
        keywords: As for Trainer.
    """

    def __init__(self, *, objective: ObjectiveSettings, **keywords: Any) -> None:
        super().__init__(registry=None, strategy=None, pictures_every=0, disable_tqdm=True, **keywords)
        self.objective = objective

    def _finish(self, *_: Any) -> Objectives:  # type: ignore[override]  # pyright: ignore
        judged: Any = self.learner.judge(
            self.twin,
            self._batches("validation"),
            self.twin,
            device=self.device_for_judging,
            threshold=self.config.threshold,
        )
        return objectives(judged.statistics, self.objective)


def run_trial(job: dict[str, Any], number: int) -> dict[str, Any]:
    """Train with the settings of a trial and write what came of it, good or bad.

    A trial that was cut off goes on from its last checkpoint. None is left of one that is finished.

    Args:
        job: `cwd`, `folder`, `threads`, `trainer` (keywords of Trainer), `objective` and `trials` (settings by number).
        number: Which trial.

    Returns:
        The record that is in its file: settings, figures, number of parameters, seconds.

    Raises:
        Exception: What the training raised, after it was recorded.
    """
    os.chdir(job["cwd"])
    torch.set_num_threads(job["threads"])
    settings, started = job["trials"][number], time.monotonic()
    folder = trial_folder(Path(job["folder"]), number)
    record: dict[str, Any] = {"number": number, "settings": settings}
    try:
        trainer, figures = _trained(job, settings, folder / "checkpoints")
    except Exception as error:
        write_json(folder / "result.json", record | {"error": f"{type(error).__name__}: {error}"})
        raise
    assert trainer.model is not None  # noqa: S101
    record |= {
        "figures": vars(figures),
        "parameters": sum(weights.numel() for weights in trainer.model.parameters()),
        "seconds": time.monotonic() - started,
    }
    write_json(folder / "result.json", record)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return record


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial keeps its files."""
    return folder / "trials" / f"{number:04d}"


def _trained(job: dict[str, Any], settings: dict[str, Any], checkpoints: Path) -> tuple[TrialTrainer, Objectives]:
    fixed = job["trainer"]
    keywords = fixed | {part: {**(fixed.get(part) or {}), **changes} for part, changes in settings.items()}
    trainer = TrialTrainer(
        objective=ObjectiveSettings(**job["objective"]),
        checkpoints=str(checkpoints),
        resume=True,
        checkpoint_every=1,
        **keywords,
    )
    found: Any = trainer.execute()
    return trainer, found
