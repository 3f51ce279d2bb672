"""Mergers injected into quiet events: a twin must leave them in the strain, whichever channel carries a copy of it.

A witness that is made from the strain (a pick-off, a calibration line's monitor, an unlisted output of the same loop)
sees every gravitational wave, and a twin that uses it removes the wave with the noise. Which witnesses these are is not
asked of a list: the relation of each witness to the strain is measured in quiet events, and a merger that is injected
into the strain is injected into the witness by that relation.
"""

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
