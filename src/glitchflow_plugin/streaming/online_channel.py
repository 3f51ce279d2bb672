"""One channel stride by stride: the latest of it, and how its last window is whitened."""

import math
from collections.abc import Mapping

import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.units import same_unit
from glitchflow_plugin.preprocessing.channel_recipe import ChannelRecipe
from glitchflow_plugin.signal import filters
from glitchflow_plugin.signal.conditioning import ChannelRejectedError
from glitchflow_plugin.signal.continuous import SpectrumSettings, filling, longest_run
from glitchflow_plugin.signal.psd import LEAST_SEGMENTS, MovingPowers, Psd, averaged
from glitchflow_plugin.signal.running import Ending, Forwards, ending, run_forwards, whitened_ending
from glitchflow_plugin.signal.slow import SHARE, slow_motion
from glitchflow_plugin.types.arrays import Series

_SLOW_MARGIN = 2.0
"""How far before a window slow motion is read, s."""


class OnlineChannel:
    """The latest of a channel.

    Args:
        recipe: How it is conditioned.
        spectrum: Length and stride of its spectra.
        stride: Length of a stride, s.
        place: Number of the channel: spectra of all are not made at once.
    """

    def __init__(self, recipe: ChannelRecipe, spectrum: SpectrumSettings, stride: float, place: int) -> None:
        self.recipe = recipe
        self.forwards: Forwards | None = None
        self._spectrum, self._stride = spectrum, stride
        self._offset = place * stride % spectrum.stride
        self._newest = 0.0
        self._rate = recipe.settings.sample_rate
        size = round(self._history * self._rate)
        self._raw, self._series = Latest(np.empty(0)), Latest(np.zeros(size))
        self._usable = Latest(np.zeros(size, dtype=np.bool_))
        self._powers = self._no_powers()
        self._endings: dict[float, Ending | None] = {}
        self._noise: dict[int, Series] = {}

    @property
    def _history(self) -> float:
        whole = self.recipe.settings
        window = 2 * whole.duration + 2 * whole.whitening.filter_length + 4 * self._stride
        return max(self._spectrum.length + self._spectrum.stride + 2 * self._stride, window)

    @property
    def memory(self) -> float:
        """Time that decides about a window, s."""
        before = 1 if self.forwards is None else self.forwards.before
        return self._history + (before + 1) * self._stride

    def take(self, found: Channel | None, newest: float) -> None:
        """Take a stride in.

        Args:
            found: What came; None: nothing.
            newest: End of the stride, GPS s.
        """
        self._newest = newest
        if found is not None and self.recipe.unit and found.unit and not same_unit(found.unit, self.recipe.unit):
            found = None
        if found is not None and (self.forwards is None or self.forwards.own_rate != found.sample_rate):
            self._begin(found.sample_rate)
        size = round(self._stride * self._rate)
        new, usable = np.zeros(size), np.zeros(size, dtype=np.bool_)
        if self.forwards is not None:
            own = round(self._stride * self.forwards.own_rate)
            values = np.full(own, np.nan) if found is None else np.asarray(found.series, dtype=np.float64)
            self._raw.append(values)
            recorded = self._raw.held[-(self.forwards.before + 1) * own :]
            new, usable = run_forwards(recorded, self.forwards, self.recipe.settings)
        self._series.append(new)
        self._usable.append(usable)

    def window(self, start: int, size: int) -> tuple[Series, Series] | None:
        """Whitening filter and whitened window; None where a part of what has come of it cannot be used.

        Args:
            start: Number of its first sample, from GPS 0.
            size: Its samples; it may reach beyond the newest.
        """
        one = self._ending()
        if one is None or self.forwards is None:
            return None
        series, first = self._series.held, self._first
        needed = self._usable.held[start - len(one.taps) // 2 - first : start + size + one.reach - first]
        if not len(needed) or not needed.all():
            return None
        settings = self.recipe.settings
        found = whitened_ending(series, start - first, size, one, settings)
        noise = self._filling(start, size, one.band)
        found = found if noise is None else found + noise
        if self.recipe.slow is not None:
            raw = self._raw.held
            began = self._newest - len(raw) / one.own_rate
            margin = round((start / self._rate - _SLOW_MARGIN - began) * one.own_rate)
            recorded = raw[max(margin, 0) :]
            if not np.isfinite(recorded).all():
                return None
            times = np.arange(start, start + size) / self._rate
            t0 = self._newest - len(recorded) / one.own_rate
            found = found + SHARE * slow_motion(recorded, one.own_rate, t0, times, self.recipe.slow)
        return one.taps, found

    def usable(self, start: int, size: int) -> np.ndarray:
        """Where samples can be used, (size,), from GPS 0; those that the filters have not reached as the last one."""
        first = start - self._first
        held = self._usable.held[first : first + size]
        return np.pad(held, (0, size - len(held)), mode="edge") if len(held) else np.zeros(size, dtype=np.bool_)

    @property
    def _first(self) -> int:
        """Number of the first sample of the series, from GPS 0."""
        delay = 0 if self.forwards is None else self.forwards.delay
        return round(self._newest * self._rate) - delay - len(self._series.held)

    def state(self) -> dict[str, np.ndarray]:
        """All that windows to come depend on."""
        rate = 0.0 if self.forwards is None else self.forwards.own_rate
        return {
            "newest": np.array(self._newest),
            "rate": np.array(rate),
            "raw": self._raw.held.copy(),
            "series": self._series.held.copy(),
            "usable": self._usable.held.copy(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`."""
        self._newest = float(state["newest"])
        if state["rate"]:
            self._begin(float(state["rate"]))
        self._raw, self._series, self._usable = (Latest(state[one]) for one in ("raw", "series", "usable"))

    def _begin(self, own_rate: float) -> None:
        """Forget what came at another rate."""
        try:
            self.forwards = Forwards.of(own_rate, self._stride, self.recipe.settings)
        except (ChannelRejectedError, ValueError):
            self.forwards = None
            return
        whole = self.recipe.settings
        kept = self.forwards.before + 1
        if self.recipe.slow is not None:
            kept = max(kept, math.ceil((1.5 * whole.duration + _SLOW_MARGIN) / self._stride) + 1)
        self._raw = Latest(np.full(round(kept * self._stride * own_rate), np.nan))
        self._usable = Latest(np.zeros(len(self._series.held), dtype=np.bool_))
        self._endings, self._noise, self._powers = {}, {}, self._no_powers()

    def _no_powers(self) -> MovingPowers:
        whitening = self.recipe.settings.whitening
        return MovingPowers(self._rate, whitening.fft_length, whitening.overlap)

    def _filling(self, start: int, size: int, band: tuple[float, float]) -> Series | None:
        """As `filling`, made second by second and once for all windows that hold the second."""
        settings, rate = self.recipe.settings, round(self._rate)
        seconds = range(start // rate, (start + size - 1) // rate + 1)
        made: dict[int, Series] = {}
        for second in seconds:
            noise = self._noise.get(second)
            if noise is None:
                noise = filling(self.recipe.name, (second * rate, (second + 1) * rate), band, settings)
            if noise is None:
                return None
            made[second] = noise
        self._noise = made
        return np.concatenate(list(made.values()))[start - seconds.start * rate :][:size]

    def _ending(self) -> Ending | None:
        """Filters by the spectrum at the last time of its grid, or of now where there was none then."""
        stride = self._spectrum.stride
        grid = stride * math.floor((self._newest - self._offset) / stride) + self._offset
        for gps in (grid, self._newest):
            if gps not in self._endings:
                self._endings = {key: one for key, one in self._endings.items() if key == grid}
                self._endings[gps] = self._measured(gps)
            if self._endings[gps] is not None:
                return self._endings[gps]
        return None

    def _measured(self, gps: float) -> Ending | None:
        """Filters by the spectrum of the time before a GPS time, s; None where there is too little of it."""
        forwards, settings = self.forwards, self.recipe.settings
        if forwards is None:
            return None
        given = self.recipe.psd
        try:
            if given is not None:
                power = filters.band_pass_power(given.frequencies, forwards.own_rate, *forwards.band, settings.order)
                return ending(Psd(given.values * np.sqrt(power), given.spacing), forwards, settings)
            series, usable = self._series.held, self._usable.held
            stop = len(series) - round((self._newest - gps) * self._rate)
            low = max(stop - round(self._spectrum.length * self._rate), 0)
            start, stop = longest_run(usable, low, stop)
            if stop - start < 0.9 * self._spectrum.stride * self._rate:
                return None
            whitening, powers = settings.whitening, self._powers.of(series[start:stop], self._first + start)
            if len(powers) < LEAST_SEGMENTS:
                return None
            found = averaged(powers, self._rate, whitening.fft_length, whitening.overlap, method=whitening.method)
            return ending(found, forwards, settings)
        except ValueError:
            return None


class Latest:
    """The newest samples of something that runs on.

    Args:
        held: What is known at first; as many are held from then on.

    >>> latest = Latest(np.array([1.0, 2.0, 3.0]))
    >>> latest.append(np.array([4.0, 5.0]))
    >>> latest.held
    array([3., 4., 5.])
    """

    def __init__(self, held: np.ndarray) -> None:
        self._size = self._stop = len(held)
        # room behind it, so that not all is moved each time
        self._memory = np.concatenate([held, np.zeros(len(held) // 4, dtype=held.dtype)])

    @property
    def held(self) -> np.ndarray:
        """As many as at first; true until `append`."""
        return self._memory[self._stop - self._size : self._stop]

    def append(self, new: np.ndarray) -> None:
        """Take in what comes behind them, at most as many as are held."""
        if self._stop + len(new) > len(self._memory):
            kept = self._size - len(new)
            self._memory[:kept] = self._memory[self._stop - kept : self._stop]
            self._stop = kept
        self._memory[self._stop : self._stop + len(new)] = new
        self._stop += len(new)
