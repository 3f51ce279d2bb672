"""What a subtraction does to the noise of a detector: spectra and inspiral range before and after, in the same time.

Quiet segments tell whether the noise itself is changed, all segments what glitches cost. Each figure is of a piece of
some seconds, so that memory does not depend on how long the data are, and pieces lie on a grid of GPS times.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from glitchflow_plugin.signal.inspiral_range import inspiral_range
from glitchflow_plugin.signal.psd import Psd, PsdMethod, averaged, segment_powers
from glitchflow_plugin.types.arrays import PowerSpectrum, Series

FFT_LENGTH, OVERLAP = 4.0, 2.0
"""Length and overlap of the segments, s."""

PIECE_LENGTH = 32.0
"""Length of a piece, s; the grid is the multiples of it, in GPS time."""

HIGHEST = 2048.0
"""Frequency up to which spectra are kept, Hz."""

BANDS = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2048.0)
"""Edges of the bands in which a change is told, Hz."""

_LEAST = 2
"""Segments that a piece has at least."""


@dataclass(frozen=True, eq=False)
class NoiseChange:
    """A piece of strain before and after a subtraction.

    Attributes:
        start: GPS s.
        stop: GPS s.
        quiet: Quiet segments.
        before: Median density of the quiet segments, 1/Hz, shape (frequency,), every `1 / FFT_LENGTH` Hz from 0 to
            `HIGHEST` or half the sample rate; zero where there is none.
        after: The same of the clean strain.
        mean_before: Mean density of these segments, to which each of them adds.
        mean_after: The same of the clean strain.
        range_before: Inspiral range by the mean density of all segments, to which glitches add, Mpc; NaN where there
            is none, since the rate is too low or the strain is zero.
        range_after: The same of the clean strain.
    """

    start: float
    stop: float
    quiet: int
    before: PowerSpectrum
    after: PowerSpectrum
    mean_before: PowerSpectrum
    mean_after: PowerSpectrum
    range_before: float
    range_after: float


def noise_changes(
    strain: Series,
    clean: Series,
    quiet: Bool[np.ndarray, " flag"],
    start: float,
    sample_rate: float,
    *,
    ranged: bool = True,
) -> Iterator[NoiseChange]:
    """What a subtraction does to each piece of a stretch of strain; a piece without two whole segments is left out.

    Args:
        strain: As recorded, (time,); NaN where there are no data.
        clean: What is left of it, (time,).
        quiet: Where the recorded strain holds nothing loud, over the same time at any rate.
        start: GPS time of the first sample, s.
        sample_rate: Hz.
        ranged: Whether the series is strain, so that it has an inspiral range.
    """
    stop = start + len(strain) / sample_rate
    first = math.floor(start / PIECE_LENGTH)
    for edge in np.arange(first, math.ceil(stop / PIECE_LENGTH)) * PIECE_LENGTH:
        span = max(float(edge), start), min(float(edge) + PIECE_LENGTH, stop)
        own = slice(*(round((one - start) * sample_rate) for one in span))
        flags = slice(*(round((one - start) / (stop - start) * len(quiet)) for one in span))
        found = _of_piece(strain[own], clean[own], quiet[flags], span, sample_rate)
        if found is not None:
            yield found if ranged else replace(found, range_before=math.nan, range_after=math.nan)


@dataclass(frozen=True, eq=False)
class NoiseChanges:
    """The pieces of a longer stretch, of which spectra are kept as their mean alone.

    Attributes:
        span: Start and end of each piece, GPS s, (piece, 2).
        quiet: Quiet segments of each, (piece,).
        ranges: Inspiral range before and after, Mpc, (piece, 2).
        changes: Change of the amplitude of the quiet segments in each of `BANDS`, as a share, by their median density,
            (piece, band); NaN where there is no quiet segment.
        mean_changes: The same by their mean density.
        before: Median density of the quiet segments, averaged over the pieces, each as often as it has such segments,
            (frequency,).
        after: The same of the clean strain.
    """

    span: Float[np.ndarray, "piece 2"]
    quiet: Int[np.ndarray, " piece"]
    ranges: Float[np.ndarray, "piece 2"]
    changes: Float[np.ndarray, "piece band"]
    mean_changes: Float[np.ndarray, "piece band"]
    before: PowerSpectrum
    after: PowerSpectrum

    @classmethod
    def of(cls, piece: NoiseChange) -> "NoiseChanges":
        """Of one piece."""
        return cls(
            np.array([[piece.start, piece.stop]]),
            np.array([piece.quiet]),
            np.array([[piece.range_before, piece.range_after]]),
            amplitude_change(piece.before, piece.after)[None],
            amplitude_change(piece.mean_before, piece.mean_after)[None],
            piece.before,
            piece.after,
        )

    def and_then(self, other: "NoiseChanges") -> "NoiseChanges":
        """These pieces and those of another stretch of strain of the same rate."""
        names = ("span", "quiet", "ranges", "changes", "mean_changes")
        joined = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        own, its = int(self.quiet.sum()), int(other.quiet.sum())
        share = its / max(own + its, 1)
        before, after = (
            (1 - share) * one + share * two for one, two in ((self.before, other.before), (self.after, other.after))
        )
        return NoiseChanges(**joined, before=before, after=after)


def amplitude_change(
    before: PowerSpectrum, after: PowerSpectrum, edges: tuple[float, ...] = BANDS
) -> Float[np.ndarray, " band"]:
    """By how much the amplitude of the noise is higher after than before in each band, as a share.

    Each frequency counts as one, so that lines do not decide.

    Args:
        before: Density every `1 / FFT_LENGTH` Hz from 0, (frequency,).
        after: The same after a subtraction.
        edges: Edges of the bands, Hz.

    Returns:
        Root of the mean ratio of the densities less 1, (band,); NaN where there are no data.
    """
    frequencies = np.arange(len(before)) / FFT_LENGTH
    found = np.full(len(edges) - 1, np.nan)
    for band in range(len(found)):
        inside = (frequencies >= edges[band]) & (frequencies < edges[band + 1]) & (before > 0)
        if inside.any():
            found[band] = math.sqrt(float(np.mean(after[inside] / before[inside]))) - 1
    return found


def _of_piece(
    strain: Series, clean: Series, quiet: Bool[np.ndarray, " flag"], span: tuple[float, float], sample_rate: float
) -> NoiseChange | None:
    powers, cleaned = (
        segment_powers(np.asarray(one, dtype=np.float64), sample_rate, FFT_LENGTH, OVERLAP) for one in (strain, clean)
    )
    whole = np.isfinite(powers[:, 0])
    if whole.sum() < _LEAST:
        return None
    begin = np.arange(len(powers)) * (FFT_LENGTH - OVERLAP)
    flags_a_second = len(quiet) / (span[1] - span[0])
    still = np.array(
        [
            quiet[math.floor(one * flags_a_second) : math.ceil((one + FFT_LENGTH) * flags_a_second)].all()
            for one in begin
        ]
    )
    still &= whole
    before, after = (_density(one[still], sample_rate, "median") for one in (powers, cleaned))
    mean_before, mean_after = (_density(one[still], sample_rate, "mean") for one in (powers, cleaned))
    ranges = (_range(one[whole], sample_rate) for one in (powers, cleaned))
    return NoiseChange(*span, int(still.sum()), before, after, mean_before, mean_after, *ranges)


def _density(powers: Float[np.ndarray, "segment frequency"], sample_rate: float, method: PsdMethod) -> PowerSpectrum:
    size = round(min(HIGHEST, sample_rate / 2) * FFT_LENGTH) + 1
    if not len(powers):
        return np.zeros(size)
    return averaged(powers, sample_rate, FFT_LENGTH, OVERLAP, method=method).values[:size]


def _range(powers: Float[np.ndarray, "segment frequency"], sample_rate: float) -> float:
    """Of all segments, each of which counts."""
    density = Psd(_density(powers, sample_rate, "mean"), 1 / FFT_LENGTH)
    try:
        return inspiral_range(density) if sample_rate / 2 >= HIGHEST else math.nan
    except ValueError:  # a stretch of zeros
        return math.nan
