import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.data.readers.continuous import StoredFile, cut, join, list_files, slice_bounds, span_in_name
from glitchflow_plugin.errors import ConfigurationError

T0 = 1_264_000_000.0


def channel(start, stop, rate=16.0, unit="m", name="V1:A"):
    ramp = np.arange(round((start - T0) * rate), round((stop - T0) * rate), dtype=np.float64)
    return Channel(name, ramp, start, rate, unit)


def store(folder, start, duration, **kwargs):
    path = folder / f"V-TEST-{start:.0f}-{duration}.h5"
    hdf5.write(path, {"V1:A": channel(start, start + duration, **kwargs)})
    return path


def test_a_cut_over_the_seam_of_two_files_is_whole(tmp_path):
    files = [hdf5.describe(store(tmp_path, T0 + offset, 10)) for offset in (0, 10, 20)]
    found, problems = cut(files[::-1], hdf5.read, ["V1:A"], T0 + 4.5, T0 + 23.25)
    assert not problems
    assert found["V1:A"].t0 == T0 + 4.5
    np.testing.assert_array_equal(found["V1:A"].series, np.arange(72, 372))


def test_a_gap_becomes_nan_and_is_named(tmp_path):
    files = [hdf5.describe(store(tmp_path, T0 + offset, 10)) for offset in (0, 20)]
    found, problems = cut(files, hdf5.read, ["V1:A"], T0 + 5, T0 + 25)
    assert problems == {"V1:A": "gap"}
    series = found["V1:A"].series
    assert np.isnan(series[5 * 16 : 15 * 16]).all()
    np.testing.assert_array_equal(series[15 * 16 :], np.arange(320, 400))


def test_a_truncated_file_leaves_a_reason(tmp_path):
    paths = [store(tmp_path, T0 + offset, 10) for offset in (0, 10)]
    files = [hdf5.describe(path) for path in paths]
    paths[1].write_bytes(paths[1].read_bytes()[:600])
    found, problems = cut(files, hdf5.read, ["V1:A"], T0 + 5, T0 + 15)
    assert list(problems) == ["V1:A"]
    assert re.match(r"unreadable: .*truncated", problems["V1:A"])
    assert len(found["V1:A"].series) == 5 * 16


def test_overlaps_join_and_disagreements_are_named():
    joined, problem = join([channel(T0, T0 + 10), channel(T0 + 8, T0 + 12)])
    assert problem is None
    np.testing.assert_array_equal(joined.series, np.arange(192))
    assert join([channel(T0, T0 + 10), channel(T0 + 10, T0 + 12, rate=32.0)])[1] == (
        "sample rate: the files give it at 16 and 32 Hz"
    )
    assert join([channel(T0, T0 + 10), channel(T0 + 10, T0 + 12, unit="V")])[1] == "unit: the files give it in V and m"
    volts = channel(T0, T0 + 10, unit="V"), channel(T0 + 10, T0 + 12, unit="m2 kg / (A s3)")
    assert join(volts)[1] is None
    assert join(volts)[0].unit == "V"


def test_a_copy_without_unit_or_with_holes_masks_nothing():
    whole, bare = channel(T0, T0 + 10), channel(T0 + 8, T0 + 12, unit="")
    joined, problem = join([whole, bare])
    assert (joined.unit, problem) == ("m", None)
    holes = channel(T0 + 2, T0 + 6)
    holes.series[:] = np.nan
    for pieces in ([whole, holes], [holes, whole]):
        joined, problem = join(pieces)
        np.testing.assert_array_equal(joined.series, whole.series)
        assert problem is None


def test_copies_that_differ_are_told():
    other = channel(T0 + 8, T0 + 12)
    other.series[:] += 1
    problem = join([channel(T0, T0 + 10), other])[1]
    assert problem.startswith("copies differ: files that overlap from GPS")
    single = Channel("V1:A", channel(T0 + 8, T0 + 12).series.astype(np.float32), T0 + 8, 16.0, "m")
    assert join([channel(T0, T0 + 10), single])[1] is None


def test_a_damaged_file_is_no_problem_where_another_has_the_stretch(tmp_path, caplog):
    good, bad = store(tmp_path / "good", T0, 20), store(tmp_path / "bad", T0, 20)
    files = [hdf5.describe(path) for path in (bad, good)]
    bad.write_bytes(bad.read_bytes()[:-100])
    found, problems = cut(files, hdf5.read, ["V1:A"], T0 + 5, T0 + 15)
    assert not problems
    assert len(found["V1:A"].series) == 160
    assert "Another file has the same stretch" in caplog.text


def test_files_are_found_by_folder_glob_and_cache(tmp_path):
    paths = [store(tmp_path, T0 + offset, 10) for offset in (10, 0)]
    expected = sorted(paths)
    assert list_files(tmp_path, (".h5",)) == expected
    assert list_files(tmp_path / "V-TEST-*.h5", (".gwf",)) == expected
    assert list_files(paths[0], (".h5",)) == [paths[0]]
    lal = tmp_path / "files.lcf"
    lal.write_text("\n".join(f"V TEST {T0:.0f} 10 file://localhost{path}" for path in paths) + "\n# end\n")
    assert list_files(lal, ()) == expected
    ffl = tmp_path / "files.ffl"
    ffl.write_text("\n".join(f"{path} {T0} 10 0 0" for path in paths))
    assert list_files(ffl, ()) == expected
    plain = tmp_path / "files.cache"
    plain.write_text("\n".join(path.name for path in paths))
    assert list_files(plain, ()) == expected
    with pytest.raises(ConfigurationError, match="names no file"):
        list_files(tmp_path / "nothing", (".h5",))


def test_spans_in_names():
    assert span_in_name("V-V1_raw-1264000000-100.gwf") == (1264000000.0, 1264000100.0)
    assert span_in_name("H-H1_GWOSC_16KHZ_R1-1126259447-32.hdf5") == (1126259447.0, 1126259479.0)
    assert span_in_name("notes.gwf") is None


@given(
    rate=st.sampled_from([1.0, 16.0, 500.0, 1000.0, 16384.0]),
    first=st.integers(-100, 3000),
    size=st.integers(0, 3000),
    second=st.integers(0, 500),
)
def test_slices_hold_exactly_the_samples_within(rate, first, size, second):
    t0 = T0 + second
    start, stop = t0 + first / rate, t0 + (first + size) / rate
    low, high = slice_bounds(t0, rate, 2000, start, stop)
    assert low == min(max(first, 0), 2000)
    assert high == min(max(first + size, 0), 2000)


def test_files_outside_the_cut_are_not_opened():
    def refuse(*_):
        raise AssertionError

    assert cut([StoredFile("x", T0, T0 + 1, {})], refuse, ["V1:A"], T0 + 5, T0 + 6) == ({}, {})
