"""The page of `glitchflow ui` as a person uses it, in a real browser, with a real registry."""

import contextlib
import io
import signal
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pandas as pd
import pytest
from tests.report.conftest import flaws

from glitchflow_plugin import cli
from glitchflow_plugin.commands import ui
from glitchflow_plugin.tracking.trigger_models import register_trigger_model


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    """The page, served as a user serves it."""
    pytest.importorskip("streamlit", reason="the extra ui is not installed")
    folder = tmp_path_factory.mktemp("ui")
    uri = f"sqlite:///{folder}/mlflow.db"
    register_trigger_model(model, "triggers", uri, artifacts=folder / "artifacts")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--port", str(port), "--tracking-uri", uri, "--largest", "1"]
    served = subprocess.Popen([sys.executable, "-m", "glitchflow_plugin.cli", "ui", *words], cwd=folder)
    address, late = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while served.poll() is None and time.monotonic() < late:
        with contextlib.suppress(URLError), urlopen(f"{address}/_stcore/health", timeout=10):  # noqa: S310
            break
        time.sleep(0.2)
    yield address
    served.send_signal(signal.SIGINT)
    served.wait(60)


@pytest.fixture
def page(browser, address):
    """The page once it asks for files; whatever it asks of another machine, and whatever goes wrong in it, fails."""
    troubles = []
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(180_000)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda asked: troubles.append(asked.url) if not local(asked.url, address) else None)
    page.goto(address)
    page.locator("input[type=file]").wait_for(state="attached")
    yield page
    page.close()
    assert not troubles


def local(url, address):
    return url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))


def drop(page, name, content):
    page.set_input_files("input[type=file]", {"name": name, "mimeType": "text/csv", "buffer": content})


def test_a_dropped_file_is_answered_filtered_and_downloaded(page, theirs):
    assert page.get_by_role("combobox", name="Model").input_value() == "triggers version 1, forest"
    page.get_by_text("under its ROC is 0.900").wait_for()
    drop(page, "theirs.csv", theirs)
    page.get_by_text("99 of 99 times").wait_for()
    page.get_by_text("count as UNKNOWN: V1:NEW").wait_for()
    page.locator(".vega-embed").nth(1).wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="All times as CSV").click()
    told = pd.read_csv(io.BytesIO(download.value.path().read_bytes()), dtype={"time": str})
    assert len(told) == 99
    assert told["time"][0] == "1400000000.123456789"
    page.get_by_role("combobox", name="Loudest channel").press_sequentially("AUX-001")
    page.get_by_role("option", name="V1:AUX-001").wait_for()
    page.keyboard.press("Enter")
    page.get_by_text(f"{(told['channel'] == 'V1:AUX-001').sum()} of 99 times").wait_for()
    page.keyboard.press("Escape")
    # the role of its place to drop files is Streamlit's own affair
    assert {name for name, _ in flaws(page)} <= {"presentation-role-conflict"}
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_files_that_cannot_be_read_are_told_in_the_readers_words(page):
    drop(page, "mine.csv", b"time,frequency\n1400000000,10\n")
    page.get_by_text("mine.csv: expected columns for ['snr']").wait_for()
    assert page.get_by_text("Traceback").count() == 0
    drop(page, "large.csv", bytes(2 * 2**20))
    page.get_by_text("File must be 1.0MB or smaller").wait_for()


def test_only_this_machine_is_answered(address):
    port = int(address.rpartition(":")[2])
    # 127.0.0.2 is this machine as well, but by another address
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", port)) != 0
    request = b"GET /_stcore/stream HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    request += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as asked:
        asked.sendall(request)
        assert b"403" in asked.recv(100)


def test_what_is_not_installed_or_out_of_range_is_told(monkeypatch, capsys):
    monkeypatch.setattr(ui, "find_spec", {}.get)
    assert cli.main(["ui"]) == 1
    assert "pip install 'glitchflow_plugin[ui]'" in capsys.readouterr().err
    monkeypatch.setattr(ui, "find_spec", str)
    assert cli.main(["ui", "--largest", "0"]) == 1
    assert "--largest" in capsys.readouterr().err
