"""Tiles of several constant-Q planes that are louder than a threshold, in one whitened stretch.

The energy e = |X|² of a tile over its expectation in white noise of unit variance is exponential there, with mean 1.
Twice that is the squared SNR of matched filtering with the tile's sine-Gaussian of best phase, which has mean 2 in
noise and rho² + 2 where a signal of optimal SNR rho lies on the tile: `snr = sqrt(2 e)`, as in gwpy's `QGram.table`.

References:
    Chatterji et al., Class. Quantum Grav. 21 (2004) S1809, doi:10.1088/0264-9381/21/20/024.
    Robinet et al., SoftwareX 12 (2020) 100620, doi:10.1016/j.softx.2020.100620 (Omicron).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from glitchflow_plugin.signal.qtransform.tiling import LOWEST_Q, TileRow, distance, tile_rows
from glitchflow_plugin.types.tensors import host

_WORKSPACE = 2**22
"""Tiles that are computed at one time: bounds the memory whatever the rate."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """Tiles of one stretch.

    Attributes:
        times: s after the stretch's first sample, shape (tile,).
        frequencies: Hz, (tile,).
        qs: Quality factors, (tile,).
        snrs: Signal-to-noise ratios, (tile,).
    """

    times: np.ndarray
    frequencies: np.ndarray
    qs: np.ndarray
    snrs: np.ndarray


def q_planes(low: float, high: float, mismatch: float) -> tuple[float, ...]:
    """Quality factors between two, evenly spaced in the logarithm, as close as the mismatch asks for.

    Args:
        low: Lowest of the range.
        high: Highest.
        mismatch: Largest fraction of energy lost between neighbouring planes.

    >>> [round(q, 2) for q in q_planes(4.0, 64.0, 0.2)]
    [5.66, 11.31, 22.63, 45.25]
    """
    number = max(1, math.ceil(math.log(high / low) / math.sqrt(2) / distance(mismatch)))
    return tuple(low * (high / low) ** ((place + 0.5) / number) for place in range(number))


def tile_duration(frequency: np.ndarray | float, q: np.ndarray | float) -> np.ndarray | float:
    """Effective length of a tile, s: the integral of its squared envelope. Its inverse is the bandwidth, Hz."""
    return q / (2 * math.sqrt(math.pi) * frequency)


def tile_band(q: float, sample_rate: float, band: tuple[float, float]) -> tuple[float, float]:
    """Centre frequencies (Hz) of a plane whose windows end below the highest frequency that whitening keeps."""
    return band[0], min(band[1], 0.93 * sample_rate / 2 / (1 + LOWEST_Q / q))


@lru_cache(maxsize=256)
def _groups(
    num_samples: int, sample_rate: float, q: float, band: tuple[float, float], mismatch: float
) -> list[list[TileRow]]:
    low, high = tile_band(q, sample_rate, band)
    if high <= low:
        return []
    groups = []
    for num_tiles, rows in groupby(
        tile_rows(num_samples, sample_rate, q, (low, high), mismatch), lambda row: row.num_tiles
    ):
        held = list(rows)
        most = max(1, _WORKSPACE // num_tiles)
        groups += [held[start : start + most] for start in range(0, len(held), most)]
    return groups


def loud_tiles(
    series: Tensor,
    sample_rate: float,
    qs: tuple[float, ...],
    band: tuple[float, float],
    *,
    mismatch: float,
    threshold: float,
    within: tuple[float, float],
) -> Tiles:
    """Tiles of a stretch that are at least as loud as a threshold.

    Args:
        series: Whitened to unit variance a sample over the full band, float32, shape (time,), on any device.
        sample_rate: Hz.
        qs: Quality factors, one a plane.
        band: Lowest and highest centre frequency, Hz; the planes end earlier below the Nyquist frequency.
        mismatch: Largest fraction of energy lost between neighbouring tiles.
        threshold: Least SNR.
        within: Times (s after the first sample) from which on and before which tiles are taken.
    """
    size = len(series)
    spectrum = torch.fft.rfft(series, norm="forward")
    found: list[tuple[np.ndarray, ...]] = []
    for q in qs:
        for rows in _groups(size, sample_rate, q, band, mismatch):
            spacing = size / sample_rate / rows[0].num_tiles
            first, last = (math.ceil(edge / spacing - 1e-9) for edge in within)
            energy = _energies(spectrum, rows, size)[:, max(first, 0) : max(last, 0)]
            row, tile = torch.nonzero(energy >= threshold**2 / 2, as_tuple=True)
            frequencies = np.array([one.frequency for one in rows])[host(row)]
            snrs = np.sqrt(2 * host(energy[row, tile]).astype(np.float64))
            found.append(((host(tile) + max(first, 0)) * spacing, frequencies, np.full(len(snrs), q), snrs))
    return Tiles(*(np.concatenate(one) for one in zip(*found, strict=True))) if found else Tiles(*[np.empty(0)] * 4)


def _energies(spectrum: Tensor, rows: list[TileRow], size: int) -> Tensor:
    """Energies of rows over their expectation in white noise, (row, tile)."""
    slots = spectrum.new_zeros((len(rows), rows[0].num_tiles))
    for place, row in enumerate(rows):
        # Half of the expectation's amplitude: the spectrum is that of positive frequencies, and is not doubled.
        window = torch.as_tensor(row.window * math.sqrt(4 * size / row.white_energy), dtype=torch.float32)
        piece = spectrum[row.first_bin : row.first_bin + len(row.window)] * window.to(spectrum.device)
        half = len(row.window) // 2
        slots[place, : half + 1], slots[place, row.num_tiles - half :] = piece[half:], piece[:half]
    amplitude = torch.fft.ifft(slots)
    return amplitude.real.square() + amplitude.imag.square()
