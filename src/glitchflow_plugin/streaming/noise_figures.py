"""What a run of `stream_pipeline` did to the noise, in figures: amplitude in quiet time by band, and inspiral range."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.inference.intervals import bootstrap, estimate, few_groups, weighted_median
from glitchflow_plugin.products.summary import Metric
from glitchflow_plugin.signal.noise_change import BANDS, NoiseChanges

_REPLICATES = 2000


def noise_metrics(noise: NoiseChanges) -> tuple[dict[str, Metric], dict[str, object]]:
    """Figures of a run with intervals by a bootstrap of pieces, and what is too long for a table.

    `quiet_asd_change` is that of the band that changes most, by the median density of quiet segments;
    `quiet_power_change` the same of their power, by its mean, to which each segment adds; both are shares. The range is
    a median over pieces, its change that of the paired ratios.

    Args:
        noise: All pieces.
    """
    changes, powers = (_by_band(one, noise.quiet) for one in (noise.changes, np.square(1 + noise.mean_changes) - 1))
    asd, power = (max(one.values(), key=lambda metric: abs(metric.value or 0.0)) for one in (changes, powers))
    before, after = noise.ranges.T
    heard = np.isfinite(before) & (before > 0)
    metrics = {
        "quiet_asd_change": asd,
        "quiet_power_change": power,
        "inspiral_range_before_mpc": _median(before[heard]),
        "inspiral_range_after_mpc": _median(after[heard]),
        "inspiral_range_change": _median(after[heard] / before[heard] - 1),
    }
    told = {"quiet_segments": int(noise.quiet.sum()), "pieces": len(noise.quiet)}
    details = {
        name: {band: [one.value, one.low, one.high] for band, one in found.items()}
        for name, found in (("asd_change", changes), ("power_change", powers))
    }
    return {name: one for name, one in metrics.items() if one.value is not None}, {**told, **details}


def _by_band(values: Float[np.ndarray, "piece band"], quiet: np.ndarray) -> Mapping[str, Metric]:
    """Mean over pieces of each band, each as often as it has quiet segments; nothing where a band has no data."""
    kept = (quiet > 0) & np.isfinite(values).any(axis=1)
    values, count = values[kept], quiet[kept].astype(np.float64)
    known = np.isfinite(values).all(axis=0)
    if not len(values) or not known.any():
        return {"none": Metric(None)}

    def figures(weights: Float[np.ndarray, "replicate group"]) -> Float[np.ndarray, "replicate figure"]:
        return (weights * count) @ values[:, known] / ((weights * count).sum(axis=1, keepdims=True))

    ends = bootstrap(figures, len(values), replicates=_REPLICATES)
    named = [f"{low:g}-{high:g} Hz" for low, high, there in zip(BANDS[:-1], BANDS[1:], known, strict=True) if there]
    value = figures(np.ones((1, len(values))))[0]
    return {name: _metric(value[row], ends[:, row], len(values)) for row, name in enumerate(named)}


def _median(values: Float[np.ndarray, " piece"]) -> Metric:
    if not len(values):
        return Metric(None)
    ends = bootstrap(lambda weights: weighted_median(values, weights)[:, None], len(values), replicates=_REPLICATES)
    return _metric(float(np.median(values)), ends[:, 0], len(values))


def _metric(value: float, ends: np.ndarray, num_pieces: int) -> Metric:
    found = estimate(float(value), ends, few_groups(num_pieces))
    return Metric(found.value, found.low, found.high)
