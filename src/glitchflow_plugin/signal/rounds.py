"""Channels ranked in rounds: after the best one, what it explains is set aside and the rest is ranked again.

So ten copies of one sensor do not hide the second cause: its share of what is left grows, and theirs goes to zero. The
scheme is that of Hveto (Smith et al., Class. Quantum Grav. 28 (2011) 235005, doi:10.1088/0264-9381/28/23/235005), the
figures are those of Isogai et al., J. Phys. Conf. Ser. 243 (2010) 012005, doi:10.1088/1742-6596/243/1/012005.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import Tolerance, coincidence, share
from glitchflow_plugin.signal.livetime import LiveTime
from glitchflow_plugin.signal.significance import hveto_significance, q_values
from glitchflow_plugin.signal.slides import SlideStatistics, slide_statistics
from glitchflow_plugin.types.arrays import ValidityMask


@dataclass(frozen=True)
class Criteria:
    """What a channel must reach to count as a witness.

    Attributes:
        correlation: Share of the reference's spikes that it shares, by chance or not, and beyond chance; None: any.
        iou: Shared spikes over all spikes of the two; None: any.
        fdr: Largest false-discovery rate, over the channels and all rounds; 1: no requirement.
        fdr_method: `bh` or `by`, see `significance.q_values`.
        num_slides: Time slides of each event; 0: none, no p-values, and no correction for chance.
    """

    correlation: float | None = None
    iou: float | None = None
    fdr: float = 0.01
    fdr_method: Literal["bh", "by"] = "bh"
    num_slides: int = 128

    @property
    def tests(self) -> bool:
        """Whether the false-discovery rate is asked for."""
        return self.fdr < 1 and self.num_slides > 0


@dataclass(frozen=True, eq=False)
class Figures:
    """What is known of each witness; shape (channel,), NaN where there is nothing to compare.

    Attributes:
        events: Events in which reference and witness are both valid.
        reference: Spikes of the reference in them.
        witness: Spikes of the witness in them.
        shared: One-to-one pairs.
        correlation: Shared spikes over those of the reference.
        iou: Shared spikes over all spikes of the two.
        chance: Correlation expected by accident.
        p_value: Probability of so many shared spikes by accident, see `slides`; of the correlation and of the IoU.
        p_common: The same with one slide for all events.
        q_value: Smallest false-discovery rate over all rounds at which the channel is a discovery in this one.
        significance: Hveto's, see `significance.hveto_significance`.
        efficiency: Share of the reference's spikes that a veto of the witness's spikes removes.
        deadtime: Share of the live time that such a veto removes.
        use_percentage: Share of the witness's spikes that veto a spike of the reference, %.
    """

    events: np.ndarray
    reference: np.ndarray
    witness: np.ndarray
    shared: np.ndarray
    correlation: np.ndarray
    iou: np.ndarray
    chance: np.ndarray
    p_value: np.ndarray
    p_common: np.ndarray
    q_value: np.ndarray
    significance: np.ndarray
    efficiency: np.ndarray
    deadtime: np.ndarray
    use_percentage: np.ndarray

    @property
    def efficiency_over_deadtime(self) -> np.ndarray:
        """How much better than at random a veto removes spikes of the reference."""
        return share(self.efficiency, self.deadtime)

    def passes(self, criteria: Criteria) -> np.ndarray:
        """Which channels count as witnesses, bool, shape (channel,)."""
        # Comparisons with NaN are False: no information, not selected.
        passed = self.shared > 0
        if criteria.tests:
            passed &= self.q_value <= criteria.fdr
        if criteria.correlation is not None:
            passed &= (self.correlation >= criteria.correlation) & (self._genuine >= criteria.correlation)
        if criteria.iou is not None:
            passed &= self.iou >= criteria.iou
        return passed

    @property
    def _genuine(self) -> np.ndarray:
        """Correlation beyond chance, (correlation - chance) / (1 - chance)."""
        expected = np.nan_to_num(self.chance, nan=0.0)
        # All of it explained by accident leaves nothing; avoid 0 / 0.
        return np.where(expected < 1, (self.correlation - expected) / np.where(expected < 1, 1 - expected, 1), 0.0)


@dataclass(frozen=True, eq=False)
class Round:
    """The best channel of a round, by Hveto's significance, and what it explained.

    Attributes:
        channel: Row of the channel.
        explained: Spikes of the reference that it explains, and that are set aside.
        remaining: Spikes of the reference before.
        figures: Those of all channels in this round.
    """

    channel: int
    explained: int
    remaining: int
    figures: Figures


@dataclass(frozen=True, eq=False)
class Ranking:
    """All rounds.

    Attributes:
        figures: Those of the first round, with all spikes.
        rounds: Best channels, in order.
        passed: Channels that met the criteria in any round, bool, shape (channel,).
    """

    figures: Figures
    rounds: tuple[Round, ...]
    passed: np.ndarray


def rank_in_rounds(
    reference: Spikes,
    witness: Spikes,
    valid: ValidityMask,
    *,
    live: LiveTime,
    tolerance: Tolerance,
    criteria: Criteria,
    eligible: np.ndarray,
    max_rounds: int,
) -> Ranking:
    """Rank channels, set aside what the best one explains, and go on until none is left.

    What a round sets aside is time, the windows of the tolerance about the best channel's spikes: spikes of the
    reference and of all witnesses in them go, and the live time shrinks. A channel that has nothing to do with the
    reference still has nothing to do with what is left of it, so the p-values of every round hold.

    Whoever passes in any round is selected. The false-discovery rate of all is at most the sum of those of the rounds,
    so round r may use up fdr / 2^r, and the last one what is left.

    Args:
        reference: Spikes of the reference within the live time.
        witness: Spikes of the witnesses within the live time.
        valid: True where reference and witness are both valid, shape (event, channel).
        live: The analysed time.
        tolerance: Largest distance of coincident spikes.
        criteria: What a witness must reach, in at least one round.
        eligible: Channels that may be chosen, and that count as tests, bool, shape (channel,).
        max_rounds: Largest number of rounds, at least 1.

    Returns:
        Figures, rounds and the channels that passed.
    """
    witness = witness.select(valid[witness.event, witness.channel])
    passed, rounds = np.zeros(valid.shape[1], dtype=bool), []
    first: Figures | None = None
    for number in range(1, max_rounds + 1):
        share_of_rate = 0.5 ** min(number, max_rounds - 1)
        figures = measure(
            reference,
            witness,
            valid,
            live=live,
            tolerance=tolerance,
            criteria=criteria,
            eligible=eligible,
            share_of_rate=share_of_rate,
        )
        first = first or figures
        candidates = figures.passes(criteria) & eligible
        passed |= candidates
        if not candidates.any():
            break
        best = int(np.argmax(np.where(candidates, figures.significance, -np.inf)))
        live = live.without(witness.select(witness.channel == best), tolerance.time)
        left = reference.select(live.holds(reference))
        rounds.append(Round(best, len(reference) - len(left), len(reference), figures))
        reference, witness = left, witness.select(live.holds(witness))
    assert first is not None  # noqa: S101  # there is at least one round
    return Ranking(first, tuple(rounds), passed)


def measure(
    reference: Spikes,
    witness: Spikes,
    valid: ValidityMask,
    *,
    live: LiveTime,
    tolerance: Tolerance,
    criteria: Criteria,
    eligible: np.ndarray,
    share_of_rate: float = 1.0,
) -> Figures:
    """The figures of all channels, for spikes within the live time and within valid events; see `rank_in_rounds`.

    `share_of_rate` is the share of the false-discovery rate that this round may use up.
    """
    num_channels = valid.shape[1]
    counts = coincidence(reference, witness, valid, tolerance)
    if criteria.num_slides:
        slides = slide_statistics(
            reference, witness, live, tolerance, num_channels=num_channels, num_slides=criteria.num_slides
        )
    else:
        slides = SlideStatistics(*np.full((3, num_channels), np.nan))
    compared = counts.reference > 0
    p_value = np.where(compared, slides.p_value, np.nan)
    live_time = valid.T @ live.length
    deadtime = share(live.covered(witness, tolerance.time, num_channels), live_time)
    window = np.minimum(2 * tolerance.time, live_time)
    expected = np.nan_to_num(share(counts.reference * counts.witness * window, live_time))
    return Figures(
        events=valid.sum(axis=0),
        reference=counts.reference,
        witness=counts.witness,
        shared=counts.shared,
        correlation=counts.correlation,
        iou=counts.iou,
        chance=share(slides.chance, counts.reference),
        p_value=p_value,
        p_common=np.where(compared, slides.p_common, np.nan),
        q_value=np.minimum(q_values(np.where(eligible, p_value, np.nan), criteria.fdr_method) / share_of_rate, 1.0),
        significance=np.where(compared, hveto_significance(counts.shared, expected), np.nan),
        efficiency=share(counts.vetoed, counts.reference),
        deadtime=deadtime,
        use_percentage=100.0 * share(counts.used, counts.witness),
    )
