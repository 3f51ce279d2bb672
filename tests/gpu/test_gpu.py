"""The real thing: `pytest -m gpu` where there is a GPU. What can be known without one is in tests/test_devices.py."""

import numpy as np
import pytest
import torch
from tests import _commands as commands
from tests._networks import NETWORKS
from tests._pretended import CALLS, passes
from tests._rehearsal import rehearse
from tests.pipelines.test_pipelines import SMALL

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.inference.run import InferenceSettings, run_inference
from glitchflow_plugin.models.build import MODELS, build_model, representation
from glitchflow_plugin.products.summary import read_summary
from glitchflow_plugin.signal.qtransform import (
    QScan,
    QTransformSettings,
    device_kernels,
    q_transform,
    q_transform_relative,
)
from glitchflow_plugin.training.precision import has_bf16

pytestmark = pytest.mark.gpu


@pytest.fixture
def cuda():
    return torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Products in float32: TF32 is what a network may do, not what a comparison needs."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", CALLS)
def test_devices_mix_as_is_pretended_elsewhere(cuda, name):
    call, allowed = CALLS[name]
    assert passes(call, cuda) is allowed


# the same as the CPU


@pytest.mark.parametrize("norm", ["median", "mean", "white"])
@pytest.mark.parametrize("q", [12.0, (12.0, 24.0)], ids=["one Q", "two Q"])
def test_q_transform(cuda, norm, q):
    settings = QTransformSettings(q=q, norm=norm)
    series = torch.randn(20, 6144)
    series[::2, 3000:3060] += 12 * torch.randn(60)
    for found, expected in (
        (q_transform(series.to(cuda), 1024.0, settings), q_transform(series, 1024.0, settings)),
        (
            q_transform_relative(series.to(cuda) * 0.5, series.to(cuda), 1024.0, settings),
            q_transform_relative(series * 0.5, series, 1024.0, settings),
        ),
    ):
        assert found.device == cuda
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_q_transform_runs_its_own_kernels_and_waits_for_nothing(cuda):
    assert device_kernels.work_on(str(cuda))
    settings, series = QTransformSettings(q=(12.0, 24.0)), torch.randn(20, 6144, device=cuda)
    scan = QScan(6.0, 1024.0, (64, 257), qrange=[8, 32])
    expected = q_transform(series, 1024.0, settings), scan(series, fsearch_range=[20, 200])  # makes what is kept
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = q_transform(series, 1024.0, settings, check=False), scan(series, fsearch_range=[20, 200])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    series[3, 100] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        q_transform(series, 1024.0, settings)


def test_q_scan(cuda):
    scan, series = QScan(6.0, 1024.0, (64, 257), qrange=[4, 12], each=True), torch.randn(5, 3, 6144)
    torch.testing.assert_close(scan.to(cuda)(series.to(cuda)).cpu(), scan(series), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_networks(cuda, name):
    network = build_model(name, in_channels=3, window_size=64, **NETWORKS[name]).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # those that begin with nothing would hide a difference
            parameter.add_(0.01 * torch.randn_like(parameter))
    seen = torch.randn(4, 3, 6144) if representation(name) == "waveform" else torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        expected = network(seen)
        found = network.to(cuda)(seen.to(cuda)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["coupling", "wiener", "unet"])
def test_a_network_trained_here_says_the_same_on_the_cpu(cuda, make_coupled_trainer, coupled, tmp_path, name):
    training_set, events = coupled
    trainer = make_coupled_trainer(name, cuda)
    trainer.execute()
    twin = trainer.twin
    assert all(each.is_cuda for each in (*twin.parameters(), *twin.buffers()))
    bundle = trainer.learner.bundle(twin, trainer.learner.baseline(twin, trainer.best_twin().batches), {}, {})
    maps, settings = training_set.open_spectrograms(), InferenceSettings(batch_events=5, replicates=0)
    made = [
        run_inference(bundle, maps, tmp_path / device, settings, events=events, device=device, progress=False)
        for device in ("cuda", "cpu")
    ]
    np.testing.assert_allclose(made[0].maps.read().maps, made[1].maps.read().maps, rtol=1e-2, atol=1e-2)
    if name == "coupling":
        np.testing.assert_allclose(made[0].events["novelty_p"], made[1].events["novelty_p"], atol=0.34)


def test_a_rehearsal_from_training_to_generation(cuda, make_coupled_trainer, coupled, tmp_path, caplog):
    if not has_bf16(cuda):
        pytest.skip("this GPU has no native bfloat16")
    caplog.set_level("INFO")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    rehearse(make_coupled_trainer, coupled, uri, tmp_path, cuda)
    assert "in bfloat16" in caplog.text


# the demo's pipelines, small


def execute(folder, *command, **environment):
    done = commands.run(folder, *command, timeout=240, **{"OMP_NUM_THREADS": "4", **environment})
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which every pipeline of the demo has run."""
    folder = tmp_path_factory.mktemp("run")
    execute(folder, "glitchflow", "init", folder)
    for pipeline in ("simulate_pipeline", "preproc_pipeline"):
        execute(folder, "itwinai", "exec-pipeline", f"+pipe_key={pipeline}", *SMALL)
    execute(folder, "itwinai", "exec-pipeline", *SMALL)  # training_pipeline is the default
    # of so few events the gate promotes nothing
    execute(folder, "glitchflow", "models", "promote", "glitchflow-small", "1")
    for pipeline in ("inference_pipeline", "glitchflow_pipeline"):
        execute(folder, "itwinai", "exec-pipeline", f"+pipe_key={pipeline}", *SMALL)
    return folder


def was_learnt_there(folder):
    """torch writes down where a tensor was."""
    weights = torch.load(folder / "temp/small/checkpoints/last/model.pt", weights_only=True)
    return all(each.is_cuda for each in weights.values())


@pytest.mark.pipeline
def test_the_pipelines_of_the_demo(run):
    assert was_learnt_there(run)
    summary = read_summary(run / "temp/small/training")
    assert "version 1" in summary.outputs["registered model"]
    maps = SpectrogramSet.open(next((run / "inference/small").glob("*-t16")) / "maps")
    assert len(maps) == 12
    assert np.isfinite(maps.read().maps).all()


@pytest.mark.pipeline
def test_one_process_of_torchrun_with_nccl(run):
    """DDP, its broadcasts and gathers, over NCCL: one process takes the way of many."""
    said = execute(
        run,
        *("torchrun", "--standalone", "--nproc_per_node=1", "--no-python", "itwinai", "exec-pipeline"),
        *SMALL,
        "training.strategy=ddp",
        "training.epochs=3",
        ITWINAI_FORCE_DIST="1",
        NCCL_DEBUG="VERSION",
    )
    assert "NCCL version" in said
    assert was_learnt_there(run)
    assert "version 2" in read_summary(run / "temp/small/training").outputs["registered model"]
