"""What a subtraction did to the noise of a block, in a file beside the block's record."""

from pathlib import Path

import numpy as np

from glitchflow_plugin.data.files import new_hdf5, sealed_hdf5
from glitchflow_plugin.products.folder import record_path
from glitchflow_plugin.signal.noise_change import FFT_LENGTH, NoiseChanges

_PIECES = ("span", "quiet", "ranges", "changes", "mean_changes")


def noise_path(folder: Path, start: float, stop: float) -> Path:
    """Where what is known of the noise of a block is."""
    return record_path(folder, start, stop).with_suffix(".noise.h5")


def write_noise(path: Path, noise: NoiseChanges) -> None:
    """Write what is known of the noise, spectra as amplitudes (1/sqrt(Hz)), whole or not at all."""
    with new_hdf5(path) as file:
        file.attrs["frequency_spacing"] = 1 / FFT_LENGTH
        for name in _PIECES:
            file[name] = getattr(noise, name)
        for name in ("before", "after"):
            # densities of strain (1e-46) would be zero in float32
            file.create_dataset(name, data=np.sqrt(getattr(noise, name)).astype(np.float32), compression="gzip")


def read_noise(path: Path) -> NoiseChanges | None:
    """What is known of the noise; None where there is no such file, or it is damaged: it is a by-product."""
    try:
        with sealed_hdf5(path) as file:
            pieces = {name: file[name][()] for name in _PIECES}
            spectra = {name: np.square(file[name][()].astype(np.float64)) for name in ("before", "after")}
    except (OSError, KeyError):
        return None
    return NoiseChanges(**pieces, **spectra)
