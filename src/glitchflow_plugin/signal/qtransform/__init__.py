"""The Q-transform: energy of a time series in tiles of constant Q, as maps in units of SNR².

The tiles, their energies and the map are those of gwpy's `q_gram` and `q_transform`; `tiling.py` says where the
tiles lie. The spectrum is made once for all Q, rows of equal length are transformed together, and the way from tiles to
the map is two sparse matrices made once. On a CPU compiled loops do what lies between the transforms; on a GPU, and
where gradients are asked for, PyTorch does.

What a user should know of the maps:

- Energies are divided by the median of their row, so white Gaussian noise has median 1 and an exponential law
  (P(energy > x) = 2^-x), and a pixel of 20 is a one-in-a-million event. `norm: white` divides by the expectation in
  white noise of unit variance instead, which is right where a row has few independent tiles; then P(energy > x) = e^-x.
- The transform treats the series as periodic. Within about one tile length, Q / (2 pi f), of either edge a map mixes
  what happens at both ends; series that do not fade out at their ends (not whitened, strong lines) show bright edges.
  With `periodic=False` zeros are appended first: the same tiles, without the other end. gwpy knows no such thing.
- Columns are samples, not averages: at high frequency a tile can be shorter than a column (Q = 12 at 400 Hz: 5 ms,
  column 23 ms), and a glitch between two columns loses part of its peak, as in every Q-transform of this resolution.
- Two things differ from gwpy, on purpose: a spline that swings below zero beside a peak is cut at zero, since an energy
  is not negative; and behind the last tile of a row, where gwpy extrapolates a cubic, the map goes on periodically as
  the tiles do.

References:
    Chatterji et al., Class. Quantum Grav. 21 (2004) S1809, doi:10.1088/0264-9381/21/20/024.
"""

from glitchflow_plugin.signal.qtransform.frame import QFrame
from glitchflow_plugin.signal.qtransform.modules import QScan, SingleQTransform
from glitchflow_plugin.signal.qtransform.planes import Plane, plane
from glitchflow_plugin.signal.qtransform.settings import (
    QTransformSettings,
    axes,
    check_settings,
    highest_frequency,
    lowest_frequency,
    padded_size,
)
from glitchflow_plugin.signal.qtransform.significance import expected_excursions, map_p_value, tile_p_value
from glitchflow_plugin.signal.qtransform.spectrum import Spectrum
from glitchflow_plugin.signal.qtransform.transform import q_scan, q_transform, q_transform_relative

__all__ = [
    "Plane",
    "QFrame",
    "QScan",
    "QTransformSettings",
    "SingleQTransform",
    "Spectrum",
    "axes",
    "check_settings",
    "expected_excursions",
    "highest_frequency",
    "lowest_frequency",
    "map_p_value",
    "padded_size",
    "plane",
    "q_scan",
    "q_transform",
    "q_transform_relative",
    "tile_p_value",
]
