"""Search of one channel for triggers: windows on a grid of GPS time, each whitened by the noise about it.

A window knows nothing of the block that it is read with, so what is found does not depend on the blocks.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers.continuous import slice_bounds
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Count, Fraction, Positive, Range, section
from glitchflow_plugin.signal.continuous import raised_runs
from glitchflow_plugin.signal.psd import welch_psd
from glitchflow_plugin.signal.qtransform.loud_tiles import Tiles, loud_tiles, q_planes, tile_duration
from glitchflow_plugin.signal.qtransform.tiling import LOWEST_Q
from glitchflow_plugin.signal.whitening import whiten, whitening_filter

_KEPT = 0.95
"""Share of the Nyquist frequency up to which data are whitened."""


CLUSTERING = ("cluster_gap", "cluster_in_frequency", "cluster_tiles")
"""Settings that say how tiles are joined: another one searches nothing again."""


@section
class SearchSettings:
    """How triggers are found; conf/triggers.yaml explains the keys."""

    q: Range = (4.0, 64.0)
    band: Range = (10.0, 2048.0)
    mismatch: Fraction = 0.2
    snr: Positive = 5.5
    cluster_gap: Positive = 0.1
    cluster_in_frequency: bool = False
    cluster_tiles: Count = 262_144
    stride: Count = 16
    margin: Count = 4
    spectrum_length: Count = 64
    fft_length: Positive = 2.0
    block_length: Count = 256

    def __post_init__(self) -> None:
        """Refuse windows that blocks or tiles would cut."""
        if self.block_length % self.stride:
            raise ConfigurationError(
                f"triggers.find.settings: block_length must be a multiple of stride ({self.stride} s), got "
                f"{self.block_length} s"
            )
        if self.q[0] <= LOWEST_Q:
            raise ConfigurationError(f"triggers.find.settings.q must be above {LOWEST_Q:.2f}, got {self.q[0]:g}")
        longest = self.longest_tile
        if 2 * longest > self.margin:
            raise ConfigurationError(
                f"triggers.find.settings: a tile of Q {self.q[1]:g} at {self.band[0]:g} Hz lasts {longest:.2f} s, more "
                f"than half of margin ({self.margin} s). Raise margin or the band's lower end, or lower q."
            )

    @property
    def qs(self) -> tuple[float, ...]:
        """Quality factors of the planes."""
        return q_planes(*self.q, self.mismatch)

    @property
    def longest_tile(self) -> float:
        """Of any plane, s."""
        return float(tile_duration(self.band[0], self.q[1]))

    @property
    def around(self) -> float:
        """How far beyond a block data are needed, s."""
        return max(self.spectrum_length / 2, self.margin + self.fft_length)


def search_channel(
    channel: Channel, span: tuple[float, float], settings: SearchSettings, device: str
) -> Iterator[tuple[int, Tiles]]:
    """Loud tiles of a channel.

    Args:
        channel: Recorded samples, with NaN where there are none, up to `around` beyond the span as far as its segment
            reaches.
        span: Start and end (whole GPS s) between which triggers are looked for.
        settings: What is looked for.
        device: Where tiles are computed.

    Yields:
        The GPS time (ns) from which the tiles' times count, and the tiles.

    Raises:
        ValueError: The rate leaves nothing of the band.
    """
    high = _KEPT * channel.sample_rate / 2
    if high / (1 + LOWEST_Q / settings.q[1]) <= settings.band[0]:
        raise ValueError(f"rate: {channel.sample_rate:g} Hz leaves nothing above {settings.band[0]:g} Hz")
    start = math.floor(span[0] / settings.stride) * settings.stride
    while start < span[1]:
        core = max(start, span[0]), min(start + settings.stride, span[1])
        yield from _search_window(channel, start, core, settings, device)
        start += settings.stride


def _search_window(
    channel: Channel, start: int, core: tuple[float, float], settings: SearchSettings, device: str
) -> Iterator[tuple[int, Tiles]]:
    rate, beyond = channel.sample_rate, settings.margin + settings.fft_length / 2
    middle = start + settings.stride / 2
    noise = _cut(channel, middle - settings.spectrum_length / 2, middle + settings.spectrum_length / 2)[1]
    first, series = _cut(channel, start - beyond, start + settings.stride + beyond)
    band = max(settings.band[0] * (1 - LOWEST_Q / settings.q[0]), 1 / settings.fft_length), _KEPT * rate / 2
    gaps = raised_runs(~np.isfinite(noise))
    # A constant in place of what is missing: `exclude` leaves it out.
    filled = np.where(np.isfinite(noise), noise, 0.0)
    taps = _taps(filled, rate, gaps, settings, band)
    size, offset = (
        round((settings.stride + 2 * settings.margin) * rate),
        round(first - (start - settings.margin) * rate),
    )
    white = np.zeros(size, dtype=np.float32)
    if taps is None:
        return
    half = len(taps) // 2
    for low, high in raised_runs(np.isfinite(series)):
        if high - low <= 2 * half:
            continue
        piece = whiten(series[low:high], taps)[0][half : high - low - half]
        begin = offset + low + half
        kept = slice(max(begin, 0), min(begin + len(piece), size))
        white[kept] = piece[kept.start - begin : kept.stop - begin]
    if white.any():
        origin = start - settings.margin
        found = loud_tiles(
            torch.as_tensor(white, device=device),
            rate,
            settings.qs,
            settings.band,
            mismatch=settings.mismatch,
            threshold=settings.snr,
            within=(core[0] - origin, core[1] - origin),
        )
        yield int(origin) * 1_000_000_000, found


def _cut(channel: Channel, start: float, stop: float) -> tuple[float, np.ndarray]:
    """Number of the first sample, from GPS 0, and the samples of a stretch, float64."""
    first, last = slice_bounds(channel.t0, channel.sample_rate, len(channel.series), start, stop)
    return channel.t0 * channel.sample_rate + first, channel.series[first:last].astype(np.float64)


def _taps(
    noise: np.ndarray, rate: float, gaps: np.ndarray, settings: SearchSettings, band: tuple[float, float]
) -> np.ndarray | None:
    """Whitening filter; None where too little is known of the noise, or it is zero."""
    try:
        psd = welch_psd(noise, rate, settings.fft_length, settings.fft_length / 2, exclude=gaps if len(gaps) else None)
        return whitening_filter(psd, rate, settings.fft_length, band)
    except ValueError:
        return None
