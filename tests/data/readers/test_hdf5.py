import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.errors import FormatError

T0 = 1_264_000_000.0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    series=arrays(np.float64, st.integers(1, 200), elements=st.floats(allow_nan=True)),
    rate=st.sampled_from([0.5, 16.0, 500.0, 4096.0, 16384.0, 20000.0]),
    t0=st.floats(1e9, 2e9),
    unit=st.sampled_from(["", "m", "strain", "V"]),
)
def test_what_is_written_is_read(tmp_path, series, rate, t0, unit):
    path = tmp_path / "data.h5"
    hdf5.write(path, {"V1:A": Channel("V1:A", series, t0, rate, unit)})
    stored = hdf5.describe(path)
    assert stored.channels["V1:A"].sample_rate == rate
    assert stored.channels["V1:A"].unit == unit
    found = hdf5.read(path, ["V1:A", "V1:ABSENT"], stored.start - 1, stored.stop + 1)
    assert list(found) == ["V1:A"]
    np.testing.assert_array_equal(found["V1:A"].series, series)
    assert (found["V1:A"].t0, found["V1:A"].sample_rate, found["V1:A"].unit) == (t0, rate, unit)


def test_gwpy_reads_our_files_and_we_read_gwpys(tmp_path):
    timeseries = pytest.importorskip("gwpy.timeseries")
    series = np.random.default_rng(0).normal(size=500)
    hdf5.write(tmp_path / "ours.h5", {"V1:A": Channel("V1:A", series, T0, 500.0, "m")})
    theirs = timeseries.TimeSeriesDict.read(tmp_path / "ours.h5", format="hdf5")["V1:A"]
    np.testing.assert_array_equal(theirs.value, series)
    assert (theirs.t0.value, theirs.sample_rate.value, str(theirs.unit)) == (T0, pytest.approx(500), "m")
    theirs.write(tmp_path / "theirs.h5", path="V1:A")
    back = hdf5.read(tmp_path / "theirs.h5", ["V1:A"], T0 + 0.2, T0 + 0.5)["V1:A"]
    np.testing.assert_array_equal(back.series, series[100:250])
    assert (back.t0, back.sample_rate) == (T0 + 0.2, 500.0)


def test_event_files_can_be_cut_too(tmp_path):
    event = RawEvent("e", T0 + 1, {"V1:A": Channel("V1:A", np.arange(32.0), T0, 16.0, "m")})
    write_event(tmp_path / "e.h5", event)
    found = hdf5.read(tmp_path / "e.h5", ["V1:A"], T0 + 1, T0 + 2)["V1:A"]
    np.testing.assert_array_equal(found.series, np.arange(16.0, 32.0))


def test_truncated_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "data.h5"
    hdf5.write(path, {"V1:A": Channel("V1:A", np.arange(1000.0), T0, 16.0)})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(FormatError, match="truncated"):
        hdf5.describe(path)
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(FormatError, match="no dataset"):
        hdf5.describe(tmp_path / "other.h5")
