"""A real cluster of two workers, started and ended by the fixture."""

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def on_ray(ray_cluster, run_engine):
    address, environment = ray_cluster

    def run(what, source, folder, **engine):
        return run_engine(what, source, folder, {"name": "ray", "address": address, **engine}, **environment)

    return run


def test_a_killed_worker_is_reported_and_the_next_run_ends_with_the_bytes_of_one_process(
    on_ray, raw_events, tmp_path, reference, checksums
):
    killed = on_ray("dying", raw_events, tmp_path / "events")
    assert killed.returncode == 1
    assert "ShardError: Data-processor: a worker process was killed" in killed.stderr
    assert not (tmp_path / "events" / "manifest.json").exists()
    assert list((tmp_path / "events").glob(".shard-00002-*.tmp.h5"))
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "events").glob("shard-*.h5")}
    assert 1 <= len(finished) < 7
    again = on_ray("all_sets", raw_events, tmp_path)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert checksums(tmp_path) == checksums(reference)


def test_what_no_node_has_is_refused_in_place_of_waiting(on_ray, tmp_path):
    refused = on_ray("failing", "", tmp_path / "set", task_cpus=3)
    assert refused.returncode == 1
    assert "ConfigurationError: a Ray task reserves 3 processor(s), and no node of the cluster" in refused.stderr


def test_an_error_names_its_shard(on_ray, tmp_path):
    failed = on_ray("failing", "", tmp_path / "set", workers=1, task_memory=0.1)
    assert failed.returncode == 1
    assert "ShardError: test: shard 0 (events a to a) failed: ValueError: 0 does not please. Fin" in failed.stderr


def test_nobody_gets_in_without_the_token(ray_cluster, run_engine, tmp_path):
    address, _ = ray_cluster
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_NUM_REDIS_GET_RETRIES": "2"}
    stranger = run_engine("failing", "", tmp_path / "set", {"name": "ray", "address": address}, **token)
    assert stranger.returncode == 1
    assert "ConnectionFailedError: Cannot join a Ray cluster" in stranger.stderr
