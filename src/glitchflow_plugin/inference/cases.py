"""What scoring keeps of predicted and measured maps: one row of a few numbers a case.

A *case* is the whole map of an event, or, in what training logs by epoch, a window of one. Only pixels that are judged
count (`inside`). All energies are in SNR². Whether a case holds a glitch is told by its largest measured energy
(:mod:`glitchflow_plugin.verdict`, as all that is said of a single case). The *time of the glitch* is that of the
columns with a pixel above the glitch threshold (without one: the loudest column), widened by `MARGIN` columns on either
side: the tile of a low frequency is wider than a column, and a column's maximum wanders with the noise.

What the numbers are for, :mod:`glitchflow_plugin.inference.metrics` says.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError, DataError, NoEventsError
from glitchflow_plugin.inference.clean import clean_maps
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.verdict import GLITCH_THRESHOLD, above, holds_glitch, is_harmed, is_quiet, is_vetoed

NOISE_MEAN = 1 / math.log(2)
"""Mean energy (SNR²) of Gaussian noise in a map whose rows are divided by their median: exponential with median 1."""

NOISE_CLAIM = 1.5936 * NOISE_MEAN
"""Largest constant (SNR²) that does not raise the energy of noise: c = 2 (1 - exp(-c)) in units of the mean."""

MARGIN = 4
"""Columns by which the time of a glitch is widened on either side (0.09 s in maps of 257 columns in 6 s)."""

BLOCK = (16, 32)
"""Rows and columns over which what is added is averaged where no more than noise is predicted."""

Labels: TypeAlias = Sequence[str] | Sequence[int] | NDArray[np.str_] | NDArray[np.int64]
"""One id or number a case."""


@dataclass(frozen=True)
class CaseStatistics:
    """What scoring needs to know of each case: a few numbers, so that maps need not stay in memory.

    Energies are those of the judged pixels, SNR².

    Attributes:
        event: Which event a case belongs to (id or number), (case,).
        group: Label or number of its group; the bootstrap draws these, (case,).
        peak_measured: Largest measured energy.
        peak_predicted: Largest predicted energy.
        peak_in_time: Largest predicted energy within the time of the glitch.
        peak_cleaned: Largest energy after cleaning.
        peak_left: The same without credit for noise: of what is predicted, as much as `NOISE_CLAIM` is put back.
        total_measured: Sum of the measured energy.
        total_cleaned: Sum of the energy after cleaning.
        glitch_power: Sum over loud pixels of what is measured above `NOISE_CLAIM`.
        glitch_left: What is left of `glitch_power`.
        added: What cleaning adds elsewhere.
        columns: Columns that are judged.
        columns_of_glitch: Judged columns within the time of the glitch; 0 of a quiet case.
        columns_vetoed: Judged columns with a prediction above the glitch threshold.
        columns_vetoed_in_time: Vetoed columns within the time of the glitch.
        glitch_threshold: SNR² above which a pixel is loud.
    """

    event: NDArray[np.str_] | NDArray[np.int64]
    group: NDArray[np.str_] | NDArray[np.int64]
    peak_measured: NDArray[np.float64]
    peak_predicted: NDArray[np.float64]
    peak_in_time: NDArray[np.float64]
    peak_cleaned: NDArray[np.float64]
    peak_left: NDArray[np.float64]
    total_measured: NDArray[np.float64]
    total_cleaned: NDArray[np.float64]
    glitch_power: NDArray[np.float64]
    glitch_left: NDArray[np.float64]
    added: NDArray[np.float64]
    columns: NDArray[np.float64]
    columns_of_glitch: NDArray[np.float64]
    columns_vetoed: NDArray[np.float64]
    columns_vetoed_in_time: NDArray[np.float64]
    glitch_threshold: float = GLITCH_THRESHOLD

    def __post_init__(self) -> None:
        """Check lengths and values once, so that scoring need not."""
        arrays = {name: getattr(self, name) for name in self._by_case()}
        lengths = {name: array.shape for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or self.event.ndim != 1:
            msg = f"one value a case expected in every array, got shapes {lengths}."
            raise ConfigurationError(msg)
        for name, array in arrays.items():
            if name not in ("event", "group") and not np.isfinite(array).all():
                bad = int((~np.isfinite(array)).sum())
                msg = (
                    f"{name} is not finite in {bad} of {array.size} cases. Finite energies are expected: "
                    "check the maps for NaN, or the model for divergence."
                )
                raise DataError(msg)

    def __len__(self) -> int:
        return len(self.event)

    @classmethod
    def _by_case(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.name != "glitch_threshold"]

    @property
    def glitch(self) -> Bool[np.ndarray, " case"]:
        """Cases with a glitch at the glitch threshold."""
        return holds_glitch(self.peak_measured, self.glitch_threshold)

    @property
    def net_removed(self) -> Float[np.ndarray, " case"]:
        """Net power removed from each case: at most 1, negative where more is added; NaN without a loud pixel."""
        return 1 - ratio(self.glitch_left + self.added, self.glitch_power)

    @property
    def harmed(self) -> Bool[np.ndarray, " case"]:
        """Quiet cases that cleaning harms."""
        quiet = is_quiet(self.peak_measured, self.glitch_threshold)
        left = above(self.peak_cleaned, self.glitch_threshold)
        return is_harmed(quiet, left, self.total_measured, self.total_cleaned)

    def select(self, cases: NDArray[np.bool_] | NDArray[np.int64]) -> "CaseStatistics":
        """Some of the cases, chosen by a mask or by row numbers."""
        chosen = {name: getattr(self, name)[cases] for name in self._by_case()}
        return CaseStatistics(**chosen, glitch_threshold=self.glitch_threshold)

    @classmethod
    def concatenate(cls, parts: Sequence["CaseStatistics"]) -> "CaseStatistics":
        """Join the statistics of several batches in order.

        Raises:
            NoEventsError: There is no batch.
            ConfigurationError: The batches used different glitch thresholds.
        """
        if not parts:
            msg = "at least one batch of cases expected, got none; check that the data set has events."
            raise NoEventsError(msg)
        thresholds = {part.glitch_threshold for part in parts}
        if len(thresholds) != 1:
            msg = f"batches with one glitch threshold expected, got {sorted(thresholds)}."
            raise ConfigurationError(msg)
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in cls._by_case()}
        return cls(**joined, glitch_threshold=thresholds.pop())

    def to_dict(self) -> dict[str, object]:
        """Arrays by name, and the threshold."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "CaseStatistics":
        """Rebuild what `to_dict` gave.

        Raises:
            TypeError: A name is missing or unknown.
        """
        arrays = {name: np.array(value) for name, value in content.items() if name != "glitch_threshold"}
        return cls(**arrays, glitch_threshold=float(content["glitch_threshold"]))


def map_statistics(
    measured: Float[Tensor, "case frequency time"],
    predicted: Float[Tensor, "case frequency time"],
    events: Labels | None = None,
    glitch_threshold: float = GLITCH_THRESHOLD,
    *,
    cleaned: Float[Tensor, "case frequency time"] | None = None,
    loudest: Float[Tensor, "case time"] | None = None,
    inside: Bool[np.ndarray, "frequency time"] | None = None,
    groups: Labels | None = None,
) -> CaseStatistics:
    """Reduce maps to the few numbers that scoring needs, one row a map.

    Args:
        measured: Measured energies, SNR².
        predicted: Predicted energies, SNR².
        events: Event id or number of each map, (case,); its row number if None.
        glitch_threshold: SNR² above which a pixel is loud.
        cleaned: What is left, SNR²; the difference of the energies if None.
        loudest: Largest predicted energy of each column, by which vetoes are decided, SNR²; that of the judged pixels
            if None.
        inside: Pixels that are judged; all if None.
        groups: Group of each map, (case,); that of its event if None.

    Returns:
        Statistics in the order of the maps.

    Raises:
        ConfigurationError: Shapes do not match, or there is not one event or group a map.
        DataError: An energy is not finite.
    """
    num_cases = len(measured)
    event = np.arange(num_cases) if events is None else np.asarray(events)
    group = event if groups is None else np.asarray(groups)
    for name, labels in (("event", event), ("group", group)):
        if labels.shape != (num_cases,):
            msg = f"one {name} a case expected ({num_cases}), got shape {labels.shape}."
            raise ConfigurationError(msg)
    cleaned = clean_maps(measured, predicted) if cleaned is None else cleaned
    judged = measured.new_ones(measured.shape[1:], dtype=torch.bool)
    if inside is not None:
        judged = torch.from_numpy(np.array(inside, dtype=np.bool_)).to(measured.device)
    if judged.shape != measured.shape[1:]:
        msg = f"inside: one value a pixel of a map expected, {tuple(measured.shape[1:])}, got {tuple(judged.shape)}."
        raise ConfigurationError(msg)
    # what is not judged is silence in all maps
    measured, predicted, cleaned = (torch.where(judged, maps, 0.0) for maps in (measured, predicted, cleaned))
    loud = above(measured, glitch_threshold)
    in_time = _time_of_glitch(measured, loud)
    seen, columns = predicted.amax(dim=1) if loudest is None else loudest, judged.any(dim=0)
    vetoed, glitch = is_vetoed(seen, glitch_threshold) & columns, loud.flatten(1).any(dim=1)[:, None]
    found = {
        "peak_measured": measured.amax(dim=(1, 2)),
        "peak_predicted": seen.amax(dim=1),
        "peak_in_time": torch.where(in_time, seen, 0).amax(dim=1),
        "peak_cleaned": cleaned.amax(dim=(1, 2)),
        "peak_left": (cleaned + predicted.clamp(max=NOISE_CLAIM)).amax(dim=(1, 2)),
        "total_measured": measured.double().sum(dim=(1, 2)),
        "total_cleaned": cleaned.double().sum(dim=(1, 2)),
        "glitch_power": _sum((measured - NOISE_CLAIM) * loud),
        "glitch_left": _sum((cleaned - (NOISE_CLAIM - predicted).clamp(min=0)) * loud),
        "added": _added(measured, predicted, cleaned, judged & ~loud),
        "columns": columns.sum().expand(num_cases),
        "columns_of_glitch": (in_time & glitch & columns).sum(dim=1),
        "columns_vetoed": vetoed.sum(dim=1),
        "columns_vetoed_in_time": (vetoed & in_time & glitch).sum(dim=1),
    }
    numbers = {name: host(values.double()) for name, values in found.items()}
    return CaseStatistics(event=event, group=group, **numbers, glitch_threshold=float(glitch_threshold))


def _time_of_glitch(
    measured: Float[Tensor, "case frequency time"], loud: Bool[Tensor, "case frequency time"]
) -> Bool[Tensor, "case time"]:
    """Columns with a loud pixel, without one the loudest column, and those beside them."""
    peaks = measured.amax(dim=1)
    marked = loud.any(dim=1) | (~loud.flatten(1).any(dim=1)[:, None] & (peaks == peaks.amax(dim=1, keepdim=True)))
    return functional.max_pool1d(marked[:, None].float(), 2 * MARGIN + 1, stride=1, padding=MARGIN)[:, 0] > 0


def _added(
    measured: Float[Tensor, "case frequency time"],
    predicted: Float[Tensor, "case frequency time"],
    cleaned: Float[Tensor, "case frequency time"],
    other: Bool[Tensor, "case frequency time"],
) -> Float[Tensor, " case"]:
    """What cleaning adds to the other pixels: one by one where more than noise is predicted, else block by block."""
    claimed = other & (predicted > NOISE_CLAIM)
    rest = other & ~claimed

    def _blocks(maps: Tensor) -> Tensor:
        return functional.avg_pool2d((maps * rest)[:, None], BLOCK, ceil_mode=True, divisor_override=1)

    before = torch.maximum(_blocks(measured), NOISE_MEAN * _blocks(torch.ones_like(measured)))
    by_block = (_blocks(cleaned) - before).clamp(min=0).double().sum(dim=(1, 2, 3))
    return by_block + _sum((cleaned - measured.clamp(min=NOISE_MEAN)).clamp(min=0) * claimed)


def _sum(maps: Float[Tensor, "case frequency time"]) -> Float[Tensor, " case"]:
    return maps.double().sum(dim=(1, 2))


def ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotients; NaN where the divisor is not positive."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
