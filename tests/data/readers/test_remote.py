"""The clients against local stand-ins: a datafind server, a GWOSC server, and gwpy's NDS2 call replaced."""

import contextlib
import http.client
import json
import math
import sys
import threading
import time
import types
import urllib.error
from collections import defaultdict
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

import h5py
import numpy as np
import pytest

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import frames, open_data, remote
from glitchflow_plugin.data.readers.remote import RemoteSettings
from glitchflow_plugin.errors import ConfigurationError, ConnectionFailedError, FormatError, MissingDependencyError
from glitchflow_plugin.settings import built

pytest.importorskip("gwpy.timeseries")
T0 = 1_126_259_447.0
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


SILENT, DRIPPING = object(), object()


@pytest.fixture
def serve():
    """Start a server that answers paths from a table: a JSON value, bytes, an HTTP status (int), or a pair.

    The pair is bytes, and of how many the server says that they are. `SILENT`: it accepts, and never says anything;
    `DRIPPING`: it says that a file is large, and sends it byte by byte.
    """
    servers, ended = [], threading.Event()

    def start(answers):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = urlparse(self.path).path
                body = answers[path] if isinstance(answers, defaultdict) else answers.get(path, 404)
                if body is SILENT:
                    ended.wait()
                    return
                if body is DRIPPING:
                    self.send_response(200)
                    self.send_header("Content-Length", str(2**30))
                    self.end_headers()
                    while not ended.wait(0.02):
                        try:
                            self.wfile.write(b"x")
                        except OSError:
                            return
                self.send_response(body if isinstance(body, int) else 200)
                body, promised = body if isinstance(body, tuple) else (body, None)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(promised or len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    ended.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def with_frames():
    try:
        frames.require_backend()
    except MissingDependencyError:
        pytest.skip("no frame library")


def test_datafind_finds_frames_through_a_server(tmp_path, serve):
    with_frames()
    path = tmp_path / f"V-V1Online-{T0:.0f}-16.gwf"
    series = np.random.default_rng(0).normal(size=16 * 64)
    frames.write(path, {"V1:A": Channel("V1:A", series, T0, 64.0, "m")})
    base = "/api/v1/gwf/V/V1Online"
    answers = {f"{base}/{T0 + 4:.0f},{T0 + 8:.0f}/file.json": [f"file://localhost{path}"], f"{base}.json": ["V1Online"]}
    host = serve(answers)
    settings = RemoteSettings(host=host, frametype="V1Online")
    found = remote.fetch("datafind", settings, ["V1:A"], T0 + 4, T0 + 8)["V1:A"]
    np.testing.assert_array_equal(found.series, series[4 * 64 : 8 * 64])
    assert (found.t0, found.sample_rate, found.unit) == (T0 + 4, 64.0, "m")
    with pytest.raises(FormatError, match="no frames of type"):
        remote.fetch("datafind", settings, ["V1:A"], T0 + 400, T0 + 408)


def test_open_data_comes_through_a_server(tmp_path, serve):
    path = tmp_path / "strain.hdf5"
    series = np.random.default_rng(1).normal(size=32 * 4096)
    with h5py.File(path, "w") as file:
        strain = file.create_dataset("strain/Strain", data=series)
        strain.attrs.update(Xstart=int(T0), Xspacing=1 / 4096, Npoints=len(series), Xunits="second", Yunits="")
        file["meta/Detector"] = "H1"
    answers = {}
    host = serve(answers)
    name = f"H-H1_GWOSC_4KHZ_R1-{T0:.0f}-32.hdf5"
    page = {"next": None, "previous": None, "num_pages": 1, "results_count": 1}
    answers["/api/v2/event-versions"] = page | {"results": []}
    run = {"name": "O1", "detectors": ["H1"], "gps_start": 1126051217, "gps_end": 1137254417}
    answers["/api/v2/runs"] = page | {"results": [run]}
    stored = {"gps_start": int(T0), "detector": "H1", "sample_rate_kHz": 4, "duration": 32, "file_format": "HDF5"}
    urls = {"hdf5_url": f"{host}/{name}", "gwf_url": f"{host}/{name[:-4]}gwf", "download_url": f"{host}/{name}"}
    answers["/api/v2/runs/O1/strain-files"] = page | {"results": [stored | urls]}
    answers["/api/v2/strain-files"] = answers["/api/v2/runs/O1/strain-files"]
    answers[f"/{name}"] = path.read_bytes()
    settings = RemoteSettings(host=host, detectors=("H1",))
    (channel,) = remote.channels_offered("open_data", settings)
    assert channel == "H1:GWOSC-4KHZ_R1_STRAIN"
    found = remote.fetch("open_data", settings, [channel], T0 + 4, T0 + 8)[channel]
    np.testing.assert_array_equal(found.series, series[4 * 4096 : 8 * 4096])
    assert (found.t0, found.sample_rate, found.unit) == (T0 + 4, 4096.0, "strain")


def test_nds2_is_called_with_what_was_configured(monkeypatch):
    """The NDS2 client exists for conda only: what is tested is our call of gwpy's function, not the protocol."""
    from gwpy.timeseries import TimeSeries, TimeSeriesDict

    asked = {}

    def fetch(channels, start, stop, *, host, port):
        asked.update(channels=channels, span=(start, stop), host=host, port=port)
        return {name: TimeSeries(np.arange(32.0), t0=start, sample_rate=16, unit="m", name=name) for name in channels}

    module = types.ModuleType("nds2")
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "nds2", module)
    monkeypatch.setattr(TimeSeriesDict, "fetch", fetch)
    found = remote.fetch("nds2", RemoteSettings(host="nds.example.org", port=31200), ["V1:A"], T0, T0 + 2)
    assert asked == {"channels": ["V1:A"], "span": (T0, T0 + 2), "host": "nds.example.org", "port": 31200}
    assert (found["V1:A"].t0, found["V1:A"].sample_rate, found["V1:A"].unit) == (T0, 16.0, "m")

    def refuse(*_, **__):
        raise RuntimeError("Failed to establish a connection[INFO: Error occurred trying to connect]")

    monkeypatch.setattr(TimeSeriesDict, "fetch", refuse)
    with pytest.raises(ConnectionFailedError, match=r"nds\.example\.org"):
        remote.fetch("nds2", RemoteSettings(host="nds.example.org"), ["V1:A"], T0, T0 + 2)


def test_without_the_nds2_client_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(remote.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="conda install"):
        remote.fetch("nds2", RemoteSettings(), ["V1:A"], T0, T0 + 2)


@pytest.mark.parametrize("kind", ["open_data", "datafind"])
def test_no_network_is_said_plainly(kind):
    settings = RemoteSettings(host=NOBODY, detectors=("H1",), frametype="V1Online")
    with pytest.raises(ConnectionFailedError, match=r"Check the network and `remote` in datasets\.yaml"):
        remote.fetch(kind, settings, ["H1:GWOSC-4KHZ_R1_STRAIN"], T0, T0 + 2)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, FormatError),
        (403, ConnectionFailedError),
        (429, ConnectionFailedError),
        (500, ConnectionFailedError),
        (503, ConnectionFailedError),
    ],
)
def test_only_not_found_means_that_there_are_no_data(serve, status, kind):
    base = "/api/v1/gwf/V/V1Online"
    answers = {f"{base}/{T0 + 4:.0f},{T0 + 8:.0f}/file.json": status, f"{base}.json": ["V1Online"]}
    settings = RemoteSettings(host=serve(answers), frametype="V1Online")
    with_frames()
    with pytest.raises(kind):
        remote.fetch("datafind", settings, ["V1:A"], T0 + 4, T0 + 8)


@pytest.mark.parametrize("kind", ["open_data", "datafind"])
@pytest.mark.parametrize("answer", [SILENT, DRIPPING])
def test_a_server_that_never_ends_its_answer_is_left(serve, kind, answer):
    """Whatever the client waits for: none of them sets a limit that a byte now and then would not meet."""
    if kind == "datafind":
        with_frames()
    host = serve(defaultdict(lambda: answer))
    settings = RemoteSettings(host=host, detectors=("H1",), frametype="V1Online", timeout=0.4)
    begun = time.monotonic()
    with pytest.raises(ConnectionFailedError, match=r"no whole answer within 0\.4 s \(`remote\.timeout`\)"):
        remote.fetch(kind, settings, ["H1:GWOSC-4KHZ_R1_STRAIN"], T0, T0 + 2)
    assert time.monotonic() - begun < 20


def test_a_line_that_breaks_is_no_fault_of_the_disk(monkeypatch, tmp_path):
    """Errors of sockets are OSErrors, as those of files are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = types.SimpleNamespace(read1=lambda _: (_ for _ in ()).throw(ConnectionResetError("reset by peer")))
    monkeypatch.setattr(open_data.urllib.request, "urlopen", lambda *_, **__: contextlib.nullcontext(broken))
    with pytest.raises(http.client.HTTPException, match="reset"), open_data.downloaded("http://x/H-H1-1-2.hdf5", 1, 9):
        pass


@pytest.mark.parametrize("answer", [SILENT, DRIPPING])
def test_a_download_is_left_where_next_to_nothing_comes(serve, answer, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = f"{serve(defaultdict(lambda: answer))}/H-H1_GWOSC_4KHZ_R1-{T0:.0f}-32.hdf5"
    with pytest.raises((TimeoutError, http.client.HTTPException), match="within"), open_data.downloaded(url, 1.0, 0.4):
        pass
    assert not list(tmp_path.rglob("*.hdf5*[!k]"))  # but for the lock


def test_the_limit_of_the_socket_is_told_as_our_own(monkeypatch, tmp_path):
    """Both are as long; on a busy machine the socket's is noticed first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def open_late(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr(open_data.urllib.request, "urlopen", open_late)
    with (
        pytest.raises(TimeoutError, match=r"within 9 s \(`remote\.timeout`\)"),
        open_data.downloaded("http://x/H-H1-1-2.hdf5", 1, 9),
    ):
        pass


def failures():
    """What clients raise, and whether the server has answered that there is no such data."""
    requests, urllib3 = pytest.importorskip("requests"), pytest.importorskip("urllib3")
    unavailable, gone = requests.Response(), requests.Response()
    unavailable.status_code, gone.status_code = 502, 404
    yield requests.exceptions.ChunkedEncodingError("broken off"), False
    yield urllib3.exceptions.ProtocolError("broken off"), False
    yield requests.exceptions.HTTPError("502", response=unavailable), False
    yield requests.exceptions.HTTPError("404", response=gone), True
    yield http.client.IncompleteRead(b"half"), False
    yield urllib.error.HTTPError("http://x", 503, "busy", Message(), None), False
    yield urllib.error.HTTPError("http://x", 404, "none", Message(), None), True
    yield ExceptionGroup("all sources", [ValueError("no data"), urllib3.exceptions.ProtocolError("broken off")]), False
    yield ValueError("Cannot find a GWOSC dataset"), True
    yield RuntimeError("Missing segments"), True


def test_what_the_clients_raise_is_told_apart(monkeypatch):
    from gwpy.timeseries import TimeSeries

    settings = RemoteSettings(detectors=("H1",))
    for error, absent in failures():

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(TimeSeries, "fetch_open_data", fail)
        with pytest.raises(FormatError if absent else ConnectionFailedError):
            remote.fetch("open_data", settings, ["H1:GWOSC-4KHZ_R1_STRAIN"], T0, T0 + 2)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigurationError, match=r"remote\.detectors"):
        remote.channels_offered("open_data", RemoteSettings())
    with pytest.raises(ConfigurationError, match=r"remote\.timeout: .*86400"):
        built(RemoteSettings, {"timeout": math.inf}, "remote")
    with pytest.raises(ConfigurationError, match="must be one of"):
        remote.fetch("ftp", RemoteSettings(), ["V1:A"], T0, T0 + 1)
