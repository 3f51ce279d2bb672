import http.server
import multiprocessing
import os
import signal
import socket
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import requests
import torch

from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.linear import LinearFilter
from glitchflow_plugin.models.twins import EnergyTwin
from glitchflow_plugin.tracking.connection import patience

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
        # forked: importing MLflow's commands takes as long as the server itself; who starts none goes without
        import mlflow.cli  # noqa: F401

        self.process = multiprocessing.get_context("fork").Process(target=self._serve)
        self.process.start()
        for _ in range(400):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()  # noqa: S310  # our own server
                return
            except OSError:
                assert self.process.is_alive(), (self.folder / "server.log").read_text()
                time.sleep(0.5)
        pytest.fail("the server did not start")

    def _serve(self):
        from mlflow.cli import cli

        os.setsid()
        os.chdir(self.folder)
        os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        with (self.folder / "server.log").open("a") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        command = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        cli([*command, "--artifacts-destination", str(self.artifacts)])

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.join(30)


class Proxy:
    """Stands before a server and spoils answers.

    Attributes:
        rule: Called with the number of the request, its method and its path. None: passed on. `lost`: passed on, and
            not answered. `stall`: not answered before `release`. A text: the answer, in place of the server's.
        seen: Requests so far.
    """

    def __init__(self, uri):
        self.rule, self.seen, self.released = (lambda *_: None), [], threading.Event()
        self._lock = threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with proxy._lock:
                    proxy.seen.append((self.command, self.path))
                    number = len(proxy.seen) - 1
                wanted = proxy.rule(number, self.command, self.path)
                if wanted == "stall":
                    proxy.released.wait(60)
                if wanted in (None, "lost"):
                    headers = {key: text for key, text in self.headers.items() if key.lower() != "host"}
                    reply = requests.request(
                        self.command, uri + self.path, data=body, headers=headers, timeout=60, allow_redirects=False
                    )
                    status, kind, content = reply.status_code, reply.headers.get("Content-Type", ""), reply.content
                else:
                    status, kind, content = 200, "application/json", wanted.encode()
                if wanted in ("lost", "stall"):
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer  # noqa: N815

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self.httpd.server_address[1]}"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def release(self):
        """Let all go that waits, and pass everything on."""
        self.rule = lambda *_: None
        self.released.set()
        self.released = threading.Event()


@pytest.fixture
def proxy(server):
    between = Proxy(server.uri)
    yield between
    between.release()
    between.httpd.shutdown()
    between.httpd.server_close()


@pytest.fixture(autouse=True)
def _all_the_patience(monkeypatch):
    monkeypatch.setattr(patience, "waited", 0.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory, free_port, make_registry):
    running = Server(tmp_path_factory.mktemp("server"), free_port())
    make_registry(running.folder)
    running.start()
    yield running
    if running.process.is_alive():
        running.kill()
