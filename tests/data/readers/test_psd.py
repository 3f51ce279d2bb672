import h5py
import numpy as np
import pytest

from glitchflow_plugin.data.readers.psd import read_psd
from glitchflow_plugin.errors import ConfigurationError, FormatError

FREQUENCIES = np.arange(1.0, 513.0) / 2
DENSITY = 1e-46 * (1 + (FREQUENCIES / 50) ** -4)


@pytest.mark.parametrize(("name", "delimiter"), [("noise.txt", " "), ("noise.dat", "\t"), ("noise.csv", ",")])
def test_two_columns_of_text(tmp_path, name, delimiter):
    np.savetxt(tmp_path / name, np.column_stack([FREQUENCIES, DENSITY]), delimiter=delimiter, header="Hz 1/Hz")
    frequencies, values = read_psd(tmp_path / name)
    np.testing.assert_array_equal(frequencies, FREQUENCIES)
    np.testing.assert_array_equal(values, DENSITY)
    assert values.dtype == np.float64


@pytest.mark.parametrize("quantity", ["psd", "asd"])
def test_what_gwpy_writes(tmp_path, quantity):
    frequencyseries = pytest.importorskip("gwpy.frequencyseries")
    stored = DENSITY if quantity == "psd" else np.sqrt(DENSITY)
    frequencyseries.FrequencySeries(stored, f0=0.5, df=0.5, name=quantity).write(tmp_path / "noise.hdf5", path="noise")
    frequencies, values = read_psd(tmp_path / "noise.hdf5", quantity)
    np.testing.assert_allclose(frequencies, FREQUENCIES)
    np.testing.assert_allclose(values, DENSITY, rtol=1e-12)


@pytest.mark.parametrize(
    ("frequencies", "values", "match"),
    [
        ([2.0, 1.0, 3.0], [1.0, 1.0, 1.0], "ascend"),
        ([1.0, np.nan, 3.0], [1.0, 1.0, 1.0], "ascend"),
        ([-1.0, 0.0, 1.0], [1.0, 1.0, 1.0], "ascend"),
        ([1.0], [1.0], "ascend"),
        ([1.0, 2.0, 3.0], [1.0, np.nan, 1.0], "finite"),
        ([1.0, 2.0, 3.0], [1.0, -1.0, 1.0], "not negative"),
    ],
)
def test_what_is_no_spectrum_is_refused(tmp_path, frequencies, values, match):
    np.savetxt(tmp_path / "noise.txt", np.column_stack([frequencies, values]))
    with pytest.raises(FormatError, match=match):
        read_psd(tmp_path / "noise.txt")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "words.txt").write_text("no numbers here\n")
    with pytest.raises(FormatError, match="two columns"):
        read_psd(tmp_path / "words.txt")
    with pytest.raises(FormatError, match="two columns"):
        read_psd(tmp_path / "missing.txt")
    np.savetxt(tmp_path / "one.txt", FREQUENCIES)
    with pytest.raises(FormatError, match="got 1"):
        read_psd(tmp_path / "one.txt")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["values"] = DENSITY
    with pytest.raises(FormatError, match="x0 and dx"):
        read_psd(tmp_path / "other.h5")
    with pytest.raises(ConfigurationError, match="psd or asd"):
        read_psd(tmp_path / "one.txt", "csd")
