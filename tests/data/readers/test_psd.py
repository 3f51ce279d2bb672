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


def test_of_several_spectra_that_of_the_channel_is_taken(tmp_path):
    def written(name, **spectra):
        with h5py.File(tmp_path / name, "w") as file:
            for key, (values, unit) in spectra.items():
                dataset = file.create_dataset(key.replace("__", "/"), data=values)
                dataset.attrs.update({"x0": 0.5, "dx": 0.5, "xunit": unit})
        return tmp_path / name

    both = written("both.h5", A=(DENSITY, "Hz"), group__B=(2 * DENSITY, "Hz"))
    np.testing.assert_array_equal(read_psd(both, "psd", "A")[1], DENSITY)
    np.testing.assert_array_equal(read_psd(both, "psd", "B")[1], 2 * DENSITY)
    for channel in ("C", None):
        with pytest.raises(FormatError, match=r"holds 2 spectra, \['A', 'group/B'\], of which 0"):
            read_psd(both, "psd", channel)
    np.testing.assert_array_equal(read_psd(written("one.h5", A=(DENSITY, "Hz")), "psd", "C")[1], DENSITY)
    for values, unit in ((DENSITY, "kHz"), (DENSITY + 0j, "Hz"), (np.ones((4, 2)), "Hz")):
        with pytest.raises(FormatError, match="A cannot be read as a spectrum"):
            read_psd(written("wrong.h5", A=(values, unit)))


def test_text_with_a_spectrum_for_each_channel_or_decimal_commas_is_refused(tmp_path):
    path = tmp_path / "noise.txt"
    np.savetxt(path, np.column_stack([FREQUENCIES, DENSITY, 2 * DENSITY]))
    with pytest.raises(FormatError, match=r"two columns.*got 3"):
        read_psd(path)
    path = tmp_path / "noise.csv"
    path.write_text("10,5,1,25\n11,5,1,5\n")
    with pytest.raises(FormatError, match=r"two columns.*got 4"):
        read_psd(path)
    path.write_bytes("\ufeff10,1\r\n11,2\r\n".encode())
    assert read_psd(path)[0].tolist() == [10, 11]
