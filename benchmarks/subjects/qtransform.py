"""Q-transform maps of a batch of series."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from gwpy.signal.qtransform import QPlane
from gwpy.timeseries import TimeSeries
from ml4gw.transforms import SingleQTransform

from glitchflow_plugin.signal.qtransform import QTransformSettings, q_transform
from harness import Candidate, Subject, Work

SAMPLE_RATE, DURATION, SHAPE, BAND = 1024.0, 6.0, (64, 257), (8.0, 400.0)


def noise(number: int, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, round(SAMPLE_RATE * DURATION), generator=generator).to(device)


def gwpy_map(series: TimeSeries, q: tuple[float, float], band: tuple[float, float]) -> np.ndarray:
    rows, columns = (band[1] - band[0]) / SHAPE[0], DURATION / SHAPE[1]
    return series.q_transform(qrange=q, frange=band, tres=columns, fres=rows, whiten=False).value


def work(qs: Sequence[float], band: tuple[float, float], maps: int = 1) -> Work:
    """One real transform; for each Q an inverse transform a row, its energies read once more for the median.

    The maps, `maps` of them, are interpolated from four tiles along time and four rows along frequency.
    """
    size = round(SAMPLE_RATE * DURATION)
    tiles = [row.ntiles for q in qs for row in QPlane(q, band, DURATION, SAMPLE_RATE)]
    lengths = sorted(set(tiles))
    return Work(
        ffts=((size, 1, True), *((length, tiles.count(length), False) for length in lengths)),
        multiplications=4 * SHAPE[1] * maps * (len(tiles) / len(qs) + SHAPE[0]),
        bytes=4 * (size + sum(tiles) + SHAPE[0] * SHAPE[1]),
    )


def subject(_: Path, device: str, *, quick: bool) -> Subject:
    number = 4 if quick else 36
    series, q = noise(number, device), 12.0
    settings = QTransformSettings(q=q)
    single = TimeSeries(series[0].double().cpu().numpy(), sample_rate=SAMPLE_RATE)

    def ml4gw(name: str, **options: str) -> Candidate:
        @cache  # made by the first call: the spline's tables take seconds, which only its own process shall pay
        def transform() -> torch.nn.Module:
            return SingleQTransform(DURATION, SAMPLE_RATE, SHAPE, q=q, frange=list(BAND), **options).to(device)

        return Candidate(name, lambda: transform()(series[:, None]), number)

    return Subject(
        item="series",
        setting=f"{number} series, {DURATION:g} s, {SAMPLE_RATE:g} Hz, {SHAPE[0]} x {SHAPE[1]}, Q {q:g}, 8-400 Hz",
        candidates=(
            Candidate("ours", lambda: q_transform(series, SAMPLE_RATE, settings), number),
            ml4gw("ml4gw bicubic"),
            # The spline's tables take many seconds.
            *(() if quick else (ml4gw("ml4gw spline", interpolation_method="spline"),)),
            Candidate("gwpy", lambda: gwpy_map(single, (q, q), BAND), 1),
        ),
        work=work([q], BAND),
        notes=("ml4gw's bicubic map shifts each row by half a tile; its spline map is closer to gwpy's and ours.",),
    )
