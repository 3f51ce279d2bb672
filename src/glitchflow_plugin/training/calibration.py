"""Put a waveform twin's word about itself right, on validation events: variance by pixel, and what is new to it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.models.coupling import Explanation
from glitchflow_plugin.models.twins import PROBABILITIES, WaveformTwin, gaussian_limits
from glitchflow_plugin.types.tensors import host

_Batches = Iterable[tuple[Tensor, Tensor]]
OfEvents = Callable[[Tensor, Tensor, Tensor], None]
"""Is handed strain (event, 1, time), the prediction (event, 1, time) and what each witness adds (event, part, time)."""

#: Summaries of few events do not span all directions: their covariance is drawn towards its diagonal by this share.
_SHRINKAGE = 0.1
#: Pixels of an event that take part, at most: without and with a prediction.
_QUIET_PIXELS, _LOUD_PIXELS = 500, 1000
_EDGE_FRAMES = 4
#: Share of the loudest row's median power below which a row lies outside the band.
_LEAST_LEVEL = 0.1
#: Edges of the expected power, in units of the noise's, between which limits are fitted apart.
_LOUDNESS = (1.5, 2.0, 4.0, 8.0, 16.0, 64.0)
#: Pixels of a loudness below which the limits of the next quieter ones are taken, or those of a Gaussian.
_FEWEST_PIXELS = 200
#: Numbers of missing witnesses that are calibrated, at most.
_LEVELS = 8
#: Smallest eigenvalue of a covariance of pairs that were not all seen together, relative to the largest.
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Coverage:
    """How often what is left lies within what was announced.

    Attributes:
        probability: Announced.
        share: Found, over all pixels.
        share_loud: Found, over the pixels in which a glitch was predicted.
        num_loud: Number of those.
        edges: Expected power between the bins of loudness, in units of the noise's.
        by_loudness: Found, by bin; NaN where there is no pixel.
        num_by_loudness: Number of pixels, by bin.
    """

    probability: tuple[float, ...]
    share: tuple[float, ...]
    share_loud: tuple[float, ...]
    num_loud: int
    edges: tuple[float, ...] = ()
    by_loudness: tuple[tuple[float, ...], ...] = ()
    num_by_loudness: tuple[int, ...] = ()


def calibrate(
    twin: WaveformTwin,
    training: _Batches,
    validation: _Batches,
    groups: Int[np.ndarray, " event"] | None = None,
    also: OfEvents | None = None,
) -> None:
    """Fit the calibration of a twin, in place; both parts are gone through once.

    The mean power that is left of a pixel is a + b (v - 1), v being the network's announcement; a and b are those of
    the largest likelihood of a complex Gaussian on validation events. Of a predicted glitch, a little is left as a rule
    and much at times, more than a Gaussian allows: the limits for given probabilities are quantiles of what was left
    there, in units of its expected power (split conformal prediction, Vovk et al. 2005, doi:10.1007/b106715), apart by
    how much is expected (Mondrian conformal prediction, ibid. chapter 4.5): of what is loud less is left, mostly, than
    the variance says, and of what is faint more. Where witnesses are missing, more is left that was not announced: all
    this is fitted for several numbers of missing witnesses, those of the validation events being left out at random.

    Events of one group are no independent cases: each weighs one over the size of its group, and where groups differ
    more than accident makes them, quantiles are taken as of so many independent cases as explain that.

    New is what lies far from the training events' summaries, in the metric of their covariance (Mahalanobis; Lee et al.
    2018, arXiv:1807.03888); how far is usual is known from validation events, apart for those in which something is
    predicted.

    Args:
        twin: Its network must say how sure it is.
        training: Batches of witnesses and strain of training events.
        validation: The same of validation events.
        groups: Number of the group of each validation event, in their order; None: each is a group of its own.
        also: Sees the validation events, on the device of the twin, with what it says of them.

    Raises:
        NoEventsError: There is no event.
    """
    device = twin.variance_noise.device
    with torch.no_grad():
        seen = [twin.summary(witnesses.to(device)).double() for witnesses, _ in training]
    if not seen:
        raise NoEventsError("expected training events to calibrate on, got none.")
    mean, covariance = _moments(torch.cat(seen))
    twin.keep(summary_mean=mean, summary_covariance=covariance)
    summaries, powers, levels = _gone_through(twin, validation, also)
    groups = np.arange(len(summaries)) if groups is None else np.unique(groups, return_inverse=True)[1]
    twin.keep(summary_references=summaries, summary_groups=torch.from_numpy(groups), summary_powers=powers)
    fits = [(1.0, 1.0, gaussian_limits().repeat(len(_LOUDNESS) + 1, 1))]
    for level in levels:
        observed = level.observed(groups)
        fits.append(fits[-1] if observed is None else _fit(observed))
    noise, factor, limits = zip(*fits[1:], strict=True)
    twin.keep(
        levels=torch.tensor([level.missing for level in levels]),
        loudness=torch.tensor(_LOUDNESS),
        variance_noise=torch.tensor(noise),
        variance_factor=torch.tensor(factor),
        limits=torch.stack(limits),
    )


@torch.no_grad()
def _gone_through(
    twin: WaveformTwin, validation: _Batches, also: OfEvents | None
) -> tuple[Tensor, Tensor, list["_Drawn"]]:
    """Summaries and powers of the validation events, and pixels for each number of missing witnesses."""
    device, references, levels = twin.variance_noise.device, [], []
    for witnesses, strain in validation:
        shown, measured = witnesses.to(device), strain.to(device)
        levels = levels or [_Drawn(number) for number in _levels(shown.shape[1])]
        drawn = [(level, *level.choose(shown)) for level in levels]
        drawn = [(level, usable, keep) for level, usable, keep in drawn if len(keep)]
        whole = torch.ones(shown.shape[:2], dtype=torch.bool, device=device)
        less = [(usable, keep) for level, usable, keep in drawn if level.missing]
        found = twin.subsets(shown, [(whole[:, 0], whole), *less])
        said, parts = next(found)
        references.append((said.summary.double(), parts.square().sum(dim=-1)))
        if also is not None:
            also(measured, said.strain, parts)
        for level, usable, _ in drawn:
            # of events that lack nothing all was said at once
            without = next(found)[0] if level.missing else Explanation(*(each[usable] for each in said))
            level.add(measured[usable], without, twin)
    if not references:
        raise NoEventsError("expected validation events to calibrate on, got none.")
    summaries, powers = (torch.cat(each) for each in zip(*references, strict=True))
    return summaries, powers, levels


def _levels(channels: int) -> list[int]:
    """Numbers of missing witnesses that are calibrated, of so many."""
    return np.unique(np.linspace(0, channels, min(_LEVELS, channels + 1)).round()).astype(int).tolist()


def _moments(summaries: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of features of which some are NaN, from the events that have both; positive definite."""
    known = (~torch.isnan(summaries)).double()
    mean = torch.nan_to_num(summaries.nanmean(dim=0))
    centred = torch.nan_to_num(summaries - mean)
    covariance = centred.T @ centred / (known.T @ known - 1).clamp(min=1)
    diagonal = covariance.diagonal().clamp(min=1e-6)
    covariance = (1 - _SHRINKAGE) * covariance + torch.diag(_SHRINKAGE * diagonal + 1e-6)
    values, axes = torch.linalg.eigh(covariance)
    return mean, (axes * values.clamp(min=_LEAST_VARIANCE * float(values[-1]))) @ axes.T


def _fit(seen: "_Observed") -> tuple[float, float, Tensor]:
    """Noise, factor and limits, (loudness, probability), of what was left with one number of missing witnesses."""
    noise, factor = _most_likely(seen)
    expected = noise + factor * (seen.announced - 1)
    loudness = torch.bucketize(expected / noise, torch.tensor(_LOUDNESS, dtype=expected.dtype))
    limits = [gaussian_limits()]
    for row in range(len(_LOUDNESS) + 1):
        chosen = loudness == row
        if int(chosen.sum()) < _FEWEST_PIXELS:
            limits.append(limits[-1])
            continue
        ratios = host(seen.power[chosen] / expected[chosen])
        found = upper_quantiles(ratios, host(seen.weight[chosen]), host(seen.group[chosen]))
        limits.append(torch.from_numpy(found).to(limits[0]))
    return noise, factor, torch.stack(limits[1:])


def upper_quantiles(values: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Limits below which a value of another group lies with each of `PROBABILITIES`, (probability,).

    Of n independent values, the share p (n + 1) / n lies below the limit that a further one keeps with probability p
    (split conformal prediction). Pixels of a group are not independent: n is the number of values whose share below the
    limit would vary as much as that of the groups does. Where even the largest value is not enough, it is the limit.
    """
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    wanted = np.array(PROBABILITIES)
    places = np.searchsorted(reached, wanted).clip(max=len(order) - 1)
    total = np.bincount(groups, weights)
    for row, (limit, share) in enumerate(zip(values[order][places], PROBABILITIES, strict=True)):
        below = np.bincount(groups, weights * (values <= limit), minlength=len(total))
        varies = np.square(below - share * total).sum() / total.sum() ** 2
        wanted[row] += varies / (1 - share)  # p / n, since varies = p (1 - p) / n
    return values[order][np.searchsorted(reached, wanted).clip(max=len(order) - 1)]


def coverage(twin: WaveformTwin, batches: _Batches, missing: int = 0) -> Coverage:
    """Compare what is left with the calibrated variance, on events that did not take part in the calibration.

    Args:
        twin: Calibrated.
        batches: Witnesses and strain.
        missing: Witnesses of each event that are left out, at random; those that it lacks count.

    Raises:
        NoEventsError: All events lack more witnesses than that.
    """
    seen = observed(twin, batches, missing)
    if seen is None:
        raise NoEventsError(f"expected events that lack at most {missing} witnesses, got none.")
    level = int(twin.level_of(torch.tensor(missing)))
    # every pixel as an event of its own, of one level
    expected = float(twin.variance_noise[level]) + float(twin.variance_factor[level]) * (seen.announced - 1)
    device = twin.limits.device
    loud = twin.is_loud(expected.to(device), level).cpu()
    inside = (seen.power[:, None] < twin.residual_limits(expected.to(device), level).cpu()).double()

    def shares(weight: Tensor) -> tuple[float, ...]:
        return tuple(((inside * weight[:, None]).sum(dim=0) / weight.sum()).tolist())

    loudness = torch.bucketize(expected / float(twin.variance_noise[level]), torch.tensor(_LOUDNESS).to(expected))
    weights = [seen.weight * (loudness == row) for row in range(len(_LOUDNESS) + 1)]
    return Coverage(
        PROBABILITIES,
        shares(seen.weight),
        shares(seen.weight * loud),
        round(float(seen.weight[loud].sum())),
        _LOUDNESS,
        tuple(map(shares, weights)),
        tuple(round(float(weight.sum())) for weight in weights),
    )


def leave_out(witnesses: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Let witnesses be missing, drawn for each event.

    Args:
        witnesses: Series, (event, witness, time); zeros where one is missing.
        number: How many are to be missing in each event, those included that are.
        generator: Generator of the draws, on the CPU.

    Returns:
        Series of the events that lack at most so many, and which these are, bool, (event,).
    """
    usable, keep = _choose(witnesses, number, generator)
    return witnesses[usable] * keep[..., None], usable


def _choose(witnesses: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Events that lack at most so many witnesses, (event,), and which of theirs stay, (chosen event, witness)."""
    missing = witnesses.abs().amax(dim=-1).cpu() == 0
    usable = missing.sum(dim=1) <= number
    drawn = torch.rand(missing.shape, generator=generator).masked_fill(missing, -1.0)
    keep = torch.ones_like(missing).scatter_(1, drawn.argsort(dim=1)[:, :number], value=False)[usable]
    return usable.to(witnesses.device), keep.to(witnesses.device)


@dataclass(frozen=True)
class _Observed:
    """Pixels drawn from the events, on the CPU: all of an event would be too many to keep.

    Attributes:
        power: Power that is left, (pixel,).
        announced: The network's own variance, (pixel,).
        weight: Pixels for which each stands, over the number of events in its group, (pixel,).
        group: Group of its event, (pixel,).
    """

    power: Tensor
    announced: Tensor
    weight: Tensor
    group: Tensor


class _Drawn:
    """Loud and quiet pixels of events, for each a bounded number, with some of the witnesses left out at random.

    Args:
        missing: How many witnesses are to be missing in each event.
    """

    def __init__(self, missing: int) -> None:
        self.missing = missing
        self._generator = torch.Generator().manual_seed(0)
        self._medians: list[Tensor] = []
        self._parts: list[tuple[Tensor, ...]] = []
        self._events: list[Tensor] = []
        self._num_events = 0
        self._own = torch.arange(0)

    def choose(self, witnesses: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the next events take part, (event,), and which of their witnesses stay, (chosen event, witness)."""
        usable, keep = _choose(witnesses, self.missing, self._generator)
        self._own = self._num_events + torch.nonzero(usable.cpu())[:, 0]
        self._num_events += len(usable)
        return usable, keep

    def add(self, strain: Tensor, said: Explanation, twin: WaveformTwin) -> None:
        """Draw pixels of the events that were chosen last.

        Args:
            strain: Measured, (chosen event, 1, time).
            said: What the twin's network says of them.
            twin: Has the short-time spectrum.
        """
        network: Any = twin.network
        left = network.transform((strain - said.strain)[:, 0])
        power = torch.view_as_real(left).square().sum(dim=-1).cpu().double()
        announced = said.variance.cpu().double()
        self._events.append(self._own)
        self._medians.append(power.median(dim=2).values)
        rows = torch.arange(power.shape[1])[:, None].expand(power.shape[1:])
        # the first and last frames reach past the ends of the series
        inner = torch.zeros(power.shape[1:], dtype=torch.bool)
        inner[:, _EDGE_FRAMES:-_EDGE_FRAMES] = True
        for event, own_power, own_announced in zip(self._own, power, announced, strict=True):
            is_loud = own_announced > 1.1
            for chosen, most in ((~is_loud & inner, _QUIET_PIXELS), (is_loud & inner, _LOUD_PIXELS)):
                places = torch.nonzero(chosen.flatten())[:, 0]
                kept = places[torch.randperm(len(places), generator=self._generator)[:most]]
                weight = torch.full((len(kept),), len(places) / max(1, len(kept)), dtype=torch.float64)
                pixels = (own_power.flatten()[kept], own_announced.flatten()[kept], rows.flatten()[kept])
                self._parts.append((*pixels, weight, event.expand(len(kept))))

    def observed(self, groups: np.ndarray | None = None) -> _Observed | None:
        """The pixels within the band; None if no event could be used."""
        if not self._parts:
            return None
        power, announced, rows, weight, event = (torch.cat(each) for each in zip(*self._parts, strict=True))
        group = torch.arange(self._num_events) if groups is None else torch.from_numpy(np.asarray(groups))
        weight = weight / torch.bincount(group[torch.cat(self._events)])[group[event]]
        # rows outside the band of the whitened strain hold next to nothing
        level = torch.cat(self._medians).median(dim=0).values
        band = (level > _LEAST_LEVEL * level.max())[rows]
        return _Observed(power[band], announced[band], weight[band], group[event][band])


@torch.no_grad()
def observed(twin: WaveformTwin, batches: _Batches, missing: int, groups: np.ndarray | None = None) -> _Observed | None:
    """Pixels of events that lack so many witnesses; None if no event can be used."""
    drawn = _Drawn(missing)
    for witnesses, strain in batches:
        shown = witnesses.to(twin.variance_noise.device)
        usable, keep = drawn.choose(shown)
        for said, _ in twin.subsets(shown, [(usable, keep)] if len(keep) else []):
            drawn.add(strain.to(shown.device)[usable], said, twin)
    return drawn.observed(groups)


def _most_likely(seen: _Observed) -> tuple[float, float]:
    """Noise a and factor b that maximise the likelihood of exponential powers with mean a + b (v - 1)."""
    power, excess, weight = seen.power, seen.announced - 1, seen.weight
    logs = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logs], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        mean = logs[0].exp() + logs[1].exp() * excess
        loss = (weight * (mean.log() + power / mean)).sum() / weight.sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]  # pyright: ignore
    noise, factor = logs.detach().exp().tolist()
    return float(noise), float(factor)
