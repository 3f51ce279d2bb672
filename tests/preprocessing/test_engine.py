import os
from functools import partial

import pytest

from glitchflow_plugin.data.sharded import ShardPlan
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.engine import EngineSettings, ShardError, default_workers, map_shards

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


def test_the_number_of_workers_follows_the_processors():
    assert 1 <= default_workers() <= (os.cpu_count() or 1)
