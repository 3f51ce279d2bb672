"""The Q-transform as torch modules with the arguments, methods and results of ml4gw's classes of the same names.

    from glitchflow_plugin.signal import QScan, SingleQTransform

Their maps have logarithmic frequency axes. With `spline` both ends are included, and columns are those of `axes`;
`bilinear` and `bicubic` place a row's tiles in the middle of cells, as `torch.nn.functional.interpolate` does, which
shifts it by half of a tile (up to 50 ms at 8 Hz for Q = 12 over 6 s).

Different from ml4gw 0.8.5, on purpose:

- Energies of maps are not negative: where an interpolation swings below zero beside a loud tile, it is cut.
- A band whose windows reach past the Nyquist frequency by more than two bins, a row with fewer than 16 tiles, series of
  another length and complex ones are errors, not other numbers.
- Medians are the mean of the two values in the middle, exact where a row is longer than 2^24 too.
- Rows are transformed together: there is no module for each (`qtile_transforms`).
"""

import math
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.qtransform.planes import Interpolation, Plane
from glitchflow_plugin.signal.qtransform.settings import QTransformSettings, check_settings
from glitchflow_plugin.signal.qtransform.spectrum import Spectrum
from glitchflow_plugin.signal.qtransform.tiling import LOWEST_Q, distance
from glitchflow_plugin.signal.qtransform.transform import refuse_unfit

Dimension = Literal["both", "neither", "channel", "batch"]
#: Bins past the Nyquist frequency that the windows of the widest band reach.
_BEYOND = 2


class SingleQTransform(nn.Module):
    """Q-transform at one Q.

    Args:
        duration: Length of the series, s.
        sample_rate: Hz.
        spectrogram_shape: Rows and columns of the map.
        q: Quality factor.
        frange: Lowest and highest frequency, Hz; where it is left out (or 0 and infinite), 50 Q / (2 pi duration) and
            the frequency whose window ends at the Nyquist frequency.
        mismatch: Largest fraction of energy lost between neighbouring tiles.
        interpolation_method: From tiles to the map: `bilinear`, `bicubic` or `spline` (gwpy's).

    Raises:
        ConfigurationError: The settings do not fit the data, or are none.

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
        if interpolation_method not in get_args(Interpolation):
            raise ConfigurationError(
                f"interpolation_method must be one of {', '.join(get_args(Interpolation))}, "
                f"got {interpolation_method!r}."
            )
        q, duration, sample_rate = float(q), float(duration), float(sample_rate)
        self.q, self.duration, self.sample_rate, self.mismatch = q, duration, sample_rate, mismatch
        self.spectrogram_shape, self.interpolation_method = spectrogram_shape, interpolation_method
        self.num_samples = round(duration * sample_rate)
        low, high = map(float, frange) if frange is not None else (0.0, math.inf)
        self.frange = [
            low if low > 0 else 50 * q / (2 * math.pi * duration),
            high if math.isfinite(high) else sample_rate / 2 / (1 + LOWEST_Q / q),
        ]
        check_settings(self.num_samples, sample_rate, self._settings("median"), beyond=_BEYOND)
        self.freqs = self.get_freqs()
        self._planes: dict[tuple[str, str], Plane] = {}
        self._last: _Transformed | None = None

    def get_freqs(self) -> Tensor:
        """Centre frequency of each row, Hz, float64, shape (row,)."""
        rows = self._settings("median").rows(self.num_samples, self.sample_rate, self.q)
        return torch.tensor([row.frequency for row in rows], dtype=torch.float64)

    def forward(self, X: Tensor, norm: str | None = "median") -> Tensor:
        """Map of each series.

        Args:
            X: Series, shape (time,), (channel, time) or (batch, channel, time). On a CPU NaN and infinity are refused;
                on a GPU, where looking would wait for it, they make the map of their series NaN.
            norm: `median`, `mean`, or None for energies as they are.

        Returns:
            Maps, float32, one dimension more than `X`. As in ml4gw, dimensions of length 1 are dropped, unless the
            method is `spline`, with which there are always a batch and a channel.

        Raises:
            ConfigurationError: The length of `X` or the norm does not fit.
            DataError: A series cannot be transformed.
        """
        return self.shaped(self.maps_and_peaks(X, norm)[0])

    def compute_qtiles(self, X: Tensor, norm: str | None = "median") -> None:
        """Transform, without making maps: then `qtiles`, `get_max_energy` and `interpolate` have what they need."""
        self._last = _Transformed(*self._prepared(X, norm))

    @property
    def qtiles(self) -> list[Tensor] | None:
        """Energies of each row of the last series, shape (batch, channel, tile); None before there was any."""
        return None if self._last is None else self._last.tiles

    def get_max_energy(self, fsearch_range: Sequence[float] | None = None, dimension: Dimension = "both") -> Tensor:
        """Loudest tile of the last series.

        Args:
            fsearch_range: Tiles above the first and up to the second of two frequencies, Hz; all if None.
            dimension: What the maximum is taken over: batch and channel (`both`), neither, or one of them as ml4gw
                has it: `channel` leaves a value for each channel, `batch` one for each of the batch.

        Raises:
            ConfigurationError: Another dimension.
            RuntimeError: There was no series yet.
        """
        if dimension not in get_args(Dimension):
            raise ConfigurationError(f"dimension must be one of {', '.join(get_args(Dimension))}, got {dimension!r}.")
        peaks = self._transformed().peaks
        if fsearch_range is not None:
            first, last = (int((self.freqs <= edge).sum()) for edge in fsearch_range)
            peaks = peaks[..., first:last]
        peak = peaks.amax(dim=-1) if peaks.shape[-1] else peaks.new_zeros(peaks.shape[:-1])
        over: dict[str, tuple[int, ...]] = {"both": (-2, -1), "channel": (-2,), "batch": (-1,)}
        return peak if dimension == "neither" else peak.amax(dim=over[dimension])

    def interpolate(self) -> Tensor:
        """Maps of the last series, from its tiles.

        Raises:
            RuntimeError: There was no series yet.
        """
        last = self._transformed()
        return self.shaped(last.plane.interpolate(last.tiles))

    def shaped(self, maps: Tensor) -> Tensor:
        """Maps with the dimensions that ml4gw gives them."""
        if self.interpolation_method == "spline":
            return maps.reshape(*(1,) * (4 - maps.ndim), *maps.shape)
        return maps.squeeze()

    def maps_and_peaks(self, X: Tensor, norm: str | None = "median") -> tuple[Tensor, Tensor]:
        """Maps, shape (..., frequency, time), and the loudest tile of each row, shape (..., row)."""
        return self.from_spectrum(Spectrum.of(X.reshape(-1, X.shape[-1])), X.shape, norm)

    def from_spectrum(self, spectrum: Spectrum, shape: torch.Size, norm: str | None) -> tuple[Tensor, Tensor]:
        """The same from the spectrum of series of that shape."""
        spectrum, plane = self._fitted(spectrum, shape, norm)
        maps, peaks = plane.maps(spectrum)
        self._last = _Transformed(spectrum, plane, shape, peaks)
        return maps.reshape(*shape[:-1], *maps.shape[1:]), peaks.reshape(*shape[:-1], peaks.shape[-1])

    def _prepared(self, X: Tensor, norm: str | None) -> tuple[Spectrum, Plane, torch.Size]:
        return *self._fitted(Spectrum.of(X.reshape(-1, X.shape[-1])), X.shape, norm), X.shape

    def _fitted(self, spectrum: Spectrum, shape: torch.Size, norm: str | None) -> tuple[Spectrum, Plane]:
        if shape[-1] != self.num_samples or len(shape) > 3:
            raise ConfigurationError(
                f"expected series of {self.num_samples} samples in at most three dimensions (batch, channel, time), "
                f"got shape {tuple(shape)}."
            )
        key = "none" if norm is None else norm.lower(), str(spectrum.bins.device)
        if key not in self._planes:
            self._planes[key] = Plane(
                self.num_samples,
                self.sample_rate,
                self.q,
                self._settings(key[0]),
                device=key[1],
                interpolation=self.interpolation_method,  # type: ignore[arg-type]  # looked at when the module was made
            )
        plane = self._planes[key]
        if spectrum.bins.device.type == "cpu":
            refuse_unfit(spectrum, [plane])
        return spectrum.with_last_repeated(plane.num_bins), plane

    def _transformed(self) -> "_Transformed":
        if self._last is None:
            raise RuntimeError("there are no tiles yet: call the transform, or compute_qtiles, with series first.")
        return self._last

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


class _Transformed:
    """What is known of the last series; tiles are made when they are asked for, unless maps were made without them."""

    def __init__(self, spectrum: Spectrum, plane: Plane, shape: torch.Size, peaks: Tensor | None = None) -> None:
        self.plane = plane
        self._spectrum, self._peaks = spectrum, peaks
        self._batch = (*(1,) * (3 - len(shape)), *shape[:-1])
        self._tiles: list[Tensor] | None = None

    @property
    def tiles(self) -> list[Tensor]:
        """Shape (batch, channel, tile) each."""
        if self._tiles is None:
            self._tiles = [row.reshape(*self._batch, -1) for row in self.plane.tiles(self._spectrum)]
        return self._tiles

    @property
    def peaks(self) -> Tensor:
        """Shape (batch, channel, row)."""
        if self._peaks is None:
            return torch.stack([row.amax(dim=-1) for row in self.tiles], dim=-1)
        return self._peaks.reshape(*self._batch, -1)


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
        self.frange = list(frange) if frange is not None else [0, math.inf]
        self.spectrogram_shape = spectrogram_shape
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
            X: As for `SingleQTransform`.
            fsearch_range: As for `SingleQTransform.get_max_energy`: the tiles that decide.
            norm: As for `SingleQTransform`.

        Returns:
            Maps as from `SingleQTransform`.

        Raises:
            ConfigurationError: As for `SingleQTransform`.
            DataError: As for `SingleQTransform`.
        """
        spectrum = Spectrum.of(X.reshape(-1, X.shape[-1]))
        best, loudest = None, None
        transforms = [one for one in self.q_transforms if isinstance(one, SingleQTransform)]
        for transform in transforms:
            maps, _ = transform.from_spectrum(spectrum, X.shape, norm)
            peak = transform.get_max_energy(fsearch_range, "neither" if self.each else "both")
            peak = peak.reshape(X.shape[:-1]) if self.each else peak
            if best is None or loudest is None:
                best, loudest = maps, peak
            else:
                best = torch.where((peak > loudest)[..., None, None], maps, best)
                loudest = torch.maximum(peak, loudest)
        assert best is not None  # noqa: S101  # there is at least one transform
        return transforms[0].shaped(best)
