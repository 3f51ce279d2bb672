"""Filters with which a coupling network begins: least squares of those laws that hold for events left out.

Given gate and laws, the prediction of `models.coupling` is linear in its filters, so the best ones follow in closed
form. Which laws a witness needs decides cross-validation over groups of events: a wrong law fits the waveforms that it
was fitted to, and grows without bounds on louder ones.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glitchflow_plugin.models.wiener import WienerSums

FOLDS = 5
"""Parts of the training events, whole groups each, of which one after the other is left out."""

_RIDGE = 0.1
#: Lengths of responses that are tried, as a share of half the filters.
_SPANS = (1.0, 0.5)
#: Power of a channel that is never heard, relative to the loudest.
_SILENT = 1e-12
CONFIDENCE = 1.0
"""Standard errors by which one more law must be better, over the folds."""

_ROUNDS = 2


def folds_of(groups: Int[np.ndarray, " event"], seed: int = 0) -> Int[np.ndarray, " event"]:
    """Fold of each event; events of one group are in one fold."""
    _, number = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(number.max(initial=-1)) + 1)
    return order[number] % FOLDS


def sums_by_fold(
    batches: Iterable[tuple[Tensor, Tensor]], folds: Int[np.ndarray, " event"], filter_size: int
) -> list[WienerSums]:
    """Cross spectra of each fold.

    Args:
        batches: Series of all laws (event, witness, law, time) and strain (event, 1, time), both as the loss weights
            them, in the order of `folds`.
        folds: Fold of each event.
        filter_size: Taps of each filter.
    """
    sums: list[WienerSums] = []
    first = 0
    for series, strain in batches:
        channels = series.flatten(1, 2)
        sums = sums or [WienerSums(channels.shape[1], filter_size) for _ in range(FOLDS)]
        own = folds[first : first + len(strain)]
        for fold in np.unique(own):
            chosen = torch.from_numpy(own == fold)
            sums[fold].add(channels[chosen], strain[chosen])
        first += len(strain)
    return sums


def choose_span(sums: Sequence[WienerSums], num_laws: int) -> int | None:
    """How long responses are best taken, in samples, by what linear laws gain on events left out.

    They are limited only where filters without a limit lose by more than a standard error: few events.

    Args:
        sums: Cross spectra by fold, of all laws of all witnesses.
        num_laws: Laws of a witness.

    Returns:
        The length; None: no limit.
    """
    linear = torch.arange(0, sums[0].in_channels, num_laws)
    known = [each.only(linear) for each in sums if each.count]
    if len(known) < FOLDS:
        return None
    half = sums[0].filter_size // 2
    free = held_out_gains(known)
    if free.mean() > -CONFIDENCE * free.std() / len(known) ** 0.5:
        return None
    gains = {round(share * half): held_out_gains(known, round(share * half)) for share in _SPANS}
    best = max(gains, key=lambda span: float(gains[span].mean()))
    return best if gains[best].mean() > free.mean() else None


def choose_laws(
    sums: Sequence[WienerSums], num_laws: int, context: Sequence[int] = (), span: int | None = None
) -> Bool[Tensor, "witness law"]:
    """Laws of each witness: the first one, and what is better on events left out, one witness after the other.

    Args:
        sums: Cross spectra by fold, of all laws of all witnesses.
        num_laws: Laws of a witness.
        context: Witnesses that need not couple themselves, and have no law unless it is better.
        span: Length of responses, from `choose_span`.
    """
    known = [each for each in sums if each.count]
    chosen = torch.zeros(sums[0].in_channels // num_laws, num_laws, dtype=torch.bool)
    chosen[:, 0] = True
    if len(context) < len(chosen):
        chosen[list(context)] = False
    always = chosen.clone()
    if len(known) < FOLDS:
        return chosen
    best = _gains(known, chosen, span)
    heard = torch.stack([each.power for each in known]).sum(dim=0).unflatten(0, chosen.shape) > 0
    for _ in range(_ROUNDS):
        before = chosen.clone()
        for witness in range(len(chosen)):
            for law in torch.nonzero(heard[witness] & ~always[witness])[:, 0].tolist():
                tried = chosen.clone()
                tried[witness] = always[witness]
                tried[witness, law] = True
                found = _gains(known, tried, span)
                better = found - best
                if better.mean() > CONFIDENCE * better.std() / len(better) ** 0.5:
                    chosen, best = tried, found
        if torch.equal(chosen, before):
            break
    return chosen


def fit_filters(
    sums: WienerSums | Sequence[WienerSums], chosen: Bool[Tensor, "witness law"], span: int | None = None
) -> Float[Tensor, "witness law tap"]:
    """The filters of least loss of the chosen laws, with a length of responses from `choose_span`; 0 of the others."""
    parts = [sums] if isinstance(sums, WienerSums) else sums
    channels = torch.nonzero(chosen.flatten())[:, 0]
    filters = torch.zeros(chosen.numel(), parts[0].filter_size)
    # before they are added: the sums of all laws are large
    filters[channels] = _solved(reduce(add, [each.only(channels) for each in parts]), span)
    return filters.unflatten(0, chosen.shape)


def laws_within(num_witnesses: int, num_laws: int, filter_size: int, limit_mib: float) -> int:
    """Laws that a witness can be tried with where cross spectra may take so many MiB: all, the linear one or none."""
    fitting = (laws for laws in (num_laws, 1) if _needed(num_witnesses * laws, filter_size) <= limit_mib)
    return next(fitting, 0)


def _needed(channels: int, filter_size: int) -> float:
    """Memory of the sums of all folds while a batch is added, MiB."""
    return (FOLDS + 1) * WienerSums.mebibytes(channels, filter_size)


def _solved(sums: WienerSums, span: int | None = None) -> Float[Tensor, "channel tap"]:
    """Filters, with a ridge relative to each channel's own power: laws differ in their units."""
    power = sums.power
    sums = sums if span is None else sums.smoothed(span)
    factors = power.clamp(min=_SILENT * float(power.max()) + _SILENT).rsqrt()
    return (sums.scaled(factors).solve(_RIDGE).filters.detach() * factors[:, None]).float()


def _gains(sums: Sequence[WienerSums], chosen: Bool[Tensor, "witness law"], span: int | None) -> Float[Tensor, " fold"]:
    channels = torch.nonzero(chosen.flatten())[:, 0]
    return held_out_gains([each.only(channels) for each in sums], span)


def held_out_gains(parts: Sequence[WienerSums], span: int | None = None) -> Float[Tensor, " fold"]:
    """What filters gain on each fold that were fitted to the others, with responses of a length from `choose_span`."""
    rest = [reduce(add, [other for other in parts if other is not part]) for part in parts]
    return torch.tensor([part.gain(_solved(others, span)) for part, others in zip(parts, rest, strict=True)])
