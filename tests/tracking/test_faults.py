"""A real server that is down, stalls or cannot store: nothing that was trained or measured is lost."""

import signal
from dataclasses import asdict

import pytest
import torch
from mlflow import MlflowClient

from glitchflow_plugin.errors import ConnectionFailedError, FormatError, RegistryError
from glitchflow_plugin.tracking.itwinai_tracker import ItwinaiTracker, make_loggers, unsent
from glitchflow_plugin.tracking.outbox import Destination, keep, upload, waiting
from glitchflow_plugin.tracking.registry import load, promote_if_better, register
from glitchflow_plugin.tracking.versions import find

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "6")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


class Passes:
    promoted, reason, figures = True, "because", {"validation_loss": 1.0}


def judge(*_):
    return Passes()


def test_a_server_does_what_a_database_does(server, make_bundle):
    bundle = make_bundle()
    windows = torch.rand(3, 2, 16, 16) * 100
    expected = bundle.twin(windows)
    version = promote_if_better(register(bundle, "served", server.uri), bundle, judge)
    assert (version.version, version.promoted) == (1, True)
    back = load("served", "champion", server.uri)
    torch.testing.assert_close(back.twin(windows), expected)
    assert back.baseline is not None
    second = promote_if_better(register(make_bundle(2.0), "served", server.uri), make_bundle(2.0), judge)
    assert (second.version, find("served", "champion", server.uri).version) == (2, 2)
    # the server's own files are changed behind its back
    for program in server.artifacts.rglob("model.pt2"):
        program.write_bytes(program.read_bytes() + b"x")
    with pytest.raises(FormatError, match=r"model\.pt2 has been changed"):
        load("served", 1, server.uri)


def test_numbers_of_a_training_wait_while_the_server_is_away(server, tmp_path):
    loggers = make_loggers(server.uri, "away", None, tmp_path, system_metrics=False)
    patient = loggers.loggers[0]
    run_id = loggers.create_logger_context(rank=0) or patient.active_run.info.run_id
    tracker = ItwinaiTracker(loggers)
    tracker.metric("loss", 3.0, 0)
    server.signal(signal.SIGSTOP)
    tracker.metric("loss", 2.0, 1)
    # while it stalls it is not asked again at each number
    for step in range(2, 50):
        tracker.metric("loss", 2.0 / step, step)
    tracker.params({"late": "yes"})
    assert len(unsent(loggers)) == 50
    server.signal(signal.SIGCONT)
    server.kill()
    patient._wait_until = 0.0
    tracker.text("note.txt", "written while it was down")
    assert len(unsent(loggers)) == 51
    server.start()
    patient._wait_until = 0.0
    tracker.metric("loss", 0.01, 50)
    assert unsent(loggers) == []
    loggers.destroy_logger_context()
    client = MlflowClient(server.uri)
    assert [point.value for point in client.get_metric_history(run_id, "loss")][:2] == [3.0, 2.0]
    assert len(client.get_metric_history(run_id, "loss")) == 51
    assert client.get_run(run_id).data.params["late"] == "yes"
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_trained_twin_waits_until_the_server_is_back(server, make_bundle, tmp_path):
    loggers = make_loggers(server.uri, "trained", None, tmp_path, system_metrics=False)
    loggers.create_logger_context(rank=0)
    run_id = loggers.loggers[0].active_run.info.run_id
    tracker = ItwinaiTracker(loggers)
    tracker.metric("loss", 1.0, 0)
    server.kill()
    tracker.metric("loss", 0.5, 1)
    loggers.destroy_logger_context()  # no error, no hang
    bundle = make_bundle(0.7)
    there = Destination(server.uri, "waited", "trained", "unused")
    first = {"promoted": True, "reason": "the first one, and harmless", "figures": {"validation_loss": 0.5}}
    entry = keep(
        tmp_path / "outbox",
        bundle,
        there,
        run_id=run_id,
        unsent=[asdict(item) for item in unsent(loggers)],
        first=first,
    )
    with pytest.raises(ConnectionFailedError):
        upload(entry)
    server.start()
    # its disk is full: the database answers, files are refused
    server.artifacts.mkdir(exist_ok=True)
    kept = server.artifacts.rename(server.folder / "elsewhere")
    server.artifacts.write_text("no folder")
    # a server that refuses a file answers with an error, or hangs up while the file is still being sent
    with pytest.raises((RegistryError, ConnectionFailedError)):
        upload(entry)
    assert [one.id for one in waiting(tmp_path / "outbox")] == [entry.id]
    server.artifacts.unlink()
    kept.rename(server.artifacts)
    version = upload(entry)
    assert waiting(tmp_path / "outbox") == []
    assert (version.version, version.promoted, version.run_id) == (1, True, run_id)
    windows = torch.rand(3, 2, 16, 16) * 100
    torch.testing.assert_close(load("waited", "champion", server.uri).twin(windows), bundle.twin(windows))
    client = MlflowClient(server.uri)
    assert [point.value for point in client.get_metric_history(run_id, "loss")] == [1.0, 0.5]
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_server_that_stalls_is_given_up(server, make_bundle, tmp_path, monkeypatch):
    entry = keep(tmp_path / "outbox", make_bundle(), Destination(server.uri, "stalled", "trained", "unused"))
    server.signal(signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
            with pytest.raises(ConnectionFailedError):
                upload(entry)
    finally:
        server.signal(signal.SIGCONT)
    assert upload(entry).version == 1
