"""How witnesses follow the strain: a transfer function for each, and what they would hold of a signal in the strain."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

#: Length of a segment of the cross spectra, s: a relation may ring half as long; a plain delay may be longer.
_SEGMENT = 1.0
#: Neighbouring bins whose median coherence is asked for: a mains line that strain and witness share is no copy.
_NEIGHBOURS = 9
#: Longest delay of a witness to the strain, s.
_LONGEST_DELAY = 1.0
#: Probability that any bin of any unrelated witness is taken for related.
_FALSE_ALARM = 0.01


@dataclass(frozen=True, eq=False)
class Relation:
    """How each witness follows the strain, as measured.

    Attributes:
        gain: Transfer function from strain to witness without the delay, zero where they are not coherent,
            (witness, bin); bins are even from 0 Hz to half the sample rate.
        delay: Samples by which the witness follows the strain, (witness,).
        coherent: Share of the bins with significant coherence, (witness,).
    """

    gain: Tensor
    delay: Tensor
    coherent: Float[np.ndarray, " witness"]

    def copies(self, signals: Float[Tensor, "event time"]) -> Float[Tensor, "event witness time"]:
        """What the witnesses would hold of signals in the strain."""
        size = 1 << (2 * signals.shape[-1] - 1).bit_length()
        spectrum = torch.fft.rfft(signals.double(), size)
        place = torch.linspace(0, self.gain.shape[1] - 1, spectrum.shape[-1], dtype=torch.float64)
        left = place.long().clamp(max=self.gain.shape[1] - 2)
        share = (place - left)[None]
        gain = self.gain[:, left] * (1 - share) + self.gain[:, left + 1] * share
        turn = torch.arange(spectrum.shape[-1], dtype=torch.float64) * (-2 * math.pi / size)
        gain = gain * torch.polar(torch.ones(()).double(), turn[None] * self.delay[:, None].double())
        return torch.fft.irfft(spectrum[:, None] * gain, size)[..., : signals.shape[-1]].to(signals)


def measure_relation(
    strain: Float[Tensor, "event time"],
    witnesses: Float[Tensor, "event witness time"],
    sample_rate: float,
) -> Relation:
    """Measure how each witness follows the strain, from averaged cross spectra of quiet events.

    A delay is taken from the largest cross correlation first, so that segments may be short. A bin counts where the
    median coherence of it and its neighbours is larger than that of independent noise would be with 99 % probability,
    over all bins and witnesses (G. C. Carter, Proc. IEEE 75, 236 (1987), doi:10.1109/PROC.1987.13723). The median lets
    lines pass that both hold, and finds a faint copy that no single bin shows.

    Args:
        strain: Whitened strain of quiet events.
        witnesses: Whitened witnesses, zero where missing: such an event says nothing of that witness.
        sample_rate: Hz.
    """
    strain, witnesses = strain.double().cpu(), witnesses.double().cpu()
    num_samples, count = strain.shape[-1], witnesses.shape[1]
    there: Bool[Tensor, "event witness"] = witnesses.abs().amax(dim=-1) > 0
    size, hop, window = _segments(num_samples, sample_rate)
    gains = torch.zeros(count, size // 2 + 1, dtype=torch.complex128)
    delays, coherent = torch.zeros(count, dtype=torch.long), np.zeros(count)
    for row in range(count):
        own, other = strain[there[:, row]], witnesses[there[:, row], row]
        if not len(own):
            continue
        delays[row] = _delay(own, other, round(_LONGEST_DELAY * sample_rate))
        first, second = _aligned(own, other, int(delays[row]))
        first, second = (
            torch.fft.rfft(each.unfold(-1, size, hop).flatten(0, 1) * window, dim=-1) for each in (first, second)
        )
        cross = (first.conj() * second).sum(dim=0)
        power, other_power = first.abs().square().sum(dim=0), second.abs().square().sum(dim=0)
        coherence = cross.abs().square() / (power * other_power).clamp(min=1e-30)
        beside = functional.pad(coherence[None], (_NEIGHBOURS // 2,) * 2, mode="reflect")[0].unfold(0, _NEIGHBOURS, 1)
        related = beside.median(dim=-1).values > _needed(len(first), count * (size // 2 + 1))
        gains[row] = torch.where(related, cross / power.clamp(min=1e-30), 0)
        coherent[row] = float(related.double().mean())
    return Relation(gains, delays, coherent)


def _segments(num_samples: int, sample_rate: float) -> tuple[int, int, Tensor]:
    size = min(2 * round(_SEGMENT * sample_rate / 2), num_samples // 2 * 2)
    return size, size // 2, torch.hann_window(size, dtype=torch.float64)


def _delay(strain: Tensor, witness: Tensor, longest: int) -> int:
    """Samples by which the witness follows the strain, from the largest of their summed cross correlations."""
    longest = min(longest, strain.shape[-1] // 4)
    size = strain.shape[-1] + longest + 1
    spectrum = (torch.fft.rfft(strain, size).conj() * torch.fft.rfft(witness, size)).sum(dim=0)
    correlation = torch.fft.irfft(spectrum, size).abs()
    lags = torch.cat([correlation[-longest:], correlation[: longest + 1]]) if longest else correlation[:1]
    return int(lags.argmax()) - longest


def _aligned(strain: Tensor, witness: Tensor, delay: int) -> tuple[Tensor, Tensor]:
    """Both without the ends where only one of them is known once the delay is undone."""
    stop = strain.shape[-1] - abs(delay)
    return (strain[..., :stop], witness[..., delay:]) if delay >= 0 else (strain[..., -delay:], witness[..., :stop])


def _needed(num_segments: int, num_tried: int) -> float:
    """Median squared coherence of neighbours that independent noise has nowhere, with the probability asked for."""
    # segments that overlap by half under a Hann window share a little: 0.95 of them are independent
    independent = max(0.95 * num_segments, 2.0)
    half = _NEIGHBOURS // 2 + 1
    # more than half of them must be above: so many choices, each of this probability
    each = (_FALSE_ALARM / num_tried / math.comb(_NEIGHBOURS, half)) ** (1 / half)
    return 1 - each ** (1 / (independent - 1))
