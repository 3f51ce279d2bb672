"""Fourier coefficients that all planes of a Q-transform start from."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from glitchflow_plugin.errors import DataError


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Fourier coefficients of series that were divided by their largest sample.

    Strain is of the order of 1e-21, whose energy float32 cannot hold; rows are normalised, so any scale will do.

    Attributes:
        bins: Complex64, shape (series, bin), `norm="forward"`.
        largest: Largest absolute sample of each series, float64, shape (series,); 1 for a series of zeros, NaN
            or infinite where a sample is.
    """

    bins: Tensor
    largest: Tensor

    @classmethod
    def of(cls, series: Tensor, size: int | None = None) -> "Spectrum":
        """Transform series, shape (series, time), with zeros appended up to `size` samples where that is given.

        Samples that are not finite make all bins of their series NaN; `refuse_unfit` looks for them.

        Raises:
            DataError: The series are complex.
        """
        if series.is_complex():
            raise DataError("the Q-transform expects real series, got complex ones.")
        if series.dtype not in (torch.float32, torch.float64):
            series = series.to(torch.float32)
        if not len(series):
            return cls(
                torch.empty((0, (size or series.shape[-1]) // 2 + 1), dtype=torch.complex64, device=series.device),
                torch.empty(0, dtype=torch.float64, device=series.device),
            )
        largest = torch.linalg.vector_norm(series.detach(), math.inf, dim=-1)
        largest = torch.where(largest == 0, 1, largest)
        bins = torch.fft.rfft(series / largest[:, None], n=size, norm="forward")
        return cls(bins.to(torch.complex64), largest.to(torch.float64))

    def with_last_repeated(self, num_bins: int) -> "Spectrum":
        """At least so many bins: those past the Nyquist frequency are as the last one."""
        missing = num_bins - self.bins.shape[-1]
        if missing <= 0:
            return self
        return type(self)(torch.cat([self.bins, self.bins[:, -1:].expand(-1, missing)], dim=-1), self.largest)

    def refuse_unfit(self, low: float, high: float, norm: str) -> None:
        """See that samples are finite and that energies fit float32: one wait for the device.

        Args:
            low: Least `largest` whose energies fit.
            high: Largest `largest` whose energies fit.
            norm: Named in the message.

        Raises:
            DataError: They are not, or do not.
        """
        if not len(self.largest):
            return
        least, most = torch.stack(torch.aminmax(self.largest)).tolist()
        if not math.isfinite(most):
            raise DataError(
                "the Q-transform got a series with NaN or infinite samples. Mark the channel as invalid and set it to "
                "zero."
            )
        if least < low or most > high:
            raise DataError(
                f"energies of series with samples of up to {most:.3g} do not fit float32 with norm {norm}. Scale the "
                "series, or take norm median."
            )

    def __getitem__(self, series: slice) -> "Spectrum":
        return type(self)(self.bins[series], self.largest[series])
