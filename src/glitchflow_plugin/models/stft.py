"""Short-time Fourier transform with an exact inverse, in operations that can be exported and differentiated."""

from typing import TypeAlias

import torch
from jaxtyping import Complex64, Float
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError

Coefficients: TypeAlias = Complex64[Tensor, "*batch frequency frame"]
"""Complex short-time coefficients: amplitude and phase."""

TimeSeries: TypeAlias = Float[Tensor, "*batch time"]
"""Real series; the last axis is time."""

#: A Hann window squared, moved by a quarter of its length, adds up to this everywhere.
_OVERLAP = 1.5
_STEPS = 4


class ShortTimeFourier(nn.Module):
    """Hann-windowed frames a quarter of their length apart, orthonormal Fourier transform of each.

    Series are taken as zero beyond their ends. Noise of variance 1 a sample gives coefficients of mean power 1 between
    the lowest and the highest frequency.

    Args:
        frame_size: Samples of a frame; a multiple of 4.

    Raises:
        ConfigurationError: The frame size cannot be divided by 4.

    >>> transform = ShortTimeFourier(16)
    >>> series = torch.arange(40.0)
    >>> bool(torch.allclose(transform.inverse(transform(series), 40), series, atol=1e-4))
    True
    """

    window: Tensor

    def __init__(self, frame_size: int) -> None:
        super().__init__()
        if frame_size < 8 or frame_size % _STEPS:
            raise ConfigurationError(f"expected a frame_size of at least 8 that can be divided by 4, got {frame_size}.")
        self.frame_size, self.hop_size = frame_size, frame_size // _STEPS
        # sum(w^2) = 3/8 of the frame: scaled so that white noise keeps its variance
        window = torch.hann_window(frame_size, dtype=torch.float64) * (8 / 3) ** 0.5
        self.register_buffer("window", window.float(), persistent=False)

    @property
    def num_frequencies(self) -> int:
        """Rows of the coefficients, from 0 Hz to half the sample rate."""
        return self.frame_size // 2 + 1

    def num_frames(self, num_samples: int) -> int:
        """Columns of the coefficients of a series."""
        return -(-num_samples // self.hop_size) + _STEPS - 1

    def column(self, sample: Tensor) -> Tensor:
        """Place on the frame axis (a fraction of frames) whose frame is centred on a sample."""
        # the first frame ends with the first hop of samples
        return (sample + self.frame_size / 2 - self.hop_size) / self.hop_size

    def forward(self, series: TimeSeries) -> Coefficients:
        """Coefficients of a series, (..., frequency, frame), complex64."""
        front = self.frame_size - self.hop_size
        back = front + -series.shape[-1] % self.hop_size
        frames = functional.pad(series.float(), (front, back)).unfold(-1, self.frame_size, self.hop_size)
        return torch.fft.rfft(frames * self.window, norm="ortho").transpose(-1, -2)

    def inverse(self, coefficients: Coefficients, num_samples: int) -> TimeSeries:
        """The series with these coefficients (the nearest one, where no series has exactly these).

        Args:
            coefficients: (..., frequency, frame).
            num_samples: Length of the series.
        """
        frames = torch.fft.irfft(coefficients.transpose(-1, -2), n=self.frame_size, norm="ortho") * self.window
        quarters = frames.unflatten(-1, (_STEPS, self.hop_size))
        last = _STEPS - 1
        # quarter k of a frame lies k hops behind its start
        shifted = [functional.pad(quarters[..., step, :], (0, 0, step, last - step)) for step in range(_STEPS)]
        joined = torch.stack(shifted).sum(dim=0).flatten(-2)
        front = self.frame_size - self.hop_size
        return joined[..., front : front + num_samples] / (_OVERLAP * 8 / 3)
