"""Time slides: how many spikes a witness shares with the reference by accident.

A slide moves the spikes of a witness along the analysed time of their event, and wraps around at its end. That leaves
the witness's rate and its bursts as they are and breaks the causal link. Exchanging events would not do: all are cut
about a trigger, so a true witness would seem to coincide with the glitch of any event.

Every event can be slid on its own, by any of `num_slides` evenly spaced fractions, no slide among them. If witness and
reference have nothing to do with each other, all num_slides^num_events arrangements are equally likely, and what was
observed is one of them; so the share of arrangements with at least as many shared spikes is a p-value, exact whatever
the rates, the bursts and the number of slides: P(p <= a) <= a (Hemerik and Goeman, TEST 27 (2018) 811,
doi:10.1007/s11749-017-0571-1; Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39,
doi:10.2202/1544-6115.1585). The arrangements need not be tried one by one: events are independent, so the law of the
sum follows from the law in each event, and probabilities far below 1 / num_slides are resolved. With fixed numbers of
spikes correlation and IoU both rise with the number of shared ones, so this is the p-value of either.

Events that overlap in time are not independent: each stretch of them (see `stretches`) is one event here. What else
makes the reference's events alike, a train of glitches for instance, does no harm, as nothing is assumed of it; a
witness must not remember from one event to the next where in it its spikes lay.

The same p-value the plain way, all events slid by one fraction, (1 + k) / (1 + n) with k of n slides at least as good
as no slide, cannot fall below 1 / (1 + n), but needs no independence of events. It is given beside the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glitchflow_plugin.signal.clusters import Spikes
from glitchflow_plugin.signal.coincidence import (
    TIME_ROUNDING,
    Tolerance,
    counted_from,
    largest_matching,
    near_in_frequency,
)
from glitchflow_plugin.signal.livetime import LiveTime
from glitchflow_plugin.signal.significance import sum_tail


@dataclass(frozen=True)
class Together:
    """What is looked at together, which changes nothing but the memory that it takes (some 100 MB).

    Attributes:
        pairs: Pairs of spikes times slides.
        slides: Slides of events and channels.
        channels: Channels whose tails are computed.
    """

    pairs: int = 1 << 22
    slides: int = 1 << 21
    channels: int = 64


AS_FITS = Together()


@dataclass(frozen=True, eq=False)
class SlideStatistics:
    """What time slides tell of each witness; shape (channel,).

    Attributes:
        p_value: Probability of at least so many shared spikes by accident, each event slid on its own.
        p_common: The same with one slide for all events, (1 + k) / (1 + n); NaN where no slide is far enough.
        chance: Mean number of shared spikes in slides by more than twice the tolerance; NaN where there are none.
    """

    p_value: np.ndarray
    p_common: np.ndarray
    chance: np.ndarray


def slide_statistics(
    reference: Spikes,
    witness: Spikes,
    live: LiveTime,
    tolerance: Tolerance,
    *,
    num_channels: int,
    num_slides: int,
    together: Together = AS_FITS,
) -> SlideStatistics:
    """Compare the shared spikes of each witness with those of its time slides.

    Args:
        reference: Spikes of the reference within the live time.
        witness: Spikes of the witnesses within the live time, in events where witness and reference are valid.
        live: The analysed time.
        tolerance: Largest distance of a pair.
        num_channels: Number of witnesses.
        num_slides: Slides of each event, no slide among them.
        together: What is looked at together.

    Returns:
        Statistics by channel; a p-value of 1 where nothing is shared.
    """
    common = np.zeros((num_channels, num_slides), dtype=np.int64)
    cells, counts = [], []
    for channel, shared in _shared_in_slides(reference, witness, live, tolerance, num_slides, together=together):
        starts = np.flatnonzero(np.diff(channel, prepend=-1))
        common[channel[starts]] += np.add.reduceat(shared, starts, axis=0)
        cells.append(channel)
        counts.append(_slides_by_number(shared))
    observed = common[:, 0]
    far = _far_slides(live, tolerance, num_slides)
    slid = common[:, far]
    as_good = (slid >= observed[:, None]).sum(axis=1)
    return SlideStatistics(
        p_value=_tails(observed, cells, counts, num_slides, together.channels),
        p_common=(1 + as_good) / (1 + far.sum()) if far.any() else np.full(num_channels, np.nan),
        chance=slid.mean(axis=1) if far.any() else np.full(num_channels, np.nan),
    )


def _far_slides(live: LiveTime, tolerance: Tolerance, num_slides: int) -> np.ndarray:
    """Slides that part true coincidences in every event, bool, shape (slide,)."""
    spans = live.spans[:, 1] - live.spans[:, 0]
    fraction = np.arange(num_slides) / num_slides
    shortest = spans.min() if len(spans) else 0.0
    return np.minimum(fraction, 1 - fraction) * shortest > 2 * tolerance.time


def _shared_in_slides(
    reference: Spikes, witness: Spikes, live: LiveTime, tolerance: Tolerance, num_slides: int, *, together: Together
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shared spikes of every slide of every event and channel in which both have spikes.

    Yields:
        Blocks of channel, shape (cell,), and shared spikes, shape (cell, slide); a cell is one event of one channel.
    """
    by_event = np.argsort(reference.event, kind="stable")
    reference = reference.select(by_event)
    events = np.arange(len(live.spans))
    begin, end = np.searchsorted(reference.event, events, "left"), np.searchsorted(reference.event, events, "right")
    witness = witness.select(end[witness.event] > begin[witness.event])
    witness = witness.select(np.lexsort((witness.event, witness.channel)))
    if not len(witness):
        return
    first, last = live.limits(witness.event, witness.frequency)
    low, high = live.position(witness.event, first), live.position(witness.event, last)
    place = live.position(witness.event, witness.time)
    opens, closes = live.windows(reference, tolerance.time + TIME_ROUNDING)

    starts = np.flatnonzero(np.diff(witness.channel, prepend=-1) | np.diff(witness.event, prepend=-1))
    bounds = np.append(starts, len(witness))
    number = end[witness.event] - begin[witness.event]
    for part in _blocks(np.add.reduceat(number, starts), num_slides, together):
        rows = np.arange(bounds[part.start], bounds[part.stop])
        right = np.repeat(rows, number[rows])
        left = counted_from(begin[witness.event[rows]], number[rows])
        near = near_in_frequency(reference.frequency[left], witness.frequency[right], tolerance)
        left, right = left[near], right[near]
        cell = np.searchsorted(starts, right, "right") - 1 - part.start
        # In which slides does a spike lie in the window? It wraps around within its own limits.
        length = high[right] - low[right]
        step = num_slides / np.where(length > 0, length, np.inf)
        opening = np.maximum(opens[left], low[right])
        closing = np.minimum(closes[left], high[right] - TIME_ROUNDING)
        earliest = np.ceil((opening - place[right]) * step).astype(np.int64)
        latest = np.floor((closing - place[right]) * step).astype(np.int64)
        hits = np.where((opening <= closing) & (length > 0), np.clip(latest - earliest + 1, 0, num_slides), 0)
        slide = counted_from(earliest, hits) % num_slides
        group = np.repeat(cell, hits) * num_slides + slide
        shared = _matched(group, np.repeat(left, hits), np.repeat(right, hits), (part.stop - part.start) * num_slides)
        yield witness.channel[starts[part]], shared.reshape(-1, num_slides)


def _blocks(pairs: np.ndarray, num_slides: int, together: Together) -> list[slice]:
    """Consecutive cells that are worked on together, given the pairs in each."""
    most = max(1, together.slides // num_slides)
    cuts, start, total = [0], 0, 0
    for cell, number in enumerate(pairs.tolist()):
        if cell > start and (total + number > together.pairs // num_slides or cell - start >= most):
            cuts.append(cell)
            start, total = cell, 0
        total += number
    return [slice(one, other) for one, other in zip(cuts, [*cuts[1:], len(pairs)], strict=True)]


def _matched(group: np.ndarray, left: np.ndarray, right: np.ndarray, num_groups: int) -> np.ndarray:
    """As `largest_matching`, which is needed only where a group has more than one pair."""
    pairs = np.bincount(group, minlength=num_groups)
    shared = np.minimum(pairs, 1)
    several = pairs[group] > 1
    if several.any():
        groups, place = np.unique(group[several], return_inverse=True)
        shared[groups] = largest_matching(place, left[several], right[several], len(groups))
    return shared


def _tails(
    observed: np.ndarray, cells: list[np.ndarray], counts: list[np.ndarray], num_slides: int, at_once: int
) -> np.ndarray:
    """Probability of at least the observed number, each event slid on its own, shape (channel,)."""
    p_values = np.ones(len(observed))
    if not cells:
        return p_values
    channel = np.concatenate(cells)
    most = max(block.shape[1] for block in counts) - 1
    laws = np.concatenate([np.pad(block, ((0, 0), (0, most + 1 - block.shape[1]))) for block in counts]) / num_slides
    moving = (laws[:, 0] < 1) & (observed[channel] > 0)
    channel, laws = channel[moving], laws[moving]
    first = np.searchsorted(channel, np.arange(len(observed)), "left")
    number = np.bincount(channel, minlength=len(observed))
    # Channels with like numbers together, so that little is computed in vain.
    asked = np.flatnonzero(observed > 0)
    asked = asked[np.argsort(observed[asked], kind="stable")]
    for start in range(0, len(asked), at_once):
        some = asked[start : start + at_once]
        padded = np.zeros((len(some), number[some].max(), most + 1))
        padded[:, :, 0] = 1.0
        row = np.repeat(np.arange(len(some)), number[some])
        padded[row, counted_from(np.zeros(len(some), np.int64), number[some])] = laws[
            counted_from(first[some], number[some])
        ]
        p_values[some] = sum_tail(observed[some], padded)
    return np.clip(p_values, np.finfo(float).tiny, 1.0)


def _slides_by_number(shared: np.ndarray) -> np.ndarray:
    """Number of slides with 0, 1, ... shared spikes, shape (cell, value)."""
    values = int(shared.max()) + 1
    cell = np.arange(len(shared))[:, None]
    counts = np.bincount((cell * values + shared).ravel(), minlength=len(shared) * values)
    return counts.reshape(len(shared), values).astype(np.int32)
