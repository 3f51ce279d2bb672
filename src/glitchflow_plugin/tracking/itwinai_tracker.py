"""Loggers of itwinai, put right where 0.4.2 needs it, and as a `Tracker`."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from itwinai.loggers import Logger, LoggersCollection, MLFlowLogger, TensorBoardLogger

logger = logging.getLogger(__name__)


class RunTensorBoardLogger(TensorBoardLogger):
    """TensorBoard logger that writes where it is told and into one run.

    itwinai appends `tensorboard/` to the folder and writes the settings as a second run without metrics; here they are
    a table in the first one.

    Args:
        savedir: Folder of this run.
    """

    def __init__(self, savedir: Path | str) -> None:
        super().__init__(savedir=savedir)
        self.savedir = Path(savedir)

    def save_hyperparameters(self, params: dict[str, Any]) -> None:
        """Write the settings as a table."""
        if not self.should_log():
            return
        rows = "\n".join(f"| {name} | {value} |" for name, value in params.items())
        self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")


def make_loggers(
    tracking_uri: str | None, experiment: str, tensorboard: Path | str | None, scratch: Path | str
) -> LoggersCollection | None:
    """Loggers of itwinai for MLflow and TensorBoard.

    Args:
        tracking_uri: Of MLflow; None for none. Always given on: without one, itwinai 0.4.2 falls back to a folder that
            MLflow 3 refuses.
        experiment: MLflow experiment.
        tensorboard: Folder for TensorBoard; None for none.
        scratch: Folder for what the loggers write before they send it.

    Returns:
        Both in one, or None if there is neither.
    """
    loggers: list[Logger] = []
    if tracking_uri is not None:
        loggers.append(MLFlowLogger(savedir=scratch, experiment_name=experiment, tracking_uri=tracking_uri))
    if tensorboard is not None:
        loggers.append(RunTensorBoardLogger(tensorboard))
    return LoggersCollection(loggers) if loggers else None


class ItwinaiTracker:
    """A `Tracker` over itwinai's loggers.

    Args:
        loggers: A logger, a collection, or None for none. It must have been opened (`create_logger_context`).
    """

    def __init__(self, loggers: Logger | None) -> None:
        self.loggers = loggers

    def metric(self, name: str, value: float, step: int) -> None:
        """Record one number."""
        for each in self._leaves():
            each.log(item=float(value), identifier=name, kind="metric", step=step)

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Record one figure; MLflow knows no steps for figures, so the step goes into its file name."""
        for each in self._leaves():
            identifier = f"{name}/{step:04d}.png" if isinstance(each, MLFlowLogger) else name
            each.log(item=figure, identifier=identifier, kind="figure", step=step)

    def params(self, values: dict[str, Any]) -> None:
        """Record the settings of the run."""
        for each in self._leaves():
            each.save_hyperparameters(values)

    def text(self, name: str, text: str) -> None:
        """Record one text."""
        for each in self._leaves():
            identifier = f"{name}.txt" if isinstance(each, MLFlowLogger) and "." not in name else name
            each.log(item=text, identifier=identifier, kind="text")

    def _leaves(self) -> Iterable[Logger]:
        if self.loggers is None:
            return []
        return self.loggers.loggers if isinstance(self.loggers, LoggersCollection) else [self.loggers]
