"""Spectra that the user gives: two columns of text, or HDF5 as gwpy writes a frequency series."""

from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from glitchflow_plugin.data.readers.hdf5 import opened
from glitchflow_plugin.errors import ConfigurationError, FormatError


def read_psd(path: Path | str, quantity: Literal["psd", "asd"] = "psd") -> tuple[np.ndarray, np.ndarray]:
    """Read a noise spectrum.

    Args:
        path: `.txt`, `.dat` or `.csv` with frequency (Hz) and density, or HDF5 with one dataset and the attributes
            `x0` and `dx` (Hz).
        quantity: Whether the file holds a power density (unit²/Hz) or an amplitude density (unit/sqrt(Hz)).

    Returns:
        Frequencies, Hz, ascending, and the one-sided power density, unit²/Hz.

    Raises:
        FormatError: The file is not like this.
    """
    path = Path(path)
    if quantity not in ("psd", "asd"):
        raise ConfigurationError(f"psd_quantity must be psd or asd, got {quantity!r}")
    frequencies, values = _hdf5(path) if path.suffix in (".h5", ".hdf5", ".hdf") else _text(path)
    if len(frequencies) < 2 or not np.all(np.diff(frequencies) > 0) or frequencies[0] < 0:
        raise FormatError(f"{path}: frequencies must ascend from 0 Hz or above, got {frequencies[:3]}...")
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise FormatError(f"{path}: a density must be finite and not negative.")
    return frequencies, values**2 if quantity == "asd" else values


def _hdf5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with opened(path) as file:
        for dataset in file.values():
            if isinstance(dataset, h5py.Dataset) and {"x0", "dx"} <= set(dataset.attrs):
                grid = float(dataset.attrs["x0"]) + np.arange(len(dataset)) * float(dataset.attrs["dx"])
                return grid, np.asarray(dataset[()], dtype=np.float64)
    raise FormatError(f"{path}: no dataset with the attributes x0 and dx (Hz), as gwpy's FrequencySeries.write makes.")


def _text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        table = np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None, ndmin=2)
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as two columns of numbers ({error}).") from error
    if table.shape[1] < 2:
        raise FormatError(f"{path}: expected two columns (frequency in Hz, density), got {table.shape[1]}.")
    return table[:, 0].astype(np.float64), table[:, 1].astype(np.float64)
