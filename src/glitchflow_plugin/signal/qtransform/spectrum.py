"""Fourier coefficients that all planes of a Q-transform start from."""

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
        largest: Largest absolute sample of each series, float64, shape (series,); 1 for a series of zeros.
    """

    bins: Tensor
    largest: Tensor

    @classmethod
    def of(cls, series: Tensor, size: int | None = None) -> "Spectrum":
        """Transform series, shape (series, time), with zeros appended up to `size` samples where that is given.

        Raises:
            DataError: A series holds NaN or infinity, or complex numbers.
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
        largest = torch.maximum(series.amax(dim=-1), -series.amin(dim=-1)).detach()
        if not bool(torch.isfinite(largest).all()):
            raise DataError(
                "the Q-transform got a series with NaN or infinite samples. Mark the channel as invalid and set it to "
                "zero."
            )
        largest = torch.where(largest > 0, largest, 1)
        bins = torch.fft.rfft(series / largest[:, None], n=size, norm="forward")
        return cls(bins.to(torch.complex64), largest.to(torch.float64))

    def __getitem__(self, series: slice) -> "Spectrum":
        return type(self)(self.bins[series], self.largest[series])
