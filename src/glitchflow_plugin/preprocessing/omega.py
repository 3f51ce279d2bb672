"""All channels at one time, without a scan and without a model: as recorded, whitened, and as Q-scans."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from glitchflow_plugin.data.datasets import DatasetSettings, EventRange
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.event_source import LoadedEvent
from glitchflow_plugin.data.readers.triggers import TriggerSettings
from glitchflow_plugin.data.sources import Catalogue, open_datasets
from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.preprocessing.channel_recipe import ChannelRecipe, channel_recipes, whitening_of
from glitchflow_plugin.signal.conditioning import ChannelRejectedError, condition, crop_start
from glitchflow_plugin.signal.qtransform import QTransformSettings, highest_frequency, lowest_frequency, q_transform
from glitchflow_plugin.signal.similarity import Similarity, coherence, cross_correlation
from glitchflow_plugin.types.tensors import host

QS = (8.0, 16.0, 32.0, 64.0)
"""Quality factors of which each channel and window takes the one with the loudest pixel."""

_LENGTHS = (8.0, 6.0, 4.0, 2.0)
"""What is looked at about the time, s: the longest that the data allow."""

_SEGMENT = 32.0
"""s that are read about the time, where there are as many: the rest is noise for the spectrum."""

_COLUMNS, _ROWS = 256, 80
"""Shape of the map of a window."""

_ABOUT = 1.0
"""s before and after the time in which loudness and correlation are judged."""

_LONGEST_LAG = 0.1
"""s; longer than light and sound take between the sensors of one building."""

_TOGETHER = 8
"""Channels transformed at a time."""


@dataclass(frozen=True, eq=False)
class ChannelsAtTime:
    """What the channels hold about one time; arrays by channel, the target first.

    Attributes:
        gps: The time, GPS s.
        channels: Names.
        recorded: As recorded, by name.
        series: Whitened, (channel, time).
        start: GPS time of the first sample, s.
        sample_rate: Hz.
        band: Hz, that of the target.
        rejected: Channels that cannot be used, and why.
    """

    gps: float
    channels: tuple[str, ...]
    recorded: Mapping[str, Channel]
    series: Float[np.ndarray, "channel time"]
    start: float
    sample_rate: float
    band: tuple[float, float]
    rejected: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class WindowScan:
    """Q-scans of one window; arrays by channel.

    Attributes:
        maps: SNR², (channel, frequency, time).
        frequencies: Hz, evenly spaced in the logarithm, (frequency,).
        start: Left edge, s from the time.
        length: s; shorter than the window where the data are.
        q: Quality factor of each map, (channel,).
    """

    maps: Float[np.ndarray, "channel frequency time"]
    frequencies: Float[np.ndarray, " frequency"]
    start: float
    length: float
    q: Float[np.ndarray, " channel"]


def channels_at(
    datasets: Sequence[Mapping[str, object] | DatasetSettings],
    whitening: Mapping[str, object] | None,
    gps: float,
    *,
    channels: Sequence[str] | None = None,
) -> ChannelsAtTime:
    """Read and whiten channels about a time.

    Args:
        datasets: Entries of datasets.yaml; their triggers, ranges of events and lengths are not used.
        whitening: Content of whiten.yaml.
        gps: The time, GPS s.
        channels: Exactly these, the target first; None for all that the data sets name.

    Raises:
        ConfigurationError: An entry is wrong, or the time is none.
        ChannelMismatchError: No data set has one of the channels that are asked for.
        DataError: The data sets hold nothing at this time, or too little to whiten the target.
    """
    if not (math.isfinite(gps) and gps > 0):
        raise ConfigurationError(f"expected a GPS time in s, such as 1126259462.4, got {gps}.")
    entries = [
        replace(
            one,
            triggers=TriggerSettings(times=(gps,)),
            events=EventRange(),
            groups=None,
            segment=max(_SEGMENT, one.segment),
        )
        for one in DatasetSettings.listed(datasets)
    ]
    catalogue = open_datasets(entries, target=channels[0] if channels else None, needed=channels)
    settings, files, quantity = whitening_of(whitening)
    recipes = channel_recipes(catalogue, settings, files, quantity)
    loaded = _covering(catalogue, gps)
    target = recipes[0]
    length = _longest(target, loaded, gps)
    series: dict[str, np.ndarray] = {}
    rejected: dict[str, str] = {}
    for recipe in recipes:
        try:
            series[recipe.name] = _whitened(recipe, loaded, gps, length)
        except ChannelRejectedError as error:
            rejected[recipe.name] = str(error)
    asked = replace(target.settings, duration=length)
    return ChannelsAtTime(
        gps,
        tuple(series),
        loaded.event.channels,
        np.stack(list(series.values())),
        crop_start(gps, asked),
        asked.sample_rate,
        (asked.low, asked.high),
        rejected,
    )


def scan_windows(found: ChannelsAtTime, windows: Sequence[float]) -> list[WindowScan]:
    """Q-scans of all channels in windows about the time, each at the Q at which the window has its loudest pixel.

    Args:
        found: The channels.
        windows: Lengths, s.
    """
    size, rate = found.series.shape[1], found.sample_rate
    settings = QTransformSettings(
        q=QS,
        frequency_low=max(found.band[0], lowest_frequency(size, rate, max(QS))),
        frequency_high=min(found.band[1], highest_frequency(size, rate, min(QS))),
        num_frequencies=_ROWS,
        log_frequency=True,
    )
    return [_window(found, window, settings) for window in windows]


def loudest(found: ChannelsAtTime, scan: WindowScan) -> Float[np.ndarray, "channel 3"]:
    """Largest energy of each channel within a second of the time: SNR², when (s from the time), and its frequency (Hz).

    Args:
        found: The channels.
        scan: A window that is at least as long.
    """
    times = scan.start + (np.arange(scan.maps.shape[2]) + 0.5) * scan.length / scan.maps.shape[2]
    near = np.flatnonzero(np.abs(times) <= _ABOUT)
    part = scan.maps[:, :, near]
    best = part.reshape(len(part), -1).argmax(axis=1)
    rows, columns = np.divmod(best, len(near))
    peaks = part[np.arange(len(found.channels)), rows, columns]
    return np.stack([peaks, times[near][columns], scan.frequencies[rows]], axis=1)


def similarities(found: ChannelsAtTime) -> tuple[Similarity, Similarity]:
    """Cross-correlation about the time, and coherence over all that was read, of each channel with the target."""
    middle = round((found.gps - found.start) * found.sample_rate)
    reach = round(_ABOUT * found.sample_rate)
    near = slice(max(0, middle - reach), middle + reach)
    series = found.series.astype(np.float64)
    return (
        cross_correlation(series[0, near], series[:, near], found.sample_rate, _LONGEST_LAG),
        coherence(
            series[0],
            series,
            found.sample_rate,
            found.band,
            segment_length=min(0.5, len(series[0]) / found.sample_rate / 8),
        ),
    )


def _covering(catalogue: Catalogue, gps: float) -> LoadedEvent:
    """What is recorded about the time, from the event nearest to it."""
    nearest = min(catalogue.events, key=lambda one: abs(one.gps_event - gps))
    loaded = nearest.load(list(catalogue.channels))
    strain = loaded.event.channels.get(catalogue.target)
    if strain is None or not strain.t0 <= gps < strain.t0 + strain.duration:
        span = "no strain" if strain is None else f"GPS {strain.t0:.3f} to {strain.t0 + strain.duration:.3f}"
        why = loaded.problems.get(catalogue.target, "")
        raise DataError(
            f"expected data of {catalogue.target} at GPS {gps:.3f}; the nearest in the data sets, "
            f"{nearest.event_id}, has {span}{f' ({why})' if why else ''}. Correct the time, or `path` in datasets.yaml."
        )
    return loaded


def _longest(target: ChannelRecipe, loaded: LoadedEvent, gps: float) -> float:
    """The longest stretch about the time for which the target can be whitened, s."""
    refused = None
    for length in _LENGTHS:
        try:
            _whitened(target, loaded, gps, length)
        except ChannelRejectedError as error:
            refused = error
        else:
            return length
    raise DataError(
        f"{target.name} cannot be whitened at GPS {gps:.3f}: {refused}. Take a time with more data about it."
    )


def _whitened(recipe: ChannelRecipe, loaded: LoadedEvent, gps: float, length: float) -> Float[np.ndarray, " time"]:
    found = loaded.event.channels.get(recipe.name)
    if found is None:
        raise ChannelRejectedError("missing", loaded.problems.get(recipe.name, "not in the data"))
    settings = replace(recipe.settings, duration=length, whiten=True, crop_jitter=0.0)
    crop, _ = condition(
        found.series, found.sample_rate, found.t0, gps, settings, psd=recipe.psd, gps_start=crop_start(gps, settings)
    )
    return crop


def _window(found: ChannelsAtTime, window: float, settings: QTransformSettings) -> WindowScan:
    duration = found.series.shape[1] / found.sample_rate
    columns = max(_COLUMNS, round(duration / window * _COLUMNS))
    offset = found.start - found.gps
    step = duration / columns
    first = max(0, round((-window / 2 - offset) / step))
    stop = min(columns, round((window / 2 - offset) / step))
    maps, q = [], []
    for start in range(0, len(found.series), _TOGETHER):
        series = torch.from_numpy(np.ascontiguousarray(found.series[start : start + _TOGETHER]))
        # by what is loudest in the window: what is louder elsewhere must not choose for it
        each = [
            host(q_transform(series, found.sample_rate, replace(settings, num_times=columns, q=one))[..., first:stop])
            for one in QS
        ]
        best = np.argmax([one.max(axis=(1, 2)) for one in each], axis=0)
        maps.append(np.stack([each[choice][row] for row, choice in enumerate(best)]))
        q.append(np.array(QS)[best])
    low, high = settings.frequency_low, settings.frequency_high
    frequencies = np.geomspace(low, high, settings.num_frequencies)
    return WindowScan(
        np.concatenate(maps), frequencies, offset + first * step, (stop - first) * step, np.concatenate(q)
    )
