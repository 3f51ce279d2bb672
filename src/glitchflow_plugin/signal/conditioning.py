"""Conditioning of one channel of one event: band-pass, resample, whiten, crop (NumPy, float64 until whitened).

The order is a choice. The band-pass comes first, at the channel's own rate and on all that was read, because its
transients must fall outside the crop and because it keeps loud noise from aliasing. Resampling comes before whitening:
both are linear and time-invariant within the band, so their order does not change the result, but the spectrum and the
filter are then made at the common rate (1024 Hz instead of up to 16384 Hz), which costs a sixteenth.
"""

import hashlib
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.settings import section
from glitchflow_plugin.signal import filters
from glitchflow_plugin.signal.psd import Psd, welch_psd
from glitchflow_plugin.signal.slow import SHARE, SlowScale, slow_motion
from glitchflow_plugin.signal.whitening import WhiteningSettings, whiten, whitening_filter
from glitchflow_plugin.types.arrays import Series

NAN, CONSTANT, TOO_SHORT, NYQUIST, SAMPLE_RATE = "nan", "constant", "too short", "band above nyquist", "sample rate"
"""Reasons for which a channel of an event is rejected."""

USUAL_JITTER = 0.5
"""How far the trigger lies from the middle of the crop at most, s, unless the settings say otherwise."""

_SAME_SAMPLE = 1e-2
"""Sub-sample offsets below this need no shift: GPS times in float64 resolve 2.4e-7 s themselves."""

_ROUNDED_SAMPLES = 4
"""Samples that rounding takes at each end at most: trigger, start, crop and transients, each to a whole sample."""

_SCARCELY = 0.1
"""What is needed is told to within this, s: a channel that lacks so little may do as long as the crop stays."""

_ROUNDING = 1e-13
"""A band-passed series this small beside the raw one is nothing but rounding errors."""


class ChannelRejectedError(DataError):
    """A channel of an event cannot be used.

    Attributes:
        reason: One of a few fixed words, to count by.
        detail: What exactly was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Travel between processes with both parts."""
        return type(self), (self.reason, self.detail)


@section
class ConditioningSettings:
    """How a channel is conditioned.

    Attributes:
        low: Lower edge of the band, Hz.
        high: Upper edge of the band, Hz.
        sample_rate: Common rate that all channels are brought to, Hz.
        duration: Length of the crop about the trigger, s.
        whiten: Whether to whiten.
        whitening: Parameters of spectrum and whitening filter.
        order: Order of the band-pass's edges in one of its two passes.
        flat_length: A stretch of equal samples this long (s) within the crop means a dead channel or a filled gap.
        crop_jitter: The middle of the crop lies within +- this of the trigger, s, drawn for each event.
        crop_seed: Decides the drawing.
    """

    low: float = 8.0
    high: float = 400.0
    sample_rate: float = 1024.0
    duration: float = 6.0
    whiten: bool = True
    whitening: WhiteningSettings = field(default_factory=WhiteningSettings)
    order: int = 4
    flat_length: float = 1.0
    crop_jitter: float = 0.0
    crop_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that no channel can fulfil."""
        if not 0 < self.low < self.high:
            raise ConfigurationError(f"the band must fulfil 0 < minf < maxf, got {self.low:g}-{self.high:g} Hz")
        try:
            filters.usable_band(self.low, self.high, self.sample_rate, self.sample_rate)
        except ValueError as error:
            raise ConfigurationError(
                f"minf ({self.low:g} Hz) must be below maxf ({self.high:g} Hz) and below half of sr "
                f"({self.sample_rate:g} Hz) by more than a twentieth of it: widen the band, or raise sr"
            ) from error
        if self.duration * self.sample_rate < 2:
            raise ConfigurationError(f"len must be positive, got {self.duration:g} s")
        if not 0 <= self.crop_jitter <= self.duration / 2:
            raise ConfigurationError(
                f"crop_jitter must be between 0 and half of len ({self.duration / 2:g} s), or the trigger is cut off; "
                f"got {self.crop_jitter:g} s"
            )

    @property
    def num_samples(self) -> int:
        """Samples of the crop."""
        return round(self.duration * self.sample_rate)


def crop_start(middle: float, settings: ConditioningSettings) -> float:
    """GPS time (s) of the first sample of a crop about `middle` (GPS s): on the grid of whole samples from GPS 0."""
    first = round((middle - settings.num_samples / settings.sample_rate / 2) * settings.sample_rate)
    return first / settings.sample_rate


@dataclass(frozen=True, eq=False)
class Recorded:
    """A channel of an event as recorded, and how it will be conditioned.

    Attributes:
        series: Shape (time,); NaN where there are no data.
        sample_rate: Hz.
        t0: GPS time of the first sample, s.
        settings: What will be done.
    """

    series: Series
    sample_rate: float
    t0: float
    settings: ConditioningSettings


def jittered_crop_start(
    event_id: str, gps_event: float, settings: ConditioningSettings, channels: Iterable[Recorded] = ()
) -> float:
    """GPS time (s) of the first sample of an event's crop, whose middle is not always the trigger.

    A network that always finds the glitch in one place learns the place. The shift is drawn uniformly by event id and
    `crop_seed` alone, so that it depends neither on the order of events nor on who makes them. It is shortened where
    data end: a channel that can be conditioned about the trigger can be conditioned here.

    Args:
        event_id: Name of the event, which decides the shift.
        gps_event: Trigger time, GPS s.
        settings: Common to all channels: duration, rate and jitter.
        channels: What there is of the event.

    >>> jittered_crop_start("V1-1", 100.0, ConditioningSettings())
    97.0
    """
    drawn = hashlib.sha256(f"{settings.crop_seed} {event_id}".encode()).digest()
    shift = settings.crop_jitter * (2 * int.from_bytes(drawn[:7], "big") / 256**7 - 1)
    if shift:
        for one in channels:
            lowest, highest = _room(one, gps_event)
            shift = min(max(shift, lowest), highest)
    return crop_start(gps_event + shift, settings)


def _room(channel: Recorded, gps_event: float) -> tuple[float, float]:
    """How far the crop can move to either side of the trigger, s; anywhere if the channel is of no use there."""
    settings, rate = channel.settings, channel.sample_rate
    try:
        # the spectrum leaves out the surroundings of the trigger, wherever the crop lies
        half = needed_length(settings, rate, psd=True, aligned=False) / 2
        stretch = _finite_stretch(channel.series, rate, channel.t0, crop_start(gps_event, settings), settings)
    except ChannelRejectedError:
        return -math.inf, math.inf
    before = gps_event - (channel.t0 + stretch.start / rate) - half
    after = channel.t0 + stretch.stop / rate - gps_event - half
    if min(before, after) < -_SCARCELY:
        return -math.inf, math.inf
    return -max(before, 0.0), max(after, 0.0)


def usable_band(settings: ConditioningSettings, sample_rate: float) -> tuple[float, float]:
    """The band (Hz) that a channel of this rate delivers; narrower than asked for where its Nyquist frequency is low.

    Raises:
        ChannelRejectedError: Nothing of the band is left.
    """
    try:
        return filters.usable_band(settings.low, settings.high, sample_rate, settings.sample_rate)
    except ValueError as error:
        raise ChannelRejectedError(NYQUIST, str(error)) from error


def needed_length(
    settings: ConditioningSettings, sample_rate: float, *, psd: bool = False, aligned: bool = True
) -> float:
    """Shortest series (s), the trigger in its middle, that a channel can be conditioned from.

    Args:
        settings: What will be done.
        sample_rate: The channel's own, Hz.
        psd: Whether its spectrum is given.
        aligned: Whether its samples lie on the grid of the common rate. If not, they are shifted there, and a few are
            lost where ends fall between samples: what this returns is then enough wherever they lie.

    Raises:
        ChannelRejectedError: Nothing of the band is left at this rate, or it has nothing in common with the other.
    """
    low, high = usable_band(settings, sample_rate)
    whitening = settings.whitening
    try:
        edge = filters.band_pass_loss(sample_rate, low, high, settings.order) / sample_rate
        edge += filters.resample_loss(sample_rate, settings.sample_rate, high) / settings.sample_rate
        if not aligned:
            lost = filters.shift_loss(2 * high / settings.sample_rate) + _ROUNDED_SAMPLES
            edge += lost / settings.sample_rate + 1 / sample_rate
    except ValueError as error:
        raise ChannelRejectedError(SAMPLE_RATE, str(error)) from error
    if not settings.whiten:
        return settings.duration + 2 * edge
    filtered = settings.duration + 2 * edge + whitening.filter_length
    # a segment of the spectrum on either side of the event
    measured = whitening.exclude_length + 2 * edge + 2 * whitening.fft_length
    return filtered if psd else max(filtered, measured)


def condition(
    series: Series,
    sample_rate: float,
    t0: float,
    gps_event: float,
    settings: ConditioningSettings,
    *,
    psd: Psd | None = None,
    gps_start: float | None = None,
    slow: SlowScale | None = None,
) -> tuple[np.ndarray, float]:
    """Condition one channel of one event.

    Args:
        series: As recorded, shape (time,), any real type; NaN where there are no data.
        sample_rate: Hz.
        t0: GPS time of its first sample, s.
        gps_event: Trigger time, GPS s.
        settings: What to do.
        psd: Density of this channel's noise as recorded (unit²/Hz), to whiten by; estimated beside the event if None.
        gps_start: Start of the crop, from `jittered_crop_start`; by default the trigger is in the crop's middle.
        slow: Unit of the motion below the band, `signal.slow.SHARE` of which is added; None: what is below is left out.

    Returns:
        The crop, shape (settings.num_samples,), float32 if whitened (variance 1 a sample for the full band) else
        float64 in the channel's unit; and the GPS time of its first sample. Channels of one event share that time
        exactly: what lies between the samples of the common grid is shifted there. A channel too slow for any of the
        band, of which the slow motion is asked for, has noise within the band.

    Raises:
        ChannelRejectedError: `nan`, `constant`, `too short`, `band above nyquist` or `sample rate`.
    """
    try:
        crops, start = condition_together((series,), sample_rate, t0, gps_event, settings, psd=psd, gps_start=gps_start)
        crop = crops[0]
    except ChannelRejectedError as error:
        if slow is None or error.reason != NYQUIST:
            raise
        start = crop_start(gps_event, settings) if gps_start is None else gps_start
        crop = _noise(np.asarray(series, dtype=np.float64), settings)
    if slow is None:
        return crop, start
    found = Recorded(np.asarray(series, dtype=np.float64), sample_rate, t0, settings)
    return (crop + SHARE * _slow_motion(found, start, slow)).astype(crop.dtype), start


def _slow_motion(channel: Recorded, start: float, slow: SlowScale) -> np.ndarray:
    """What a channel does below the band, at the samples of the crop that begins at `start`, in units of its scale."""
    settings, rate = channel.settings, channel.sample_rate
    stretch = _finite_stretch(channel.series, rate, channel.t0, start, settings)
    series, t0 = channel.series[stretch], channel.t0 + stretch.start / rate
    _refuse_flat(series, rate, t0, start, settings)
    times = start + np.arange(settings.num_samples) / settings.sample_rate
    return slow_motion(series, rate, t0, times, slow)


def condition_together(
    series: Sequence[Series],
    sample_rate: float,
    t0: float,
    gps_event: float,
    settings: ConditioningSettings,
    *,
    psd: Psd | None = None,
    gps_start: float | None = None,
) -> tuple[np.ndarray, float]:
    """Put a channel and parts of it (the glitch alone, a signal alone) through the very same filters.

    The first series decides everything that depends on the data: the stretch without gaps, the noise spectrum and with
    it the whitening filter. All that follows is linear, so the crops of parts that add up to the first add up to its
    crop. A channel that is too slow for the whole band is filled with noise; its parts are not.

    Args:
        series: As recorded, then its parts; all of one length, rate and start.
        sample_rate: Common rate, Hz.
        t0: GPS time of their first sample, s.
        gps_event: Trigger time, GPS s.
        settings: What to do.
        psd: As for `condition`.
        gps_start: As for `condition`.

    Returns:
        Crops, shape (series, settings.num_samples), and the GPS time of their first sample, as from `condition`.

    Raises:
        ChannelRejectedError: As for `condition`; judged on the first series.
        DataError: The series differ in length.
    """
    lengths = [len(one) for one in series]
    if len(set(lengths)) != 1:
        raise DataError(f"expected series of one length, got {lengths} samples. Cut them to the same stretch.")
    low, high = usable_band(settings, sample_rate)
    about_trigger = crop_start(gps_event, settings)
    gps_start = about_trigger if gps_start is None else round(gps_start * settings.sample_rate) / settings.sample_rate
    values = [np.asarray(one, dtype=np.float64) for one in series]
    stretch = _finite_stretch(values[0], sample_rate, t0, gps_start, settings)
    values, t0 = [one[stretch] for one in values], t0 + stretch.start / sample_rate
    _refuse_flat(values[0], sample_rate, t0, gps_start, settings)
    rate = settings.sample_rate
    resampled, first, edge = at_common_rate(values, sample_rate, t0, settings)
    start = round(gps_start * rate) - first
    if settings.whiten:
        trigger = round(about_trigger * rate) - first + settings.num_samples // 2
        resampled, cut = _whitened(
            resampled, edge=edge, trigger=trigger, band=(low, high), own_rate=sample_rate, settings=settings, psd=psd
        )
        edge += cut
    length, stop = len(resampled[0]), start + settings.num_samples
    if start < edge or stop > length - edge:
        raise ChannelRejectedError(
            TOO_SHORT,
            f"{start / rate:.2f} s before and {(length - stop) / rate:.2f} s after the crop of "
            f"{settings.duration:g} s, the filters need {edge / rate:.2f} s at each side: "
            f"{settings.duration + 2 * edge / rate:.2f} s in all",
        )
    crops = np.stack([one[start:stop] for one in resampled])
    if not np.all(np.isfinite(crops)):
        raise ChannelRejectedError(NAN, "the values are too large to be filtered")
    return crops.astype(np.float32 if settings.whiten else np.float64), gps_start


def at_common_rate(
    series: Sequence[Series], sample_rate: float, t0: float, settings: ConditioningSettings
) -> tuple[list[Series], int, int]:
    """Band-pass and resample a channel and parts of it, onto the grid of whole samples from GPS 0.

    Args:
        series: As recorded and without a gap, then its parts; all of one length, rate and start.
        sample_rate: Their rate, Hz.
        t0: GPS time of their first sample, s.
        settings: Band and common rate.

    Returns:
        The series at the common rate; the number of their first sample, counted from GPS 0; and the samples corrupted
        at each end.

    Raises:
        ChannelRejectedError: `constant`, `too short`, `band above nyquist` or `sample rate`; judged on the first.
    """
    low, high = usable_band(settings, sample_rate)
    rate = settings.sample_rate
    try:
        passed, transients = zip(
            *(filters.band_pass(one, sample_rate, low, high, settings.order) for one in series), strict=True
        )
        if np.abs(passed[0]).max() <= _ROUNDING * np.abs(series[0]).max():
            raise ChannelRejectedError(CONSTANT, "nothing but rounding errors within the band")
        edge = math.ceil(transients[0] * rate / sample_rate)
        resampled, lost = zip(*(filters.resample(one, sample_rate, rate, high) for one in passed), strict=True)
    except ValueError as error:
        raise ChannelRejectedError(SAMPLE_RATE if "common multiple" in str(error) else TOO_SHORT, str(error)) from error
    edge += lost[0]
    first = round(t0 * rate)
    delay = t0 * rate - first
    if abs(delay) > _SAME_SAMPLE:
        resampled, lost = zip(*(filters.shift(one, delay, 2 * high / rate) for one in resampled), strict=True)
        edge += lost[0]
    return list(resampled), first, edge


def _whitened(
    series: Sequence[Series],
    *,
    edge: int,
    trigger: int,
    band: tuple[float, float],
    own_rate: float,
    settings: ConditioningSettings,
    psd: Psd | None,
) -> tuple[list[Series], int]:
    rate, whitening, measured = settings.sample_rate, settings.whitening, series[0]
    if psd is None:
        clean = measured[edge : len(measured) - edge]
        middle = trigger - edge
        guard = round(whitening.exclude_length * rate / 2)
        exclude = (middle - guard, middle + guard) if guard else None
        try:
            psd = welch_psd(
                clean, rate, whitening.fft_length, whitening.overlap, method=whitening.method, exclude=exclude
            )
        except ValueError as error:
            raise ChannelRejectedError(
                TOO_SHORT,
                f"{error}. There are {len(measured) / rate:.2f} s: the filters spoil {edge / rate:.2f} s at each side, "
                f"and the spectrum leaves out {whitening.exclude_length:g} s about the event",
            ) from error
    else:
        psd = after_band_pass(psd, own_rate, band, settings.order)
    try:
        taps = whitening_filter(psd, rate, whitening.filter_length, band)
    except ValueError as error:
        raise ChannelRejectedError(CONSTANT, str(error)) from error
    if len(taps) > len(measured):
        raise ChannelRejectedError(TOO_SHORT, f"{len(measured) / rate:.2f} s are shorter than the whitening filter")
    whitened, lost = zip(*(whiten(one, taps) for one in series), strict=True)
    filled = list(whitened)
    if whitening.fill and band[1] < min(settings.high, 0.98 * rate / 2):
        filled[0] = filled[0] + _fill(measured, band, settings)
    return filled, lost[0]


def _noise(series: Series, settings: ConditioningSettings) -> np.ndarray:
    """A crop of what a channel says that has nothing of the band."""
    band = (settings.low, min(settings.high, 0.98 * settings.sample_rate / 2))
    taps = whitening_filter(_flat(settings.sample_rate), settings.sample_rate, settings.whitening.filter_length, band)
    drawn = np.random.default_rng(zlib.crc32(series.tobytes())).standard_normal(settings.num_samples + len(taps))
    return whiten(drawn, taps)[0][len(taps) // 2 :][: settings.num_samples].astype(np.float32)


def after_band_pass(psd: Psd, own_rate: float, band: tuple[float, float], order: int) -> Psd:
    """Density of a channel that was band-passed, from that of the channel as recorded.

    Args:
        psd: As recorded, unit²/Hz.
        own_rate: Rate at which it was recorded, Hz.
        band: Lower and upper edge, Hz.
        order: Order of each edge in one pass.
    """
    return Psd(psd.values * filters.band_pass_power(psd.frequencies, own_rate, *band, order), psd.spacing)


def _fill(series: Series, band: tuple[float, float], settings: ConditioningSettings) -> Series:
    """White noise in the part of the band that a slow channel cannot deliver: it says nothing there, at every time."""
    taps = fill_filter(settings.sample_rate, settings.whitening.filter_length, *band, settings.high)
    # Seeded by the data, so that a rerun gives the same bytes and two channels never share their noise.
    generator = np.random.default_rng(zlib.crc32(series.tobytes()))
    return whiten(generator.standard_normal(len(series)), taps)[0]


def _flat(rate: float) -> Psd:
    """The density of white noise of variance 1 a sample."""
    return Psd(np.full(2, 2 / rate), rate / 2)


@lru_cache(maxsize=64)
def fill_filter(rate: float, length: float, low: float, reached: float, high: float) -> np.ndarray:
    """Taps that make white noise fill what a channel cannot deliver.

    Args:
        rate: Common rate, Hz.
        length: Length of the filter, s.
        low: Lower edge of the band, Hz.
        reached: Upper edge of what the channel delivers, Hz.
        high: Upper edge of the whole band, Hz.
    """
    flat = _flat(rate)
    whole = whitening_filter(flat, rate, length, (low, min(high, 0.98 * rate / 2)))
    return whole - whitening_filter(flat, rate, length, (low, reached))


def _finite_stretch(
    values: Series, sample_rate: float, t0: float, gps_start: float, settings: ConditioningSettings
) -> slice:
    """The samples around the crop up to the nearest NaN on either side."""
    start = math.floor((gps_start - t0) * sample_rate + 1e-6)
    stop = math.ceil((gps_start + settings.duration - t0) * sample_rate - 1e-6)
    if start < 0 or stop > len(values):
        raise ChannelRejectedError(
            TOO_SHORT,
            f"{len(values) / sample_rate:.2f} s from GPS {t0:.3f} do not hold the crop of {settings.duration:g} s from "
            f"{gps_start:.3f}",
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if not len(bad):
        return slice(0, len(values))
    within = int(np.count_nonzero((bad >= start) & (bad < stop)))
    if within:
        raise ChannelRejectedError(NAN, f"{within} sample(s) within the crop are not finite")
    before, after = bad[bad < start], bad[bad >= stop]
    first = int(before[-1]) + 1 if len(before) else 0
    last = int(after[0]) if len(after) else len(values)
    return slice(first, last)


def _refuse_flat(
    values: Series, sample_rate: float, t0: float, gps_start: float, settings: ConditioningSettings
) -> None:
    start = max(round((gps_start - t0) * sample_rate), 0)
    crop = values[start : start + round(settings.duration * sample_rate)]
    moves = np.flatnonzero(np.diff(crop))
    longest = int(np.diff(np.concatenate([[-1], moves, [len(crop) - 1]])).max())
    if not len(moves) or longest >= max(settings.flat_length * sample_rate, 16):
        raise ChannelRejectedError(CONSTANT, f"the same value for {longest / sample_rate:.2f} s of the crop")
