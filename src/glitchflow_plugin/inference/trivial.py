"""Entrants that know nothing of the witnesses: what any figure has to be compared with.

All three say the same of every event, and are means of the measured maps: over everything (constant), over events and
frequencies at each time (clock: it knows when glitches usually come), over events (mean map). They are fitted to the
very events that are judged, which no twin may be: no training data are needed, and they reach rather too much.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glitchflow_plugin.data.records import SpectrogramBatch
from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.inference.cases import CaseStatistics, Labels, map_statistics
from glitchflow_plugin.inference.clean import clean_maps
from glitchflow_plugin.inference.predict import Prediction
from glitchflow_plugin.verdict import GLITCH_THRESHOLD

CONSTANT, CLOCK, MEAN_MAP = TRIVIAL = ("constant", "clock", "mean map")
"""Names of the trivial entrants."""


@dataclass(frozen=True, eq=False)
class MeasuredMaps:
    """Some of the events that are judged.

    Attributes:
        maps: Measured energies, SNR².
        events: Their ids or numbers.
        groups: Their groups; that of its event each if None.
    """

    maps: Float[Tensor, "event frequency time"]
    events: Labels
    groups: Labels | None = None


@dataclass(frozen=True, eq=False)
class FixedPredictor:
    """A predictor that says the same of all events.

    Attributes:
        map: What it says, SNR².
    """

    map: Float[Tensor, "frequency time"]

    def __call__(self, batch: SpectrogramBatch) -> Prediction:
        """Predict; the target is the first channel of the batch."""
        measured = torch.from_numpy(batch.maps[:, 0])
        predicted = self.map.to(measured).expand_as(measured)
        return Prediction(measured, predicted, clean_maps(measured, predicted))


def trivial_maps(
    measured: Iterable[Float[Tensor, "event frequency time"]], inside: Bool[np.ndarray, "frequency time"] | None = None
) -> dict[str, Float[Tensor, "frequency time"]]:
    """What each trivial entrant predicts.

    Args:
        measured: Measured maps, some events at a time, SNR².
        inside: Pixels that are judged; all if None.

    Returns:
        Map by name, SNR², float64.

    Raises:
        NoEventsError: There is no event.
    """
    total: Tensor | float = 0.0
    count = 0
    for maps in measured:
        total, count = total + maps.double().sum(dim=0), count + len(maps)
    if not isinstance(total, Tensor) or not count:
        msg = "at least one measured map expected, got none; check that the data set has events with a valid target."
        raise NoEventsError(msg)
    mean = total / count
    judged = torch.ones_like(mean) if inside is None else torch.from_numpy(np.array(inside)).to(mean)
    judged_in = judged.sum(dim=0).clamp(min=1)
    return {
        CONSTANT: ((mean * judged).sum() / judged.sum().clamp(min=1)).expand_as(mean),
        CLOCK: ((mean * judged).sum(dim=0) / judged_in).expand_as(mean),
        MEAN_MAP: mean,
    }


def trivial_statistics(
    batches: Callable[[], Iterable[MeasuredMaps]],
    glitch_threshold: float = GLITCH_THRESHOLD,
    *,
    inside: Bool[np.ndarray, "frequency time"] | None = None,
) -> Mapping[str, CaseStatistics]:
    """Judge the trivial entrants on measured maps, which are read twice, some events at a time.

    Args:
        batches: Gives the events to judge from the first on, each time it is called.
        glitch_threshold: SNR² above which a pixel is loud.
        inside: Pixels that are judged; all if None.

    Returns:
        Statistics by name, one row an event.

    Raises:
        NoEventsError: There is no event.
    """
    fixed = trivial_maps((batch.maps for batch in batches()), inside)
    parts: dict[str, list[CaseStatistics]] = {name: [] for name in fixed}
    for batch in batches():
        for name, said in fixed.items():
            predicted = said.to(batch.maps).expand_as(batch.maps)
            parts[name].append(
                map_statistics(
                    batch.maps, predicted, batch.events, glitch_threshold, inside=inside, groups=batch.groups
                )
            )
    return {name: CaseStatistics.concatenate(found) for name, found in parts.items()}
