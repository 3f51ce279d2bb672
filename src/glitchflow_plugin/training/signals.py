"""Mergers injected into quiet events: a twin must leave them in the strain, whichever channel carries a copy of it.

A witness that is made from the strain (a pick-off, a calibration line's monitor, an unlisted output of the same loop)
sees every gravitational wave, and a twin that uses it removes the wave with the noise. Which witnesses these are is not
asked of a list: the relation of each witness to the strain is measured in quiet events, and a merger that is injected
into the strain is injected into the witness by that relation.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.signal.whitening import whiten, whitening_filter
from glitchflow_plugin.simulation.mergers import merger_bank
from glitchflow_plugin.simulation.noise import sensitivity
from glitchflow_plugin.types.tensors import host

#: SNR of the injections, evenly spaced in its logarithm.
SNR = (8.0, 30.0)
#: Length of a segment of the cross spectra, s: a relation may ring half as long; a plain delay may be longer.
_SEGMENT = 1.0
#: Neighbouring bins whose median coherence is asked for: a mains line that strain and witness share is no copy.
_NEIGHBOURS = 9
#: Longest delay of a witness to the strain, s.
_LONGEST_DELAY = 1.0
#: Probability that any bin of any unrelated witness is taken for related.
_FALSE_ALARM = 0.01
#: Where the merger lies in the event, as a share of its length: most of a merger comes before.
_PLACE = 0.7


def whitened_mergers(
    number: int,
    num_samples: int,
    sample_rate: float,
    *,
    detector: str = "V1",
    psd: Psd | None = None,
    band: tuple[float, float] = (8.0, 400.0),
    filter_length: float = 2.0,
    seed: int = 0,
) -> Float[np.ndarray, "injection time"]:
    """Mergers as they look in whitened strain, of SNR 8 to 30.

    Args:
        number: How many.
        num_samples: Length of an event.
        sample_rate: Hz.
        detector: Prefix of its channels; chooses the analytic sensitivity where the spectrum is not given.
        psd: Noise spectrum of the strain, where the event set was whitened by a given one.
        band: Frequencies that the event set holds, Hz.
        filter_length: Length of the whitening filter, s.
        seed: Seed of the drawn sources.
    """
    if psd is None:
        frequencies = np.arange(0, sample_rate / 2 + 0.25, 0.25)
        asd = sensitivity("aligo" if detector in ("H1", "L1") else "advirgo")(np.maximum(frequencies, 1.0))
        psd = Psd(asd**2, 0.25)
    taps = whitening_filter(psd, sample_rate, filter_length, band)
    bank, generator = merger_bank(sample_rate), np.random.default_rng(seed)
    offset = round(_PLACE * num_samples) - round(bank.merger_offset * sample_rate)
    found = np.zeros((number, num_samples))
    for row, snr in enumerate(np.geomspace(*SNR, number)):
        waveform = np.pad(bank.draw(generator)[0], len(taps))
        whitened = whiten(waveform / np.abs(waveform).max(), taps)[0]
        first = offset - len(taps)
        start, stop = max(first, 0), min(first + len(whitened), num_samples)
        found[row, start:stop] = whitened[start - first : stop - first]
        found[row] *= snr / np.linalg.norm(found[row])
    return found


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


def lost_share(template: Float[Tensor, "event time"], taken: Float[Tensor, "event time"]) -> NDArray[np.float64]:
    """Share of a signal's SNR that cleaning changes, by the matched filter for whitened series, (event,).

    The filter is maximised over time and phase, as searches do it: what is taken away late, or a quarter of a period
    off, leaves an echo of the signal or changes its phase.

    Args:
        template: The injected signal, whitened.
        taken: What is predicted with the injection less what is predicted without.
    """
    return host(_products(template, taken).amax(dim=-1) / template.double().square().sum(dim=-1))


def found_snr(
    template: Float[Tensor, "event time"], strain: Float[Tensor, "event time"], reach: int
) -> NDArray[np.float64]:
    """SNR of signals in whitened strain, the largest over phase and near the time where they lie, (event,).

    Args:
        template: The signal as it lies in the strain, whitened.
        strain: Whitened strain, whose noise has variance 1 a sample.
        reach: Samples by which it may be found earlier or later.
    """
    products = _products(template, strain)
    near = torch.cat([products[..., : reach + 1], products[..., products.shape[-1] - reach :]], dim=-1)
    return host(near.amax(dim=-1) / template.double().norm(dim=-1))


def _products(template: Tensor, series: Tensor) -> Tensor:
    """Inner product of each template with a series, by how far it is moved, the largest over phases."""
    size = 2 * template.shape[-1]
    spectrum = torch.fft.rfft(template.double(), size).conj() * torch.fft.rfft(series.double(), size)
    # of the positive frequencies alone: the modulus is the largest over all phases
    return torch.fft.ifft(2 * spectrum, size).abs()


def at_peaks(
    signals: Float[Tensor, "event time"], strain: Float[Tensor, "event time"], width: int
) -> Float[Tensor, "event time"]:
    """Mergers moved so that each ends where the strain is loudest; what leaves at an end is lost.

    Args:
        signals: From `whitened_mergers`.
        strain: Whitened strain with a glitch in each.
        width: Samples over which its power is averaged.
    """
    power = functional.avg_pool1d(strain.double().square()[:, None], width, stride=1, padding=width // 2)[:, 0]
    moved = torch.zeros_like(signals)
    size = signals.shape[-1]
    for row, peak in enumerate(power[:, :size].argmax(dim=-1).tolist()):
        by = peak - round(_PLACE * size)
        low, high = max(by, 0), min(size + by, size)
        moved[row, low:high] = signals[row, low - by : high - by]
    return moved


def spread_over(there: Bool[np.ndarray, "event witness"], number: int) -> list[int]:
    """Rows of some events, so that each witness has data in as many of them as can be.

    Args:
        there: Where which witness has data.
        number: How many, at most.

    >>> spread_over(np.array([[True, False], [True, False], [True, True], [False, True]]), 2)
    [2, 0]
    """
    left, heard, chosen = list(range(len(there))), np.zeros(there.shape[1]), []
    while left and len(chosen) < number:
        # a witness that was heard k times is worth 4^-k: the least heard ones decide
        row = max(left, key=lambda each: float((there[each] * 0.25**heard).sum()))
        left.remove(row)
        chosen.append(row)
        heard += there[row]
    return chosen


def lost_energy(
    signal: Float[Tensor, "event frequency time"],
    added: Float[Tensor, "event frequency time"],
    taken: Float[Tensor, "event frequency time"],
) -> NDArray[np.float64]:
    """The same for twins of energies, whose square is that of an SNR, (event,).

    Args:
        signal: Map of the signal alone, SNR²: where to look.
        added: Measured maps with the signal less those without.
        taken: Predicted maps with the signal less those without.
    """
    there, share = ((signal.double() * each).sum(dim=(1, 2)) for each in (added, taken))
    return host((1 - (1 - share / there.clamp(min=1e-30)).clamp(min=0).sqrt()).abs())


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
