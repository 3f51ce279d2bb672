"""The channel scan: which witnesses glitch when the strain does.

First, and once, the spikes of all channels are found (`spikes`). What follows is cheap: spikes of the reference (the
strain) and of the witnesses are matched in time (and frequency), compared with chance, and ranked in rounds.
"""

import logging
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch

from glitchflow_plugin.data.ranking_file import ChannelRanking, RankingRound
from glitchflow_plugin.data.readers.triggers import read_times
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, NoEventsError
from glitchflow_plugin.preprocessing.engine import IN_PROCESS, EngineSettings
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.preprocessing.spectrograms import batch_maps, event_transform
from glitchflow_plugin.preprocessing.spikes import BatchSettings, SpikeSettings, event_spikes
from glitchflow_plugin.products.hveto import HvetoRound
from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance, coincident_pairs, explained
from glitchflow_plugin.signal.columns import Columns, tile_length
from glitchflow_plugin.signal.families import redundant_families
from glitchflow_plugin.signal.lags import best_lags
from glitchflow_plugin.signal.livetime import LiveTime
from glitchflow_plugin.signal.qtransform import QTransformSettings, axes
from glitchflow_plugin.signal.rounds import Ranking, rank_in_rounds
from glitchflow_plugin.signal.slides import slide_statistics
from glitchflow_plugin.signal.stretches import join_overlapping
from glitchflow_plugin.types.intervals import left_over, union
from glitchflow_plugin.types.plain import plain

logger = logging.getLogger(__name__)

#: Share of events that overlap others from which this is said.
_MANY_OVERLAP = 0.1
#: Triggers nearer than this are likely of one glitch, s.
_CLOSE = 0.5


def scan_channels(
    events: EventSet,
    settings: ScanSettings,
    folder: Path | str | None = None,
    *,
    device: torch.device | str = "cpu",
    engine: EngineSettings = IN_PROCESS,
) -> ChannelRanking:
    """Rank all channels of an event set by their coincidence with the reference.

    Args:
        events: Event set.
        settings: What is compared, and what a witness needs to be selected.
        folder: Folder that keeps the spikes, so that a killed scan goes on and other thresholds, levels or lists of
            unsafe channels cost no Q-transform; None keeps nothing.
        device: Computes the maps.
        engine: Spreads the search for spikes over processes.

    Returns:
        The ranking. A channel is selected if, in any round, its p-value from time slides makes it a discovery at the
        false-discovery rate `fdr`; without slides, and for `fdr` 1, this is not asked. Where thresholds are given, its
        correlation and its IoU must reach them too, and so must the part of the correlation that accident does not
        explain, (correlation - chance) / (1 - chance). Channels that match `unsafe`, or coincide with the injections,
        are ranked, but never selected, unless `safe_override` names them.

    Raises:
        ShareDone: In a task of an array: its share of the spikes is found, and others are not.
        ConfigurationError: The settings do not fit the data.
        ChannelMismatchError: The set lacks a channel that the settings name, or has none beside the reference.
        NoEventsError: The reference is valid in no event.
    """
    scan = _Scan(events, settings)
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        spikes = event_spikes(events, scan.spike_settings, place, batch=scan.batch, device=device, engine=engine)
    return scan.ranking(spikes)


@dataclass(frozen=True, eq=False)
class CoincidenceExample:
    """An event in which a witness shares a spike with the reference.

    Attributes:
        channel: The witness.
        event_id: The event.
        gps_start: GPS time of its left edge, s.
        maps: Energy of reference and witness, SNR², shape (2, frequency, time).
        spikes: Time (s from the left edge) and frequency (Hz) of the spikes of reference and witness.
        shared: Time of the loudest shared spike of the reference, s from the left edge.
    """

    channel: str
    event_id: str
    gps_start: float
    maps: np.ndarray
    spikes: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    shared: float


def coincidence_examples(
    events: EventSet,
    ranking: ChannelRanking,
    settings: ScanSettings,
    folder: Path | str,
    *,
    number: int = 4,
    device: torch.device | str = "cpu",
) -> tuple[list[CoincidenceExample], np.ndarray, np.ndarray]:
    """The loudest coincidence of each of the first channels of the rounds (or of the selection), with maps.

    Args:
        events: Event set.
        ranking: The ranking of its channels.
        settings: Those that the ranking was made with.
        folder: Folder that keeps the spikes.
        number: Channels at most.
        device: Computes the maps.

    Returns:
        The examples, and the axes of their maps, Hz and s.
    """
    scan = _Scan(events, settings)
    spikes = event_spikes(events, scan.spike_settings, folder, batch=scan.batch, device=device)
    reference, witness, _ = scan.parted(spikes)
    frequencies, times = axes(events.duration, scan.transform)
    found = []
    for channel in list(dict.fromkeys([*(one.channel for one in ranking.rounds), *ranking.selected]))[:number]:
        own = witness.select(witness.channel == scan.witnesses.index(channel))
        left, right = coincident_pairs(reference, own, scan.tolerance)
        if not len(left):
            continue
        loudest = int(np.argmax(np.minimum(reference.energy[left], own.energy[right])))
        stretch, shared = int(reference.event[left[loudest]]), float(reference.time[left[loudest]])
        row = scan.stretches.event_at(stretch, shared)
        offset = scan.stretches.offset[row]
        batch = events.read([row], [scan.reference, channel])
        strain, seen = (spikes.select(spikes.event == stretch) for spikes in (reference, own))
        found.append(
            CoincidenceExample(
                channel=channel,
                event_id=batch.event_ids[0],
                gps_start=float(batch.gps_start[0]),
                maps=batch_maps(batch, events.sample_rate, scan.transform, device)[0],
                spikes=((strain.time - offset, strain.frequency), (seen.time - offset, seen.frequency)),
                shared=shared - offset,
            )
        )
    return found, frequencies, times


def rounds_in_time(
    events: EventSet, ranking: ChannelRanking, settings: ScanSettings, folder: Path | str
) -> list[HvetoRound]:
    """The rounds of a ranking with the times that each analysed and vetoed.

    Args:
        events: Event set.
        ranking: The ranking of its channels.
        settings: Those that the ranking was made with.
        folder: Folder that keeps the spikes.
    """
    scan = _Scan(events, settings)
    _, witness, live = scan.parted(event_spikes(events, scan.spike_settings, folder, batch=scan.batch))
    found = []
    for one in ranking.rounds:
        own = witness.select(witness.channel == scan.witnesses.index(one.channel))
        after = live.without(own.select(live.holds(own)), scan.tolerance.time)
        analysed, left = (scan.gps_times(each) for each in (live, after))
        found.append(
            HvetoRound(
                one.channel,
                2 * scan.tolerance.time,
                settings.threshold**0.5,
                one.significance,
                one.explained,
                one.remaining,
                one.use_percentage,
                analysed=analysed,
                vetoes=left_over(analysed, left),
            )
        )
        live = after
    return found


def overlap_warning(events: EventSet, settings: ScanSettings) -> str | None:
    """What to know of a scan in which many events show the same time; None where few do."""
    stretches = _Scan(events, settings).stretches
    used, overlapping = int((stretches.event >= 0).sum()), stretches.num_overlapping
    if overlapping < _MANY_OVERLAP * used:
        return None
    close = int((np.diff(np.sort(events.gps_event[stretches.event >= 0])) < _CLOSE).sum())
    cluster = (
        f"{close} triggers follow another within {_CLOSE:g} s and are likely of one glitch: cluster them "
        f"(triggers.cluster: {_CLOSE:g} in datasets.yaml)"
        if close
        else "shorter events (len in datasets.yaml) would overlap less"
    )
    return (
        f"{overlapping} of {used} events overlap others in time: what they show is counted once, so there are "
        f"{len(stretches)} independent stretches; {cluster}"
    )


class _Scan:
    """Settings of a scan resolved against an event set; refuses what does not fit before any work is done."""

    def __init__(self, events: EventSet, settings: ScanSettings) -> None:
        self.events, self.settings = events, settings
        self.transform: QTransformSettings = event_transform(events, settings)
        self.reference = settings.refchan or events.target
        if self.reference not in events.channels:
            raise ChannelMismatchError(
                f"refchan {self.reference} is not in {events.folder}, which has {list(events.channels)[:10]}. "
                "Correct `refchan`, or leave it null for the target."
            )
        self.witnesses = [name for name in events.channels if name not in (self.reference, events.target)]
        if not self.witnesses:
            raise ChannelMismatchError(f"{events.folder} has no channel beside {self.reference}: nothing to scan.")
        unknown = sorted(set(settings.safe_override) - set(self.witnesses))
        if unknown:
            raise ChannelMismatchError(
                f"safe_override names {unknown}, which {events.folder} does not have as witnesses. It takes whole "
                "channel names, no patterns. Correct them in scan.yaml."
            )
        reference_valid = events.valid[:, events.channels.index(self.reference)]
        if not reference_valid.any():
            raise NoEventsError(f"{self.reference} is valid in none of the {len(events)} events of {events.folder}.")
        frequencies, times = axes(events.duration, self.transform)
        self.columns = Columns(times)
        self.tolerance = settings.tolerance.between_columns(self.columns.width)
        crops = LiveTime(self._spans(), self.columns, cycles=max(self.transform.qs) / (2 * np.pi))
        self.stretches = join_overlapping(
            events.gps_start,
            events.gps_event,
            crops,
            margin=float(tile_length(frequencies[0], max(self.transform.qs))),
            used=reference_valid,
        )
        self.live = self.stretches.live
        self.valid = self.stretches.valid(events.valid[:, [events.channels.index(name) for name in self.witnesses]])
        self.injections = self._injections()

    @property
    def spike_settings(self) -> SpikeSettings:
        return SpikeSettings(self.transform, self.settings.threshold, self.settings.time_only_mode)

    @property
    def batch(self) -> BatchSettings:
        return BatchSettings(self.settings.memory, self.settings.num_batch, self.settings.num_chan)

    def parted(self, spikes: Spikes) -> tuple[Spikes, Spikes, LiveTime]:
        """Spikes of reference and witnesses in the time that counts, without that about the injections.

        Rows of `event` are stretches, here and in all that follows.
        """
        live = self.live.without(self.injections, self.tolerance.time)
        return (*self._parted(spikes, live), live)

    def gps_times(self, live: LiveTime) -> np.ndarray:
        """When it is that is alive, GPS s, shape (segment, 2)."""
        stretch, times = live.left()
        return union(self.stretches.gps_start[stretch, None] + times)

    def ranking(self, spikes: Spikes) -> ChannelRanking:
        """Compare, rank, and name the unsafe."""
        settings = self.settings
        safety, unsafe = self._safety(spikes)
        overridden = {name: why for name, why in unsafe.items() if name in settings.safe_override}
        unsafe = {name: why for name, why in unsafe.items() if name not in overridden}
        reference, witness, live = self.parted(spikes)
        ranked = rank_in_rounds(
            reference,
            witness,
            self.valid,
            live=live,
            tolerance=self.tolerance,
            criteria=settings.criteria,
            eligible=np.array([name not in unsafe for name in self.witnesses]),
            max_rounds=settings.max_rounds,
        )
        # Unsafe channels that would have passed are shown with their family.
        notable = ranked.passed | ranked.figures.passes(settings.criteria)
        notable |= np.array([name in unsafe for name in self.witnesses]) & (ranked.figures.significance > 0)
        columns = self._described(reference, witness, ranked, np.flatnonzero(notable))
        return self._record(ranked, columns | {"safety_p_value": safety}, unsafe, overridden)

    def _spans(self) -> np.ndarray:
        """First and last time of each event that counts, s from its first sample, shape (event, 2)."""
        events, half = self.events, self.settings.time_window
        if half is None:
            return np.tile([0.0, events.duration], (len(events), 1))
        middle = events.gps_event - events.gps_start
        return np.clip(np.stack([middle - half, middle + half], axis=1), 0.0, events.duration)

    def _injections(self) -> Spikes:
        """The injections in the analysed time, as spikes without a frequency."""
        given = self.settings.injections
        if given is None:
            return Spikes.empty()
        times = np.sort(read_times(given) if isinstance(given, str) else np.asarray(given, dtype=np.float64))
        start, end = self.stretches.gps_start[:, None] + self.stretches.spans.T[..., None]
        stretch, which = np.nonzero((times >= start) & (times <= end))
        if not len(stretch):
            raise ConfigurationError(
                f"none of the {len(times)} injections lies in the analysed events (GPS {start.min():.0f} to "
                f"{end.max():.0f}): the channels' safety cannot be tested. "
                "Add events about the injections, or set injections: null in scan.yaml."
            )
        unknown = np.full(len(stretch), np.inf)
        since = times[which] - self.stretches.gps_start[stretch]
        return Spikes(stretch, np.zeros_like(stretch), since, unknown, unknown)

    def _parted(self, spikes: Spikes, live: LiveTime) -> tuple[Spikes, Spikes]:
        spikes = self.stretches.merged(spikes, self.tolerance)
        spikes = spikes.select(live.holds(spikes))
        channels = self.events.channels
        row = np.full(len(channels), -1)
        row[[channels.index(name) for name in self.witnesses]] = np.arange(len(self.witnesses))
        reference = spikes.select(spikes.channel == channels.index(self.reference))
        witness = spikes.select(row[spikes.channel] >= 0)
        witness = replace(witness, channel=row[witness.channel])
        reference = reference.moved(channels=-channels.index(self.reference))
        return reference, witness.select(self.valid[witness.event, witness.channel])

    def _safety(self, spikes: Spikes) -> tuple[np.ndarray, dict[str, str]]:
        """Probability of coincidences with the injections by accident, and why channels are unsafe."""
        settings = self.settings
        p_values = np.full(len(self.witnesses), np.nan)
        unsafe = {name: "listed" for name in self.witnesses if is_unsafe(name, settings.unsafe)}
        if len(self.injections):
            _, witness = self._parted(spikes, self.live)
            statistics = slide_statistics(
                self.injections,
                witness,
                self.live,
                Tolerance(self.tolerance.time),
                num_channels=len(self.witnesses),
                num_slides=settings.num_slides,
            )
            tested = self.valid[self.injections.event].any(axis=0)
            p_values = np.where(tested, statistics.p_value, np.nan)
            unsafe |= {
                self.witnesses[row]: f"coincides with the injections, p = {p_values[row]:.2g}"
                for row in np.flatnonzero(p_values <= settings.safety)
            }
        return p_values, unsafe

    def _described(
        self, reference: Spikes, witness: Spikes, ranked: Ranking, notable: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Rounds won, and lags and families of the notable channels."""
        number = len(self.witnesses)
        won, last = np.zeros(number, dtype=np.int64), len(ranked.rounds) + 1
        won[[one.channel for one in ranked.rounds]] = np.arange(1, last)
        lags = np.full((2, number), np.nan)
        family, representative = np.zeros(number, dtype=np.int64), np.zeros(number, dtype=bool)
        if notable.size:
            row = np.full(number, -1)
            row[notable] = np.arange(len(notable))
            some = witness.select(row[witness.channel] >= 0)
            some = replace(some, channel=row[some.channel])
            lags[:, notable] = best_lags(
                reference, some, self.tolerance, num_channels=len(notable), column=self.columns.width
            )
            # who won a round comes first, then who is more significant
            order = np.lexsort((-ranked.figures.significance[notable], np.where(won[notable], won[notable], last)))
            family[notable], representative[notable] = redundant_families(
                explained(reference, some, self.tolerance, len(notable)),
                self.valid[reference.event][:, notable].T,
                -np.argsort(order),
                self.settings.family_overlap,
            )
        return {
            "round": won,
            "lag": lags[0],
            "lag_error": lags[1],
            "family": family,
            "representative": representative,
        }

    def _record(
        self,
        ranked: Ranking,
        described: dict[str, np.ndarray],
        unsafe: dict[str, str],
        overridden: dict[str, str],
    ) -> ChannelRanking:
        names, figures = self.witnesses, ranked.figures
        order = np.lexsort(
            (np.array(names), -np.nan_to_num(figures.iou, nan=-1.0), -np.nan_to_num(figures.correlation, nan=-1.0))
        )
        columns = described | {
            **{name: getattr(figures, name) for name in _AS_MEASURED},
            "events": self.stretches.num_events @ self.valid,
            "strain_spikes": figures.reference,
            "witness_spikes": figures.witness,
            "shared_spikes": figures.shared,
        }
        return ChannelRanking(
            target=self.reference,
            channels=tuple(names[row] for row in order),
            **{name: column[order] for name, column in columns.items()},
            selected=tuple(names[row] for row in order if ranked.passed[row]),
            rounds=tuple(
                RankingRound(
                    round=number,
                    channel=names[one.channel],
                    explained=one.explained,
                    remaining=one.remaining,
                    **{name: float(getattr(one.figures, name)[one.channel]) for name in _OF_ROUND},
                )
                for number, one in enumerate(ranked.rounds, start=1)
            ),
            unsafe={name: unsafe[name] for name in names if name in unsafe},
            overridden=overridden,
            parameters=plain(asdict(self.settings)) | {"qtransform": plain(asdict(self.transform))},
            event_set=self.events.manifest.fingerprint,
        )


_OF_ROUND = ("significance", "p_value", "q_value", "correlation", "efficiency", "deadtime", "use_percentage")
_AS_MEASURED = (*_OF_ROUND, "iou", "chance", "p_common", "efficiency_over_deadtime")


def is_unsafe(channel: str, patterns: Sequence[str]) -> bool:
    """Whether a channel is listed as one that sees the strain itself, signals included."""
    return any(fnmatchcase(channel, pattern) for pattern in patterns)
