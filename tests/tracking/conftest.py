import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from glitchflow_plugin.models.bundle import EnergyTwin, ModelBundle
from glitchflow_plugin.models.linear import LinearFilter

WITNESSES = ("GUIDE", "BYSTANDER")


@pytest.fixture(scope="session")
def make_bundle():
    """A small twin: what is stored is the same for any network."""

    def make(gain=1.0, **changes):
        network = LinearFilter(len(WITNESSES), 16, (-1, 0))
        with torch.no_grad():
            network.weight.fill_(gain)
        scales = {"clamp": 1e4, "witness_scale": [5.0, 7.0], "target_scale": 4.0}
        values = {
            "twin": EnergyTwin(network, **scales),
            "target": "STRAIN",
            "witnesses": WITNESSES,
            "recipe": {"qtransform": {"q": 12.0}, "whiten": True},
            "window_size": 16,
            "frequencies": tuple(float(row) for row in range(16)),
            "times": tuple(column / 64 for column in range(40)),
            "metrics": {"validation_loss": 0.5},
            "model": {"name": "linear", "lags": [-1, 0]},
            "baseline": EnergyTwin(network, transform="none", **scales),
        }
        return ModelBundle(**{**values, **changes})

    return make


@pytest.fixture(scope="session")
def free_port():
    def find():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return find


class Server:
    """A real MLflow server that can be killed, stalled and started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.uri = folder, port, f"http://127.0.0.1:{port}"
        self.artifacts = folder / "artifacts"
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.artifacts)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        for _ in range(400):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()  # noqa: S310  # our own server
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.5)
        pytest.fail("the server did not start")

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory, free_port):
    running = Server(tmp_path_factory.mktemp("server"), free_port())
    running.start()
    yield running
    if running.process.poll() is None:
        running.kill()
