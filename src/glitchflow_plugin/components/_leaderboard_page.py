"""The leaderboard as tables, pictures and a part of a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from glitchflow_plugin.inference.leaderboard import Standings
from glitchflow_plugin.inference.score import Estimate
from glitchflow_plugin.plots.curves import Band
from glitchflow_plugin.plots.leaderboard import plot_accuracies, plot_groups, plot_missing, plot_ranking, plot_trust
from glitchflow_plugin.products.veto_table import markdown_table

_GROUPS, _MISSING = ("class", "witness SNR"), "witnesses missing"


def entrants_table(result: Standings, facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row an entrant: every figure with the ends of its interval, then what it cost."""
    rows = []
    for name, figures in result.figures.items():
        row: dict[str, Any] = {"entrant": name}
        for key, estimate in figures.items():
            row |= {key: estimate.value, f"{key}_low": estimate.low, f"{key}_high": estimate.high}
        cost = facts[name]
        row |= {key: cost[key] for key in ("parameters", "minutes", "epochs")}
        rows.append(row | {"milliseconds_an_event": 1000 * cost["seconds"]})
    return pd.DataFrame(rows)


def groups_table(result: Standings) -> pd.DataFrame:
    """One row an entrant and group: the median excess removed."""
    return pd.DataFrame(
        [
            {
                "entrant": name,
                "kind": kind,
                "group": group,
                "events": count,
                "excess_removed": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
            for kind, rows in result.by_group.items()
            for name, estimates in rows.items()
            for (group, count), estimate in zip(result.groups[kind], estimates, strict=True)
        ]
    )


def figures_of(result: Standings, facts: Mapping[str, Mapping[str, Any]], threshold: float) -> dict[str, Any]:
    """Pictures by name."""
    names = list(result.figures)
    panels = {
        "median excess power removed, maps": "excess_removed",
        "median power removed, waveform": "power_removed",
        "quiet windows harmed": f"harmed_share_snr2_{threshold:g}",
    }
    bands = {title: _band([result.figures[name][key] for name in names]) for title, key in panels.items()}
    curves = {name: (one.denoising_accuracy.value, one.veto_accuracy.value) for name, one in result.scores.items()}
    levels = next(iter(result.scores.values())).denoising_accuracy.thresholds
    missing = result.groups[_MISSING]
    pictures = {
        "ranking": plot_ranking(names, bands),
        "accuracy": plot_accuracies(
            levels,
            {name: pair[0] for name, pair in curves.items()},
            {name: pair[1] for name, pair in curves.items()},
            glitch_threshold=threshold,
        ),
        "groups": plot_groups({f"by {kind}": (result.groups[kind], _bands(result.by_group[kind])) for kind in _GROUPS}),
        "missing": plot_missing(
            [int(number) for number, _ in missing], [count for _, count in missing], _bands(result.by_group[_MISSING])
        ),
    }
    for name in names:
        trust = facts[name].get("trust")
        if trust:
            found = {key: (pair[0], pair[1]) for key, pair in trust["coverage"].items()}
            pictures[f"trust-{name}"] = plot_trust(
                found, {key: np.asarray(values) for key, values in trust["strangeness"].items()}
            )
    return pictures


def page_block(
    introduction: str, result: Standings, facts: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, str]
) -> str:
    """What is put between the markers of a page: tables in per cent, then pictures."""
    harmed = next(key for key in next(iter(result.figures.values())) if key.startswith("harmed"))
    denoising, veto = (f"{kind}_accuracy{harmed.removeprefix('harmed_share')}" for kind in ("denoising", "veto"))
    cut = harmed.rpartition("_")[2]
    columns = {
        "excess power removed, maps": "excess_removed",
        f"lead over {result.reference}": "lead",
        "power removed, waveform": "power_removed",
        f"denoising accuracy at {cut}": denoising,
        f"veto accuracy at {cut}": veto,
        "ROC area": "roc_auc",
    }
    harm = {
        "quiet windows harmed": harmed,
        "power added to quiet events, maps": "added_map",
        "power added to quiet events, waveform": "added_strain",
    }
    if result.reference is None:
        columns = {title: key for title, key in columns.items() if key != "lead"}
    quality = [
        {"entrant": name, **{title: _per_cent(row[key], key) for title, key in columns.items()}}
        for name, row in result.figures.items()
    ]
    cost = [
        {
            "entrant": name,
            **{title: _per_cent(row[key], key) for title, key in harm.items()},
            "parameters": f"{facts[name]['parameters']:,}",
            "training, min": f"{facts[name]['minutes']:.1f}",
            "epochs": str(facts[name]["epochs"] or "-"),
            "inference, ms an event": f"{1000 * facts[name]['seconds']:.1f}",
        }
        for name, row in result.figures.items()
    ]
    explained = (
        "Medians over the witnessed glitches, in per cent [95 % interval, bootstrap by event]; best first. Maps of "
        "twins of energies are cleaned by subtracting energies, those of waveforms by subtracting waveforms."
    )
    titles = {
        "ranking": "Entrants by median excess power removed, with power removed from the true waveform and harm",
        "accuracy": "Denoising and veto accuracy against the SNR² threshold",
        "groups": "Median excess power removed by class of glitch and by witness SNR",
        "missing": "Median excess power removed against the number of witnesses missing",
    }
    shown = [
        f"![{titles.get(name, 'Coverage of the uncertainty, and the out-of-distribution score')}]({path})"
        for name, path in pictures.items()
    ]
    trusted = [part for name in result.figures if "trust" in facts[name] for part in _trust_block(name, facts[name])]
    tables = [markdown_table(pd.DataFrame(rows)) for rows in (quality, cost)]
    parts = [introduction, explained, *tables, *trusted, *shown]
    return "\n\n".join(parts)


def _trust_block(name: str, facts: Mapping[str, Any]) -> tuple[str, str]:
    """What a twin says of itself where witnesses are missing: a sentence and a table."""
    rows = [
        {
            "witnesses missing": str(row["missing"]),
            "`novelty_p` at most 0.05": f"{row['strange']} of {row['events']}" if row["events"] else "-",
            "pixels within the 95 % limits, %": _share(row["within"]),
            "the same, glitch predicted, %": _share(row["within, glitch predicted"]),
        }
        for row in facts["trust"]["missing"]
    ]
    said = (
        f"What {name} says of itself on held-out events with witnesses left out at random: of events like those of "
        "validation 5 % are to have a `novelty_p` of at most 0.05, and 95 % of the pixels are to lie within the limits."
    )
    return said, markdown_table(pd.DataFrame(rows))


def _share(value: float | None) -> str:
    """In per cent; None where there was nothing to count."""
    return "-" if value is None else f"{100 * value:.1f}"


def _per_cent(estimate: Estimate, key: str) -> str:
    """Value and interval; small shares get more digits."""
    if estimate.value is None:
        return "-"
    digits = 2 if key.startswith(("added", "harmed")) else 1
    value = f"{100 * estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{100 * estimate.low:.{digits}f}, {100 * estimate.high:.{digits}f}]"


def _bands(rows: Mapping[str, Sequence[Estimate]]) -> dict[str, Band]:
    return {name: _band(estimates) for name, estimates in rows.items()}


def _band(estimates: Sequence[Estimate]) -> Band:
    ends = [[one.value, one.low, one.high] for one in estimates]
    table = np.array([[np.nan if end is None else end for end in row] for row in ends]).reshape(-1, 3)
    return Band(table[:, 0], table[:, 1], table[:, 2])
