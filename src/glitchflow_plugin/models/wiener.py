"""The multi-channel Wiener filter: whitened strain as the sum of linearly filtered witnesses."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.types.tensors import SeriesBatch, StrainSeries

FILTER_SIZE = 513
"""Taps of a filter: a quarter of a second to either side at 1024 Hz."""


class WienerFilter(nn.Module):
    """One filter a witness, their sum; what any linear subtraction can do (Allen et al. 1999, arXiv:gr-qc/9909083).

    Args:
        in_channels: Number of witnesses.
        window_size: Accepted for the sake of a common signature and not needed.
        filter_size: Taps of each filter, odd.

    Raises:
        ConfigurationError: The filter size is even.

    >>> WienerFilter(in_channels=2, filter_size=65)(torch.zeros(3, 2, 512)).shape
    torch.Size([3, 1, 512])
    """

    def __init__(self, in_channels: int, window_size: int = 64, *, filter_size: int = FILTER_SIZE) -> None:
        super().__init__()
        del window_size
        if in_channels < 1 or filter_size < 1 or filter_size % 2 == 0:
            raise ConfigurationError(
                f"expected at least one witness and an odd filter_size, got {in_channels} and {filter_size}. "
                "Correct it in conf/model/."
            )
        self.filters = nn.Parameter(torch.zeros(in_channels, filter_size))

    @property
    def settings(self) -> dict[str, int]:
        """Arguments with which an equal filter is built."""
        return {"in_channels": len(self.filters), "filter_size": self.filters.shape[1]}

    def forward(self, witnesses: SeriesBatch) -> StrainSeries:
        """Predict the whitened strain, (event, 1, time)."""
        return self._filtered(self._spectra(witnesses).sum(dim=1, keepdim=True), witnesses.shape[-1])

    def contributions(self, witnesses: SeriesBatch) -> SeriesBatch:
        """What each witness adds to the prediction, (event, witness, time); their sum is the predicted strain."""
        return self._filtered(self._spectra(witnesses), witnesses.shape[-1])

    def _spectra(self, witnesses: SeriesBatch) -> Tensor:
        size = witnesses.shape[-1] + self.filters.shape[1]
        return torch.fft.rfft(witnesses.float(), n=size) * torch.fft.rfft(self.filters, n=size)

    def _filtered(self, spectrum: Tensor, num_samples: int) -> Tensor:
        taps = self.filters.shape[1]
        return torch.fft.irfft(spectrum, n=num_samples + taps)[..., taps // 2 : taps // 2 + num_samples]


class WienerSums:
    """Cross spectra from which a `WienerFilter` follows in closed form, gathered batch by batch, in double precision.

    Args:
        in_channels: Number of witnesses.
        filter_size: Taps of each filter, odd.
    """

    def __init__(self, in_channels: int, filter_size: int = FILTER_SIZE) -> None:
        self.in_channels, self.filter_size = in_channels, filter_size
        self.segment_size = 4 * (filter_size // 2 + 1)
        bins = self.segment_size // 2 + 1
        self.targets = torch.zeros(bins, in_channels, dtype=torch.complex128)
        # of no memory until something is added
        self.products = self.targets.new_zeros(1).expand(bins, in_channels, in_channels)
        self.count = 0

    @staticmethod
    def mebibytes(in_channels: int, filter_size: int) -> float:
        """Memory of the sums of so many channels, MiB."""
        return (2 * (filter_size // 2 + 1) + 1) * in_channels * (in_channels + 1) * 16 / 2**20

    def add(self, witnesses: SeriesBatch, strain: StrainSeries) -> None:
        """Take in whitened series: witnesses (event, witness, time) and strain (event, 1, time)."""
        # events that are shorter than a segment are taken as zero beyond their end
        missing = max(0, self.segment_size - witnesses.shape[-1])
        witnesses, strain = (functional.pad(each, (0, missing)) for each in (witnesses, strain))
        window = torch.hann_window(self.segment_size, dtype=torch.float64)
        hop = self.segment_size // 2
        first, second = (
            torch.fft.rfft(each.double().cpu().unfold(-1, self.segment_size, hop) * window)
            for each in (witnesses, strain)
        )
        products = torch.einsum("eisf,ejsf->fij", first.conj(), first)
        self.products = products if not self.count else self.products.add_(products)
        self.targets += torch.einsum("eisf,esf->fi", first.conj(), second[:, 0])
        self.count += first.shape[0] * first.shape[2]

    def __add__(self, other: "WienerSums") -> "WienerSums":
        """What both were given."""
        return self._with(self.products + other.products, self.targets + other.targets, self.count + other.count)

    def only(self, channels: Tensor) -> "WienerSums":
        """As if these channels, by number, were all."""
        return self._with(self.products[:, channels][:, :, channels], self.targets[:, channels], self.count)

    def combined(self, weights: Tensor) -> "WienerSums":
        """As if these sums of the channels, weights of (sum, channel), were all."""
        weights = weights.to(self.products)
        return self._with(weights @ self.products @ weights.T, self.targets @ weights.T, self.count)

    def smoothed(self, span: int) -> "WienerSums":
        """As if nothing depended on anything more than `span` samples away: few events say little about long responses.

        Cross correlations are weighted with a triangle, of which power spectra stay positive (Blackman and Tukey, The
        Measurement of Power Spectra (1959)).
        """
        lag = torch.arange(self.segment_size, dtype=torch.float64)
        weight = (1 - torch.minimum(lag, self.segment_size - lag) / (span + 1)).clamp(min=0)

        def less(spectra: Tensor) -> Tensor:
            # those of negative frequencies are the conjugates
            whole = torch.cat([spectra, spectra[1:-1].flip(0).conj()])
            correlation = torch.fft.ifft(whole, dim=0) * weight.view(-1, *[1] * (spectra.dim() - 1))
            return torch.fft.fft(correlation, dim=0)[: len(spectra)]

        return self._with(less(self.products), less(self.targets), self.count)

    def scaled(self, factors: Tensor) -> "WienerSums":
        """As if each channel had been multiplied with its factor."""
        return self._with(self.products * (factors[:, None] * factors), self.targets * factors, self.count)

    @property
    def power(self) -> Tensor:
        """Mean of each channel over frequencies, (channel,)."""
        return self.products.diagonal(dim1=-2, dim2=-1).real.mean(dim=0)

    def gain(self, filters: Tensor) -> float:
        """Power by which subtracting what filters, (channel, tap), predict makes the strain quieter, a segment."""
        padded = functional.pad(filters.double(), (0, self.segment_size - self.filter_size))
        response = torch.fft.rfft(padded.roll(-(self.filter_size // 2), dims=-1)).T
        cross = (response.conj() * self.targets).sum(dim=1).real
        own = torch.einsum("fi,fij,fj->f", response.conj(), self.products, response).real
        return float((2 * cross - own).sum()) / max(1, self.count)

    def _with(self, products: Tensor, targets: Tensor, count: int) -> "WienerSums":
        result = WienerSums(targets.shape[1], self.filter_size)
        result.products, result.targets, result.count = products, targets, count
        return result

    def solve(self, ridge: float) -> WienerFilter:
        """The filter that minimises the mean power of what is left.

        Args:
            ridge: Power added to each witness, relative to the mean power of all.

        Raises:
            ConfigurationError: No batch was added or the ridge is negative.
        """
        taps = torch.fft.irfft(self.response(ridge).T, n=self.segment_size).roll(self.filter_size // 2, dims=-1)
        taps = taps[:, : self.filter_size] * _taper(self.filter_size)
        result = WienerFilter(self.in_channels, filter_size=self.filter_size)
        with torch.no_grad():
            result.filters.copy_(taps)
        return result.eval()

    def response(self, ridge: float) -> Tensor:
        """Complex responses of least mean power, (frequency, channel); arguments and errors as for `solve`."""
        if not self.count or ridge < 0:
            raise ConfigurationError(
                f"expected data and a ridge of at least 0, got {self.count} segments and ridge {ridge}."
            )
        power = self.products.diagonal(dim1=-2, dim2=-1).real.mean(dim=-1)
        punish = (ridge * power + 1e-9 * power.mean() + 1e-12)[:, None].expand(-1, self.in_channels)
        system = self.products + torch.diag_embed(punish).to(self.products)
        return torch.linalg.solve(system, self.targets[..., None])[..., 0]


def _taper(size: int) -> Tensor:
    """Flat in the middle half, falling to zero at both ends, so that cutting the response off makes no ripples."""
    place = (torch.arange(size, dtype=torch.float64) - size // 2).abs() / (size // 2 + 1)
    return torch.where(place < 0.5, 1.0, 0.5 + 0.5 * torch.cos(2 * torch.pi * (place - 0.5)))
