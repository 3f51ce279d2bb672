"""What a run has recorded, and what is missing of it: a server can take a number and lose it."""

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunInfo
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from glitchflow_plugin.tracking.connection import nonsense, registry
from glitchflow_plugin.tracking.processes import is_gone, this_process

logger = logging.getLogger(__name__)

#: Tag of a run: the process that writes to it. MLflow's pages do not show tags that begin so.
_PROCESS = "mlflow.glitchflow.process"
_ENDED = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class Unsent:
    """One thing that MLflow has not taken yet; `kind` is metric, param or text."""

    kind: str
    name: str
    value: float | str
    step: int = 0


def missing(client: MlflowClient, run_id: str, items: Sequence[Unsent]) -> list[Unsent]:
    """What a run does not hold. That a server answered "taken" proves nothing: it is read back.

    Raises:
        RegistryError: What answers is no MLflow.
        MlflowException: MLflow refused.
    """
    run = client.get_run(run_id)
    if run.info.run_id != run_id:
        raise nonsense(client.tracking_uri, f"the run {run_id}")
    metrics = {item.name for item in items if item.kind == "metric"}
    points = {
        (name, point.step, float(point.value)) for name in metrics for point in client.get_metric_history(run_id, name)
    }
    folders = {_folder(item.name) for item in items if item.kind == "text"}
    files = {file.path for folder in folders for file in client.list_artifacts(run_id, folder or None)}

    def there(item: Unsent) -> bool:
        if item.kind == "metric":
            value = float(item.value)
            # MLflow keeps another number for an infinite one
            return (item.name, item.step, value) in points or not math.isfinite(value)
        return item.name in (run.data.params if item.kind == "param" else files)

    return [item for item in items if not there(item)]


def send(client: MlflowClient, run_id: str, items: Iterable[Unsent]) -> None:
    """Record things; what MLflow will never take is reported and left out.

    Raises:
        MlflowException: MLflow refused.
    """
    for item in items:
        try:
            if item.kind == "metric":
                client.log_metric(run_id, item.name, float(item.value), step=item.step)
            elif item.kind == "param":
                client.log_param(run_id, item.name, item.value)
            else:
                client.log_text(run_id, str(item.value), item.name)
        except MlflowException as error:
            if not hopeless(error):
                raise
            logger.warning("MLflow does not take %s %s: %s", item.kind, item.name, str(error)[:200])


def hopeless(error: Exception) -> bool:
    """Whether MLflow refuses this value and would refuse it again."""
    return getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"


def complete(client: MlflowClient, run_id: str, items: Sequence[Unsent]) -> list[Unsent]:
    """Record what a run does not hold yet.

    Returns:
        What it does not hold even so.

    Raises:
        RegistryError: What answers is no MLflow.
        MlflowException: MLflow refused.
    """
    lost = missing(client, run_id, items)
    if not lost:
        return []
    send(client, run_id, lost)
    return missing(client, run_id, lost)


def mark(client: MlflowClient, run_id: str, status: str) -> None:
    """Give a run the status `FINISHED`, `FAILED` or `KILLED`; a run that is deleted is left as it is.

    Raises:
        MlflowException: MLflow refused.
    """
    if status in _ENDED and can_go_on(client, run_id):
        client.set_terminated(run_id, status)


def sign(client: MlflowClient, run_id: str) -> None:
    """Note with a run that this process writes to it.

    Raises:
        MlflowException: MLflow refused.
    """
    client.set_tag(run_id, _PROCESS, json.dumps(this_process()))


def add_part(
    client: MlflowClient,
    whole: RunInfo,
    name: str,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    *,
    status: str,
) -> None:
    """Record a part of a run, which has ended, as a run below it.

    Raises:
        MlflowException: MLflow refused.
    """
    tags = {MLFLOW_PARENT_RUN_ID: whole.run_id}
    _ended_run(client, whole.experiment_id, name, params, metrics, tags=tags, status=status)


def record_run(client: MlflowClient, experiment_id: str, name: str, content: Mapping[str, Any]) -> str:
    """Make the run of a training that could not log, with what the description of its model tells.

    Args:
        client: Client of the registry.
        experiment_id: Where the run goes.
        name: Name of the run.
        content: Description of the model, as `ModelBundle.to_dict` gives it.

    Returns:
        The id of the run, which has ended.

    Raises:
        MlflowException: MLflow refused.
    """
    notes = content.get("notes", {})
    figures = {key: value for key, value in (content.get("metrics") or {}).items() if value is not None}
    for rival, found in (notes.get("test") or {}).items():
        judged = named_for_test(rival, {metric: estimate.get("value") for metric, estimate in found.items()})
        figures.update(judged)
    params = {f"model_{key}": value for key, value in (content.get("model") or {}).items()}
    params |= {key: notes[key] for key in ("epochs", "random_seed") if key in notes}
    params["witnesses"] = ", ".join(content.get("witnesses", ()))
    data, digest = notes.get("dataset_name"), content.get("dataset")
    made_of = [data_of(data, digest)] if data and digest else []
    return _ended_run(client, experiment_id, name, params, figures, data=made_of)


def _ended_run(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    *,
    tags: Mapping[str, str] | None = None,
    data: Sequence[DatasetInput] = (),
    status: str = "FINISHED",
) -> str:
    """Write down a run that has ended, and return its id."""
    run_id = client.create_run(experiment_id, run_name=name, tags=dict(tags or {})).info.run_id
    now = int(1000 * time.time())
    client.log_batch(
        run_id,
        [Metric(key, float(value), now, 0) for key, value in metrics.items()],
        [Param(key, str(value)) for key, value in params.items()],
    )
    if data:
        client.log_inputs(run_id, datasets=list(data))
    client.set_terminated(run_id, status)
    return run_id


def named_for_test(rival: str, values: Mapping[str, float | None]) -> dict[str, float]:
    """Figures of the test events as a run names them; what is undefined is left out."""
    start = "test_" if rival == "model" else f"test_{rival}_"
    return {f"{start}{metric}": value for metric, value in values.items() if value is not None}


def data_of(name: str, digest: str) -> DatasetInput:
    """A data set, as MLflow's table of runs shows it."""
    return DatasetInput(Dataset(name=name, digest=digest[:12], source_type="local", source=name))


def close_abandoned(client: MlflowClient) -> list[str]:
    """Mark runs as killed that count as running, and whose process on this machine is gone: killed, it could not.

    Returns:
        Their names.

    Raises:
        MlflowException: MLflow refused.
    """
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = client.search_runs(experiments, "attributes.status = 'RUNNING'") if experiments else []
    closed = []
    for run in running:
        try:
            process = json.loads(run.data.tags.get(_PROCESS, "null"))
        except ValueError:
            continue
        if is_gone(process):
            try:
                client.set_terminated(run.info.run_id, "KILLED")
            except MlflowException as error:  # a registry that can only be read can be read
                logger.info("the MLflow run %s is not marked as killed: %s", run.info.run_id, str(error)[:200])
                continue
            closed.append(run.info.run_name or run.info.run_id)
    if closed:
        logger.warning("marked as killed, since their processes are gone: the MLflow runs %s", ", ".join(closed))
    return closed


def tidy(tracking_uri: str) -> list[str]:
    """`close_abandoned`, for a registry that is there.

    Raises:
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    with registry(tracking_uri, must_exist=True):
        return close_abandoned(MlflowClient(tracking_uri, tracking_uri))


def still_running(client: MlflowClient, run_id: str) -> bool:
    """Whether a run counts as running.

    Raises:
        MlflowException: MLflow refused.
    """
    run = client.get_run(run_id)
    return (run.info.run_id, run.info.status, run.info.lifecycle_stage) == (run_id, "RUNNING", "active")


def can_go_on(client: MlflowClient, run_id: str) -> bool:
    """Whether a run is there to be continued."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return run.info.run_id == run_id and run.info.lifecycle_stage == "active"


def _folder(name: str) -> str:
    folder = PurePosixPath(name).parent.as_posix()
    return "" if folder == "." else folder
