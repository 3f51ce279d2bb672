import importlib
import inspect
import io
import os
import pkgutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin import components
from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.components.pipeline import NamedPipeline
from glitchflow_plugin.components.simulator import Simulator
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.errors import BusyError, ConfigurationError, DataError
from glitchflow_plugin.preprocessing.engine import EngineSettings


class Step(BaseComponent):
    """Writes into its folder."""

    def __init__(self, folder, *, setting=1, engine="local", work=lambda: None):
        super().__init__()
        self.save_parameters(folder=folder, setting=setting, engine=engine)
        self.folder, self.work = Path(folder), work
        self.engine = EngineSettings(**engine) if isinstance(engine, dict) else EngineSettings.of(engine)

    @monitor_exec
    @holding("folder")
    def execute(self):
        """Write."""
        return self.work()


@contextmanager
def held_by_another(folder):
    code = (
        "import sys; from glitchflow_plugin.data.lock import *\n"
        "with at_work(sys.argv[1], 'Splitter'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        yield other
        other.kill()


def test_every_step_holds_what_it_writes():
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.iter_modules(components.__path__, f"{components.__name__}.")
    ]
    classes = [each for module in modules for each in vars(module).values() if inspect.isclass(each)]
    steps = {each.__name__: each for each in classes if issubclass(each, BaseComponent) and "execute" in vars(each)}
    steps = {name: each for name, each in steps.items() if each.__module__.startswith(components.__name__)}
    assert len(steps) >= 14
    for name, step in steps.items():
        # where it writes may be known only when it has a model: then a second method does the work
        methods = [
            inspect.unwrap(each, stop=lambda method: hasattr(method, "holds"))
            for each in vars(step).values()
            if inspect.isfunction(each)
        ]
        assert any(getattr(method, "holds", ()) for method in methods), name
        assert hasattr(inspect.unwrap(step.execute, stop=lambda method: hasattr(method, "holds")), "holds"), name


def test_what_a_step_is_given_are_its_parameters():
    class Given(Step):
        @keeping_arguments
        def __init__(self, folder, *, seed=1, **ray):
            super().__init__(folder, setting=(seed, ray))

    given = Given("here", ray_run_config=None).parameters
    assert {key: given[key] for key in ("folder", "seed", "ray_run_config")} == {
        "folder": "here",
        "seed": 1,
        "ray_run_config": None,
    }
    assert "ray" not in given


def test_the_second_of_two_is_refused_and_writes_nothing(tmp_path):
    with held_by_another(tmp_path) as other:
        for step in (Step(tmp_path, work=lambda: 1 / 0), Splitter({}, str(tmp_path / "maps"), str(tmp_path))):
            with pytest.raises(BusyError, match=f"Splitter, process {other.pid}"):
                step.execute()
    assert Step(tmp_path, work=lambda: 7).execute() == 7


def test_a_folder_that_is_named_in_two_ways_is_no_other_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "maps")

    class Both(Step):
        source = "link"

        @holding("folder", reads=("source",))
        def execute(self):
            return self.work()

    for folder in (tmp_path / "maps", Path("maps")):
        assert Both(folder, work=lambda: 7).execute() == 7


def test_tasks_of_an_array_share_a_folder_as_long_as_their_settings_agree(tmp_path):
    def task(index, setting=1, work=lambda: "done"):
        engine = {"name": "slurm-array", "share_index": index, "share_count": 2}
        return Step(tmp_path, setting=setting, engine=engine, work=work)

    assert task(0, work=task(1).execute).execute() == "done"
    for other in (task(1, setting=2), Step(tmp_path)):
        with pytest.raises(BusyError, match="another run is at work"):
            task(0, work=other.execute).execute()


def test_only_the_first_of_several_ranks_holds_the_folder(tmp_path, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("LOCAL_RANK", "1")
    with held_by_another(tmp_path):
        Step(tmp_path).execute()
    (tmp_path / ".left-aaaaaaaa.tmp.png").touch()  # of the other rank, which is writing it
    monkeypatch.setenv("RANK", "0")
    Step(tmp_path).execute()
    assert (tmp_path / ".left-aaaaaaaa.tmp.png").exists()


@pytest.mark.parametrize("number", [1, 13, 30])
def test_what_the_system_refuses_is_told_in_words(tmp_path, number):
    def refuse():
        raise OSError(number, "refused", "/some/picture.png")

    with pytest.raises(DataError, match=r"/some/picture\.png: refused"):
        Step(tmp_path, work=refuse).execute()


def test_ctrl_c_ends_in_one_message(tmp_path, caplog):
    def press():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    with pytest.raises(SystemExit) as ended:
        Step(tmp_path, work=Step(tmp_path / "within", work=press).execute).execute()
    assert ended.value.code == 130
    assert [record.getMessage() for record in caplog.records] == [
        "Ctrl-C ends Step. What is finished is kept: the same command goes on."
    ]
    Step(tmp_path).execute()  # it holds the folder no longer


def test_output_in_any_encoding(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    Step(tmp_path, work=lambda: print("┏━ SNR² 🏃")).execute()  # noqa: T201
    stream.flush()
    assert b"+- SNR2 ?" in stream.buffer.getvalue()


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "", "a/b", "-x", "a:b"])
def test_names_that_lead_elsewhere_are_refused_before_any_step(name, tmp_path):
    with pytest.raises(ConfigurationError, match="run_name"):
        NamedPipeline({"one": Step(tmp_path)}, run_name=name)
    with pytest.raises(ConfigurationError, match=r"simulate\.sets"):
        Simulator(str(tmp_path), {name: {}})


def test_a_named_pipeline_is_itwinais(tmp_path):
    pipeline = NamedPipeline({"one": Step(tmp_path, work=lambda: None)}, run_name=4711)
    pipeline.execute()
    assert pipeline.parameters["run_name"] == 4711
    assert len(pipeline[0:1]) == 1


def test_a_step_keeps_its_arguments_and_their_defaults(tmp_path):
    step = Splitter({"seed": 3}, str(tmp_path), folder=str(tmp_path / "split"))
    assert step.parameters == {
        "split": {"seed": 3},
        "spectrograms": str(tmp_path),
        "folder": str(tmp_path / "split"),
        "name": None,
    }
