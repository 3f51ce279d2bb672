"""Which strategy starts, which is refused, and what happens when one of several processes is lost."""

import importlib.util
import logging
import subprocess
import sys
import types

import itwinai.torch.distributed as itwinai_distributed
import itwinai.torch.trainer as itwinai_trainer
import pytest
import ray
import torch
from itwinai.torch.distributed import NonDistributedStrategy, TorchDDPStrategy
from ray.train import ScalingConfig

import glitchflow_plugin.components._strategies as ours
from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.errors import (
    ConfigurationError,
    ConnectionFailedError,
    GlitchflowError,
    MissingDependencyError,
)
from glitchflow_plugin.training.processes import lost_processes_explained
from glitchflow_plugin.training.ray_room import check_room, default_scaling, missing_room

TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


@pytest.fixture
def make(tmp_path):
    def make_trainer(**changes):
        keywords = {"folder": str(tmp_path), "model": {"name": "unet"}, "epochs": 2, "device": "cpu"}
        return Trainer(**keywords | {"checkpoints": str(tmp_path / "checkpoints")} | changes)

    return make_trainer


@pytest.fixture
def torchrun(monkeypatch):
    for key, value in {**TORCHRUN, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def no_cluster(monkeypatch):
    monkeypatch.setattr(ours, "ray_cluster_is_running", lambda: False)


def test_without_a_strategy_ray_is_not_asked(make, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("ray status was run")

    monkeypatch.setattr(ours, "ray_cluster_is_running", fail)
    monkeypatch.setattr(itwinai_trainer, "ray_cluster_is_running", fail)
    assert isinstance(make().strategy, NonDistributedStrategy)


@pytest.mark.usefixtures("no_cluster")
def test_ddp_that_cannot_start_is_an_error(make, monkeypatch):
    with pytest.raises(ConfigurationError, match="torchrun"):
        make(strategy="ddp")
    monkeypatch.setenv("ITWINAI_FORCE_DIST", "1")
    with pytest.raises(ConfigurationError, match="RANK, WORLD_SIZE"):
        make(strategy="ddp")
    with pytest.raises(ConfigurationError, match="one of"):
        make(strategy="dpp")


@pytest.mark.parametrize("name", ["deepspeed", "horovod"])
@pytest.mark.usefixtures("torchrun")
def test_a_strategy_whose_package_is_missing_names_it(make, name):
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(MissingDependencyError, match=f"pip install {name}"):
        make(strategy=name)


@pytest.mark.usefixtures("torchrun")
def test_under_torchrun_ddp_talks_gloo_on_cpus(make):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    strategy = make(strategy="ddp", device=device, config={"dist_timeout": 7.0}).strategy
    assert isinstance(strategy, TorchDDPStrategy)
    assert (strategy.backend, strategy.timeout) == ("nccl" if device == "cuda" else "gloo", 7.0)


def test_torchrun_with_one_process_has_nothing_to_distribute(make, monkeypatch):
    environment = {**TORCHRUN, "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x"}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert isinstance(make(strategy="ddp").strategy, NonDistributedStrategy)


@pytest.mark.skipif(torch.cuda.is_available(), reason="nccl is right on GPUs")
@pytest.mark.usefixtures("torchrun")
def test_nccl_without_gpus_is_an_error(make):
    with pytest.raises(ConfigurationError, match="nccl needs GPUs"):
        make(strategy="ddp", config={"dist_backend": "nccl"})


def test_processes_that_do_not_meet_are_reported():
    code = (
        "from glitchflow_plugin.components._strategies import TimeLimitedDDPStrategy\n"
        "TimeLimitedDDPStrategy('gloo', 2.0).init()\n"
    )
    alone = {**TORCHRUN, "WORLD_SIZE": "2", "MASTER_PORT": "29517"}
    known = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path[1:]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=known | alone, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "the 2 processes of this training did not all meet at 127.0.0.1:29517 within 2 s" in ended.stderr


def test_losing_the_others_is_told_and_other_errors_are_left_alone():
    with (
        pytest.raises(GlitchflowError, match="another process of this training has ended"),
        lost_processes_explained(5.0),
    ):
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), lost_processes_explained(5.0):
        raise RuntimeError("shapes do not match")


# Ray


@pytest.mark.parametrize(
    ("bundles", "nodes", "lacking"),
    [
        ([{"CPU": 1}] * 2, [{"CPU": 2}], {}),
        ([{"CPU": 2}, {"CPU": 1}], [{"CPU": 2}], {"CPU": 1}),
        ([{"CPU": 2}] * 2, [{"CPU": 3}, {"CPU": 1}], {"CPU": 2}),  # enough in all, but not on one node
        ([{"CPU": 1}, {"CPU": 3}], [{"CPU": 3}, {"CPU": 1}], {}),
        ([{"CPU": 1, "GPU": 1}], [{"CPU": 8}], {"CPU": 1, "GPU": 1}),
    ],
)
def test_room_is_counted_node_by_node(bundles, nodes, lacking):
    assert missing_room(bundles, nodes) == lacking


@pytest.fixture
def cluster(monkeypatch):
    """Answers of a cluster of two processors, of which some are free."""

    def answer(free):
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
        monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": free})

    return answer


def test_a_training_that_would_wait_for_ever_is_refused(cluster):
    def check(scaling, **patience):
        check_room(scaling.as_placement_group_factory().bundles, "Lower num_workers", **patience)

    cluster(2.0)
    with pytest.raises(
        ConfigurationError, match=r"reserves 3 CPU, 1 CPU of it on one.*have: 2 CPU\. Lower num_workers"
    ):
        check(ScalingConfig(num_workers=2))
    check(ScalingConfig(num_workers=2, trainer_resources={"CPU": 0}))
    check(default_scaling({"CPU": 2.0}))
    cluster(1.0)
    with pytest.raises(ConnectionFailedError, match="others have kept it"):
        check(default_scaling({"CPU": 2.0}), patience=0.2)


def test_a_worker_a_gpu_or_two_on_processors():
    assert default_scaling({"CPU": 64.0}).num_workers == 2
    assert default_scaling({"CPU": 1.0}).num_workers == 1
    on_gpus = default_scaling({"CPU": 64.0, "GPU": 4.0})
    assert (on_gpus.num_workers, on_gpus.use_gpu) == (4, True)


def test_a_ray_cluster_is_joined_without_a_word_about_passwords(monkeypatch):
    monkeypatch.setattr(itwinai_distributed, "ray_cluster_is_running", lambda: True)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "nodes", lambda: "one node")
    monkeypatch.setattr(ray, "available_resources", dict)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger("itwinai.torch.distributed")
    logger.addHandler(handler)
    try:
        itwinai_distributed.initialize_ray()
    finally:
        logger.removeHandler(handler)
    assert any("one node" in message for message in told)
    assert not any("MLFLOW" in message for message in told)


def test_a_failed_ray_trial_is_an_error(make, monkeypatch, cluster):
    monkeypatch.setattr(ours, "ray_cluster_is_running", lambda: True)
    monkeypatch.setattr(itwinai_distributed, "initialize_ray", lambda: None)
    trainer = make(strategy="ddp")
    cluster(2.0)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    grid = types.SimpleNamespace(num_errors=1, errors=[ValueError("no memory")])
    monkeypatch.setattr(itwinai_trainer, "RayTorchTrainer", lambda **_: None)
    monkeypatch.setattr(ray.tune, "with_parameters", lambda function, **_: function)
    monkeypatch.setattr(ray.tune, "Tuner", lambda **_: types.SimpleNamespace(fit=lambda: grid))
    with pytest.raises(GlitchflowError, match="no memory"):
        trainer.train_on(None, None)
