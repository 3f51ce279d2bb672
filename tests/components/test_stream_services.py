"""Streaming from servers over HTTP: open data and datafind, whole, with faults, and what is fetched how often."""

from collections import Counter
from dataclasses import replace
from urllib.parse import urlparse

import h5py
import numpy as np
import pytest
from scipy import signal
from tests.components.test_stream import _glitches, register, stream
from tests.data.readers.test_gwosc import write_like_gwosc
from tests.data.readers.test_remote import DRIPPING, SILENT, serve  # noqa: F401  # the last is a fixture
from tests.streaming import _streams as data
from tests.streaming._streams import write_files

from glitchflow_plugin.data.readers import frames, open_data
from glitchflow_plugin.data.readers.remote import RemoteSettings
from glitchflow_plugin.errors import ConnectionFailedError, MissingDependencyError
from glitchflow_plugin.products.folder import read_manifest
from glitchflow_plugin.streaming import blocks

STRAIN = "V1:GWOSC-4KHZ_R1_STRAIN"
PART = 32


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(blocks, "WAITS", (0.0, 0.0))
    return register(monkeypatch)


class Answers(dict):
    """What a server says, and how often it was asked; some of it only after a few faults."""

    def __init__(self):
        super().__init__()
        self.asked, self.faults = Counter(), {}

    def get(self, path, default=None):
        self.asked[path] += 1
        if self.faults.get(path):
            return self.faults[path].pop()
        return super().get(path, default)


@pytest.fixture
def archive(tmp_path, serve):  # noqa: F811
    """Strain at 4096 Hz in three files of a server like GWOSC's, and the same in local files."""
    recorded = data.recordings()
    strain = replace(
        recorded[data.STRAIN], series=signal.resample_poly(recorded[data.STRAIN].series, 2, 1), sample_rate=4096.0
    )
    witnesses = write_files(tmp_path / "witnesses", {name: recorded[name] for name in (data.GUIDE, data.OTHER)})
    answers, local = Answers(), tmp_path / "local"
    local.mkdir()
    host, files = serve(answers), []
    for start in range(0, int(data.LENGTH), PART):
        name = f"V-V1_GWOSC_4KHZ_R1-{data.GPS + start:.0f}-{PART}.hdf5"
        path = write_like_gwosc(
            local / name, strain.series[start * 4096 : (start + PART) * 4096], 4096, data.GPS + start, "V1"
        )
        answers[f"/{name}"] = path.read_bytes()
        urls = {"hdf5_url": f"{host}/{name}", "gwf_url": f"{host}/none.gwf", "download_url": f"{host}/{name}"}
        kind = {"detector": "V1", "sample_rate_kHz": 4, "duration": PART, "file_format": "HDF5"}
        files.append({"gps_start": int(data.GPS) + start, **kind, **urls})
    page = {"next": None, "previous": None, "num_pages": 1, "results_count": 1}
    run = {"name": "O9", "detectors": ["V1"], "gps_start": int(data.GPS) - 5000, "gps_end": int(data.GPS) + 5000}
    answers["/api/v2/event-versions"] = answers["/api/v2/catalogs"] = page | {"results": []}
    answers["/api/v2/runs"] = page | {"results": [run]}
    answers["/api/v2/runs/O9/strain-files"] = answers["/api/v2/strain-files"] = page | {"results": files}
    remote = {"host": host, "detectors": ["V1"], "sample_rate": 4096}
    return answers, {"format": "open_data", "remote": remote}, {"path": str(local), "format": "gwosc"}, witnesses


def made_from(folder, source, witnesses, **changed):
    datasets = [source, {"path": str(witnesses)}]
    return stream(folder, None, datasets=datasets, products={"target": STRAIN}, **changed)


def downloads(answers):
    return {path: number for path, number in answers.asked.items() if path.endswith(".hdf5")}


def test_open_data_gives_what_the_same_files_give_and_each_is_fetched_once(archive, tmp_path):
    answers, service, local, witnesses = archive
    segments = [[data.GPS, data.GPS + data.LENGTH]]
    made = made_from(tmp_path / "out", service, witnesses, segments=segments)
    expected = made_from(tmp_path / "local_out", local, witnesses, segments=segments)
    assert np.abs(_glitches(made, 4096, STRAIN)).max() > 3 * data.LEVEL
    for path in expected.glob("*.h5"):
        with h5py.File(path) as one, h5py.File(made / path.name) as other:
            assert set(one) == set(other)
            assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)
    assert downloads(answers) == {path: 1 for path in answers if path.endswith(".hdf5")}
    assert made_from(tmp_path / "out", service, witnesses, segments=segments) == made


def test_a_segment_beyond_the_archive_gives_what_is_there(archive, tmp_path):
    _, service, _, witnesses = archive
    made = made_from(tmp_path / "out", service, witnesses, segments=[[data.GPS + 40, data.GPS + 150]])
    seconds = {one.start - data.GPS: one.seconds.get("ANALYSED", 0.0) for one in read_manifest(made).blocks}
    assert seconds[75.0] > 10
    assert seconds[100.0] == seconds[125.0] == 0.0


@pytest.mark.parametrize("fault", [503, b"<html>down for maintenance</html>", "breaks off"])
def test_a_fault_passes_and_one_that_stays_ends_the_run_which_goes_on_later(archive, tmp_path, fault):
    answers, service, _, witnesses = archive
    last = max(path for path in answers if path.endswith(".hdf5"))
    wrong = (answers[last][:9000], len(answers[last])) if fault == "breaks off" else fault
    segments = [[data.GPS + 25, data.GPS + data.LENGTH]]
    answers.faults[last] = [wrong] * 3
    with pytest.raises(ConnectionFailedError, match="Check the network"):
        made_from(tmp_path / "out", service, witnesses, segments=segments)
    (folder,) = (tmp_path / "out").iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")}
    answers.faults[last] = [wrong] * 2
    made = made_from(tmp_path / "out", service, witnesses, segments=segments)
    assert made == folder
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(one.seconds["ANALYSED"] > 10 for one in read_manifest(made).blocks)


def test_a_server_that_falls_silent_is_asked_again(archive, tmp_path):
    answers, service, _, witnesses = archive
    first, *_, last = sorted(path for path in answers if path.endswith(".hdf5"))
    answers.faults[first], answers.faults[last] = [SILENT], [DRIPPING]
    waiting = {**service, "remote": {**service["remote"], "timeout": 3.0}}
    segments = [[data.GPS, data.GPS + data.LENGTH]]
    made = made_from(tmp_path / "out", waiting, witnesses, segments=segments)
    assert all(one.seconds["ANALYSED"] > 10 for one in read_manifest(made).blocks)
    assert [answers.asked[path] for path in (first, last)] == [2, 2]


def test_what_is_kept_stays_below_its_bound(archive):
    answers, service, _, _ = archive
    settings = RemoteSettings(**service["remote"])
    urls = [f"{settings.host}{path}" for path in sorted(answers) if path.endswith(".hdf5")]
    one = len(answers[urlparse(urls[0]).path]) / 2**30
    with open_data.downloaded(urls[0], 1.5 * one, 60), open_data.downloaded(urls[1], 1.5 * one, 60) as second:
        assert len(list(second.parent.glob("*.hdf5"))) == 2  # what is in use stays
    with open_data.downloaded(urls[2], 1.5 * one, 60) as third:
        assert [path.name for path in third.parent.glob("*.hdf5")] == [third.name]


def test_datafind_gives_what_the_same_frames_give_over_a_gap(tmp_path, serve):  # noqa: F811
    try:
        frames.require_backend()
    except MissingDependencyError:
        pytest.skip("no frame library")
    folder = write_files(tmp_path / "frames", write=frames.write)
    next(folder.glob("*-1400000032-32.gwf")).unlink()

    class Server:
        def get(self, path, _):
            if not path.endswith("/file.json"):
                return ["V1Online"]
            first, last = (float(one) for one in path.split("/")[-2].split(","))
            spans = {file: float(file.stem.split("-")[2]) for file in sorted(folder.iterdir())}
            return [f"file://localhost{file}" for file, at in spans.items() if at < last and at + 32 > first]

    service = {"format": "datafind", "remote": {"host": serve(Server()), "frametype": "V1Online"}}
    segments = [[data.GPS, data.GPS + data.LENGTH]]
    made = stream(tmp_path / "out", None, datasets=[service], segments=segments)
    expected = stream(tmp_path / "local", folder, segments=[[data.GPS, data.GPS + 32]])
    name = "V-V1_GLF_STRAIN_CLEAN-1400000000-25.h5"
    with h5py.File(expected / name) as one, h5py.File(made / name) as other:
        assert np.array_equal(one[data.STRAIN], other[data.STRAIN])
        assert np.count_nonzero(other[f"{data.STRAIN}_glitch"]) > 0
    analysed = [one.seconds.get("ANALYSED", 0.0) for one in read_manifest(made).blocks]
    assert analysed[0] > 20
    assert analysed[-1] > 10
    assert sum(analysed) < 64
