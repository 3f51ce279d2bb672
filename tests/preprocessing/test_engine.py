import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from glitchflow_plugin.data.sharded_writer import ShardPlan
from glitchflow_plugin.errors import ConfigurationError, ConnectionFailedError
from glitchflow_plugin.preprocessing.engine import (
    EngineSettings,
    ShardError,
    ShareDone,
    default_workers,
    map_shards,
)
from glitchflow_plugin.settings import built

PLANS = [ShardPlan(index, (f"event-{2 * index}", f"event-{2 * index + 1}")) for index in range(4)]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_the_order_of_the_plans(workers):
    assert map_shards(partial(getattr, default=None), [], EngineSettings(workers=workers)) == []
    assert map_shards(repr, PLANS, EngineSettings(workers=workers), "test") == [repr(plan) for plan in PLANS]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_the_shard(workers):
    with pytest.raises(ShardError, match=r"test: shard \d \(events event-\d to event-\d\) failed: TypeError"):
        map_shards(len, PLANS, EngineSettings(workers=workers), "test")


def test_errors_about_the_settings_pass_as_they_are():
    def refuse(_):
        raise ConfigurationError("misspelt")

    with pytest.raises(ConfigurationError, match="misspelt"):
        map_shards(refuse, PLANS)


def test_a_killed_worker_ends_the_run_with_what_to_do_next(tmp_path, monkeypatch):
    # the function must be importable in a fresh process
    (tmp_path / "killing.py").write_text(
        "import os, signal\n\ndef end(plan):\n    os.kill(os.getpid(), signal.SIGKILL)\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import killing

    with pytest.raises(ShardError, match=r"worker process was killed.*run the step again"):
        map_shards(killing.end, PLANS, EngineSettings(workers=2), "test")


def test_the_number_of_workers_follows_the_processors(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert 1 <= default_workers() <= (os.cpu_count() or 1)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert default_workers() == 1


def test_configuration_file_holds_the_defaults():
    content = yaml.safe_load((Path(__file__).parents[2] / "conf" / "engine.yaml").read_text())
    assert EngineSettings(**content) == EngineSettings()
    assert set(content) == set(EngineSettings.__dataclass_fields__)
    assert EngineSettings.of("ray") == EngineSettings.of({"name": "ray"})
    assert EngineSettings.of(None) == EngineSettings()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "dask"}, "local, ray, slurm-array"),
        ({"workers": -1}, "engine.workers"),
        ({"workers": True}, "engine.workers"),
        ({"address": None}, "without a password"),
        ({"address": "local"}, "without a password"),
        ({"task_cpus": 0}, "engine.task_cpus.*above 0"),
        ({"task_memory": -1.0}, "engine.task_memory.*above 0"),
        ({"share_index": 1}, "both or neither"),
        ({"share_index": 2, "share_count": 2}, "counts from 0"),
        ({"share_index": 0.5, "share_count": 2}, "engine.share_index.*a whole number"),
        ({"task_cpus": "2"}, "engine.task_cpus.*a number"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, words):
    with pytest.raises(ConfigurationError, match=words):
        built(EngineSettings, wrong, "engine")


def test_a_gpu_is_filled_by_one_process():
    assert EngineSettings().on_device("cpu").workers is None
    assert EngineSettings().on_device("cuda:0").workers == 1
    assert EngineSettings("slurm-array").on_device("cuda").workers == 1
    with pytest.raises(ConfigurationError, match="device to auto or cpu"):
        EngineSettings("ray").on_device("cuda")


def array(monkeypatch, task, tasks):
    for key, value in zip(("ID", "MIN", "MAX", "COUNT"), (task, min(tasks), max(tasks), len(tasks)), strict=True):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{key}", str(value))


@pytest.mark.parametrize("tasks", [[0], [7], [0, 1, 2], [3, 4, 5, 6], [1, 3, 5], [10, 20]])
def test_every_share_belongs_to_one_task_of_an_array(monkeypatch, tasks):
    shares = []
    for task in tasks:
        array(monkeypatch, task, tasks)
        shares.append(EngineSettings("slurm-array").share())
    assert shares == [(index, len(tasks)) for index in range(len(tasks))]


def test_an_array_with_holes_or_none_at_all_is_refused(monkeypatch):
    for task, tasks in ((2, [1, 2, 7]), (1, [1, 2, 6])):
        array(monkeypatch, task, tasks)
        with pytest.raises(ConfigurationError, match="not evenly spaced"):
            EngineSettings("slurm-array").share()
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    with pytest.raises(ConfigurationError, match="sbatch --array"):
        EngineSettings("slurm-array").share()


def test_shares_do_not_depend_on_what_is_there_already():
    made = set()

    def make(plan):
        made.add(plan.index)

    def left():
        return [plan for plan in PLANS if plan.index not in made]

    second = EngineSettings("slurm-array", workers=1, share_index=1, share_count=2)
    with pytest.raises(ShareDone, match="Other tasks have still 2 to make") as done:
        map_shards(make, PLANS[1:], second, "test", left=left)
    assert done.value.code == 0
    assert made == {1, 3}
    made.add(0)
    map_shards(make, left(), replace(second, share_index=0), "test", left=left)
    assert made == {0, 1, 2, 3}
    with pytest.raises(ConfigurationError, match="gathers its results in one process"):
        map_shards(make, PLANS, second, "test")


def test_a_ray_cluster_that_is_not_there_is_named_at_once():
    pytest.importorskip("ray")
    with pytest.raises(ConnectionFailedError, match=r"Cannot join a Ray cluster at 127.0.0.1:1: .*refused"):
        map_shards(repr, PLANS, EngineSettings("ray", address="127.0.0.1:1"))
