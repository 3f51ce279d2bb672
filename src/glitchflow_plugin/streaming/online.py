"""The twin stride by stride: what comes in last decides about what lies a short look-ahead behind it.

Windows, belief, agreement, ranks and vetoes are those of continuous data (`streaming.subtraction`); what differs is
that the data end at the newest sample, and that spectra are of the past. An output is a function of the last
`OnlineTwin.memory` seconds alone: whoever feeds these again gets the same bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
import torch

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.settings import NotNegative, section
from glitchflow_plugin.signal import filters
from glitchflow_plugin.streaming.belief import Stretch
from glitchflow_plugin.streaming.blocks import check_band
from glitchflow_plugin.streaming.loop import seen_gains
from glitchflow_plugin.streaming.online_channel import OnlineChannel
from glitchflow_plugin.streaming.ranks import RememberedColumns, window_columns
from glitchflow_plugin.streaming.subtraction import Subtraction, at_own_rate, summed_glitch, told
from glitchflow_plugin.streaming.windows import Looked, StreamModel, StreamSettings, Window, beyond, predict_windows
from glitchflow_plugin.types.arrays import Series

STAGES: tuple[str, ...] = ("conditioning", "network", "belief", "output")
"""What a stride's time is spent on."""

_FADE = 0.25
"""Time in which what one stride says gives way to what the next one says, s."""

_EDGE = 1 / 16
"""How far the filters that lead to the strain's own rate see beyond a stride, s."""


@section
class OnlineSettings:
    """How a model is used stride by stride; conf/online.yaml explains the keys.

    Attributes:
        lookahead: How far the output lies behind the newest sample, s.
        stream: As for continuous data; its `stride` is also the length of what comes in and goes out at once.
    """

    lookahead: NotNegative = 1.0
    stream: StreamSettings = field(default_factory=lambda: StreamSettings(stride=1.0))

    def __post_init__(self) -> None:
        """Refuse outputs that no window is centred at the end of."""
        if self.stream.stride < _FADE + _EDGE:
            raise ConfigurationError(
                f"online.settings.stream.stride must be at least {_FADE + _EDGE:g} s, got {self.stream.stride:g} s."
            )
        if self.lookahead % self.stream.stride:
            raise ConfigurationError(
                f"online.settings.lookahead must be a multiple of the stride ({self.stream.stride:g} s), got "
                f"{self.lookahead:g} s."
            )


@dataclass(frozen=True, eq=False)
class Stride:
    """What comes in at once.

    Attributes:
        start: GPS s, a multiple of the stride.
        channels: Recorded channels by name, each from `start` on and as long as a stride, NaN where there are no data;
            what is missing is left out.
    """

    start: float
    channels: Mapping[str, Channel]


@dataclass(frozen=True, eq=False)
class Output:
    """What goes out at once.

    Attributes:
        span: Start and end, GPS s.
        strain: As it came in; None where none came.
        found: What the model says of it, as for a block of continuous data; None where there is no strain.
        seconds: What was spent on each of `STAGES`, s.
    """

    span: tuple[float, float]
    strain: Channel | None
    found: Subtraction | None
    seconds: Mapping[str, float]


class OnlineTwin:
    """A registered model that is fed stride by stride.

    Args:
        model: Twin and recipes.
        settings: Look-ahead, stride, spectra and belief.

    Raises:
        ConfigurationError: Windows are too short for the stride.
    """

    def __init__(self, model: StreamModel, settings: OnlineSettings) -> None:
        self.model, self.settings = model, settings
        stream = settings.stream
        if 1.5 * stream.stride > model.duration:
            raise ConfigurationError(
                f"online.settings.stream.stride must be at most two thirds of the model's windows "
                f"({model.duration:g} s), got {stream.stride:g} s."
            )
        # windows are seen whole where there is time for it
        self._ahead = min(settings.lookahead, stream.stride * math.floor(model.duration / 2 / stream.stride))
        self._margin = beyond(model.target.settings.whitening.filter_length)
        self.newest: float | None = None
        recipes = (model.target, *model.witnesses)
        self._channels = [
            OnlineChannel(one, stream.spectrum, stream.stride, place) for place, one in enumerate(recipes)
        ]
        self._strains: dict[float, Channel | None] = {}
        self._windows: dict[float, tuple[Window, Looked]] = {}
        self._sums: dict[float, _Sum] = {}
        self._columns_of = RememberedColumns()

    def warm_up(self) -> None:
        """Do for the first time what then takes long (compile, plan transforms), on noise, before data come."""
        size = round(self.model.duration * self.model.rate)
        noise = np.random.default_rng(0).standard_normal((len(self._channels), size)).astype(np.float32)
        looked: Looked = np.eye(1, 9)[0], noise[0], noise[1:]
        stream, centre = self.settings.stream, np.array([self.model.duration])
        windows = predict_windows(lambda _: looked, self.model, centre, stream, {}, ahead=self._ahead)
        window_columns(windows, self.model, stream.stride)

    @property
    def memory(self) -> float:
        """Time that decides about an output, s: fed again from so long before it, its bytes are the same."""
        return math.ceil(max(one.memory for one in self._channels) + self._kept)

    @property
    def _kept(self) -> float:
        """Time before the newest sample whose windows are kept, s."""
        return self.settings.lookahead + self._margin + 3 * self.settings.stream.stride

    def feed(self, stride: Stride) -> dict[str, float]:
        """Take a stride in without an output: what came before a restart.

        Returns:
            What was spent on the first two of `STAGES`, s.

        Raises:
            DataError: As `push`.
        """
        seconds = dict.fromkeys(STAGES, 0.0)
        with _timed(seconds, "conditioning"):
            self._take(stride)
            centre = stride.start + self.settings.stream.stride - self._ahead
            looked = self._look(centre)
        with _timed(seconds, "network"), torch.inference_mode():
            (window,) = predict_windows(
                lambda _: looked, self.model, np.array([centre]), self.settings.stream, {}, ahead=self._ahead
            )
        self._windows[centre] = window, looked
        for old in [one for one in self._windows if one < stride.start - self._kept]:
            del self._windows[old]
        return seconds

    def push(self, stride: Stride) -> Output:
        """Take a stride in, and say what lies the look-ahead behind its end.

        Raises:
            DataError: It does not follow the last one (`gap` tells what never came), is no multiple of the stride, or
                a channel is not as long as it.
            ConfigurationError: The strain does not reach as high as what the model predicts.
        """
        seconds = self.feed(stride)
        length = self.settings.stream.stride
        start = stride.start - self.settings.lookahead
        span = start, start + length
        strain = self._strains.get(start)
        if strain is None or not np.isfinite(strain.series).any():
            return Output(span, None, None, seconds)
        return Output(span, strain, self._found(span, strain, seconds), seconds)

    def gap(self, start: float, stop: float) -> Iterator[Output]:
        """What never came: the outputs of strides without any data.

        Args:
            start: End of the last stride, GPS s.
            stop: Start of the next one, GPS s; what lies farther back than the memory is of no use then.

        Raises:
            DataError: As `push`.
        """
        length = self.settings.stream.stride
        for number in range(round((stop - start) / length)):
            yield self.push(Stride(start + number * length, {}))

    def state(self) -> dict[str, np.ndarray]:
        """All that outputs depend on: arrays by name, of the last `memory` seconds."""
        if self.newest is None:
            return {}
        held: dict[str, np.ndarray] = {"newest": np.array(self.newest)}
        for place, one in enumerate(self._channels):
            held |= {f"channel/{place}/{name}": array for name, array in one.state().items()}
        for start, strain in self._strains.items():
            if strain is not None:
                held[f"strain/{start!r}"] = strain.series
                held["strain_rate"] = np.array(strain.sample_rate)
        for centre, (window, (taps, series, witnesses)) in self._windows.items():
            flags = [window.familiar, window.accounted, window.quiet]
            said = np.empty(0) if window.strain is None else window.strain
            parts = {"taps": taps, "series": series, "witnesses": witnesses, "said": said, "flags": np.array(flags)}
            held |= {f"window/{centre!r}/{name}": array for name, array in parts.items()}
        return held

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state` of a twin of the same model and settings as if there had been no interruption."""
        self.__init__(self.model, self.settings)  # type: ignore[misc]
        if not state:
            return
        self.newest = float(state["newest"])
        for place, one in enumerate(self._channels):
            one.restore(_below(state, f"channel/{place}/"))
        target = self.model.target
        for key, series in _below(state, "strain/").items():
            start, rate = float(key), float(state["strain_rate"])
            self._strains[start] = Channel(target.name, series, start, rate, target.unit or "")
        for centre in {float(key.split("/")[0]) for key in _below(state, "window/")}:
            parts = _below(state, f"window/{centre!r}/")
            looked = parts["taps"], parts["series"], parts["witnesses"]
            said = parts["said"] if len(parts["said"]) else None
            self._windows[centre] = self._window(centre, looked, said, parts["flags"].tolist()), looked

    def _take(self, stride: Stride) -> None:
        length = self.settings.stream.stride
        if stride.start % length:
            raise DataError(f"expected a stride that begins at a multiple of {length:g} s, got GPS {stride.start!r}.")
        if self.newest is not None and stride.start != self.newest:
            raise DataError(
                f"expected the stride that begins at GPS {self.newest:.3f}, got {stride.start:.3f}. Tell what never "
                "came with gap()."
            )
        target = self.model.target.name
        for one in stride.channels.values():
            if one.t0 != stride.start or len(one.series) != one.sample_rate * length:
                raise DataError(
                    f"expected {length:g} s of {one.name} from GPS {stride.start:.3f}, got "
                    f"{len(one.series) / one.sample_rate:g} s from {one.t0:.3f}."
                )
        strain = stride.channels.get(target)
        if strain is not None:
            check_band(self.model, strain.sample_rate)
        self.newest = stride.start + length
        for one in self._channels:
            one.take(stride.channels.get(one.recipe.name), self.newest)
        self._strains[stride.start] = strain
        for old in [one for one in self._strains if one < stride.start - self.settings.lookahead]:
            del self._strains[old]

    def _look(self, centre: float) -> Looked:
        """What has come of the window about a time (GPS s), as `windows.look` gives it."""
        size = round(self.model.duration * self.model.rate)
        start = round(centre * self.model.rate) - size // 2
        series = np.zeros((len(self._channels), size), dtype=np.float32)
        taps = np.empty(0)
        for row, one in enumerate(self._channels):
            found = one.window(start, size)
            if found is not None:
                series[row] = found[1]
                taps = found[0] if row == 0 else taps
        return taps, series[0], series[1:]

    def _window(
        self, centre: float, looked: Looked | None = None, said: Series | None = None, flags: Sequence[bool] = ()
    ) -> Window:
        """A window of which something is known, or of which nothing is.

        Args:
            centre: GPS s.
            looked: From `_look`.
            said: The prediction.
            flags: `familiar`, `accounted` and `quiet` of the window.
        """
        size = round(self.model.duration * self.model.rate)
        start = round(centre * self.model.rate) - size // 2
        nothing = np.zeros(len(self.model.witnesses), dtype=np.bool_)
        if looked is None:
            return Window(centre, start, np.empty(0), ~nothing, nothing, np.zeros(size))
        taps, series, witnesses = looked
        return Window(centre, start, taps, ~witnesses.any(axis=1), nothing, series.astype(np.float64), said, *flags)

    def _windows_about(self, span: tuple[float, float], newest: float) -> list[Window]:
        """One a stride, by what had come at some time; after the last one, what that says of the time beyond it.

        Args:
            span: Start and end of an output, GPS s.
            newest: End of what had come, GPS s.
        """
        stride, rate = self.settings.stream.stride, self.model.rate
        last = newest - self._ahead
        numbers = range(math.floor((span[0] - self._margin) / stride), math.ceil((span[1] + self._margin) / stride) + 1)
        windows = []
        for centre in (stride * number for number in numbers):
            window = self._windows[min(centre, last)][0] if min(centre, last) in self._windows else self._window(centre)
            moved = round((centre - last) * rate)
            if centre > last and window.strain is not None:
                strain, measured = (_moved(one, moved) for one in (window.strain, window.measured))
                window = replace(window, centre=centre, start=window.start + moved, strain=strain, measured=measured)
            elif centre > last:
                window = self._window(centre)
            windows.append(window)
        return windows

    def _sum(self, newest: float) -> "_Sum":
        """What is taken away as far as was known at some time, about the output of then."""
        if newest not in self._sums:
            stop = newest - self.settings.lookahead
            span = stop - self.settings.stream.stride, stop
            outer = round((span[0] - self._margin) * self.model.rate), round((span[1] + self._margin) * self.model.rate)
            windows = self._windows_about(span, newest)
            forwards = self._channels[0].forwards
            assert forwards is not None  # noqa: S101  # there is strain
            # what is said now is read for this output, and, as what was said before, for the next one
            edge = max(self._edge(one.sample_rate) for one in self._strains.values() if one is not None)
            end = round((stop + self.settings.stream.stride) * self.model.rate)
            read = round(span[0] * self.model.rate) - edge, end + edge
            summed, stretches = summed_glitch(
                windows, outer, self.model, self.settings.stream, forwards.band, read=read
            )
            self._sums = {key: one for key, one in self._sums.items() if key == newest - self.settings.stream.stride}
            self._sums[newest] = _Sum(windows, outer, summed, stretches)
        return self._sums[newest]

    def _edge(self, own_rate: float) -> int:
        """Samples at the common rate beside those wanted that lead to some rate of the strain, Hz."""
        forwards = self._channels[0].forwards
        assert forwards is not None  # noqa: S101  # there is strain
        rate = self.model.rate
        return math.ceil(filters.resample_loss(rate, own_rate, forwards.band[1]) / own_rate * rate) + 1

    def _found(self, span: tuple[float, float], strain: Channel, seconds: dict[str, float]) -> Subtraction:
        stream, rate = self.settings.stream, self.model.rate
        forwards, newest = self._channels[0].forwards, self.newest
        assert forwards is not None and newest is not None  # noqa: S101, PT018  # there is strain
        with _timed(seconds, "belief"):
            before, now = self._sum(newest - stream.stride), self._sum(newest)
            high, edge = forwards.band[1], self._edge(strain.sample_rate)
            begin, end = (round(one * rate) for one in span)
            first = begin - edge
            new, old = (_between(one, first, end + edge) for one in (now, before))
            share = np.clip((np.arange(len(new)) - 2 * edge) / (_FADE * rate), 0.0, 1.0)
            risen = np.sin(0.5 * np.pi * share) ** 2
            summed = np.where(new == old, new, risen * new + (1 - risen) * old)
        with _timed(seconds, "output"):
            glitch = at_own_rate(summed, first, strain, span, rate=rate, high=high)
            usable = self._channels[0].usable(begin, end - begin)
            found = told(
                now.windows,
                now.stretches,
                self.model,
                stream,
                outer=now.outer,
                block=span,
                usable=usable,
                glitch=glitch,
                columns_of=self._columns_of,
            )
            known = [one for one in found.stretches if self._nearest(one.peak) in self._windows]
            return replace(found, gains=seen_gains(self._seen, self.model, known, stream))

    def _nearest(self, gps: float) -> float:
        return self.settings.stream.stride * round(gps / self.settings.stream.stride)

    def _seen(self, centre: float) -> Looked:
        return self._windows[centre][1]


@dataclass(frozen=True, eq=False)
class _Sum:
    """What is taken away as far as is known at some time."""

    windows: Sequence[Window]
    outer: tuple[int, int]
    series: Series
    stretches: Sequence[Stretch]


def _between(one: _Sum, first: int, stop: int) -> Series:
    return one.series[first - one.outer[0] : stop - one.outer[0]]


def _moved(series: Series, size: int) -> Series:
    """A series that begins some samples later, zero where it has ended."""
    return np.concatenate([series[size:], np.zeros(min(size, len(series)))])


def _below(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    begun = perf_counter()
    yield
    seconds[stage] += perf_counter() - begun
