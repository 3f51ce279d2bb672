"""What the kernels of a GPU compute in Triton's interpreter, which a process has from its start or not at all."""

import sys

import torch

from glitchflow_plugin.signal.qtransform import QTransformSettings, Spectrum, device_kernels
from glitchflow_plugin.signal.qtransform.planes import Plane

RATE, SAMPLES, Q = 256.0, 512, 5.0
SMALL = {"q": Q, "frequency_low": 20.0, "frequency_high": 44.0, "num_frequencies": 8, "num_times": 21}
NORMS = ("median", "mean", "white", "none")
TILES = 48


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plane_and_spectrum(norm, size):
    """Of two series, the second silent, with zeros behind them up to `size` samples."""
    series = noise(2, SAMPLES)
    series[1] = 0
    plane = Plane(SAMPLES, RATE, Q, QTransformSettings(**SMALL, norm=norm), "cpu", padded_samples=size)
    return plane, Spectrum.of(series, size)


def amplitudes():
    """Rows of tiles by the law of their energies, each (series, row, tile)."""
    return {
        "exponential": noise(3, 1, TILES),
        "ties": noise(3, 1, TILES).round(),
        "zeros": torch.zeros(3, 1, TILES),
        "loud": noise(3, 1, TILES) * torch.logspace(-15, 15, TILES),
    }


def maps(norm, size):
    plane, spectrum = plane_and_spectrum(norm, size)
    found = torch.empty(2, 8, 21), torch.empty(2, len(plane.frequencies))
    plane.launch(device_kernels, spectrum, *found)
    return found


def peaks(tiles):
    columns, found = torch.empty(3, 1, 1), torch.empty(3, 1)
    first, weights = torch.zeros(1, dtype=torch.int32), torch.zeros(1, 2)
    device_kernels.rows_to_columns(tiles.to(torch.complex64), None, 0, first, weights, columns, found, 0)
    return found[:, 0]


if __name__ == "__main__":
    torch.save(
        {
            "maps": {(norm, size): maps(norm, size) for norm in NORMS for size in (SAMPLES, SAMPLES * 5 // 4)},
            "peaks": {law: peaks(tiles) for law, tiles in amplitudes().items()},
            "work": device_kernels.work_on("cpu"),
        },
        sys.argv[1],
    )
