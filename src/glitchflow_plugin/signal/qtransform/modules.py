"""The Q-transform as torch modules with the arguments and the call of ml4gw's classes of the same names.

    from glitchflow_plugin.signal import QScan, SingleQTransform

Their maps have logarithmic frequency axes, both ends included, and the columns of `axes`. The interpolation
is always the cubic spline, which is what ml4gw's `spline` aims at; its default, `bicubic`, shifts each row by half of
its tile (up to 50 ms at 8 Hz for Q = 12 over 6 s).
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.qtransform.planes import Plane
from glitchflow_plugin.signal.qtransform.settings import QTransformSettings, check_settings, highest_frequency
from glitchflow_plugin.signal.qtransform.spectrum import Spectrum
from glitchflow_plugin.signal.qtransform.tiling import distance

_METHODS = ("bilinear", "bicubic", "spline")


class SingleQTransform(nn.Module):
    """Q-transform at one Q.

    Args:
        duration: Length of the series, s.
        sample_rate: Hz.
        spectrogram_shape: Rows and columns of the map.
        q: Quality factor.
        frange: Lowest and highest frequency, Hz; where it is left out, 50 Q / (2 pi duration) and the highest frequency
            whose window stays below the Nyquist frequency.
        mismatch: Largest fraction of energy lost between neighbouring tiles.
        interpolation_method: `bilinear`, `bicubic` and `spline` are accepted, and all are the cubic spline.

    Raises:
        ConfigurationError: The settings do not fit the data. Where ml4gw repeats the last Fourier bin for a window that
            reaches past the Nyquist frequency, this is an error.

    Example:
        >>> transform = SingleQTransform(6.0, 1024.0, (64, 257), q=12, frange=[8, 400])
        >>> transform(torch.randn(3, 2, 6144)).shape
        torch.Size([3, 2, 64, 257])
    """

    def __init__(  # noqa: PLR0917  # ml4gw's order
        self,
        duration: float,
        sample_rate: float,
        spectrogram_shape: tuple[int, int],
        q: float = 12,
        frange: Sequence[float] | None = None,
        mismatch: float = 0.2,
        interpolation_method: str = "bicubic",
    ) -> None:
        super().__init__()
        if interpolation_method not in _METHODS:
            raise ConfigurationError(
                f"interpolation_method must be one of {', '.join(_METHODS)}, got {interpolation_method!r}."
            )
        q, duration, sample_rate = float(q), float(duration), float(sample_rate)
        self.q, self.duration, self.sample_rate, self.mismatch = q, duration, sample_rate, mismatch
        self.spectrogram_shape, self.interpolation_method = spectrogram_shape, interpolation_method
        self.num_samples = round(duration * sample_rate)
        low, high = map(float, frange) if frange is not None else (0.0, math.inf)
        self.frange = [
            low if low > 0 else 50 * q / (2 * math.pi * duration),
            high if math.isfinite(high) else highest_frequency(self.num_samples, sample_rate, q),
        ]
        check_settings(self.num_samples, sample_rate, self._settings("median"))
        rows = self._settings("median").rows(self.num_samples, sample_rate, q)
        self.freqs = torch.tensor([row.frequency for row in rows], dtype=torch.float64)
        self._planes: dict[tuple[str, str], Plane] = {}

    def forward(self, X: Tensor, norm: str | None = "median") -> Tensor:
        """Map of each series.

        Args:
            X: Series, shape (time,), (channel, time) or (batch, channel, time).
            norm: `median`, `mean`, or None for energies as they are.

        Returns:
            Maps, float32, one dimension more than `X`. As in ml4gw, dimensions of length 1 are dropped, unless the
            method is `spline`, with which there are always a batch and a channel.
        """
        return self.shaped(self.maps_and_peaks(X, norm)[0])

    def shaped(self, maps: Tensor) -> Tensor:
        """Maps with the dimensions that ml4gw gives them."""
        if self.interpolation_method == "spline":
            return maps.reshape(*(1,) * (4 - maps.ndim), *maps.shape)
        return maps.squeeze()

    def maps_and_peaks(self, X: Tensor, norm: str | None = "median") -> tuple[Tensor, Tensor]:
        """Maps, shape (..., frequency, time), and the loudest tile of each row, shape (..., row)."""
        return self._maps_and_peaks(Spectrum.of(X.reshape(-1, X.shape[-1])), X.shape, norm)

    def _maps_and_peaks(self, spectrum: Spectrum, shape: torch.Size, norm: str | None) -> tuple[Tensor, Tensor]:
        if shape[-1] != self.num_samples:
            raise ConfigurationError(f"expected series of {self.num_samples} samples, got {shape[-1]}.")
        key = "none" if norm is None else norm.lower(), str(spectrum.bins.device)
        if key not in self._planes:
            self._planes[key] = Plane(
                self.num_samples, float(self.sample_rate), self.q, self._settings(key[0]), device=key[1]
            )
        maps, peaks = self._planes[key].maps(spectrum)
        return maps.reshape(*shape[:-1], *maps.shape[1:]), peaks.reshape(*shape[:-1], peaks.shape[-1])

    def _settings(self, norm: str) -> QTransformSettings:
        return QTransformSettings(
            q=float(self.q),
            frequency_low=float(self.frange[0]),
            frequency_high=float(self.frange[1]),
            num_frequencies=self.spectrogram_shape[0],
            num_times=self.spectrogram_shape[1],
            log_frequency=True,
            mismatch=self.mismatch,
            norm=norm,  # type: ignore[arg-type]  # the settings refuse what is unknown
        )


class QScan(nn.Module):
    """Q-transform at the Q, out of a range, whose plane has the loudest tile.

    Args:
        duration: Length of the series, s.
        sample_rate: Hz.
        spectrogram_shape: Rows and columns of the map.
        qrange: Lowest and highest Q.
        frange: As for `SingleQTransform`.
        interpolation_method: As for `SingleQTransform`.
        mismatch: As for `SingleQTransform`; decides how many Q there are.
        each: False chooses one Q for the whole batch, as ml4gw does; True one for each series.

    Raises:
        ConfigurationError: No Q of the range fits the data. Those that do not are left out, with a warning.
    """

    def __init__(  # noqa: PLR0917  # ml4gw's order
        self,
        duration: float,
        sample_rate: float,
        spectrogram_shape: tuple[int, int],
        qrange: Sequence[float] | None = None,
        frange: Sequence[float] | None = None,
        interpolation_method: str = "bicubic",
        mismatch: float = 0.2,
        *,
        each: bool = False,
    ) -> None:
        super().__init__()
        self.qrange = list(qrange) if qrange is not None else [4, 64]
        self.mismatch, self.each = mismatch, each
        self.qs = self.get_qs()
        fitting, refused = [], {}
        for q in self.qs:
            try:
                fitting.append(
                    SingleQTransform(
                        duration, sample_rate, spectrogram_shape, q, frange, mismatch, interpolation_method
                    )
                )
            except ConfigurationError as error:
                refused[q] = error
        if not fitting:
            raise ConfigurationError(f"no Q of {self.qrange} fits the data: {next(iter(refused.values()))}")
        if refused:
            left_out = ", ".join(f"{q:.3g}" for q in refused)
            warnings.warn(f"Q of {left_out} left out: {next(iter(refused.values()))}", stacklevel=2)
        self.q_transforms = nn.ModuleList(fitting)

    def get_qs(self) -> list[float]:
        """Values of Q to try, evenly spaced in log Q so that between two the loss is at most the mismatch."""
        span = math.log(self.qrange[1] / self.qrange[0])
        number = max(math.ceil(span / math.sqrt(2) / distance(self.mismatch)), 1)
        return [self.qrange[0] * math.exp(span / number * (i + 0.5)) for i in range(number)]

    def forward(self, X: Tensor, fsearch_range: Sequence[float] | None = None, norm: str | None = "median") -> Tensor:
        """Map of each series at the best Q.

        Args:
            X: Series, shape (time,), (channel, time) or (batch, channel, time).
            fsearch_range: Lowest and highest frequency (Hz) of the tiles that decide; all if None.
            norm: As for `SingleQTransform`.

        Returns:
            Maps as from `SingleQTransform`.
        """
        low, high = fsearch_range if fsearch_range is not None else (0.0, math.inf)
        spectrum = Spectrum.of(X.reshape(-1, X.shape[-1]))
        best, loudest = None, None
        for transform in self.q_transforms:
            assert isinstance(transform, SingleQTransform)  # noqa: S101  # what the list was made of
            maps, peaks = transform._maps_and_peaks(spectrum, X.shape, norm)
            searched = (transform.freqs >= low) & (transform.freqs <= high)
            peak = peaks[..., searched.to(peaks.device)]
            peak = peak.amax(dim=-1) if peak.shape[-1] else peaks.new_zeros(peaks.shape[:-1])
            peak = peak if self.each else peak.amax()
            if best is None or loudest is None:
                best, loudest = maps, peak
            else:
                best = torch.where((peak > loudest)[..., None, None], maps, best)
                loudest = torch.maximum(peak, loudest)
        assert best is not None  # noqa: S101  # there is at least one transform
        first = self.q_transforms[0]
        assert isinstance(first, SingleQTransform)  # noqa: S101  # what the list was made of
        return first.shaped(best)
