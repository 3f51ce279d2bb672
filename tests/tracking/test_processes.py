import json
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from glitchflow_plugin.cli import main
from glitchflow_plugin.tracking import processes
from glitchflow_plugin.tracking.processes import is_gone, this_process


def test_a_process_that_ended_is_told_from_one_that_lives():
    code = "import json, sys; from glitchflow_plugin.tracking.processes import this_process\n"
    code += "print(json.dumps(this_process()), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        described = json.loads(process.stdout.readline())
        assert not is_gone(described)
        process.kill()
    assert is_gone(described)


def test_what_cannot_be_seen_from_here_is_not_called_gone():
    here = this_process()
    assert not is_gone(here)
    for key in ("host", "machine", "namespace"):
        assert not is_gone({**here, key: "another", "pid": 2**22 + 1})
    for unknown in (None, {}, "text", [1], {"pid": 1}, {**here, "pid": "1"}):
        assert not is_gone(unknown)
    # its number was given to another process
    assert is_gone({**here, "started": "1"})


def test_containers_of_one_name_on_two_machines_are_not_taken_for_one_that_was_started_anew(monkeypatch):
    here = this_process() | {"machine": "one"}
    monkeypatch.setattr(processes, "this_process", lambda: here)
    assert is_gone({**here, "boot": "before"})  # the machine was started anew
    # the name of a machine is missing in most images
    monkeypatch.setattr(processes, "this_process", lambda: here | {"machine": ""})
    assert not is_gone({**here, "machine": "", "boot": "before"})


BEGIN = """
import sys

import pytest
from mlflow import MlflowClient
from glitchflow_plugin.tracking.connection import ensure_experiment
from glitchflow_plugin.tracking.itwinai_tracker import make_loggers

uri, folder = sys.argv[1:]
ensure_experiment(uri, "killed", folder + "/artifacts")
loggers = make_loggers(uri, "killed", None, folder + "/logs", system_metrics=False)
loggers.create_logger_context(rank=0, run_name="killed")
print("begun", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_run_that_was_killed_is_found_by_whoever_looks_next(make_registry, tmp_path, capsys):
    uri = make_registry(tmp_path)
    command = [sys.executable, "-c", BEGIN, uri, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        client = MlflowClient(uri)
        experiments = [client.get_experiment_by_name("killed").experiment_id]
        assert main(["models", "list", "--tracking-uri", uri]) == 0
        assert [run.info.status for run in client.search_runs(experiments)] == ["RUNNING"]
        process.kill()
    assert main(["models", "list", "--tracking-uri", uri]) == 0
    assert [run.info.status for run in client.search_runs(experiments)] == ["KILLED"]
    assert "No model is registered" in capsys.readouterr().out
