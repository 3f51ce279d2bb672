import re

import numpy as np
import pytest

from glitchflow_plugin import cli
from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.preprocessing.omega import channels_at, loudest, scan_windows, similarities

START, GLITCH = 1_264_000_000.0, 1_264_000_010.0
DATASET = {"target": "V1:STRAIN", "processing": {"sr": 512.0, "maxf": 200.0}}


def recorded(seconds=24.0, rate=1024.0):
    """A short burst of 80 Hz in strain, with a long one later, and in COUPLED, 20 ms earlier; DEAD is constant."""
    generator = np.random.default_rng(3)
    times = START + np.arange(round(seconds * rate)) / rate

    def burst(centre):
        since = times - centre
        return 8 * np.exp(-((since / 0.05) ** 2)) * np.sin(2 * np.pi * 80 * since)

    later = 16 * np.exp(-(((times - GLITCH - 3) / 0.4) ** 2)) * np.sin(2 * np.pi * 150 * times)
    noise = generator.standard_normal((3, len(times)))
    content = {
        "V1:STRAIN": noise[0] + burst(GLITCH) + later,
        "V1:COUPLED": noise[1] + 2 * burst(GLITCH - 0.02),
        "V1:OTHER": noise[2],
        "V1:DEAD": np.ones(len(times)),
    }
    return {name: Channel(name, values, START, rate, "V") for name, values in content.items()}


@pytest.fixture(scope="module")
def continuous(tmp_path_factory):
    folder = tmp_path_factory.mktemp("continuous")
    hdf5.write(folder / "V-TEST-1264000000-24.hdf5", recorded())
    return folder


def test_a_coupled_witness_is_told_from_another(continuous):
    found = channels_at([{**DATASET, "path": str(continuous)}], None, GLITCH)
    assert set(found.channels) == {"V1:STRAIN", "V1:COUPLED", "V1:OTHER"}
    assert "constant" in found.rejected["V1:DEAD"]
    windows = scan_windows(found, (0.5, 2.0, 8.0))
    assert [round(one.length, 1) for one in windows] == [0.5, 2.0, 8.0]
    assert windows[0].q[0] < windows[2].q[0]  # that of the long burst, which the short window does not see
    row = {name: place for place, name in enumerate(found.channels)}
    peaks = loudest(found, windows[1])
    strain, coupled, other = (peaks[row[name]] for name in ("V1:STRAIN", "V1:COUPLED", "V1:OTHER"))
    assert strain[0] > 50
    assert coupled[0] > 2 * strain[0]
    assert other[0] < 30
    assert strain[1] == pytest.approx(0, abs=0.03)
    assert coupled[1] == pytest.approx(-0.02, abs=0.03)
    assert strain[2] == pytest.approx(80, rel=0.1)
    correlation, _ = similarities(found)
    assert correlation.value[row["V1:COUPLED"]] > 2 * correlation.by_chance[row["V1:COUPLED"]]
    assert correlation.place[row["V1:COUPLED"]] == pytest.approx(-0.02, abs=0.013)  # within a period of the burst


def test_short_events_are_looked_at_as_far_as_they_reach(tmp_path):
    held = {name: one for name, one in recorded(14.0).items() if name != "V1:DEAD"}
    write_event(tmp_path / "one.h5", RawEvent("one", START + 7, held))
    found = channels_at([{**DATASET, "path": str(tmp_path)}], None, GLITCH)
    window = scan_windows(found, (8.0,))[0]
    assert window.length < 8
    assert found.start >= START
    with pytest.raises(DataError, match="expected data of V1:STRAIN at GPS 1264000100"):
        channels_at([{**DATASET, "path": str(tmp_path)}], None, START + 100)
    with pytest.raises(DataError, match="cannot be whitened"):
        channels_at([{**DATASET, "path": str(tmp_path)}], None, START + 0.1)


def test_the_command_makes_the_page(continuous, tmp_path, capsys, monkeypatch):
    pytest.importorskip("bokeh")
    pytest.importorskip("itables")
    cli.init(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    settings = ["datasets.0.target=V1:STRAIN", "datasets.0.processing.sr=512", "datasets.0.processing.maxf=200"]
    words = ["omega", "--channels", "2", str(GLITCH), f"datasets.0.path={continuous}", *settings]
    assert cli.main(words) == 0
    html = (tmp_path / "run" / "omega-1264000010.000.html").read_text()
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["V1:STRAIN (target)", "V1:COUPLED"]
    assert "V1:DEAD is left out" in html
    capsys.readouterr()
    assert cli.main(["omega", "12", f"datasets.0.path={continuous}", *settings]) == 1
    assert "GPS 12.000" in capsys.readouterr().err
