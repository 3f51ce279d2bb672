"""What cleaning does to signals, in figures: medians with intervals by group, beside those of the rivals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import cast

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from glitchflow_plugin.harm.injections import HarmSettings
from glitchflow_plugin.harm.run import HarmRecord
from glitchflow_plugin.harm.ways import WAYS
from glitchflow_plugin.inference.excess import paired_medians, snr_kinds
from glitchflow_plugin.inference.intervals import Estimate, bootstrap, estimate, few_groups
from glitchflow_plugin.plots.harm import plot_change, plot_recovered
from glitchflow_plugin.plots.style import Picture
from glitchflow_plugin.products.summary import Metric, RunSummary
from glitchflow_plugin.streaming.blocks import Block
from glitchflow_plugin.streaming.loop import Watched, warnings_of

PLACES = ("quiet", "beside", "near")
"""Where signals lie: far from every glitch, in between, at one."""

HIT = 5.0
"""SNR that a signal's template has in a glitch alone from which the glitch hits the signal: noise seldom has it."""

_SNR_EDGES = (12.0, 20.0)
_RIVALS = {"before": "nothing", "gated": "gates", "elsewhere": "elsewhere"}
"""How the ways beside cleaning are called where figures are compared."""


def injection_table(records: Sequence[HarmRecord], settings: HarmSettings) -> pd.DataFrame:
    """One row for each signal.

    Args:
        records: What came of each block.
        settings: Say what is near, and what is lost.
    """
    rows: list[dict[str, object]] = []
    for record in records:
        for one in record.found.judged:
            row = asdict(one)
            row["distance"] = np.inf if one.distance is None else one.distance
            parts = {"snr": row.pop("found"), **{key: row.pop(key) for key in ("chi_squared", "reweighted", "shift")}}
            parameters = row.pop("parameters")
            parts |= {name: row.pop(name) for name in ("empty", "empty_reweighted")}
            row |= {f"{name}_{way}": value for name, part in parts.items() for way, value in part.items()}
            rows.append({**row, "parameters": parameters})
    table = pd.DataFrame(rows)
    table.insert(4, "place", _places(table["distance"].to_numpy(), settings))
    table["lost"] = (table["snr_before"] >= settings.threshold) & (table["snr_after"] < settings.threshold)
    return table.sort_values(["witness", "gps", "kind"], ignore_index=True)


def own_signals(table: pd.DataFrame) -> pd.DataFrame:
    """The signals that no witness holds.

    Args:
        table: From `injection_table`.
    """
    return cast("pd.DataFrame", table[table["witness"] == ""].reset_index(drop=True))


def _places(distance: Float[np.ndarray, " signal"], settings: HarmSettings) -> list[str]:
    named = np.where(distance <= settings.near, "near", np.where(distance >= settings.quiet, "quiet", "beside"))
    return [str(one) for one in named]


@dataclass(frozen=True, eq=False)
class Figures:
    """Draws the figures of signals in a table of which no witness knows.

    Attributes:
        table: From `injection_table`.
        settings: Threshold, replicates, seed.
    """

    table: pd.DataFrame
    settings: HarmSettings

    @property
    def groups(self) -> np.ndarray:
        """Number of the group of each signal."""
        return np.unique(self.table["group"].to_numpy(dtype=str), return_inverse=True)[1]

    def column(self, name: str) -> Float[np.ndarray, " signal"]:
        """A column as numbers."""
        return self.table[name].to_numpy(dtype=np.float64)

    def change(self, way: str, of: str = "snr") -> Float[np.ndarray, " signal"]:
        """By what share an SNR differs from that in the strain as it is."""
        return self.column(f"{of}_{way}") / self.column(f"{of}_before") - 1

    def medians(
        self, values: Mapping[str, Float[np.ndarray, " signal"]], chosen: Bool[np.ndarray, " signal"]
    ) -> dict[str, Estimate]:
        """Medians over some signals, by way."""
        drawn = paired_medians(
            values, chosen, self.groups, replicates=self.settings.replicates, seed=self.settings.seed
        )
        return {way: one for way, (one, _) in drawn.items()}

    def shares(
        self, flags: Mapping[str, Bool[np.ndarray, " signal"]], chosen: Bool[np.ndarray, " signal"]
    ) -> dict[str, Estimate]:
        """Shares of some signals, by way."""
        if not chosen.any():
            return dict.fromkeys(flags, Estimate(None, reason="no signal"))
        names, number = np.unique(self.groups[chosen], return_inverse=True)
        sums = np.stack([np.bincount(number, each[chosen], len(names)) for each in flags.values()], axis=1)
        sizes = np.bincount(number, minlength=len(names)).astype(np.float64)

        def _shares(weights: Float[np.ndarray, "replicate group"]) -> Float[np.ndarray, "replicate way"]:
            return weights @ sums / (weights @ sizes)[:, None]

        point = _shares(np.ones((1, len(names))))[0]
        ends = bootstrap(_shares, len(names), replicates=self.settings.replicates, seed=self.settings.seed)
        return {way: estimate(float(point[row]), ends[:, row], few_groups(len(names))) for row, way in enumerate(flags)}


def harm_metrics(table: pd.DataFrame, settings: HarmSettings) -> dict[str, Metric]:
    """The figures of a run.

    Args:
        table: From `injection_table`.
        settings: Threshold, replicates, seed.
    """
    own = own_signals(table)
    drawn = Figures(own, settings)
    place = own["place"].to_numpy(dtype=str)
    found: dict[str, Metric] = {}
    hit = (place != "quiet") & (drawn.column("empty_before") >= HIT)
    for where, chosen in (("quiet", place == "quiet"), ("near", place == "near"), ("hit", hit)):
        found[f"injections_{where}"] = Metric(float(chosen.sum()))
        found[f"lost_{where}"] = _lost(drawn, chosen)
        size = {way: np.abs(drawn.change(way)) for way in WAYS[1:]}
        found[f"snr_change_{where}"] = _metric(drawn.medians(size, chosen))
        error = {way: np.abs(drawn.column(f"snr_{way}") / drawn.column("snr") - 1) for way in WAYS}
        found[f"snr_error_{where}"] = _metric(drawn.medians(error, chosen))
        gain = {way: drawn.change(way, "reweighted") for way in WAYS[1:]}
        found[f"reweighted_change_{where}"] = _metric(drawn.medians(gain, chosen))
        loud = {way: drawn.column(f"reweighted_{way}") >= settings.threshold for way in WAYS}
        found[f"found_{where}"] = _metric(drawn.shares(loud, chosen))
        found[f"match_{where}"] = _metric(drawn.medians({"after": drawn.column("match")}, chosen))
        alarm = {way: drawn.column(f"empty_reweighted_{way}") >= settings.threshold for way in ("before", "after")}
        found[f"false_{where}"] = _metric(drawn.shares(alarm, chosen))
        late = {way: np.abs(drawn.column(f"shift_{way}") - drawn.column("shift_before")) for way in WAYS[1:]}
        found[f"time_shift_{where}"] = _metric(drawn.medians(late, chosen))
    return found


def _metric(estimates: Mapping[str, Estimate]) -> Metric:
    own = estimates["after"]
    return Metric(
        own.value, own.low, own.high, {_RIVALS[way]: one.value for way, one in estimates.items() if way != "after"}
    )


def _lost(drawn: Figures, chosen: Bool[np.ndarray, " signal"]) -> Metric:
    """How many signals are above the threshold before and below it afterwards."""
    least = drawn.settings.threshold
    loud = chosen & (drawn.column("snr_before") >= least)
    lost = {way: float((loud & (drawn.column(f"snr_{way}") < least)).sum()) for way in WAYS[1:]}
    return Metric(lost.pop("after"), baseline={_RIVALS[way]: number for way, number in lost.items()})


def harm_table(table: pd.DataFrame, settings: HarmSettings) -> pd.DataFrame:
    """Figures by kind, place and SNR, one row each; `all` SNRs first.

    Args:
        table: From `injection_table`.
        settings: Threshold, replicates, seed.
    """
    own = own_signals(table)
    drawn = Figures(own, settings)
    kind, place = (own[name].to_numpy(dtype=str) for name in ("kind", "place"))
    bins = [("all", np.ones(len(own), dtype=bool))]
    bins += [(one.name, one.events) for one in snr_kinds(own["snr"].to_numpy(), _SNR_EDGES)]
    row = partial(_row, drawn)
    return pd.DataFrame(
        [
            {"kind": one, "place": where, "snr": name, **row(chosen)}
            for one in np.unique(kind)
            for where in PLACES
            for name, inside in bins
            if (chosen := inside & (kind == one) & (place == where)).any()
        ]
    )


def _row(drawn: Figures, chosen: Bool[np.ndarray, " signal"]) -> dict[str, object]:
    change = drawn.medians({"after": drawn.change("after")}, chosen)["after"]
    gain = drawn.medians({"after": drawn.change("after", "reweighted")}, chosen)["after"]
    part = drawn.table[chosen]
    recovered = {f"reweighted_share_{way}": float(np.median(part[f"reweighted_{way}"] / part["snr"])) for way in WAYS}
    return {
        "injections": int(chosen.sum()),
        "groups": int(part["group"].nunique()),
        "snr_change": change.value,
        "snr_change_low": change.low,
        "snr_change_high": change.high,
        "largest_snr_change": float(np.abs(drawn.change("after")[chosen]).max()),
        "reweighted_change": gain.value,
        "reweighted_change_low": gain.low,
        "reweighted_change_high": gain.high,
        **recovered,
        "lost": int(part["lost"].sum()),
        "smallest_match": float(part["match"].min()),
        "largest_time_shift": float((part["shift_after"] - part["shift_before"]).abs().max()),
    }


def safety_table(table: pd.DataFrame, records: Sequence[HarmRecord], settings: HarmSettings) -> pd.DataFrame:
    """Witnesses that follow the strain, and what is lost of signals of which they hold copies; one row each.

    Args:
        table: From `injection_table`.
        records: What came of each block.
        settings: From which loss on a witness is unsafe.
    """
    followers = [one for record in records for one in record.found.followers or ()]
    rows: list[dict[str, object]] = []
    for name in sorted({one.name for one in followers}):
        own = [one for one in followers if one.name == name]
        held = table["witness"].map(lambda held, name=name: name in held.split(", "))
        alone = table[table["witness"] == name]
        chosen = alone if len(alone) else table[held]
        lost = 1 - chosen["kept"].to_numpy(dtype=np.float64)
        drawn = Figures(cast("pd.DataFrame", chosen.reset_index(drop=True)), settings)
        loss = drawn.medians({"lost": lost}, np.ones(len(lost), dtype=bool)).get("lost", Estimate(None))
        rows.append(
            {
                "witness": name,
                "coherent": float(np.median([one.coherent for one in own])),
                "gain": float(np.median([one.gain for one in own])),
                "blocks": len(own),
                "injections": len(lost),
                "lost": loss.value,
                "lost_low": loss.low,
                "lost_high": loss.high,
                "unsafe": loss.value is not None and loss.value > settings.unsafe_loss,
            }
        )
    columns = ["witness", "coherent", "gain", "blocks", "injections", "lost", "lost_low", "lost_high", "unsafe"]
    return pd.DataFrame(rows, columns=columns)


def harm_warnings(
    table: pd.DataFrame, safety: pd.DataFrame, records: Sequence[HarmRecord], settings: HarmSettings
) -> tuple[str, ...]:
    """What the user should know.

    Args:
        table: From `injection_table`.
        safety: From `safety_table`.
        records: What came of each block.
        settings: Which signals were wanted.
    """
    unsafe = [
        f"{row.witness} is unsafe: it follows the strain (coherent in {100 * row.coherent:.2g} % of the band, gain "
        f"{row.gain:.2g}, both whitened), and of a signal that it holds as it holds the strain cleaning takes "
        f"{100 * row.lost:.2g} % of the SNR. List it in scan.unsafe and train without it"
        for row in safety[safety["unsafe"].astype(bool)].itertuples()
    ]
    tried = set(table["kind"])
    nowhere = [
        f"no signal of kind {kind} had room: give longer stretches or a longer stream.settings.block_length"
        for kind in settings.kinds
        if kind not in tried
    ]
    own = own_signals(table)
    lost = int(own["lost"].sum())
    fell = (
        [f"{lost} of {len(own)} signals fell below SNR {settings.threshold:g} by cleaning: see `lost`"] if lost else []
    )
    unmeasured = [
        f"GPS {one.start:.0f} to {one.stop:.0f}: too few windows without a glitch to tell which witnesses follow the "
        "strain, so none was tried: give longer stretches"
        for one in records
        if one.found.judged and one.found.followers is None
    ]
    empty = [f"GPS {one.start:.0f} to {one.stop:.0f}: {one.found.problem}" for one in records if not one.found.judged]
    problems = {name: why for one in records for name, why in one.problems.items()}
    return (*unsafe, *unmeasured, *fell, *nowhere, *empty, *(f"{name}: {why}" for name, why in problems.items()))


def harm_pictures(table: pd.DataFrame, settings: HarmSettings) -> dict[str, Picture]:
    """SNR before and after, and its change by distance, of the signals that no witness holds."""
    table = own_signals(table)

    def _pairs(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        parts = {where: table[table["place"] == where] for where in PLACES}
        return {
            where: (part[f"{name}_before"].to_numpy(), part[f"{name}_after"].to_numpy())
            for where, part in parts.items()
            if len(part)
        }

    change = 100 * (table["snr_after"] / table["snr_before"] - 1)
    kinds = {kind: table["kind"] == kind for kind in settings.kinds if (table["kind"] == kind).any()}
    return {
        "recovered": plot_recovered(
            {"SNR": _pairs("snr"), "re-weighted SNR": _pairs("reweighted")}, threshold=settings.threshold
        ),
        "distance": plot_change(
            {kind: (table["distance"][rows].to_numpy(), change[rows].to_numpy()) for kind, rows in kinds.items()},
            near=settings.near,
            quiet=settings.quiet,
        ),
    }


def harm_summary(
    tables: Mapping[str, pd.DataFrame],
    blocks: Sequence[Block],
    records: Sequence[HarmRecord],
    watched: Watched | None,
    settings: HarmSettings,
    *,
    inputs: Mapping[str, object],
    started: str,
) -> RunSummary:
    """What was found, without where it lies.

    Args:
        tables: `injections` and `safety` among them.
        blocks: The times that were looked at.
        records: What came of each.
        watched: What the closed loop saw; None: it was off.
        settings: The keys of `settings` in harm.yaml.
        inputs: Model and strain.
        started: When, ISO 8601, UTC.
    """
    table = tables["injections"]
    return RunSummary(
        pipeline="harm_pipeline/Harm",
        started=started,
        inputs={
            **inputs,
            "seconds": sum(one.span[1] - one.span[0] for one in blocks),
            "blocks": len(blocks),
            "glitches": sum(len(one.found.glitches) for one in records),
            "witnesses_stopped": 0 if watched is None else len(watched.stops),
        },
        metrics=harm_metrics(table, settings),
        warnings=(
            *harm_warnings(table, tables["safety"], records, settings),
            *([] if watched is None else warnings_of(watched)),
        ),
    )
