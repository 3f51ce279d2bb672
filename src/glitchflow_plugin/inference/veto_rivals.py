"""Vetoes that need no twin: the best single channel, and channels in rounds in the manner of Hveto.

Both are chosen on events that the figures are not made of, and give a rank by column as the twin does:

- *best channel*: largest energy of one witness in a column, SNR². The witness is the one with the largest efficiency
  over deadtime where half of the glitches are found.
- *rounds*: `signal.rounds`, the scan's own, with several thresholds of each channel, and of several windows the one
  with which the first round is the most significant. A column within the window of a spike of round k of n ranks
  n - k + 1, all others below: the first k rounds together are the columns that rank above n - k.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.inference.veto_worth import PADDINGS, Judged, at_half
from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.livetime import LiveTime
from glitchflow_plugin.signal.rounds import Criteria, Ranking, rank_in_rounds
from glitchflow_plugin.signal.vetoes import runs_of

CHANNEL, ROUNDS = ("best channel", "rounds")
"""Names of the rivals."""

_THRESHOLDS = (16.0, 25.0, 50.0, 100.0, 200.0, 400.0)
"""SNR² at which rounds look at each channel."""

_WINDOWS = (0.05, 0.1, 0.25)
"""Largest distances of a coincidence that rounds try, s: half the length of a veto."""

_ROUNDS = 8
_BATCH = 32


@dataclass(frozen=True)
class VetoRound:
    """One round: a channel, the SNR² above which it spikes, and how significant it was."""

    channel: str
    threshold: float
    significance: float


@dataclass(frozen=True)
class Rivals:
    """What was chosen.

    Attributes:
        channel: The best single channel.
        padding: Seconds that its vetoes reach beyond the columns above a threshold.
        rounds: Rounds in order; none where nothing is significant.
        window: Half the length of a round's vetoes, s.
    """

    channel: str
    padding: float
    rounds: tuple[VetoRound, ...]
    window: float

    @property
    def channels(self) -> list[str]:
        """All channels that are needed, each once."""
        return list(dict.fromkeys([self.channel, *(one.channel for one in self.rounds)]))

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Rivals":
        """Rebuild what `to_dict` gave."""
        rounds = tuple(VetoRound(**one) for one in content["rounds"])
        return cls(str(content["channel"]), float(content["padding"]), rounds, float(content["window"]))


def column_peaks(
    spectrograms: SpectrogramSet,
    rows: Int[np.ndarray, " event"],
    channels: Sequence[str],
    inside: Bool[np.ndarray, "frequency time"],
) -> Float[np.ndarray, "event channel time"]:
    """Largest energy of each column of some channels, SNR², float32; 0 where a channel has no usable data."""
    parts = [np.zeros((0, len(channels), inside.shape[1]), dtype=np.float32)]
    for first in range(0, len(rows), _BATCH):
        batch = spectrograms.read(rows[first : first + _BATCH], list(channels))
        parts.append((batch.maps * inside).max(axis=2).astype(np.float32))
    return np.concatenate(parts)


def choose_rivals(
    peaks: Float[np.ndarray, "event channel time"],
    channels: Sequence[str],
    valid: Bool[np.ndarray, "event channel"],
    judged: Judged,
) -> Rivals:
    """Choose the best channel and the rounds.

    Args:
        peaks: Largest energy of each column, SNR².
        channels: The witnesses.
        valid: Whether a channel has usable data.
        judged: The same events with the glitches in their strain.
    """
    tried = [(row, padding) for row in range(len(channels)) for padding in PADDINGS]
    ratios = [at_half(peaks[:, row].astype(np.float64), judged, padding) for row, padding in tried]
    best, padding = tried[int(np.argmax(np.nan_to_num(ratios, nan=-1.0)))]
    window = max(_WINDOWS, key=lambda one: _most_significant(_in_rounds(peaks, valid, judged, one, max_rounds=1)))
    rounds = tuple(
        VetoRound(
            channels[one.channel // len(_THRESHOLDS)],
            _THRESHOLDS[one.channel % len(_THRESHOLDS)],
            float(one.figures.significance[one.channel]),
        )
        for one in _in_rounds(peaks, valid, judged, window).rounds
    )
    return Rivals(channels[best], padding, rounds, window)


def rival_ranks(
    rivals: Rivals,
    spectrograms: SpectrogramSet,
    rows: Int[np.ndarray, " event"],
    inside: Bool[np.ndarray, "frequency time"],
) -> dict[str, Float[np.ndarray, "event time"]]:
    """Rank of each rival by column, by name; that of columns outside all rounds is minus infinity."""
    peaks = column_peaks(spectrograms, rows, rivals.channels, inside).astype(np.float64)
    return ranks_of_peaks(rivals, peaks, Columns(spectrograms.times))


def ranks_of_peaks(
    rivals: Rivals, peaks: Float[np.ndarray, "event channel time"], columns: Columns
) -> dict[str, Float[np.ndarray, "event time"]]:
    """Rank of each rival by column, as `rival_ranks` gives it.

    Args:
        rivals: What was chosen.
        peaks: Largest energy of each column of `rivals.channels`, SNR².
        columns: When the columns are.
    """
    channels = rivals.channels
    rank = np.full((len(peaks), len(columns)), -np.inf)
    for number, one in enumerate(reversed(rivals.rounds), 1):
        spikes = _spikes(peaks[:, [channels.index(one.channel)]], (one.threshold,), columns)
        for event, time in zip(spikes.event, spikes.time, strict=True):
            rank[event, np.abs(columns.centre - time) <= rivals.window] = number
    return {CHANNEL: peaks[:, channels.index(rivals.channel)], ROUNDS: rank}


def _in_rounds(
    peaks: Float[np.ndarray, "event channel time"],
    valid: Bool[np.ndarray, "event channel"],
    judged: Judged,
    window: float,
    max_rounds: int = _ROUNDS,
) -> Ranking:
    columns, glitches = judged.columns, judged.glitches
    live = LiveTime(np.tile(judged.span, (len(peaks), 1)), columns)
    nothing = np.ones(len(glitches))
    reference = Spikes(glitches.event, np.zeros_like(glitches.event), glitches.time, nothing, nothing)
    witness = _spikes(peaks, _THRESHOLDS, columns)
    tested = np.repeat(valid, len(_THRESHOLDS), axis=1)
    return rank_in_rounds(
        reference.select(live.holds(reference)),
        witness.select(live.holds(witness)),
        tested,
        live=live,
        tolerance=Tolerance(window).between_columns(columns.width),
        criteria=Criteria(),
        eligible=np.ones(tested.shape[1], dtype=bool),
        max_rounds=max_rounds,
    )


def _most_significant(ranking: Ranking) -> float:
    """Hveto's significance of the first round; 0 where there is none."""
    return max((float(one.figures.significance[one.channel]) for one in ranking.rounds[:1]), default=0.0)


def _spikes(peaks: Float[np.ndarray, "event channel time"], thresholds: Sequence[float], columns: Columns) -> Spikes:
    """Spikes of each channel at each threshold, as those of channel * thresholds + threshold; without frequencies."""
    parts = []
    for channel in range(peaks.shape[1]):
        energies = peaks[:, channel]
        for row, threshold in enumerate(thresholds):
            runs = runs_of(energies > threshold, columns)
            peak = runs.loudest(energies)
            number = np.full(len(runs), channel * len(thresholds) + row)
            loudest = energies[runs.event, peak].astype(np.float64)
            parts.append(Spikes(runs.event, number, columns.centre[peak], np.ones(len(runs)), loudest))
    return Spikes.concatenate(parts)
