"""The channel scan: which witnesses glitch when the strain does.

Spikes are found in the Q-transform of the reference (the strain) and of every other channel, and matched in time (and
frequency). What a channel shares with the reference, beyond what accident explains, decides whether it is selected.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from scipy.stats import binom
from tqdm import tqdm

from glitchflow_plugin.data.ranking_file import ChannelRanking
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, NoEventsError
from glitchflow_plugin.preprocessing.spectrograms import batch_maps, check_count, check_flags, event_transform
from glitchflow_plugin.signal.clusters import Spikes, find_spikes
from glitchflow_plugin.signal.coincidence import CoincidenceCounts, Tolerance, chance_coincidence, coincidence
from glitchflow_plugin.signal.qtransform import QTransformSettings, axes

logger = logging.getLogger(__name__)

#: Distance in octaves where frequencies are compared and tolerance_distance gives none.
DEFAULT_OCTAVES = 0.5


@dataclass(frozen=True)
class ScanSettings:
    """The keys of scan.yaml; conf/scan.yaml explains them."""

    num_batch: int = 8
    num_chan: int = 16
    threshold: float = 20.0
    time_window: float | None = None
    time_only_mode: bool = True
    tolerance_distance: float | Sequence[float] = 0.25
    q: float | Sequence[float] = 12.0
    frange: Sequence[float] = (8.0, 400.0)
    fres: float | None = None
    tres: float | None = None
    num_t_bins: int = 257
    num_f_bins: int = 64
    refchan: str | None = None
    logf: bool = False
    qtile: bool = False
    whiten: bool | None = None
    threshold_corr: float = 0.17
    threshold_iou: float = 0.08
    num_slides: int = 20
    significance: float = 0.01
    unsafe: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what is out of range or not implemented."""
        if isinstance(self.unsafe, str) or not all(isinstance(pattern, str) for pattern in self.unsafe):
            raise ConfigurationError(f"unsafe must be a list of channel names or patterns, got {self.unsafe!r}.")
        object.__setattr__(self, "unsafe", tuple(self.unsafe))
        check_flags(self, ("time_only_mode", "logf", "qtile"))
        check_count("num_batch", self.num_batch)
        check_count("num_chan", self.num_chan)
        if self.qtile:
            raise ConfigurationError(
                "scan.yaml: qtile: true is not available: spikes are found in the interpolated map. Leave qtile: false."
            )
        for key in ("threshold", "threshold_corr", "threshold_iou", "significance"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigurationError(f"{key} must be a number, got {value!r}.")
            object.__setattr__(self, key, float(value))  # YAML has whole numbers
        if not self.threshold > 0:
            raise ConfigurationError(f"threshold is an energy in SNR² and must be positive, got {self.threshold}.")
        if self.time_window is not None and not self.time_window > 0:
            raise ConfigurationError(
                f"time_window is a half-width in s and must be positive or null, got {self.time_window}."
            )
        for key in ("threshold_corr", "threshold_iou", "significance"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigurationError(f"{key} is a share between 0 and 1, got {getattr(self, key)}.")
        if isinstance(self.num_slides, bool) or not isinstance(self.num_slides, int) or self.num_slides < 0:
            raise ConfigurationError(f"num_slides must be a whole number, 0 for none, got {self.num_slides!r}.")
        _ = self.tolerance

    @property
    def tolerance(self) -> Tolerance:
        """The coincidence distance: seconds, and octaves unless `time_only_mode`."""
        distance = self.tolerance_distance
        pair = list(distance) if isinstance(distance, Sequence) and not isinstance(distance, str) else [distance]
        numbers = [value for value in pair if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) != len(pair) or len(pair) not in (1, 2):
            raise ConfigurationError(
                f"tolerance_distance must be seconds, or a pair [seconds, octaves], got {self.tolerance_distance!r}."
            )
        octaves = float(pair[1]) if len(pair) == 2 else DEFAULT_OCTAVES
        return Tolerance(time=float(pair[0]), octaves=None if self.time_only_mode else octaves)


def scan_channels(
    events: EventSet, settings: ScanSettings, *, device: torch.device | str = "cpu", progress: bool = True
) -> ChannelRanking:
    """Rank all channels of an event set by their coincidence with the reference.

    At most `num_batch` events of `num_chan` channels are in memory at a time; the reference is transformed once.

    Args:
        events: Event set.
        settings: Of the scan.
        device: Where to compute.
        progress: Show a progress bar.

    Returns:
        The ranking. A channel is selected if its correlation and its IoU reach the thresholds, if the part of the
        correlation that accident does not explain, (correlation - chance) / (1 - chance), reaches the threshold too,
        and if so many shared spikes have at most the probability `significance` / (number of channels with
        information, Bonferroni) under the rate of accidental pairs (binomial law). That rate counts what was observed
        as one more slide: a witness with so few spikes that no slide has a pair still has a rate above zero. The last
        requirement falls away without slides and for `significance` 1. Channels that match `unsafe` are ranked, but
        never selected.

    Raises:
        ConfigurationError: The settings do not fit the data.
        ChannelMismatchError: The set lacks the reference channel or has no other.
        NoEventsError: The reference is valid in no event.
    """
    transform = event_transform(events, settings)
    reference_name = settings.refchan or events.target
    if reference_name not in events.channels:
        raise ChannelMismatchError(
            f"refchan {reference_name} is not in {events.folder}, which has {list(events.channels)[:10]}. "
            "Correct `refchan`, or leave it null for the target."
        )
    reference_row = events.channels.index(reference_name)
    witnesses = [name for name in events.channels if name not in (reference_name, events.target)]
    if not witnesses:
        raise ChannelMismatchError(f"{events.folder} has no channel beside {reference_name}: nothing to scan.")
    usable = np.flatnonzero(events.valid[:, reference_row])
    if not usable.size:
        raise NoEventsError(f"{reference_name} is valid in none of the {len(events)} events of {events.folder}.")

    scanner = _Scanner(events, settings, transform, device)
    groups = [witnesses[start : start + settings.num_chan] for start in range(0, len(witnesses), settings.num_chan)]
    batches = [usable[start : start + settings.num_batch] for start in range(0, len(usable), settings.num_batch)]
    found, by_chance = [_no_counts(len(group)) for group in groups], [_no_counts(len(group)) for group in groups]
    valid_events = [np.zeros(len(group), dtype=np.int64) for group in groups]
    with tqdm(total=len(usable) * len(witnesses), desc="Scan", unit="map", disable=not progress) as bar:
        for rows in batches:
            reference, _ = scanner.spikes(rows, [reference_name])
            spans = scanner.spans(rows)
            for index, group in enumerate(groups):
                spikes, valid = scanner.spikes(rows, group)
                found[index] += coincidence(reference, spikes, valid, settings.tolerance)
                by_chance[index] += chance_coincidence(
                    reference, spikes, valid, settings.tolerance, spans, num_slides=settings.num_slides
                )
                valid_events[index] += valid.sum(axis=0)
                bar.update(valid.size)
    return _ranking(
        target=reference_name,
        channels=witnesses,
        counts=_joined(found),
        by_chance=_joined(by_chance),
        events=np.concatenate(valid_events),
        settings=settings,
        transform=transform,
        event_set=events.manifest.fingerprint,
    )


def is_unsafe(channel: str, patterns: Sequence[str]) -> bool:
    """Whether a channel is listed as one that sees the strain itself, signals included."""
    return any(fnmatchcase(channel, pattern) for pattern in patterns)


def _ranking(
    *,
    target: str,
    channels: list[str],
    counts: CoincidenceCounts,
    by_chance: CoincidenceCounts,
    events: np.ndarray,
    settings: ScanSettings,
    transform: QTransformSettings,
    event_set: str,
) -> ChannelRanking:
    correlation, iou, chance = counts.correlation, counts.iou, by_chance.correlation
    expected = np.nan_to_num(chance, nan=0.0)
    # All of it explained by accident leaves nothing; avoid 0 / 0.
    genuine = np.where(expected < 1, (correlation - expected) / np.where(expected < 1, 1 - expected, 1), 0.0)
    # Slides of a rare witness may hold no pair at all; a rate of 0 would make a single accident significant.
    pairs, trials = by_chance.shared + counts.shared, by_chance.reference + counts.reference
    by_accident = binom.sf(counts.shared - 1, counts.reference, pairs / np.maximum(trials, 1))
    tested = max(int(np.isfinite(correlation).sum()), 1)
    slid = by_chance.reference > 0
    significant = ~slid | (settings.significance >= 1) | (by_accident <= settings.significance / tested)
    # Comparisons with NaN are False: no information, not selected.
    passed = (
        (correlation >= settings.threshold_corr)
        & (iou >= settings.threshold_iou)
        & (genuine >= settings.threshold_corr)
        & significant
        & (counts.shared > 0)
        & ~np.array([is_unsafe(name, settings.unsafe) for name in channels])
    )
    order = np.lexsort((np.array(channels), -np.nan_to_num(iou, nan=-1.0), -np.nan_to_num(correlation, nan=-1.0)))
    return ChannelRanking(
        target=target,
        channels=tuple(channels[row] for row in order),
        correlation=correlation[order],
        iou=iou[order],
        chance=chance[order],
        events=events[order],
        strain_spikes=counts.reference[order],
        witness_spikes=counts.witness[order],
        shared_spikes=counts.shared[order],
        selected=tuple(channels[row] for row in order if passed[row]),
        parameters=_plain(asdict(settings)) | {"qtransform": _plain(asdict(transform))},
        event_set=event_set,
    )


@dataclass(frozen=True)
class _Scanner:
    """Spikes of some events and channels of one set."""

    events: EventSet
    settings: ScanSettings
    transform: QTransformSettings
    device: torch.device | str

    def spans(self, rows: np.ndarray) -> np.ndarray:
        """First and last time of each event that counts, s from its first sample, shape (event, 2)."""
        _, times = axes(self.events.duration, self.transform)
        whole = np.tile([times[0], self.events.duration], (len(rows), 1))
        if self.settings.time_window is None:
            return whole
        middle = self.events.gps_event[rows] - self.events.gps_start[rows]
        half = self.settings.time_window
        return np.clip(np.stack([middle - half, middle + half], axis=1), 0.0, self.events.duration)

    def spikes(self, rows: np.ndarray, channels: Sequence[str]) -> tuple[Spikes, np.ndarray]:
        """Spikes of events and channels within the time that counts, and where they are valid, (event, channel).

        The transform treats an event as periodic, so what is cut at one edge shows at the other too: spikes within one
        tile, Q / (2 pi f) with the largest Q, of either edge do not count.
        """
        frequencies, times = axes(self.events.duration, self.transform)
        batch = self.events.read(rows, channels)
        maps = batch_maps(batch, self.events.sample_rate, self.transform, self.device)
        spikes = find_spikes(maps, self.settings.threshold, frequencies, times, time_only=self.settings.time_only_mode)
        spans = self.spans(rows)[spikes.event]
        tile = max(self.transform.qs) / (2 * np.pi * spikes.frequency)
        first, last = np.maximum(spans[:, 0], tile), np.minimum(spans[:, 1], self.events.duration - tile)
        return spikes.select((spikes.time >= first) & (spikes.time <= last)), batch.valid


def _no_counts(size: int) -> CoincidenceCounts:
    return CoincidenceCounts(*(np.zeros(size, dtype=np.int64) for _ in range(3)))


def _joined(parts: list[CoincidenceCounts]) -> CoincidenceCounts:
    return CoincidenceCounts(
        reference=np.concatenate([part.reference for part in parts]),
        witness=np.concatenate([part.witness for part in parts]),
        shared=np.concatenate([part.shared for part in parts]),
    )


def _plain(value: Any) -> Any:
    """Lists in place of tuples and of the host framework's sequences, so that YAML stays plain."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
