"""A real server that is down, stalls or cannot store: nothing that was trained or measured is lost."""

import os
import signal
from contextlib import suppress
from dataclasses import asdict

import pytest
import torch
from mlflow import MlflowClient

from glitchflow_plugin.errors import ConnectionFailedError, FormatError, RegistryError
from glitchflow_plugin.tracking.connection import patience, quick
from glitchflow_plugin.tracking.itwinai_tracker import ItwinaiTracker, make_loggers, unsent
from glitchflow_plugin.tracking.outbox import Destination, keep, upload, waiting
from glitchflow_plugin.tracking.registry import compare, load, register
from glitchflow_plugin.tracking.versions import find, settle

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


class Passes:
    promoted, reason, figures = True, "because", {"gate_loss": 1.0}


def judge(*_):
    return Passes()


def test_a_server_does_what_a_database_does(server, make_bundle):
    bundle = make_bundle()
    windows = torch.rand(3, 2, 16, 16) * 100
    expected = bundle.twin(windows)
    stored = register(bundle, "served", server.uri)
    version = settle(stored, compare(stored, bundle, judge), "champion")
    assert (version.version, version.promoted) == (1, True)
    back = load("served", "champion", server.uri)
    torch.testing.assert_close(back.twin(windows), expected)
    assert back.baseline is not None
    stored = register(make_bundle(2.0), "served", server.uri)
    second = settle(stored, compare(stored, make_bundle(2.0), judge), "champion")
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
    patient.try_again()
    tracker.text("note.txt", "written while it was down")
    assert len(unsent(loggers)) == 51
    server.start()
    patient.try_again()
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
    first = {"promoted": True, "reason": "the first one, and harmless", "figures": {"gate_loss": 0.5}}
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


NONSENSE = ("{}", "[]", "7", "<html>Please log in</html>", '{"run": 1}', '{"registered_model": []}', "")


@pytest.mark.parametrize("answer", NONSENSE)
def test_who_answers_as_no_mlflow_does_is_not_believed(proxy, make_bundle, tmp_path, answer):
    entry = keep(tmp_path / "outbox", make_bundle(), Destination(proxy.uri, "nonsense", "nonsense", "unused"))
    proxy.rule = lambda *_: answer
    with pytest.raises((RegistryError, ConnectionFailedError)) as met:
        upload(entry)
    assert proxy.uri in str(met.value)
    with pytest.raises((RegistryError, ConnectionFailedError)):
        find("nonsense", 1, proxy.uri)
    assert [one.id for one in waiting(tmp_path / "outbox")] == [entry.id]


def test_what_a_server_loses_is_sent_again(proxy, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loggers = make_loggers(proxy.uri, "lossy", None, tmp_path, system_metrics=False)
    loggers.create_logger_context(rank=0)
    run_id = loggers.loggers[0].active_run.info.run_id
    tracker = ItwinaiTracker(loggers)
    tracker.metric("loss", 3.0, 0)
    # "taken", it says, as it says of everything
    proxy.rule = lambda *_: "{}"
    tracker.metric("loss", 2.0, 1)
    tracker.params({"late": "yes"})
    tracker.text("notes/late.json", "first text of this run")
    assert unsent(loggers) == []
    proxy.release()
    tracker.metric("loss", 1.0, 2)
    loggers.destroy_logger_context()
    assert unsent(loggers) == []
    client = MlflowClient(server.uri)
    assert {(point.step, point.value) for point in client.get_metric_history(run_id, "loss")} == {
        (0, 3.0),
        (1, 2.0),
        (2, 1.0),
    }
    assert client.get_run(run_id).data.params["late"] == "yes"
    assert [file.path for file in client.list_artifacts(run_id, "notes")] == ["notes/late.json"]
    assert not list(tmp_path.rglob("late.json"))


def test_numbers_that_a_server_never_keeps_go_to_the_outbox(proxy, server, make_bundle, tmp_path):
    loggers = make_loggers(proxy.uri, "losing", None, tmp_path, system_metrics=False)
    loggers.create_logger_context(rank=0)
    run_id = loggers.loggers[0].active_run.info.run_id
    proxy.rule = lambda _number, method, path: "{}" if method == "POST" and "metric" in path else None
    ItwinaiTracker(loggers).metric("loss", 3.0, 0)
    loggers.destroy_logger_context()
    (lost,) = unsent(loggers)
    assert (lost.name, lost.value) == ("loss", 3.0)
    there = Destination(proxy.uri, "losing", "losing", "unused")
    entry = keep(tmp_path / "outbox", make_bundle(), there, run_id=run_id, unsent=[asdict(lost)])
    with pytest.raises(RegistryError, match="does not keep"):
        upload(entry)
    proxy.release()
    assert upload(entry).version == 1
    assert [point.value for point in MlflowClient(server.uri).get_metric_history(run_id, "loss")] == [3.0]


WRITES = ("runs/create", "logged-models", "registered-models", "model-versions", "mlflow-artifacts/artifacts")
DECISION = {"promoted": True, "reason": "harmless", "figures": {"gate_loss": 0.5}}


def is_write(method, path):
    return method != "GET" and "search" not in path and any(part in path for part in WRITES)


@pytest.mark.parametrize(("fault", "last"), [("{}", (4, 2)), ("lost", (6, 3))], ids=["empty", "lost"])
def test_a_registration_that_fails_anywhere_is_completed(proxy, make_bundle, tmp_path, fault, last):
    """One write is spoilt, with all that follows; the next upload completes what is there.

    Some 5 s a place: one while the files are sent, and those about the new version and its alias.
    """
    bundle, client = make_bundle(), MlflowClient(proxy.uri)

    def kept(name):
        return keep(tmp_path / "outbox", bundle, Destination(proxy.uri, name, "anywhere", "unused"), first=DECISION)

    upload(kept(f"whole-{len(fault)}"))
    writes = sum(is_write(*request) for request in proxy.seen)
    assert writes > 10
    for place in (writes // 3, *(writes - each for each in last)):
        name = f"anywhere-{len(fault)}-{place}"
        entry = kept(name)
        passed = []

        def rule(_number, method, path, passed=passed, place=place):
            passed.append(is_write(method, path))
            return fault if sum(passed) > place else None

        proxy.rule = rule
        with suppress(RegistryError, ConnectionFailedError):
            upload(entry)
        proxy.release()
        if client.search_registered_models(f"name='{name}'"):
            aliases = client.get_registered_model(name).aliases
            for one in client.search_model_versions(f"name='{name}'"):
                assert one.tags.get("promoted") != "true" or aliases.get("champion") == str(one.version)
        for left in waiting(tmp_path / "outbox"):
            upload(left)
        (version,) = client.search_model_versions(f"name='{name}'")
        champion = find(name, "champion", proxy.uri)
        assert (champion.version, champion.promoted, champion.reason) == (int(version.version), True, "harmless")
    load(name, "champion", proxy.uri)


def test_waiting_for_a_server_that_stalls_has_one_budget(proxy, make_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(patience, "budget", 1.5)
    monkeypatch.setattr(patience, "share", 0.0)
    loggers = make_loggers(proxy.uri, "stalls", None, tmp_path, system_metrics=False)
    loggers.create_logger_context(rank=0)
    patient = loggers.loggers[0]
    proxy.rule = lambda *_: "stall"
    proxy.seen.clear()
    tracker = ItwinaiTracker(loggers)
    tracker.metric("loss", 1.0, 0)
    # two tries, and the budget is gone
    assert (len(proxy.seen), patience.used_up) == (2, True)
    asked = []
    for step in range(1, 4):
        patient.try_again()
        proxy.seen.clear()
        with quick():
            asked.append((os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]))
        tracker.metric("loss", 1.0, step)
        assert len(proxy.seen) == 1
    assert asked == [("2", "0")] * 3
    loggers.destroy_logger_context()
    assert len(unsent(loggers)) == 4
    entry = keep(tmp_path / "outbox", make_bundle(), Destination(proxy.uri, "stalls", "stalls", "unused"))
    proxy.seen.clear()
    with pytest.raises(ConnectionFailedError):
        upload(entry)
    assert len(proxy.seen) == 1
    # time that passes gives some back
    monkeypatch.setattr(patience, "share", 1e9)
    assert not patience.used_up
