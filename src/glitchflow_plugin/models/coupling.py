"""The coupling network: what each witness sees, cleaned of its own noise, through a learnt law into the strain."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.blocks import start_at_zero
from glitchflow_plugin.models.stft import ShortTimeFourier
from glitchflow_plugin.types.tensors import SeriesBatch, StrainSeries
from glitchflow_plugin.verdict import TOLD_SNR2

#: Power, in units of a witness's noise, above which a pixel counts as a transient before anything was learnt.
_FIRST_THRESHOLD = 5.0
_FIRST_STEEPNESS = 6.0
#: Peaks of witnesses are a few to some tens of their noise; the laws see them divided by this.
_TYPICAL_PEAK = 5.0
#: Keeps the logarithm of an empty pixel finite; small beside the noise, whose power is 1.
_FLOOR = 0.1
#: Rows and frames of the short-time spectrum for each pixel of the encoder: gates follow the power itself, at full
#: resolution, and what the encoder adds to them may be coarser.
_COARSER = (2, 4)
#: Bands of frequency into which a witness is summed up when witnesses are compared.
_BANDS = 8
#: Laws that have no parameter: linear, quadratic, odd quadratic. Learnt thresholds come to these.
_LAWS = 3
#: Frames over which slow motion is averaged, twice: with frames of 1/8 s, what is above 8 Hz is then gone.
_SLOW_FRAMES = 4
#: Largest factor by which slow motion changes a coupling.
_LARGEST_FACTOR = 4.0
#: What is told of a cleaned witness as a whole: `_transient`.
_FEATURES = 4
#: Largest logarithm of the gain that follows from it.
_LARGEST_GAIN = 1.5
#: How sharply a witness is believed about `TOLD_SNR2`: what explains less is noise that passed the gate.
_LEAST_STEEPNESS = 4.0


class Explanation(NamedTuple):
    """A prediction and how far to trust it.

    Attributes:
        strain: Whitened strain, (event, 1, time).
        variance: Expected power of strain minus prediction by pixel of the short-time spectrum, in units of the
            strain's noise, at least 1, (event, frequency, frame).
        summary: What the encoder saw of the event, witness by witness, (event, feature); NaN of a missing witness.
    """

    strain: Tensor
    variance: Tensor
    summary: Tensor


class Seen(NamedTuple):
    """What follows from the series of each witness alone, so that it holds whichever of the others are missing.

    Attributes:
        coefficients: Short-time spectrum, (event, witness, frequency, frame).
        smooth: Logarithm of its power over a few pixels, (event x witness, 1, frequency, frame).
        alone: Features, (event x witness, feature, row, column), at the encoder's resolution.
        present: Whether the witness has data, (event, witness).
        num_samples: Length of the series.
    """

    coefficients: Tensor
    smooth: Tensor
    alone: Tensor
    present: Tensor
    num_samples: int

    def without(self, rows: Tensor, keep: Tensor) -> "Seen":
        """Some of the events, with some of their witnesses missing.

        Args:
            rows: Which events, bool, (event,).
            keep: Witnesses that stay, bool, (chosen event, witness).
        """
        chosen = rows[:, None].expand_as(self.present).flatten()
        coefficients = self.coefficients[rows] * keep[..., None, None]
        return Seen(coefficients, self.smooth[chosen], self.alone[chosen], self.present[rows] & keep, self.num_samples)


class _Parts(NamedTuple):
    """Short-time spectra of what each witness adds, (event, witness, frequency, frame), and what led to them.

    Attributes:
        parts: Complex coefficients.
        hidden: Features after the witnesses have looked at each other, (event x witness, feature, row, column).
    """

    parts: Tensor
    hidden: Tensor


class CouplingNet(nn.Module):
    """Predicts the whitened strain from whitened witnesses: gate, static law, filter, for each witness, then the sum.

    A disturbance reaches the strain through a static law (linear, quadratic, threshold ...) followed by a delayed,
    band-limited response: a Hammerstein system (Narendra and Gallman 1966, doi:10.1109/TAC.1966.1098387). The network
    is built like that, so that few events teach it:

    1. One encoder, shared by all witnesses, looks at the short-time spectrum of each one; an embedding by witness and
       frequency tells it whose. Witnesses then attend to each other (arXiv:1706.03762), missing ones left out.
    2. From this comes a gate between 0 and 1 for each pixel of each witness. Multiplied with its complex coefficients
       it removes the witness's own noise: a filter would pass that on into the strain, at all times.
    3. Static laws act on the cleaned series, and each result has its own filter, long enough for delays and resonances
       on either side.
    4. A complex gain for each pixel corrects amplitude and phase by what the encoder saw (slow modulations, and the
       share of a cause that two witnesses both see), and all witnesses are added.

    Without a transient in a witness all gates are shut and nothing is predicted. A witness whose series is zero is
    missing: it contributes nothing, and the others are told. Any subset may be given; in training, witnesses are
    dropped at random.

    Beside the prediction it gives the expected power of what this leaves, and a summary of the event from which one can
    tell whether the like was seen in training.

    Args:
        in_channels: Number of witnesses.
        window_size: Accepted for the sake of a common signature and not needed: any length will do.
        features: Features of the encoder.
        frame_size: Samples of a short-time frame.
        filter_size: Taps of each filter, odd.
        thresholds: Learnt thresholds of each witness: laws that begin above one.
        heads: Heads of the attention; divides `features`.
        channel_dropout: Probability with which whoever trains it leaves a witness out (`BatchOrder.left_out`).
        event_gain: Whether each witness has one more gain, for the whole event, that follows from power, peak, duration
            and bandwidth of its cleaned series. What a law gets wrong about loud and long glitches shows there. A
            witness that explains next to no power in an event is then not believed either.
        filter_rate: Learning rate of the filters, relative to that of all else.
        fitted_start: Whether the filters begin at the least-squares solution of the training events
            (`training.filter_start`) instead of at chance.
        slow_context: Whether couplings may follow motions below the band: the cleaned series is multiplied by one plus
            where slow channels are, and there is one more law, that series times the direction in which they move.
            Which channels, is learnt (`place`, `direction`), out of those whose slow motion is kept in their series
            (`signal.slow`, `slow_channels`).

    Raises:
        ConfigurationError: A setting is out of range.

    >>> CouplingNet(in_channels=3, features=4, filter_size=65)(torch.zeros(2, 3, 512)).shape
    torch.Size([2, 1, 512])
    """

    slow_channels: Tensor

    def __init__(
        self,
        in_channels: int,
        window_size: int = 64,
        *,
        features: int = 16,
        frame_size: int = 128,
        filter_size: int = 513,
        thresholds: int = 2,
        heads: int = 2,
        channel_dropout: float = 0.1,
        event_gain: bool = False,
        filter_rate: float = 1.0,
        fitted_start: bool = False,
        slow_context: bool = False,
    ) -> None:
        super().__init__()
        del window_size
        sizes = {
            "in_channels": in_channels,
            "features": features,
            "filter_size": filter_size,
            "thresholds": thresholds,
        }
        _check(sizes, heads, channel_dropout, filter_rate)
        self.in_channels, self.filter_size, self.heads = in_channels, filter_size, heads
        self._transformed: tuple[Tensor, int, int, Tensor] | None = None
        self.channel_dropout, self.fitted_start = channel_dropout, fitted_start
        self.relative_rates = {} if filter_rate == 1.0 else {"filters": filter_rate}
        self.transform = ShortTimeFourier(frame_size)
        rows = (self.transform.num_frequencies + 1) // 2
        self.stem = nn.Conv2d(2, features, kernel_size=(3, 5), stride=_COARSER, padding=(1, 2))
        self.embedding = nn.Parameter(torch.zeros(in_channels, features, rows, 1))
        self.alone = _residual(features)
        self.together = _residual(features)
        self.query_key_value = nn.Linear(_BANDS * features, 3 * features)
        self.project = nn.Linear(features, features)
        self.gate = nn.Conv2d(features, 1, kernel_size=1)
        self.gain = nn.Conv2d(features, 2, kernel_size=1)
        self.spread = nn.Conv2d(features, 1, kernel_size=1)
        for layer in (self.project, self.gate, self.gain, self.spread):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self.steepness = nn.Parameter(torch.tensor(_FIRST_STEEPNESS))
        self.threshold = nn.Parameter(torch.tensor(math.log(_FIRST_THRESHOLD)))
        steps = torch.linspace(0.4, 0.8, thresholds) if thresholds else torch.zeros(0)
        self.levels = nn.Parameter(steps.repeat(in_channels, 1))
        self.num_laws = _LAWS + thresholds + slow_context
        self.filters = nn.Parameter(1e-3 * torch.randn(in_channels, self.num_laws, filter_size))
        self.leak = nn.Parameter(torch.tensor(-2.0))
        self.event_gain = nn.Parameter(torch.zeros(in_channels, _FEATURES + 1)) if event_gain else None
        # by witness, and channel whose motion it follows
        self.place, self.direction = (
            nn.Parameter(torch.zeros(in_channels, in_channels)) if slow_context else None for _ in range(2)
        )
        # 1 for those whose slow motion is kept: of the others, a loud transient near 8 Hz would look like some
        self.register_buffer("slow_channels", torch.zeros(in_channels) if slow_context else None)

    def forward(self, witnesses: SeriesBatch, *, explained: bool = False) -> StrainSeries | Explanation:
        """Predict the whitened strain.

        Args:
            witnesses: Whitened witness series, (event, witness, time); a series of zeros is a missing witness.
            explained: Whether to return how sure the prediction is as well.

        Returns:
            Whitened strain that the witnesses explain, (event, 1, time); or, explained, an `Explanation`.
        """
        seen = self.look(witnesses)
        found = self._parts(seen)
        return self._explained(seen, found) if explained else self._sum(found, seen.num_samples)

    def foretell(self, witnesses: SeriesBatch) -> tuple[StrainSeries, Tensor]:
        """Strain and summary of an `Explanation`, without how sure the prediction is."""
        seen = self.look(witnesses)
        return self._sum(self._parts(seen), seen.num_samples), _summary(seen)

    def tell(self, seen: Seen) -> tuple[Explanation, SeriesBatch]:
        """What `forward` explains and what each witness adds (`contributions`), of what `look` has seen."""
        found = self._parts(seen)
        return self._explained(seen, found), self.transform.inverse(found.parts, seen.num_samples)

    def _sum(self, found: "_Parts", num_samples: int) -> StrainSeries:
        return self.transform.inverse(found.parts.sum(dim=1), num_samples)[:, None]

    def _explained(self, seen: Seen, found: "_Parts") -> Explanation:
        strain = self._sum(found, seen.num_samples)
        # what is left grows with what was predicted, witness by witness, and nothing is left of nothing
        # (neither the encoder nor the prediction shall change for the sake of it)
        spread = _enlarged(self.spread(found.hidden.detach()), found.parts.shape[-2:])
        share = functional.softplus(self.leak + spread[:, 0].float())
        variance = 1 + (share.unflatten(0, seen.present.shape) * _power(found.parts.detach())).sum(dim=1)
        return Explanation(strain, variance, _summary(seen))

    def summary(self, witnesses: SeriesBatch) -> Tensor:
        """The summary of an `Explanation` alone, (event, feature), which takes nothing but the encoder's first half."""
        return _summary(self.look(witnesses))

    def contributions(self, witnesses: SeriesBatch) -> SeriesBatch:
        """What each witness adds to the prediction, (event, witness, time); their sum is the predicted strain."""
        return self.transform.inverse(self._parts(self.look(witnesses)).parts, witnesses.shape[-1])

    def look(self, witnesses: SeriesBatch) -> Seen:
        """What follows from each witness alone: its short-time spectrum, and the encoder's features of it."""
        present = witnesses.abs().amax(dim=-1) > 0
        coefficients, power, smooth = self._spectra(witnesses)
        hidden = self.stem(torch.cat([torch.log(power + _FLOOR), smooth], dim=1))
        hidden = (hidden.unflatten(0, present.shape) + self.embedding).flatten(0, 1)
        alone = hidden + self.alone(hidden)
        return Seen(coefficients.unflatten(0, present.shape), smooth, alone, present, witnesses.shape[-1])

    def _parts(self, seen: Seen) -> "_Parts":
        """What each witness adds, with what the encoder saw."""
        coefficients, num_samples = seen.coefficients.flatten(0, 1), seen.num_samples
        hidden = self._together(seen.alone, seen.present)
        size = coefficients.shape[-2:]
        opened = _enlarged(self.gate(hidden), size)
        cleaned = self._gated(coefficients, seen.smooth, opened, num_samples).unflatten(0, seen.present.shape)
        cleaned = cleaned * seen.present[..., None] / _TYPICAL_PEAK
        cleaned, direction = self._in_context(cleaned, coefficients)
        arrived = self._filtered(self._laws(cleaned, direction))
        if self.event_gain is not None:
            arrived = arrived * self.whole_gain(cleaned)[..., None]
            if not self.training:  # where it would keep a filter from beginning to learn
                arrived = arrived * _believed(arrived)[..., None]
        gain = _enlarged(self.gain(hidden), size).float()
        parts = self.transform(arrived.flatten(0, 1)) * torch.complex(1 + gain[:, 0], gain[:, 1])
        return _Parts(parts.unflatten(0, seen.present.shape), hidden)

    @torch.no_grad()
    def law_series(self, witnesses: SeriesBatch) -> Tensor:
        """What the filters get before the encoder has learnt anything, (event, witness, law, time)."""
        return self._laws(*self._first_cleaned(witnesses))

    @torch.no_grad()
    def linear_series(self, witnesses: SeriesBatch) -> SeriesBatch:
        """The first of `law_series`, the linear law, (event, witness, time), without computing the others."""
        return self._first_cleaned(witnesses)[0]

    def _first_cleaned(self, witnesses: SeriesBatch) -> tuple[SeriesBatch, SeriesBatch | None]:
        """Cleaned series, with directions, before the encoder has learnt anything."""
        coefficients, _, smooth = self._spectra(witnesses)
        cleaned = self._gated(coefficients, smooth, 0.0, witnesses.shape[-1]).view_as(witnesses)
        return self._in_context(cleaned / _TYPICAL_PEAK, coefficients)

    @torch.no_grad()
    def slow_motion(self, witnesses: SeriesBatch) -> tuple[Tensor, Tensor]:
        """Where each channel is below the band, and by how much it moves in a frame, both (event, witness, frame)."""
        motion = _averaged(self.transform(witnesses.flatten(0, 1))).unflatten(0, witnesses.shape[:2])
        return motion, _speed(motion)

    def _in_context(self, cleaned: SeriesBatch, coefficients: Tensor) -> tuple[SeriesBatch, SeriesBatch | None]:
        """Cleaned series by where slow channels are, and -1 to 1 by where they go; `coefficients` are of the whole."""
        if self.place is None or self.direction is None:
            return cleaned, None
        motion = _averaged(coefficients).unflatten(0, cleaned.shape[:2]) * self.slow_channels[:, None]
        factor = (1 + self.place @ motion).clamp(-_LARGEST_FACTOR, _LARGEST_FACTOR)
        direction = torch.tanh(self.direction @ _speed(motion))
        return cleaned * self.by_sample(factor, cleaned.shape), self.by_sample(direction, cleaned.shape)

    def by_sample(self, frames: Tensor, shape: torch.Size) -> Tensor:
        """What is known of each frame, for each sample."""
        hop = self.transform.hop_size
        # the first frame is centred this long before the first sample
        early = self.transform.frame_size // 2 - hop
        flat = frames.reshape(-1, 1, frames.shape[-1])
        dense = functional.interpolate(flat, scale_factor=float(hop), mode="linear")
        first = early + hop // 2
        return dense[..., first : first + shape[-1]].reshape(shape)

    def _spectra(self, witnesses: SeriesBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients (event x witness, frequency, frame), their power, and its logarithm over a few pixels."""
        coefficients = self.transform(witnesses.flatten(0, 1))
        power = _power(coefficients)[:, None]
        return coefficients, power, torch.log(functional.avg_pool2d(power, 3, stride=1, padding=1) + _FLOOR)

    def _gated(self, coefficients: Tensor, smooth: Tensor, opened: Tensor | float, num_samples: int) -> Tensor:
        """What passes the gate, (event x witness, time); `opened` is what the encoder adds to it."""
        gate = torch.sigmoid(self.steepness * (smooth - self.threshold) + opened).float()
        return self.transform.inverse(coefficients * gate[:, 0], num_samples)

    def whole_gain(self, cleaned: Tensor) -> Tensor:
        """One gain an event and witness, (event, witness), from its cleaned series as a whole."""
        assert self.event_gain is not None  # noqa: S101
        found = (_transient(cleaned, self.transform.frame_size) * self.event_gain[:, :-1]).sum(dim=-1)
        return torch.exp(_LARGEST_GAIN * torch.tanh((found + self.event_gain[:, -1]) / _LARGEST_GAIN))

    def _together(self, alone: Tensor, present: Tensor) -> Tensor:
        """Features after the witnesses have looked at each other, from those of each alone; same shape."""
        events, channels = present.shape
        hidden = alone
        columns = hidden.shape[-1]
        bands = functional.adaptive_avg_pool2d(hidden, (_BANDS, columns)).flatten(1, 2)
        # (event, column, witness, feature x band): at each time the witnesses look at each other
        seen = bands.unflatten(0, (events, channels)).permute(0, 3, 1, 2)
        packed = self.query_key_value(seen).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        absent = torch.zeros_like(present, dtype=packed.dtype).masked_fill(~present, -1e4)
        mixed = functional.scaled_dot_product_attention(
            packed[0], packed[1], packed[2], attn_mask=absent[:, None, None, None, :]
        )
        told = self.project(mixed.transpose(2, 3).flatten(3)).permute(0, 2, 3, 1).flatten(0, 1)
        hidden = hidden + told[:, :, None, :]
        return hidden + self.together(hidden)

    def _laws(self, series: SeriesBatch, direction: SeriesBatch | None) -> Tensor:
        """All laws of each cleaned witness, (event, witness, law, time)."""
        above = series[:, :, None].abs() - self.levels.abs()[:, :, None]
        laws = [
            torch.stack([series, series.square(), series * series.abs()], dim=2),
            series[:, :, None].sign() * functional.relu(above),
        ]
        if direction is not None:
            laws.append((series * direction)[:, :, None])
        return torch.cat(laws, dim=2)

    def _filtered(self, laws: Tensor) -> Tensor:
        """The laws' series through their filters, added up; (event, witness, time)."""
        num_samples = laws.shape[-1]
        # long enough that nothing wraps around
        size = _fast_length(num_samples + self.filter_size)
        spectra, responses = torch.fft.rfft(laws, n=size), self._responses(size)
        # one law after the other: all products at once are more than the caches hold
        summed = spectra[:, :, 0] * responses[:, 0]
        for law in range(1, self.num_laws):
            summed = torch.addcmul(summed, spectra[:, :, law], responses[:, law])
        arrived = torch.fft.irfft(summed, n=size)
        return arrived[..., self.filter_size // 2 : self.filter_size // 2 + num_samples]

    def _responses(self, size: int) -> Tensor:
        """Transforms of the filters, (witness, law, frequency); kept for as long as nobody learns or moves them."""
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return torch.fft.rfft(self.filters, n=size)
        now = self.filters, self.filters._version, size
        kept = self._transformed
        if kept is None or kept[0] is not now[0] or kept[1:3] != now[1:]:
            self._transformed = kept = (*now, torch.fft.rfft(self.filters, n=size))
        return kept[3]

    def train(self, mode: bool = True) -> "CouplingNet":
        """As of any module; what was kept of the filters is forgotten where they may be learnt."""
        # not where it is told to evaluate once more, as each prediction does
        self._transformed = None if mode else self._transformed
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CouplingNet":
        # another device or precision: the version of a parameter does not tell of it
        self._transformed = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to other processes: without what can be computed anew."""
        return self.__dict__ | {"_transformed": None}


def _summary(seen: Seen) -> Tensor:
    """What the encoder saw of each witness, (event, feature)."""
    # of what a witness says for itself: the others, and which of them are missing, do not show in it
    # (as a pooling of everything, which takes an eighth of the time of amax where features lie side by side)
    loudest = functional.adaptive_max_pool2d(seen.alone.detach(), 1).flatten(1).unflatten(0, seen.present.shape)
    return torch.where(seen.present[..., None], loudest.float(), torch.nan).flatten(1)


def _averaged(coefficients: Tensor) -> Tensor:
    """Motion below the band by frame, (..., frame), from the short-time spectrum (..., frequency, frame)."""
    motion = coefficients[..., 0, :].real
    half = _SLOW_FRAMES // 2
    for before in (half, half - 1):  # an even average lies half a frame off; two of them, to either side, do not
        padded = functional.pad(motion, (before, _SLOW_FRAMES - 1 - before), mode="replicate")
        motion = functional.avg_pool1d(padded, _SLOW_FRAMES, stride=1)
    return motion


def _speed(motion: Tensor) -> Tensor:
    """Change by frame, (..., frame)."""
    padded = functional.pad(motion, (1, 1), mode="replicate")
    return 0.5 * (padded[..., 2:] - padded[..., :-2])


def _believed(arrived: Tensor) -> Tensor:
    """How much of what a witness explains is believed, 0..1, by its power in the event; (event, witness)."""
    power = torch.log(arrived.float().square().sum(dim=-1) + _FLOOR)
    return torch.sigmoid(_LEAST_STEEPNESS * (power - math.log(TOLD_SNR2)))


def _transient(series: Tensor, unit: int) -> Tensor:
    """Logarithms of root power, peak, duration (in `unit` samples) and bandwidth (rad a sample), (..., 4)."""
    squares = series.float().square()
    # what is far below the noise has no shape that means anything
    power = squares.sum(dim=-1) + _FLOOR
    time = torch.arange(series.shape[-1], device=series.device) / unit
    centre = (squares * time).sum(dim=-1, keepdim=True) / power[..., None]
    spread = (squares * (time - centre).square()).sum(dim=-1)
    slope = torch.diff(series.float(), dim=-1).square().sum(dim=-1)
    shape = [power, squares.amax(dim=-1) + _FLOOR, (spread + _FLOOR) / power, (slope + _FLOOR) / power]
    return 0.5 * torch.log(torch.stack(shape, dim=-1))


def _residual(features: int) -> nn.Sequential:
    last = nn.Conv2d(features, features, kernel_size=3, padding=1)
    start_at_zero(last)
    return nn.Sequential(nn.SiLU(), nn.Conv2d(features, features, kernel_size=3, padding=1), nn.SiLU(), last)


def _fast_length(size: int) -> int:
    """The next multiple of a large power of two: lengths with large prime factors take several times as long."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step


def _enlarged(maps: Tensor, size: torch.Size) -> Tensor:
    # two channels that lie side by side in memory would take several times as long
    return functional.interpolate(maps.contiguous(), size=(size[0], size[1]), mode="bilinear")


def _power(coefficients: Tensor) -> Tensor:
    # not a sum over two neighbours, which takes three times as long
    real, imaginary = torch.view_as_real(coefficients).unbind(dim=-1)
    return real.square() + imaginary.square()


def _check(sizes: Mapping[str, int], heads: int, channel_dropout: float, filter_rate: float) -> None:
    if min(sizes["in_channels"], sizes["features"]) < 1 or sizes["thresholds"] < 0 or sizes["filter_size"] % 2 == 0:
        raise ConfigurationError(
            "expected in_channels and features of at least 1, thresholds of at least 0 and an odd filter_size, got "
            f"{dict(sizes)}. Correct it in conf/model/."
        )
    features = sizes["features"]
    if heads < 1 or features % heads or not 0 <= channel_dropout < 1:
        raise ConfigurationError(
            f"expected heads that divide the {features} features and a channel_dropout from 0 to below 1, got {heads} "
            f"and {channel_dropout}. Correct it in conf/model/."
        )
    if not filter_rate > 0:
        raise ConfigurationError(f"expected a filter_rate above 0, got {filter_rate}. Correct it in conf/model/.")
