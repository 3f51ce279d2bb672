import h5py
import numpy as np
import pytest

from glitchflow_plugin.data.readers import gwosc
from glitchflow_plugin.errors import FormatError

GPS = 1126259447


def write_like_gwosc(path, series, rate=4096, start=GPS, detector="H1"):
    with h5py.File(path, "w") as file:
        strain = file.create_dataset("strain/Strain", data=series)
        strain.attrs.update(Xstart=start, Xspacing=1 / rate, Npoints=len(series), Xunits="second", Yunits="")
        file["meta/Detector"] = detector
    return path


def test_a_small_file_is_described_and_cut(tmp_path):
    series = np.arange(2 * 4096.0)
    path = write_like_gwosc(tmp_path / "H-H1_GWOSC_4KHZ_R1-1126259447-2.hdf5", series)
    assert gwosc.is_gwosc(path)
    stored = gwosc.describe(path)
    assert (stored.start, stored.stop) == (GPS, GPS + 2)
    assert stored.channels["H1:GWOSC-4KHZ_R1_STRAIN"].sample_rate == 4096
    found = gwosc.read(path, list(stored.channels), GPS + 0.5, GPS + 1)["H1:GWOSC-4KHZ_R1_STRAIN"]
    np.testing.assert_array_equal(found.series, series[2048:4096])
    assert found.t0 == GPS + 0.5
    assert gwosc.read(path, ["L1:GWOSC-4KHZ_R1_STRAIN"], GPS, GPS + 1) == {}


@pytest.mark.parametrize(
    ("file_name", "rate", "channel"),
    [
        ("H-H1_GWOSC_4KHZ_R1-1126259447-2.hdf5", 4096, "H1:GWOSC-4KHZ_R1_STRAIN"),
        ("H-H1_GWOSC_4KHZ_R2-1126259447-2.hdf5", 4096, "H1:GWOSC-4KHZ_R2_STRAIN"),
        ("H-H1_GWOSC_16KHZ_R3-1126259447-2.hdf5", 16384, "H1:GWOSC-16KHZ_R3_STRAIN"),
        ("H-H1_GWOSC_O3b_4KHZ_R1-1126259447-2.hdf5", 4096, "H1:GWOSC-4KHZ_R1_STRAIN"),
        ("H-H1_GWOSC_O4a_16KHZ_R12-1126259447-2.hdf5", 16384, "H1:GWOSC-16KHZ_R12_STRAIN"),
        ("H-H1_LOSC_4_V2-1126259447-2.hdf5", 4096, "H1:LOSC-STRAIN"),
        ("H-H1_LOSC_16_V1-1126259447-2.hdf5", 16384, "H1:LOSC-STRAIN"),
        ("R2D2_GWOSC_4KHZ_R2.hdf5", 4096, "H1:GWOSC-4KHZ_R2_STRAIN"),
        ("renamed.hdf5", 4096, "H1:GWOSC-4KHZ_R1_STRAIN"),
    ],
)
def test_the_channel_bears_the_release_that_its_file_is_of(tmp_path, file_name, rate, channel):
    path = write_like_gwosc(tmp_path / file_name, np.arange(float(rate)), rate=rate)
    assert list(gwosc.describe(path).channels) == [channel]
    assert list(gwosc.read(path, [channel], GPS, GPS + 1)) == [channel]


def test_other_layouts_and_truncated_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1
    assert not gwosc.is_gwosc(tmp_path / "other.hdf5")
    with pytest.raises(FormatError, match="laid out"):
        gwosc.describe(tmp_path / "other.hdf5")
    path = write_like_gwosc(tmp_path / "cut.hdf5", np.arange(4096.0))
    path.write_bytes(path.read_bytes()[:9000])
    assert not gwosc.is_gwosc(path)
    with pytest.raises(FormatError, match="truncated"):
        gwosc.describe(path)


def test_real_files_read_as_gwpy_reads_them(real_data):
    timeseries = pytest.importorskip("gwpy.timeseries")
    files = sorted((real_data / "gwosc").glob("*.hdf5"))
    assert files
    for path in files:
        stored = gwosc.describe(path)
        (name,) = stored.channels
        ours = gwosc.read(path, [name], stored.start + 3, stored.start + 5)[name]
        theirs = timeseries.TimeSeries.read(path, format="hdf5.gwosc", start=stored.start + 3, end=stored.start + 5)
        np.testing.assert_array_equal(ours.series, theirs.value)
        assert (ours.t0, ours.sample_rate) == (theirs.t0.value, theirs.sample_rate.value)
        assert name.startswith(path.name[2:4])


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ({"Xstart": np.float32(GPS)}, "Xstart: the time .* is stored as float32"),
        ({"Xspacing": 0.0}, "Xspacing must be positive"),
        ({"Xspacing": "soon"}, "Xspacing: expected a number"),
        ({"Xstart": np.nan}, "Xstart: expected a number"),
    ],
)
def test_what_is_odd_in_a_file_is_told(tmp_path, attributes, match):
    path = write_like_gwosc(tmp_path / "odd.hdf5", np.arange(4096.0))
    with h5py.File(path, "r+") as file:
        file["strain/Strain"].attrs.update(attributes)
    assert gwosc.is_gwosc(path)
    with pytest.raises(FormatError, match=match):
        gwosc.describe(path)


def test_strain_outside_the_file_is_refused(tmp_path):
    path = tmp_path / "odd.hdf5"
    with h5py.File(path, "w") as file:
        raw = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        strain = file.create_dataset("strain/Strain", (10,), "u1", external=raw)
        strain.attrs.update(Xstart=GPS, Xspacing=1 / 4096)
        file["meta/Detector"] = "H1"
    with pytest.raises(FormatError, match="in other files"):
        gwosc.describe(path)
