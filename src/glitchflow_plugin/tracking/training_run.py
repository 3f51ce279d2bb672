"""The MLflow run of a training: one curve and one status, however often the training is interrupted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from glitchflow_plugin.data.files import read_json, write_json
from glitchflow_plugin.tracking.itwinai_tracker import BufferedMLFlowLogger
from glitchflow_plugin.tracking.runs import Unsent

#: Beside the checkpoints: which run it is, and what that lacks.
_NOTE = "mlflow_run.json"


def note_run(
    mlflow: BufferedMLFlowLogger | None, checkpoints: Path, run_id: str | None, status: str = "KILLED"
) -> None:
    """Write down which run a training has, and what that lacks, for whoever trains here next.

    Args:
        mlflow: Its logger; None: it has none.
        checkpoints: Folder of its checkpoints.
        run_id: The run; None: there is none.
        status: What it gets if nobody resumes it.
    """
    if mlflow is not None and run_id:
        known = {"tracking_uri": mlflow.tracking_uri, "run_id": run_id, "status": status}
        write_json(checkpoints / _NOTE, {**known, "unsent": [asdict(item) for item in mlflow.lacking]})


def resume_or_close_run(mlflow: BufferedMLFlowLogger | None, checkpoints: Path, *, resume: bool) -> None:
    """Continue the noted run with the next context; one that is not resumed has been killed, or what its note says."""
    path = checkpoints / _NOTE
    if mlflow is None or not path.exists():
        return
    before = read_json(path)
    if not isinstance(before, dict) or before.get("tracking_uri") != mlflow.tracking_uri:
        return
    run_id, kept = str(before.get("run_id")), [Unsent(**item) for item in before.get("unsent", ())]
    if resume:
        mlflow.resume_run(run_id, kept)
    else:
        mlflow.close_abandoned_run(run_id, kept, before.get("status", "KILLED"))


@contextmanager
def last_status(mlflow: BufferedMLFlowLogger | None, run_id: str | None) -> Iterator[None]:
    """Give a run its status when all is over: what fails after the last epoch fails the run."""
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        if mlflow is not None and run_id:
            mlflow.end_as(run_id, status)
