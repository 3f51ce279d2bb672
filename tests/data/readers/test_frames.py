import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import frames
from glitchflow_plugin.data.readers.continuous import cut, list_files
from glitchflow_plugin.errors import DataError, FormatError, MissingDependencyError

T0 = 1_264_000_000.0
ODD_NAMES = ("a:b", "a,b", r"a\b", "[1]", "a b", "a%20b", "a#b", "é", "file:", "http:x", "a*b?", "'\"$`", "-x", "~")


@pytest.fixture
def backend():
    pytest.importorskip("gwpy")
    try:
        frames.require_backend()
    except MissingDependencyError:
        pytest.skip('no frame library: pip install "glitchflow_plugin[frames]"')


@pytest.mark.usefixtures("backend")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.sampled_from([16, 500, 4096]),
    dtype=st.sampled_from([np.float64, np.float32, np.int32]),
    data=st.data(),
)
def test_frames_round_trip_exactly(tmp_path, rate, dtype, data):
    elements = st.integers(-1000, 1000) if dtype is np.int32 else st.floats(-1e6, 1e6, width=32)
    series = data.draw(arrays(dtype, 4 * rate, elements=elements, fill=elements))
    path = tmp_path / "V-TEST-1264000000-4.gwf"
    other = Channel("V1:OTHER", np.arange(4.0 * 16), T0, 16.0, "V")
    frames.write(path, {"V1:A": Channel("V1:A", series, T0, float(rate), "m"), "V1:OTHER": other})
    stored = frames.describe(path)
    assert (stored.start, stored.stop) == (T0, T0 + 4)
    assert set(stored.channels) == {"V1:A", "V1:OTHER"}
    found = frames.read(path, ["V1:A", "V1:ABSENT"], T0, T0 + 4)
    assert list(found) == ["V1:A"]
    (piece,) = found["V1:A"]
    np.testing.assert_array_equal(piece.series, series)
    assert piece.series.dtype == dtype
    assert (piece.t0, piece.sample_rate, piece.unit) == (T0, rate, "m")


@pytest.mark.usefixtures("backend")
def test_a_cut_and_a_file_without_a_span_in_its_name(tmp_path):
    series = np.arange(10 * 16.0)
    frames.write(tmp_path / "data.gwf", {"V1:A": Channel("V1:A", series, T0, 16.0)})
    stored = frames.describe(tmp_path / "data.gwf")
    assert (stored.start, stored.stop) == (T0, T0 + 10)
    (found,) = frames.read(tmp_path / "data.gwf", ["V1:A"], T0 + 2.25, T0 + 7.5)["V1:A"]
    np.testing.assert_array_equal(found.series, series[36:120])
    assert found.t0 == T0 + 2.25


@pytest.mark.usefixtures("backend")
def test_a_truncated_frame_file_is_refused_before_it_can_crash_the_library(tmp_path):
    path = tmp_path / "V-TEST-1264000000-10.gwf"
    noise = np.random.default_rng(0).normal(size=160)
    frames.write(path, {"V1:A": Channel("V1:A", noise, T0, 16.0)})
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 1, 20, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"truncated|no frame file"):
            frames.read(path, ["V1:A"], T0, T0 + 10)
        with pytest.raises(FormatError, match=r"truncated|no frame file"):
            frames.describe(path)


def test_without_a_frame_library_the_message_says_what_to_install(tmp_path, monkeypatch):
    pytest.importorskip("gwpy")
    backends = [f"gwpy.io.gwf.{name}" for name in ("lalframe", "framecpp", "framel")]
    for name in ("lalframe", "LDAStools", "LDAStools.frameCPP", "framel", *backends):
        monkeypatch.setitem(sys.modules, name, None)  # import then fails as if it were not installed
    with pytest.raises(MissingDependencyError, match=r'pip install "glitchflow_plugin\[frames\]"'):
        frames.describe(tmp_path / "V-TEST-1264000000-10.gwf")
    with pytest.raises(MissingDependencyError, match="frames"):
        frames.write(tmp_path / "x.gwf", {"V1:A": Channel("V1:A", np.arange(16.0), T0, 16.0)})
    assert not (tmp_path / "x.gwf").exists()


def write_frames(path, *stretches, names=("V1:A",), rate=16.0):
    """Write one file with a frame for each (start, stop, names); samples count from T0."""
    lal, lalframe = pytest.importorskip("lal"), pytest.importorskip("lalframe")
    file = lalframe.FrameUFrFileOpen(str(path), "w")
    for start, stop, *held in stretches:
        frame = lalframe.FrameNew(lal.LIGOTimeGPS(start), stop - start, "TEST", 0, 0, 0)
        for name in held[0] if held else names:
            series = lal.CreateREAL8TimeSeries(
                name, lal.LIGOTimeGPS(start), 0, 1 / rate, lal.Unit("m"), round((stop - start) * rate)
            )
            series.data.data = np.arange(round((start - T0) * rate), round((stop - T0) * rate))
            lalframe.FrameAddREAL8TimeSeriesProcData(frame, series)
        lalframe.FrameUFrameHWrite(file, frame)
    return path


def cut_out(paths, start, stop, channels=("V1:A",)):
    return cut([frames.describe(path) for path in paths], frames.read, list(channels), start, stop)


@pytest.mark.usefixtures("backend")
def test_a_hole_in_a_file_is_the_gap_that_it_is_between_two_files(tmp_path):
    holed = write_frames(tmp_path / "holed.gwf", (T0, T0 + 10), (T0 + 20, T0 + 30))
    apart = [
        write_frames(tmp_path / "first.gwf", (T0, T0 + 10)),
        write_frames(tmp_path / "second.gwf", (T0 + 20, T0 + 30)),
    ]
    for start, stop in ((5, 25), (5, 15), (15, 25), (0, 30), (9.5, 20.5)):
        inside, problems = cut_out([holed], T0 + start, T0 + stop)
        between, same = cut_out(apart, T0 + start, T0 + stop)
        assert problems == same
        assert problems["V1:A"].startswith("gap")
        assert inside["V1:A"].t0 == between["V1:A"].t0
        np.testing.assert_array_equal(inside["V1:A"].series, between["V1:A"].series)
    inside, problems = cut_out([holed], T0 + 5, T0 + 25)
    assert problems == {"V1:A": "gap"}
    assert np.isnan(inside["V1:A"].series[5 * 16 : 15 * 16]).all()
    np.testing.assert_array_equal(inside["V1:A"].series[15 * 16 :], np.arange(320, 400))
    assert cut_out([holed], T0 + 12, T0 + 18) == ({}, {"V1:A": "gap"})


@pytest.mark.usefixtures("backend")
def test_a_channel_that_a_frame_in_the_middle_lacks_has_a_gap_and_the_others_have_none(tmp_path):
    both, alone = ("V1:A", "V1:B"), ("V1:A",)
    path = write_frames(tmp_path / "x.gwf", (T0, T0 + 4, both), (T0 + 4, T0 + 8, alone), (T0 + 8, T0 + 12, both))
    found, problems = cut_out([path], T0, T0 + 12, both)
    assert problems == {"V1:B": "gap"}
    np.testing.assert_array_equal(found["V1:A"].series, np.arange(192))
    assert np.isnan(found["V1:B"].series).sum() == 64


@pytest.mark.usefixtures("backend")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_however_files_share_out_a_stretch_the_cut_is_the_same(tmp_path, data):
    """Seams, overlaps and frames in any order: what is covered comes back, what is not is NaN and named."""
    spans = data.draw(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), min_size=1, max_size=5))
    start, length = data.draw(st.integers(0, 400)) / 16, data.draw(st.integers(1, 200)) / 16
    paths, covered = [], np.zeros(28 * 16, dtype=bool)
    number_of_files = data.draw(st.integers(1, len(spans)))
    for number in range(number_of_files):
        paths.append(tmp_path / f"{number}.gwf")
        write_frames(paths[-1], *((T0 + a, T0 + a + n) for a, n in spans[number::number_of_files]))
    for a, n in spans:
        covered[a * 16 : (a + n) * 16] = True
    first, last = round(start * 16), round((start + length) * 16)
    within = np.flatnonzero(covered[first:last]) + first
    found, problems = cut_out(data.draw(st.permutations(paths)), T0 + start, T0 + start + length)
    if not len(within):
        assert not found
        return
    expected = np.where(covered, np.arange(28.0 * 16), np.nan)[within[0] : within[-1] + 1]
    np.testing.assert_array_equal(found["V1:A"].series, expected)
    assert found["V1:A"].t0 == T0 + within[0] / 16
    whole = len(within) == last - first
    assert {name: reason.partition(":")[0] for name, reason in problems.items()} == ({} if whole else {"V1:A": "gap"})


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("odd", ODD_NAMES)
def test_odd_names_of_files_and_folders_are_taken_literally(tmp_path, odd, monkeypatch):
    folder = tmp_path / odd
    folder.mkdir()
    paths = sorted(folder / f"{odd}-TEST-{T0 + offset:.0f}-4.gwf" for offset in (0, 4))
    for path in paths:
        frames.write(
            path,
            {"V1:A": Channel("V1:A", np.arange(64.0) + (path == paths[1]) * 64, frames.span_in_name(path)[0], 16.0)},
        )
    assert list_files(folder, (".gwf",)) == paths
    assert list_files(paths[0], (".gwf",)) == [paths[0]]
    assert list_files(folder / "*.gwf", (".gwf",)) == paths
    for lines in (
        (f"V TEST {T0:.0f} 4 file://localhost{path}" for path in paths),
        (f"{path} {T0} 4 0 0" for path in paths),
    ):
        (tmp_path / "files.lcf").write_text("\n".join(lines))
        assert list_files(tmp_path / "files.lcf", (".gwf",)) == paths
    found, problems = cut_out(paths, T0, T0 + 8)
    assert not problems
    np.testing.assert_array_equal(found["V1:A"].series, np.arange(128))
    monkeypatch.chdir(folder)
    (relative, _) = list_files("./*.gwf", (".gwf",))
    assert set(frames.describe(relative).channels) == {"V1:A"}


@pytest.mark.usefixtures("backend")
def test_a_damaged_channel_does_not_take_the_others_with_it(tmp_path):
    names = [f"V1:C{k}" for k in range(7)]
    path = tmp_path / "V-TEST-1264000000-16.gwf"
    noise = np.random.default_rng(0).normal(size=(7, 4096))
    frames.write(path, {name: Channel(name, one, T0, 256.0) for name, one in zip(names, noise, strict=True)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(FormatError, match="V1:C3 fails its checksum"):
        frames.read(path, names, T0, T0 + 16)
    found, problems = cut_out([path], T0, T0 + 16, names)
    assert list(problems) == ["V1:C3"]
    assert problems["V1:C3"].startswith("unreadable: ")
    assert "V1:C3 fails its checksum" in problems["V1:C3"]
    assert set(found) == set(names) - {"V1:C3"}
    np.testing.assert_array_equal(found["V1:C6"].series, noise[6])


@pytest.mark.usefixtures("backend")
def test_what_is_no_series_of_real_numbers_is_refused_alone(tmp_path):
    lal, lalframe = pytest.importorskip("lal"), pytest.importorskip("lalframe")
    path = tmp_path / "x.gwf"
    file = lalframe.FrameUFrFileOpen(str(path), "w")
    frame = lalframe.FrameNew(lal.LIGOTimeGPS(T0), 4.0, "TEST", 0, 0, 0)
    for name, kind in (("V1:REAL", "REAL4"), ("V1:COMPLEX", "COMPLEX8")):
        series = getattr(lal, f"Create{kind}TimeSeries")(name, lal.LIGOTimeGPS(T0), 0, 1 / 16, lal.Unit("m"), 64)
        series.data.data = np.ones(64)
        getattr(lalframe, f"FrameAdd{kind}TimeSeriesProcData")(frame, series)
    lalframe.FrameUFrameHWrite(file, frame)
    del file
    found, problems = cut_out([path], T0, T0 + 4, ("V1:REAL", "V1:COMPLEX"))
    assert list(found) == ["V1:REAL"]
    assert list(problems) == ["V1:COMPLEX"]
    assert "expected real numbers" in problems["V1:COMPLEX"]


@pytest.mark.usefixtures("backend")
def test_samples_times_rates_and_units_are_those_that_gwpy_reads(tmp_path):
    timeseries = pytest.importorskip("gwpy.timeseries")
    path = tmp_path / "V-TEST-1264000000-4.gwf"
    units = ("m", "V", "strain", "", "ct", "m / s", "1 / Hz(1/2)")
    rng = np.random.default_rng(0)
    frames.write(
        path,
        {f"V1:{k}": Channel(f"V1:{k}", rng.normal(size=400), T0, 100.0, unit) for k, unit in enumerate(units)},
    )
    theirs = timeseries.TimeSeriesDict.read(str(path), [f"V1:{k}" for k in range(len(units))], format="gwf")
    for name, (ours,) in frames.read(path, list(theirs), T0, T0 + 4).items():
        expected = frames.as_channel(name, theirs[name])
        np.testing.assert_array_equal(ours.series, expected.series)
        assert (ours.t0, ours.sample_rate, ours.unit) == (expected.t0, expected.sample_rate, expected.unit)


@pytest.mark.usefixtures("backend")
def test_reading_leaves_no_file_open_and_takes_what_is_no_file_for_none(tmp_path):
    path = write_frames(tmp_path / "x.gwf", (T0, T0 + 4))
    read, describe = frames._read.__wrapped__, frames._describe.__wrapped__  # in this process
    read(path, ["V1:A"], T0, T0 + 4)
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        read(path, ["V1:A"], T0, T0 + 4)
        describe(path)
    assert len(list(Path("/dev/fd").iterdir())) == before
    os.mkfifo(tmp_path / "pipe.gwf")
    (tmp_path / "folder.gwf").mkdir()
    (tmp_path / "dangling.gwf").symlink_to(tmp_path / "nothing")
    for name in ("pipe.gwf", "folder.gwf", "dangling.gwf"):
        with pytest.raises(FormatError, match=name):
            frames.describe(tmp_path / name)


@pytest.mark.slow
@pytest.mark.usefixtures("backend")
def test_a_file_with_flipped_bits_gives_what_it_held_or_a_reason(tmp_path):
    """LALFrame may crash or hang on it, or find less in it: the run goes on, and nothing false comes back."""
    names = ("V1:A", "V1:B", "V1:C")
    whole = write_frames(tmp_path / "whole.gwf", (T0, T0 + 16), (T0 + 16, T0 + 32), names=names).read_bytes()
    rng = np.random.default_rng(3)
    for number in range(30):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=8):
            content[place] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{number}.gwf"
        path.write_bytes(content)
        try:
            found, problems = cut_out([path], T0, T0 + 32, names)
        except FormatError:
            continue
        for name in set(found) - set(problems):
            first = round((found[name].t0 - T0) * 16)
            np.testing.assert_array_equal(found[name].series, np.arange(first, first + len(found[name].series)))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_frame_that_a_full_disk_cuts_short_is_told_and_not_left(tmp_path, share):
    noise = Channel("V1:STRAIN", np.random.default_rng(0).standard_normal(4096), 1.4e9, 4096.0, "strain")
    path = tmp_path / "V-SIM-1400000000-1.gwf"
    frames.write(path, {noise.name: noise})
    size = path.stat().st_size
    path.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), before[1]))
    try:
        with pytest.raises(DataError, match=r"Cannot write .*V-SIM-1400000000-1.gwf: .*the disk may be full"):
            frames.write(path, {noise.name: noise})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
