"""Spectra that the user gives: two columns of text, or HDF5 as gwpy writes a frequency series."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from glitchflow_plugin.data.apart import apart
from glitchflow_plugin.data.files import expanded, read_text
from glitchflow_plugin.data.foreign_hdf5 import has, number, opened, samples, text_attribute, walk
from glitchflow_plugin.errors import ConfigurationError, FormatError


def read_psd(
    path: Path | str, quantity: Literal["psd", "asd"] = "psd", channel: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read a noise spectrum.

    Args:
        path: `.txt`, `.dat` or `.csv` with frequency (Hz) and density, or HDF5 with datasets that have the attributes
            `x0` and `dx` (Hz).
        quantity: Whether the file holds a power density (unit²/Hz) or an amplitude density (unit/sqrt(Hz)).
        channel: Whose spectrum to take where HDF5 holds several: that of the dataset which is called so. A single
            spectrum is taken whatever its name.

    Returns:
        Frequencies, Hz, ascending, and the one-sided power density, unit²/Hz.

    Raises:
        FormatError: The file is not like this.
    """
    path = Path(expanded(path))
    if quantity not in ("psd", "asd"):
        raise ConfigurationError(f"psd_quantity must be psd or asd, got {quantity!r}")
    frequencies, values = _hdf5(path, channel) if path.suffix in (".h5", ".hdf5", ".hdf") else _text(path)
    if len(frequencies) < 2 or not np.all(np.diff(frequencies) > 0) or frequencies[0] < 0:
        raise FormatError(f"{path}: frequencies must ascend from 0 Hz or above, got {frequencies[:3]}...")
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise FormatError(f"{path}: a density must be finite and not negative.")
    return frequencies, values**2 if quantity == "asd" else values


@apart
def _hdf5(path: Path, channel: str | None) -> tuple[np.ndarray, np.ndarray]:
    with opened(path) as file:
        found = dict(_spectra(file))
        if not found:
            message = "no dataset with the attributes x0 and dx (Hz), as gwpy's FrequencySeries.write makes."
            raise FormatError(f"{path}: {message}")
        named = [name for name in found if len(found) == 1 or channel in (name, name.rpartition("/")[2])]
        if len(named) != 1:
            raise FormatError(
                f"{path} holds {len(found)} spectra, {sorted(found)[:10]}, of which {len(named)} are called {channel}. "
                "Give a file with one spectrum, or name its dataset as the channel."
            )
        dataset = found[named[0]]
        try:
            unit = text_attribute(dataset, "xunit") or "Hz"
            if unit != "Hz":
                raise FormatError(f"expected a density a frequency in Hz, got one over {unit}")
            values = samples(dataset, 0, len(dataset)).astype(np.float64)
            grid = float(number(dataset, "x0")) + np.arange(len(values)) * float(number(dataset, "dx"))
        except FormatError as error:
            raise FormatError(f"{path}: {named[0]} cannot be read as a spectrum ({error}).") from error
    return grid, values


def _spectra(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    for name, item in walk(file):
        if isinstance(item, h5py.Dataset) and has(item, "x0", "dx"):
            yield name, item


def _text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        lines = read_text(path).splitlines()
        table = np.loadtxt(lines, delimiter="," if path.suffix == ".csv" else None, ndmin=2)
    except (FormatError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as two columns of numbers ({error}).") from error
    if table.shape[1] != 2:
        raise FormatError(
            f"{path}: expected two columns (frequency in Hz, density), got {table.shape[1]}. Keep the spectrum of the "
            "channel, and write decimal points."
        )
    return table[:, 0].astype(np.float64), table[:, 1].astype(np.float64)
