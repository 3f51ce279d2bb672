import h5py
import numpy as np
import pytest
from scipy import signal

from glitchflow_plugin.data.background import Background, read_background
from glitchflow_plugin.errors import DataError, FormatError


def write_gwosc(path, strain, rate, t0=1_000_000_000):
    """The layout that the open-science centre distributes."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("strain/Strain", data=strain)
        dataset.attrs.update({"Npoints": strain.size, "Xstart": t0, "Xspacing": 1.0 / rate, "Xunits": "second"})
        dataset.attrs.update({"Yunits": "", "Xlabel": "GPS time", "Ylabel": "Strain"})
        file["meta/GPSstart"], file["meta/Duration"] = t0, int(strain.size / rate)
        file["meta/Detector"], file["meta/Observatory"] = "V1", "V"


def test_a_file_is_read_and_resampled(tmp_path):
    time = np.arange(8 * 16384) / 16384.0
    path = tmp_path / "V-V1_GWOSC.hdf5"
    write_gwosc(path, 1e-21 * (np.sin(2 * np.pi * 100 * time) + np.sin(2 * np.pi * 5000 * time)), 16384)
    read = read_background(path, 4096.0)
    assert (read.name, read.t0, read.sample_rate, read.strain.size) == (path.name, 1e9, 4096.0, 8 * 4096)
    middle = slice(4096, -4096)
    np.testing.assert_allclose(
        read.strain[middle], 1e-21 * np.sin(2 * np.pi * 100 * np.arange(8 * 4096) / 4096.0)[middle], atol=2e-23
    )


@pytest.mark.parametrize("rate", [3000.0, 32768.0])
def test_a_rate_that_does_not_fit_is_refused(tmp_path, rate):
    path = tmp_path / "x.hdf5"
    write_gwosc(path, np.zeros(16384), 16384)
    with pytest.raises(DataError, match="multiple"):
        read_background(path, rate)


def test_gaps_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "x.hdf5"
    write_gwosc(path, np.full(4096, np.nan), 4096)
    with pytest.raises(DataError, match="gaps"):
        read_background(path, 4096.0)
    path.write_bytes(b"other")
    with pytest.raises(FormatError, match="GWOSC"):
        read_background(path, 4096.0)
    with pytest.raises(FormatError, match="does not exist"):
        read_background(tmp_path / "missing.hdf5", 4096.0)


def test_stretches_keep_clear_of_what_is_excluded():
    background = Background("x", np.zeros(3200), 1000.0, 100.0)
    assert background.free_starts(16.0) == [(1000.0, 1016.0)]
    assert background.free_starts(10.0, [(1014.0, 1018.0)]) == [(1000.0, 1004.0), (1018.0, 1022.0)]
    assert background.free_starts(16.0, [(1014.0, 1018.0)]) == []


def test_measured_strain_has_a_sensible_spectrum(real_data):
    background = read_background(real_data / "gwosc" / "V-V1_GWOSC_16KHZ_R1-1185389792-32.hdf5", 4096.0)
    frequency, density = signal.welch(background.strain, 4096.0, nperseg=4096)
    assert 5e-23 < np.sqrt(density[frequency == 200.0][0]) < 3e-22
