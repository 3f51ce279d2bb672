"""What a model says of glitches along time, as channels beside the strain: named and meant as iDQ's.

iDQ: R. Essick et al., Mach. Learn.: Sci. Technol. 2 (2021) 015004, arXiv:2005.12761.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.products.file_names import channel_word, ifo_of
from glitchflow_plugin.signal.rank_calibration import RankCalibration

RANK_RATE = 128.0
"""Samples a second, Hz: that of iDQ's channels."""

QUANTITIES = {
    "OK": "1 where the model has looked at its witnesses, int32; where it is 0, the others are NaN",
    "RANK": "E / (E + threshold) with the predicted energy E, SNR^2: above 1/2 the model would veto",
    "FAP": "probability that a clean stride ranks at least as high",
    "EFF": "probability that the loudest stride of a glitch ranks at least as high",
    "LOGLIKE": "natural logarithm of the ratio of the rank's densities in glitches and in clean time",
    "PGLITCH": "probability that a stride of this rank is a glitch, rather than clean",
}
"""What the channels tell; all but OK are float64, without a unit."""

RankNames: TypeAlias = Literal["glf", "idq"]
"""How they are named: by this package, or by names that readers of iDQ's channels look for."""

_SHARES = ("RANK", "FAP", "EFF", "PGLITCH")


def rank_channel_names(strain: str, model: str, band: tuple[float, float], naming: RankNames = "glf") -> dict[str, str]:
    """Names of the channels by what they tell.

    Args:
        strain: The strain channel, whose prefix names the interferometer.
        model: Name of the registered model.
        band: Lowest and highest frequency that is looked at, Hz.
        naming: Whose names.

    >>> rank_channel_names("V1:Hrec_hoft", "demo", (8.0, 400.0))["FAP"]
    'V1:GLF-FAP_DEMO_8_400'
    >>> rank_channel_names("L1:GDS-CALIB_STRAIN", "ovl", (10.0, 2048.0), "idq")["PGLITCH"]
    'L1:IDQ-PGLITCH_OVL_10_2048'
    """
    end = f"{channel_word(model)}_{band[0]:.0f}_{band[1]:.0f}"
    return {name: f"{ifo_of(strain)}:{naming.upper()}-{name}_{end}" for name in QUANTITIES}


def rank_channels(
    energy: Float[np.ndarray, " sample"],
    start: float,
    names: Mapping[str, str],
    threshold: float,
    ranks: RankCalibration,
) -> tuple[Channel, ...]:
    """The channels of a stretch, in the order of `QUANTITIES`.

    Args:
        energy: Predicted energy at `RANK_RATE`, SNR²; NaN where nothing was looked at.
        start: First sample, GPS s.
        names: From `rank_channel_names`.
        threshold: Energy above which the model vetoes, SNR².
        ranks: What the model knows of its ranks.
    """
    told = {
        "OK": np.isfinite(energy).astype(np.int32),
        "RANK": rank_of(energy, threshold),
        "FAP": ranks.false_alarm(energy),
        "EFF": ranks.efficiency(energy),
        "LOGLIKE": ranks.log_ratio(energy),
        "PGLITCH": ranks.probability(energy),
    }
    return tuple(Channel(names[name], series, start, RANK_RATE) for name, series in told.items())


def rank_of(energy: Float[np.ndarray, "*shape"], threshold: float) -> Float[np.ndarray, "*shape"]:
    """The rank of an energy, from 0 to 1; exactly above 1/2 where the energy (SNR²) is above the threshold."""
    rank = energy / (energy + threshold)
    return np.where(energy > threshold, np.maximum(rank, np.nextafter(0.5, 1.0)), np.minimum(rank, 0.5))


def raised_times(raised: Bool[np.ndarray, " sample"], start: float) -> Float[np.ndarray, "run 2"]:
    """Start and end of the runs of raised samples, GPS s.

    Args:
        raised: At `RANK_RATE`.
        start: First sample, GPS s.

    >>> raised_times(np.array([False, True, True, False]), 100.0)
    array([[100.0078125, 100.0234375]])
    """
    edges = np.flatnonzero(np.diff(raised.astype(np.int8), prepend=0, append=0))
    return start + edges.reshape(-1, 2) / RANK_RATE


def rank_flaws(channels: Mapping[str, Channel]) -> Iterator[str]:
    """What is wrong with the channels of a file, in words.

    Args:
        channels: By what they tell.
    """
    ok = channels["OK"]
    if ok.series.dtype.kind not in "iu" or not np.isin(ok.series, (0, 1)).all():
        yield f"{ok.name} must hold the integers 0 and 1, it holds {ok.series.dtype}."
        return
    looked = ok.series == 1
    for name, one in channels.items():
        if one.sample_rate != RANK_RATE or len(one.series) != len(looked):
            yield f"{one.name} has {len(one.series)} samples at {one.sample_rate:g} Hz, expected those of {ok.name}."
            return
        if name != "OK" and not np.array_equal(np.isfinite(one.series), looked):
            yield f"{one.name} is not a number exactly where {ok.name} is 0."
        values = one.series[looked]
        if name in _SHARES and not ((values >= 0) & (values <= 1)).all():
            yield f"{one.name} leaves 0 to 1."
    order = np.argsort(channels["RANK"].series[looked], kind="stable")
    for name, sign in (("FAP", -1), ("EFF", -1), ("LOGLIKE", 1), ("PGLITCH", 1)):
        values = channels[name].series[looked][order]
        if (sign * np.diff(values) < 0).any():
            yield f"{channels[name].name} does not {'rise' if sign > 0 else 'fall'} with {channels['RANK'].name}."
