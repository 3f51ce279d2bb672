"""How often noise alone is as loud: the law of a tile's energy, and of the loudest tile of a map.

In whitened Gaussian noise the amplitude of a tile is a circular complex Gaussian number, so its energy over its
expectation (`norm: white`) is exponential: P(energy > u) = exp(-u). Over the median of its row it is so only where the
row has many independent tiles, and lines of constant loudness disappear; p-values therefore start from `norm: white`,
where a line shows as the excess that it is.

The loudest tile of a map is the largest value of a random field. At high levels the probability of an excursion is the
expected number of excursions. For the squared modulus u of a complex Gaussian field with mean 1 on a cylinder (the
transform is periodic in time) of band B = frequency_high - frequency_low and duration T this is

    N(u) = e^-u [B T sqrt(3 / 11 + 3 / (4 Q^2)) (2 u - 1) + sqrt(u / pi) (L_low + L_high) / 2],   L = 2 pi f T / Q,

where the first factor comes from the bisquare window: its root-mean-square bandwidth is f / Q, and the derivative of
the normalised tile by log f has the variance 3 Q^2 / 11 + 3 / 4. Tiles sample the field, so the loudest one lies a
little below the field's peak; N is averaged over where the peak can lie between tiles.

References:
    Chatterji, PhD thesis, MIT (2005), section 5.2.6, https://hdl.handle.net/1721.1/34388 (exponential law).
    Worsley, Adv. Appl. Probab. 26 (1994) 13, doi:10.2307/1427576 (Euler characteristic of a chi-squared field).
    Rice, Bell Syst. Tech. J. 24 (1945) 46, doi:10.1002/j.1538-7305.1945.tb00453.x (level crossings of an envelope).
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.qtransform.settings import QTransformSettings
from glitchflow_plugin.signal.qtransform.tiling import TileRow
from glitchflow_plugin.types.tensors import host

#: Places of a peak between two tiles, from 0 (on one) to 1/2 (half-way), at which N is evaluated (Gauss-Legendre).
_PLACES, _PLACE_WEIGHTS = np.polynomial.legendre.leggauss(4)
_PLACES, _PLACE_WEIGHTS = (_PLACES + 1) / 4, _PLACE_WEIGHTS / 2
#: Step of energies at which N is computed, and an energy beyond that at which it is largest.
_GRID, _PEAK_AT = 0.05, 4.0
#: Above it probabilities are below what float64 resolves beside nothing, and are given as that at this energy.
_HIGHEST = 600.0


def tile_p_value(energy: Float[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Probability that one tile in whitened Gaussian noise is at least so loud.

    Args:
        energy: Energies over their expectation, from `q_transform` with `norm` "white", any shape.

    Returns:
        exp(-energy), float64, the same shape.

    Example:
        >>> round(tile_p_value(torch.tensor(20.0)).item() * 1e9, 3)
        2.061
    """
    return torch.exp(-energy.to(torch.float64))


def expected_excursions(
    energy: np.ndarray, num_samples: int, sample_rate: float, settings: QTransformSettings
) -> np.ndarray:
    """Expected number of places of a map that are louder in whitened Gaussian noise.

    Args:
        energy: Energies over their expectation, any shape.
        num_samples: Samples of the series.
        sample_rate: Hz.
        settings: Tiling; one Q.

    Returns:
        Expected numbers, the same shape. Right for high energies, where they are well below 1; below the energy where
        the formula is largest, where excursions merge, that largest value.

    Raises:
        ConfigurationError: The settings hold several Q, or a norm other than "white".
    """
    if len(settings.qs) != 1:
        raise ConfigurationError(f"significance needs one Q, got {settings.q}. Take one map for each Q.")
    if settings.norm != "white":
        raise ConfigurationError(
            f"significance needs energies over their expectation in white noise, got norm {settings.norm}. Make the "
            "map with norm white."
        )
    level = np.asarray(energy, dtype=np.float64)
    # The logarithm is next to straight: a grid of it serves any number of pixels.
    grid = np.arange(0.0, min(max(float(level.max(initial=0.0)), _PEAK_AT), _HIGHEST) + 2 * _GRID, _GRID)
    logarithm = np.log(
        _excursions(grid, num_samples, sample_rate, settings), where=grid > 0, out=np.full(len(grid), -np.inf)
    )
    peak = int(logarithm.argmax())
    logarithm[:peak] = logarithm[peak]
    return np.asarray(np.exp(np.interp(level, grid, logarithm)))


def _excursions(level: np.ndarray, num_samples: int, sample_rate: float, settings: QTransformSettings) -> np.ndarray:
    """The formula itself, at levels of shape (level,)."""
    q, duration = settings.qs[0], num_samples / sample_rate
    rows = settings.rows(num_samples, sample_rate, q)
    across = math.sqrt(3 * q**2 / 11 + 3 / 4)
    spacing = _row_spacing(rows, settings)
    total = np.zeros(level.shape)
    for place, (row, step) in enumerate(zip(rows, spacing, strict=True)):
        along = 2 * math.pi * row.frequency * duration / q
        # Lengths in the metric of the field, in which its correlation falls off alike in all directions.
        area, edge = along * across * step / (2 * math.pi), along / 2 * (place in (0, len(rows) - 1))
        for shift_t, weight_t in zip(_PLACES * along / row.num_tiles, _PLACE_WEIGHTS, strict=True):
            for shift_f, weight_f in zip(_PLACES * across * step, _PLACE_WEIGHTS, strict=True):
                peak = level / max(1 - shift_t**2 - shift_f**2, 0.5)
                density = area * (2 * peak - 1).clip(0) + edge * np.sqrt(peak.clip(0) / math.pi)
                total += weight_t * weight_f * density * np.exp(-peak)
    return total


def map_p_value(energy: Tensor, num_samples: int, sample_rate: float, settings: QTransformSettings) -> Tensor:
    """Probability that anything in a map of whitened Gaussian noise is at least so loud (look-elsewhere corrected).

    Args:
        energy: Energies over their expectation, any shape: pixels of a map, or the loudest tile of each.
        num_samples: Samples of the series.
        sample_rate: Hz.
        settings: Tiling; one Q.

    Returns:
        1 - exp(-N), float64, the same shape.

    Raises:
        ConfigurationError: The settings hold several Q, or a norm other than "white".
    """
    expected = expected_excursions(host(energy), num_samples, sample_rate, settings)
    return torch.as_tensor(-np.expm1(-expected), device=energy.device)


def _row_spacing(rows: tuple[TileRow, ...], settings: QTransformSettings) -> np.ndarray:
    """Share of the band's logarithmic width that each row stands for."""
    centres = np.log([row.frequency for row in rows])
    edges = [math.log(settings.frequency_low), *((centres[1:] + centres[:-1]) / 2), math.log(settings.frequency_high)]
    return np.diff(edges)
