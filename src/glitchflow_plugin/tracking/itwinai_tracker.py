"""Loggers of itwinai, put right where 0.4.2 needs it, and as a `Tracker`."""

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from itwinai.loggers import Logger, LoggersCollection, MLFlowLogger, Prov4MLLogger, TensorBoardLogger
from mlflow import MlflowClient

from glitchflow_plugin.errors import MissingDependencyError
from glitchflow_plugin.tracking.connection import (
    ensure_experiment,
    environment,
    guarded,
    is_server,
    nonsense,
    patience,
    quick,
)
from glitchflow_plugin.tracking.runs import (
    Unsent,
    add_part,
    can_go_on,
    complete,
    data_of,
    hopeless,
    mark,
    sign,
    still_running,
)
from glitchflow_plugin.tracking.tensorboard import add_png
from glitchflow_plugin.tracking.versions import PICTURES

logger = logging.getLogger(__name__)

#: Pause after a failure, s; doubled up to the second while failures go on.
_PAUSES = 30.0, 600.0
#: Kinds that are sent later. Pictures are not: TensorBoard has them.
_KEPT = ("metric", "param", "text")
#: Largest width of a picture on a page, pixels, and pixels per inch.
_PAGE_WIDTH, _PAGE_DPI = 760, 85
#: An answer that took longer counts as waiting, s.
_SLOW = 5.0


class BufferedMLFlowLogger(MLFlowLogger):
    """MLflow logger that a server which is down, slow or full cannot stop: what it refuses is kept and sent later.

    After a failure nothing is tried for a while, so that a server that stalls does not slow the training down. At the
    end what a server says to have taken is read back, and sent again if it is not there. What is left is in `unsent`.

    Args:
        system_metrics: Let MLflow record processor, memory, disk, network and GPU during the run.
        keywords: As for MLFlowLogger.
    """

    def __init__(self, *, system_metrics: bool = True, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.system_metrics = system_metrics
        self.unsent: list[Unsent] = []
        #: What was sent, and not read back at the end.
        self.unproven: list[Unsent] = []
        self._sent: list[Unsent] = []
        self.lenient = False
        #: Status of MLflow that the run gets at its end.
        self.ends_as = "FINISHED"
        self._offline = False
        self._warned = False
        self._pause, self._wait_until = _PAUSES[0], 0.0

    @property
    def lacking(self) -> list[Unsent]:
        """What the server has not taken, or not shown to have."""
        return [*self.unproven, *self.unsent]

    def create_logger_context(self, rank: int = 0, **keywords: Any) -> Any:
        """Open the run. Once `lenient` is set, a server that is not there is no error: all is kept."""
        begun = keywords.pop("parent_run_id", None) or None
        if begun is not None:
            keywords.update(run_id=begun, run_name=None)
        # what is opened once more, for the last figures, has had its machine watched
        wanted = "true" if self.system_metrics and (begun or keywords.get("run_id") is None) else "false"
        try:
            with quick(), environment({"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": wanted}, keep=False):
                opened = super().create_logger_context(rank=rank, **keywords)
                if self.should_log():
                    run = self.active_run.info
                    if not (run.run_id and run.artifact_uri):
                        raise nonsense(str(self.tracking_uri), "a new run")
                    sign(self._client, run.run_id)
                    if is_server(str(self.tracking_uri)):
                        # MLflow asks once where texts go, and believes any answer: ask while the server is well
                        self._client._tracking_client._get_artifact_repo(run.run_id)
            return opened
        except Exception as error:
            if not self.lenient:
                raise
            self._failed(error)
            self._offline, self.is_initialized = True, True
            return None

    def log(
        self,
        item: Any,
        identifier: Any,
        kind: str = "metric",
        step: int | None = None,
        batch_idx: int | None = None,
        **keywords: Any,
    ) -> None:
        """Log now, or keep it for later."""
        if not self.should_log(batch_idx=batch_idx):
            return
        # from now on there is work to lose
        self.lenient = True
        kept = Unsent(kind, str(identifier), item if kind == "metric" else str(item), step or 0)
        if not self._waits() and self._flush():
            began = time.monotonic()
            try:
                with quick():
                    super().log(item, identifier, kind, step, batch_idx, **keywords)
            except Exception as error:
                if hopeless(error):
                    logger.warning("MLflow does not take %s %s: %s", kind, identifier, _short(error))
                    return
                self._failed(error)
            else:
                took = time.monotonic() - began
                patience.spend(took if took > _SLOW else 0)
                if kind in _KEPT:
                    self._sent.append(kept)
                return
        if kind in _KEPT:
            self.unsent.append(kept)

    def try_again(self) -> None:
        """Ask a server that has failed at the next occasion, however long it was to be left alone."""
        self._wait_until = 0.0

    def destroy_logger_context(self) -> None:
        """Send what is left, read back what was sent, and end the run."""
        self.try_again()
        try:
            if not self._offline and self.should_log():
                self._flush()
                self._read_back()
                with quick():
                    # what itwinai does, which knows no other end than a good one
                    self.mlflow.end_run(self.ends_as)
                    self.is_initialized = False
        except Exception as error:
            self._failed(error)
        if self._offline:
            self.unproven = list(self._sent)
        self._offline = self.is_initialized = False

    def resume_run(self, run_id: str, kept: Sequence[Unsent] = ()) -> None:
        """Continue an earlier run, where it is still there, with the next context.

        Args:
            run_id: Id of that run.
            kept: What it could not log.
        """
        with quick():
            client = self._client
            if not can_go_on(client, run_id):
                return
            self.unsent = complete(client, run_id, kept)
            # itwinai begins a run without asking; MLflow takes the number from here
            os.environ["MLFLOW_RUN_ID"] = run_id

    def close_abandoned_run(self, run_id: str, kept: Sequence[Unsent] = (), status: str = "KILLED") -> bool:
        """Send what a run that nobody continues could not log, and mark it if it still counts as running.

        Args:
            run_id: Id of that run.
            kept: What it could not log.
            status: To be given.

        Returns:
            Whether that was done; what the server says if not does not matter.
        """
        try:
            with quick():
                client = self._client
                if can_go_on(client, run_id):
                    lost = complete(client, run_id, kept)
                    if still_running(client, run_id):
                        mark(client, run_id, status)
                        logger.info("the MLflow run %s had ended, and is marked as %s", run_id, status)
                    return not lost
        except Exception as error:
            logger.info("the MLflow run %s of an earlier training is not marked: %s", run_id, _short(error))
            return False
        return True

    def end_as(self, run_id: str, status: str) -> None:
        """Give a run that is closed its last status; a server that is away learns it later, if at all."""
        try:
            with quick():
                mark(self._client, run_id, status)
        except Exception as error:
            logger.info("the MLflow run %s is not marked as %s: %s", run_id, status, _short(error))

    def log_data(self, name: str, digest: str) -> None:
        """Note the data set of the run, where MLflow's table of runs shows it."""
        if not self.should_log() or self._waits():
            return
        try:
            with quick():
                self._client.log_inputs(self.active_run.info.run_id, datasets=[data_of(name, digest)])
        except Exception as error:
            self._failed(error)

    def log_part(self, name: str, params: Mapping[str, Any], metrics: Mapping[str, float], status: str) -> None:
        """Record a part of this run, which has ended, as a run below it."""
        if not self.should_log() or self._waits():
            return
        try:
            with quick():
                add_part(self._client, self.active_run.info, name, params, metrics, status=status)
        except Exception as error:
            self._failed(error)

    def _read_back(self) -> None:
        """Look whether the server holds what it said to have taken; what it has lost is sent once more."""
        if not is_server(str(self.tracking_uri)):
            self._sent = []
            return
        self.unproven = list(self._sent)
        if self.unsent:
            return
        with quick():
            self.unproven = complete(self._client, str(self.active_run.info.run_id), self._sent)
        self._sent = list(self.unproven)
        if self.unproven:
            logger.warning("MLflow at %s loses what it is told (%d things)", self.tracking_uri, len(self.unproven))

    @property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri, self.tracking_uri)

    def _waits(self) -> bool:
        return self._offline or time.monotonic() < self._wait_until

    def _flush(self) -> bool:
        """Whether all that was kept is sent."""
        while self.unsent:
            first = self.unsent[0]
            try:
                with quick():
                    super().log(first.value, first.name, first.kind, first.step)
            except Exception as error:
                if not hopeless(error):
                    self._failed(error)
                    return False
                logger.warning("MLflow does not take %s %s: %s", first.kind, first.name, _short(error))
            self._sent.append(self.unsent.pop(0))
        self._pause = _PAUSES[0]
        return True

    def _failed(self, error: Exception) -> None:
        if not self._warned:
            logger.warning(
                "MLflow at %s does not answer (%s). Training goes on; numbers are kept and sent later.",
                self.tracking_uri,
                _short(error),
            )
        self._warned = True
        self._wait_until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _PAUSES[1])


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


class RunProvenanceLogger(Prov4MLLogger):
    """yProv logger that describes the training and is closed for good with it.

    itwinai would begin a second document when the figures of the test events are logged.
    """

    closed = False

    def create_logger_context(self, rank: int = 0, **keywords: Any) -> None:
        """Begin the document, once."""
        if self.closed:
            self.is_initialized = True
        else:
            super().create_logger_context(rank=rank, **keywords)

    def save_hyperparameters(self, params: dict[str, Any]) -> None:
        """Record the settings as texts: W3C PROV knows no lists."""
        if not self.closed:
            super().save_hyperparameters({name: str(value) for name, value in params.items()})

    def log(self, item: Any, identifier: Any, kind: str = "metric", step: int | None = None, **keywords: Any) -> None:
        """Record one thing."""
        if not self.closed:
            super().log(item, identifier, kind, step, **keywords)

    def destroy_logger_context(self) -> None:
        """Write the document."""
        if not self.closed:
            super().destroy_logger_context()
        self.closed, self.is_initialized = True, False


def make_loggers(
    tracking_uri: str | None,
    experiment: str,
    tensorboard: Path | str | None,
    scratch: Path | str,
    *,
    system_metrics: bool = True,
    provenance: Path | str | None = None,
) -> LoggersCollection | None:
    """Loggers of itwinai for MLflow and TensorBoard.

    Args:
        tracking_uri: Address of MLflow; None for none. Always given on: without one, itwinai 0.4.2 falls back to a
            folder that MLflow 3 refuses.
        experiment: MLflow experiment.
        tensorboard: Folder for TensorBoard; None for none.
        scratch: Folder for what the loggers write before they send it.
        system_metrics: Whether MLflow records what the machine does.
        provenance: Folder for the W3C PROV documents of itwinai's yProv logger; None for none.

    Returns:
        All in one, or None if there is none.

    Raises:
        MissingDependencyError: Provenance is wanted, and yprov4ml is not installed.
    """
    loggers: list[Logger] = []
    if tracking_uri is not None:
        loggers.append(
            BufferedMLFlowLogger(
                savedir=scratch,
                experiment_name=experiment,
                tracking_uri=tracking_uri,
                system_metrics=system_metrics,
            )
        )
    if tensorboard is not None:
        loggers.append(RunTensorBoardLogger(tensorboard))
    if provenance is not None:
        if find_spec("yprov4ml") is None:
            message = "registry.provenance: true needs the package yprov4ml. Install it: pip install yprov4ml==2.0.9"
            raise MissingDependencyError(message)
        loggers.append(
            # a drawing of the graph needs Graphviz, which is no Python package
            RunProvenanceLogger(experiment_name=experiment, provenance_save_dir=str(provenance), create_svg=False)
        )
    return LoggersCollection(loggers) if loggers else None


@contextmanager
def search_run(mlflow: Logger | None, name: str | None) -> Iterator[str | None]:
    """A run that counts as running while its trials, the runs below it, do; failed or killed if this code is.

    Args:
        mlflow: The logger for MLflow; without one there is no run.
        name: Name of the run.

    Yields:
        Its id; whoever goes on with it gives it its last status.
    """
    if not isinstance(mlflow, BufferedMLFlowLogger):
        yield None
        return
    mlflow.create_logger_context(rank=0, run_name=name)
    run_id = str(mlflow.active_run.info.run_id)
    mlflow.ends_as = "RUNNING"
    mlflow.destroy_logger_context()
    mlflow.ends_as = "FINISHED"
    try:
        yield run_id
    except BaseException as error:
        mlflow.end_as(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


@contextmanager
def tracked_run(
    tracking_uri: str, experiment: str, artifacts: str, *, name: str, status: str, scratch: Path
) -> Iterator["ItwinaiTracker"]:
    """A run of MLflow's that tells of what has ended already.

    Args:
        tracking_uri: Address of the registry.
        experiment: Its experiment, which is made where there is none.
        artifacts: Folder for the artifacts of a new experiment.
        name: Name of the run.
        status: `FINISHED`, `FAILED` or `KILLED`.
        scratch: Folder for what is written before it is sent; gone afterwards.

    Yields:
        What the run is told with.
    """
    with guarded(tracking_uri):
        ensure_experiment(tracking_uri, experiment, artifacts)
        # what the machine does now tells nothing of what has ended
        loggers = make_loggers(tracking_uri, experiment, None, scratch, system_metrics=False)
        assert loggers is not None  # noqa: S101
        loggers.create_logger_context(rank=0, run_name=name)
        tracker = ItwinaiTracker(loggers)
        yield tracker
        tracker.end_as(status)
        loggers.destroy_logger_context()
    shutil.rmtree(scratch, ignore_errors=True)


def log_results(
    loggers: Logger | None,
    run_id: str | None,
    run_name: str | None,
    figures: Mapping[str, float],
    pictures: Mapping[str, Any],
) -> str | None:
    """Open the loggers of a training once more, for what is known at its end.

    Args:
        loggers: Closed by the training.
        run_id: Its MLflow run; None: a new one.
        run_name: Name of a new one.
        figures: Numbers by name.
        pictures: matplotlib figures by name.

    Returns:
        Id of the run; None if there is none.
    """
    if loggers is None:
        return run_id
    loggers.create_logger_context(rank=0, run_id=run_id, run_name=None if run_id else run_name)
    tracker = ItwinaiTracker(loggers)
    for name, value in figures.items():
        tracker.metric(name, value, 0)
    for name, figure in pictures.items():
        tracker.picture(name, figure)
    opened = getattr(buffered_mlflow(loggers), "active_run", None)
    loggers.destroy_logger_context()
    return run_id or (opened.info.run_id if opened is not None else None)


def buffered_mlflow(loggers: Logger | None) -> BufferedMLFlowLogger | None:
    """The logger for MLflow, where there is one."""
    return next((each for each in _leaves(loggers) if isinstance(each, BufferedMLFlowLogger)), None)


def unsent(loggers: Logger | None) -> list[Unsent]:
    """What MLflow has not taken, or not shown to have."""
    mlflow = buffered_mlflow(loggers)
    return [] if mlflow is None else mlflow.lacking


class ItwinaiTracker:
    """A `Tracker` over itwinai's loggers.

    Args:
        loggers: A logger, a collection, or None for none. It must have been opened (`create_logger_context`).
    """

    def __init__(self, loggers: Logger | None) -> None:
        self.loggers = loggers

    def metric(self, name: str, value: float, step: int) -> None:
        """Record one number."""
        for each in _leaves(self.loggers):
            each.log(item=float(value), identifier=name, kind="metric", step=step)

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Record one figure; MLflow knows no steps for figures, so the step goes into its file name."""
        self._picture(figure, f"{name}/{step:04d}.png", name, step)

    def picture(self, name: str, figure: Any) -> None:
        """Record a figure for the pages of MLflow, which show it as wide as it is.

        Its name is not that of a figure with steps: TensorBoard would show the last one of the two alone.
        """
        dpi = min(_PAGE_DPI, _PAGE_WIDTH / figure.get_figwidth())
        self._picture(figure, f"{PICTURES}/{name}.png", f"{PICTURES}/{name}", 0, dpi=dpi)

    def _picture(self, figure: Any, file: str, tag: str, step: int, **how: float) -> None:
        """Give all loggers one drawing of a figure, in MLflow as a file, elsewhere by a tag: drawing is what takes."""
        loggers = [each for each in _leaves(self.loggers) if each.should_log()]
        if not loggers:
            return
        with TemporaryDirectory() as folder:
            png = Path(folder, Path(file).name)
            figure.savefig(png, **how)
            for each in loggers:
                if isinstance(each, MLFlowLogger):
                    each.log(item=str(png), identifier=str(Path(file).parent), kind="artifact")
                elif isinstance(each, RunTensorBoardLogger):
                    add_png(each.writer, tag, png.read_bytes(), step)
                else:
                    each.log(item=figure, identifier=tag, kind="figure", step=step)

    def data(self, name: str, digest: str) -> None:
        """Record which data set the run was made from."""
        if (mlflow := buffered_mlflow(self.loggers)) is not None:
            mlflow.log_data(name, digest)

    def part(self, name: str, params: Mapping[str, Any], metrics: Mapping[str, float], status: str) -> None:
        """Record a part of the run that has ended, such as a trial of a search, where there is a place for it.

        Args:
            name: Name of the part.
            params: Its settings.
            metrics: Its figures.
            status: `FINISHED`, `FAILED` or `KILLED`.
        """
        if (mlflow := buffered_mlflow(self.loggers)) is not None:
            mlflow.log_part(name, params, metrics, status)

    def end_as(self, status: str) -> None:
        """Set the status of MLflow that the run gets at its end."""
        if (mlflow := buffered_mlflow(self.loggers)) is not None:
            mlflow.ends_as = status

    def close(self, status: str) -> None:
        """End what is open after an error; what has failed, and cannot go on, leaves its status in MLflow alone."""
        self.end_as(status)
        for each in _leaves(self.loggers):
            if each.is_initialized and (status == "KILLED" or isinstance(each, MLFlowLogger)):
                each.destroy_logger_context()

    def params(self, values: dict[str, Any]) -> None:
        """Record the settings of the run."""
        for each in _leaves(self.loggers):
            each.save_hyperparameters(values)

    def text(self, name: str, text: str) -> None:
        """Record one text."""
        for each in _leaves(self.loggers):
            identifier = f"{name}.txt" if isinstance(each, MLFlowLogger) and "." not in name else name
            each.log(item=text, identifier=identifier, kind="text")


def _leaves(loggers: Logger | None) -> Iterable[Logger]:
    if loggers is None:
        return []
    return loggers.loggers if isinstance(loggers, LoggersCollection) else [loggers]


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
