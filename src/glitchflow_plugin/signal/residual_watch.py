"""Does cleaning leave more of glitches than it left of the validation events?

Of each kind of glitch (all of them, a class, those of one witness) and band, the shares of the power that are left are
compared with those of the validation events, one value for each independent group of events. Whether they are larger
than chance makes them tells the rank sum (Mann and Whitney 1947, doi:10.1214/aoms/1177730491), which asks nothing of
their distribution but that groups of validation and new ones would be alike if nothing had changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import mannwhitneyu

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.settings import Fraction, section
from glitchflow_plugin.types.plain import JsonObject

Kind = tuple[str, str]
"""Kind of glitches: `all`, `class` or `witness`, and the name."""

FEWEST_QUIET = 5
"""Quiet events that tell how much of the power is noise, at least."""

#: Power of a glitch above the noise, in standard deviations of that of quiet events, from which a share is told.
_VISIBLE = 5.0
#: Groups that are kept of each kind of validation glitches, at most.
_MOST_GROUPS = 200


@section
class ResidualSettings:
    """When cleaning counts as worse; conf/retrain.yaml explains the keys."""

    max_ratio: Annotated[float, Field(gt=1)] = 1.5
    least_left: Fraction = 0.05
    significance: Fraction = 0.01
    min_groups: Annotated[int, Field(ge=2)] = 5


class Noise(NamedTuple):
    """Power of quiet events.

    Attributes:
        mean: SNR², (band,).
        spread: Standard deviation from event to event, (band,).
    """

    mean: Float[np.ndarray, " band"]
    spread: Float[np.ndarray, " band"]

    @classmethod
    def of(cls, quiet: Float[np.ndarray, "event band"]) -> "Noise | None":
        """From the power of quiet events; None of fewer than five."""
        return cls(quiet.mean(axis=0), quiet.std(axis=0)) if len(quiet) >= FEWEST_QUIET else None


@dataclass(frozen=True)
class ResidualReference:
    """What was left of the validation events.

    Attributes:
        bands: Lowest and highest frequency of each, Hz.
        left: By kind of glitch, share left of each group, (group, band); None where none of its glitches shows there.
        noise: Mean power of quiet events and its standard deviation, SNR², (2, band); None of too few.
    """

    bands: tuple[tuple[float, float], ...]
    left: Mapping[Kind, tuple[tuple[float | None, ...], ...]]
    noise: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def shares(self, kind: Kind) -> Float[np.ndarray, "group band"]:
        """Shares left of a kind; NaN for None, and none of a kind that was not there."""
        return np.array(self.left.get(kind, ()), dtype=np.float64).reshape(-1, len(self.bands))

    @property
    def quiet(self) -> Noise | None:
        """Power of quiet events."""
        return None if self.noise is None else Noise(*map(np.array, self.noise))

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        left = [{"kind": kind, "name": name, "left": rows} for (kind, name), rows in self.left.items()]
        return {"bands": self.bands, "left": left, "noise": self.noise}

    @classmethod
    def from_dict(cls, content: JsonObject) -> "ResidualReference":
        """Back from `to_dict`.

        Raises:
            FormatError: It is something else.
        """
        try:
            bands = tuple((float(low), float(high)) for low, high in content["bands"])
            left = {(str(each["kind"]), str(each["name"])): _rows(each["left"], len(bands)) for each in content["left"]}
            noise = content["noise"]
            if noise is not None:
                mean, spread = (tuple(map(float, row)) for row in noise)
                if not len(mean) == len(spread) == len(bands):
                    raise ValueError("noise of other bands")
                noise = mean, spread
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"these are no residuals of validation events ({type(error).__name__}: {error}). Train the model again."
            ) from error
        return cls(bands, left, noise)


@dataclass(frozen=True)
class ResidualChange:
    """How much is left of one kind of glitch in one band.

    Attributes:
        kind: `all`, `class` or `witness`.
        name: Which.
        frequency_low: Hz.
        frequency_high: Hz.
        before: Mean share left in validation.
        now: The same in the new events.
        groups_before: Independent groups behind `before`.
        groups: Those behind `now`.
        p_value: Probability that chance makes the new shares so much larger.
        grown: Whether that counts.
    """

    kind: str
    name: str
    frequency_low: float
    frequency_high: float
    before: float
    now: float
    groups_before: int
    groups: int
    p_value: float
    grown: bool


@dataclass(frozen=True)
class ResidualReport:
    """All kinds and bands that could be compared."""

    changes: tuple[ResidualChange, ...]

    @property
    def grown(self) -> list[str]:
        """Kinds of which more is left, in words, each with the band that shows it best."""
        best: dict[Kind, ResidualChange] = {}
        for one in sorted((each for each in self.changes if each.grown), key=lambda each: each.p_value):
            best.setdefault((one.kind, one.name), one)
        return [
            f"{'all glitches' if one.kind == 'all' else f'{one.kind} {one.name}'} at {one.frequency_low:g} to "
            f"{one.frequency_high:g} Hz ({one.before:.2f} -> {one.now:.2f})"
            for one in best.values()
        ]

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON-like."""
        return [asdict(each) for each in self.changes]


def shares_left(power: Float[np.ndarray, "event band 2"], noise: Noise) -> Float[np.ndarray, "event band"]:
    """Share of the power above the noise that cleaning leaves; NaN where too little shows.

    Which events are told depends on the power before cleaning alone. By the noise a share is off by less than a fifth.

    Args:
        power: Of each event before and after cleaning, SNR².
        noise: Of quiet events.
    """
    before, after = power[..., 0] - noise.mean, power[..., 1] - noise.mean
    visible = before > np.maximum(_VISIBLE * noise.spread, np.finfo(np.float64).tiny)
    return np.where(visible, after / np.where(visible, before, 1.0), np.nan)


def by_group(
    shares: Float[np.ndarray, "event band"], groups: Int[np.ndarray, " event"]
) -> Float[np.ndarray, "group band"]:
    """Mean share of each group of events, in order of their numbers; NaN where none of its events tells one."""
    known = ~np.isnan(shares)
    numbers, row = np.unique(groups, return_inverse=True)
    total, count = np.zeros((len(numbers), shares.shape[1])), np.zeros((len(numbers), shares.shape[1]))
    np.add.at(total, row, np.where(known, shares, 0.0))
    np.add.at(count, row, known)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def by_kind(
    shares: Float[np.ndarray, "event band"],
    groups: Int[np.ndarray, " event"],
    names: Mapping[str, Sequence[str] | NDArray[np.object_]],
) -> dict[Kind, Float[np.ndarray, "group band"]]:
    """Shares left of the groups of each kind of glitch.

    Args:
        shares: Of glitches alone, from `shares_left`.
        groups: Number of the group of each glitch.
        names: For each of `all`, `class` and `witness`, the name of each glitch.
    """
    found: dict[Kind, Float[np.ndarray, "group band"]] = {}
    for kind, given in names.items():
        own = np.asarray(given, dtype=object)
        for name in sorted(set(own)):
            found[kind, str(name)] = by_group(shares[own == name], groups[own == name])
    return found


def residual_reference(
    bands: Sequence[tuple[float, float]],
    left: Mapping[Kind, Float[np.ndarray, "group band"]],
    noise: Noise | None,
) -> ResidualReference:
    """What is kept of validation events: of each kind at most 200 groups, evenly out of all."""
    kept: dict[Kind, tuple[tuple[float | None, ...], ...]] = {}
    for kind, rows in left.items():
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_GROUPS)).round().astype(int)]
        kept[kind] = tuple(tuple(None if np.isnan(share) else round(share, 4) for share in row) for row in chosen)
    told = None if noise is None else (tuple(noise.mean.tolist()), tuple(noise.spread.tolist()))
    return ResidualReference(tuple((float(low), float(high)) for low, high in bands), kept, told)


def compare_residuals(
    left: Mapping[Kind, Float[np.ndarray, "group band"]], reference: ResidualReference, settings: ResidualSettings
) -> ResidualReport:
    """Compare what is left of new glitches with what was left in validation.

    The probability of any false alarm is at most `significance` over all that is compared (Bonferroni). What is
    compared depends on how many groups show enough power before cleaning, not on what is left of it.

    Args:
        left: Shares left of the new groups, by kind.
        reference: Those of validation.
        settings: When more is left.
    """
    pairs = [
        (kind, band, before[~np.isnan(before)], now[~np.isnan(now)])
        for kind, rows in left.items()
        for band, (before, now) in enumerate(zip(reference.shares(kind).T, rows.T, strict=True))
    ]
    pairs = [each for each in pairs if min(len(each[2]), len(each[3])) >= settings.min_groups]
    changes = []
    for (kind, name), band, before, now in pairs:
        usual, found = float(before.mean()), float(now.mean())
        p_value = float(mannwhitneyu(now, before, alternative="greater").pvalue)
        grown = p_value * len(pairs) < settings.significance
        grown &= found > settings.max_ratio * max(usual, settings.least_left)
        counts = len(before), len(now)
        changes.append(ResidualChange(kind, name, *reference.bands[band], usual, found, *counts, p_value, grown))
    return ResidualReport(tuple(changes))


def _rows(content: Sequence[Sequence[Any]], width: int) -> tuple[tuple[float | None, ...], ...]:
    rows = tuple(tuple(None if share is None else float(share) for share in row) for row in content)
    if any(len(row) != width for row in rows) or not all(
        np.isfinite([s for row in rows for s in row if s is not None])
    ):
        raise ValueError("expected a finite share, or none, for each band")
    return rows
