"""The leaderboard as tables, pictures and a part of a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.data.groups import LEAST_GROUPS
from glitchflow_plugin.inference.excess import LOUDER
from glitchflow_plugin.inference.intervals import Estimate
from glitchflow_plugin.inference.leaderboard import EntrantJudgement, LeaderboardSettings, Standings
from glitchflow_plugin.inference.score import Sample
from glitchflow_plugin.inference.trivial import TRIVIAL
from glitchflow_plugin.plots.curves import Band
from glitchflow_plugin.plots.leaderboard import plot_accuracies, plot_groups, plot_missing, plot_ranking, plot_trust
from glitchflow_plugin.preprocessing.truth import GlitchTruth
from glitchflow_plugin.products.page import insert_block
from glitchflow_plugin.products.pictures import Figure, save_figure
from glitchflow_plugin.products.veto_table import markdown_table, write_table

_KINDS, _MISSING = ("class", "witness SNR"), "witnesses missing"
_OUTSIDE = "†"
"""Marks classes whose couplings lie outside the laws of the default network."""


def write_leaderboard(
    result: Standings,
    judgements: Mapping[str, EntrantJudgement],
    *,
    truth: GlitchTruth,
    settings: LeaderboardSettings,
    conditions: str,
    folder: Path,
    page: Path | None = None,
    name: str = "",
) -> dict[str, str]:
    """Write tables, pictures and a page of them into a folder, and the same into a page that people write.

    Args:
        result: The standings.
        judgements: Judgements by entrant.
        truth: True glitches of the events that were judged.
        settings: The keys of `benchmark.settings`.
        conditions: A sentence on how the entrants were trained.
        folder: The folder of the leaderboard.
        page: Markdown file with the markers of `name`, beside whose folder `pictures` is.
        name: Name of the leaderboard among those of the page.

    Returns:
        Paths by what they hold.
    """
    facts = {entrant: {**one.facts, "seconds": one.seconds} for entrant, one in judgements.items()}
    beginning = introduction(truth, settings, result, conditions)

    def block(pictures: Path, link: str, dpi: int) -> str:
        # figures of its own: the layout of one that was drawn before moves a little with each drawing
        figures = figures_of(result, facts, settings.threshold, truth.outside)
        for title, figure in figures.items():
            save_figure(figure, pictures / link.format(title), dpi)
        return page_block(beginning, result, facts, {title: link.format(title) for title in figures}, truth.outside)

    own = folder / "leaderboard.md"
    text = block(folder, "{}.png", 120)
    entrants = write_table(entrants_table(result, facts), folder, "entrants")
    kinds = write_table(kinds_table(result, truth.outside), folder, "kinds")
    with atomic_path(own) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    outputs = {"entrants": str(entrants["csv"]), "kinds": str(kinds["csv"]), "page": str(own)}
    if page is not None:
        insert_block(page, "leaderboard", name, block(page.parent, f"pictures/leaderboard-{name}-{{}}.png", 80))
        outputs["results page"] = str(page)
    return outputs


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


def kinds_table(result: Standings, outside: frozenset[str] = frozenset()) -> pd.DataFrame:
    """One row an entrant and kind of event: the median net power removed."""
    return pd.DataFrame(
        [
            {
                "entrant": name,
                "by": what,
                "kind": kind,
                "outside_the_networks_laws": what == "class" and kind in outside,
                "events": sample.cases,
                "groups": sample.groups,
                "net_power_removed": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
            for what, rows in result.by_kind.items()
            for name, estimates in rows.items()
            for (kind, sample), estimate in zip(result.kinds[what], estimates, strict=True)
        ]
    )


def figures_of(
    result: Standings,
    facts: Mapping[str, Mapping[str, Any]],
    threshold: float,
    outside: frozenset[str] = frozenset(),
) -> Mapping[str, Figure]:
    """Pictures by name."""
    names = list(result.figures)
    glitches, quiet = _counted(result.samples["glitches"]), _counted(next(iter(result.scores.values())).quiet)
    panels = {
        f"median net power removed, maps\n{glitches}": "median_net_removed",
        f"median power removed, waveform\n{glitches}": "power_removed",
        f"quiet events harmed\n{quiet}": f"harmed_share_snr2_{threshold:g}",
    }
    bands = {title: band_of([result.figures[name][key] for name in names]) for title, key in panels.items()}
    scores = result.scores
    missing = result.kinds[_MISSING]
    pictures = {
        "entrants": plot_ranking(names, bands),
        "accuracy": plot_accuracies(
            next(iter(scores.values())).cleaned_share.thresholds,
            {name: one.cleaned_share.value for name, one in scores.items()},
            {name: one.veto_balance.value for name, one in scores.items()},
            glitch_threshold=threshold,
        ),
        "groups": plot_groups(
            {
                f"by {what}": (
                    [
                        "\n".join([f"{kind}{_OUTSIDE if what == 'class' and kind in outside else ''}", *_parts(sample)])
                        for kind, sample in result.kinds[what]
                    ],
                    _bands(result.by_kind[what]),
                )
                for what in _KINDS
            }
        ),
        "missing": plot_missing(
            [int(number) for number, _ in missing],
            ["\n".join(_parts(sample)) for _, sample in missing],
            _bands(result.by_kind[_MISSING]),
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


def introduction(truth: GlitchTruth, settings: LeaderboardSettings, result: Standings, training: str) -> str:
    """What the figures rest on: events, groups, witnesses that were made, classes outside the network's laws.

    Args:
        truth: True glitches of the events that were judged.
        settings: How.
        result: The standings.
        training: A sentence on how the entrants were trained.
    """
    chosen = settings.chosen(truth)
    glitches, quiet = (result.samples[name] for name in ("glitches", "quiet"))
    said = [
        f"{len(truth.event_ids)} held-out events: {_counted(glitches)} with a witnessed glitch of strain SNR above "
        f"{settings.least_snr:g}, {_counted(quiet)} with neither glitch nor merger. {training}",
        "Events of one group share the waveform of their glitch or the measured strain beneath it, or, where nothing "
        f"else is known of them, lie within {settings.block_length:g} s: they are no independent cases. Intervals draw "
        f"groups; there is none where a figure rests on fewer than {LEAST_GROUPS}.",
    ]
    if truth.measured:
        said.append(
            "Nothing is known of these glitches but what the maps show: an event holds one where a pixel is above SNR² "
            f"{settings.threshold:g}, its SNR is the root of the loudest, and a witness sees it where it has such a "
            "pixel too. What is removed from true waveforms cannot be told."
        )
    banked = chosen & np.array(truth.from_bank)
    if banked.any():
        laws = sorted({law.replace("_", " ") for law, one in zip(truth.law, banked, strict=True) if one and law})
        said.append(
            f"The glitches of {int(banked.sum())} of these events were measured, their witnesses were not: each is "
            "made from the very waveform of its glitch by inverting a known coupling "
            f"({', '.join(laws)}). What an entrant reaches here says how well it finds these laws among noise, not "
            "how much a real channel would tell."
        )
    outside = sorted(truth.outside & {label for label, one in zip(truth.label, chosen, strict=True) if one})
    if outside:
        names = ", ".join(name.replace("_", " ") for name in outside)
        said.append(f"Classes whose couplings lie outside the laws of the default network ({_OUTSIDE}): {names}.")
    return "\n\n".join(said)


def page_block(
    introduction: str,
    result: Standings,
    facts: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, str],
    outside: frozenset[str] = frozenset(),
) -> str:
    """What is put between the markers of a page: tables in per cent, then pictures."""
    some = next(iter(result.scores.values()))
    cleaned, veto, *_ = some.merits()
    harmed, deadtime, aside = some.costs()
    cut = f"SNR² {some.glitch_threshold:g}"
    columns = {
        "net power removed, median": "median_net_removed",
        f"lead over {result.reference}": "lead",
        "net power removed, all": "net_power_removed",
        "power removed, waveform": "power_removed",
        f"lead over {result.waveform_reference}, waveform": "waveform_lead",
        f"cleaned share at {cut}": cleaned,
        f"balanced veto accuracy at {cut}": veto,
        "veto ROC area": "veto_roc_auc",
    }
    harm = {
        "quiet events harmed": harmed,
        "glitches made louder": "grown",
        "power added to quiet events, maps": "added_map",
        "power added to quiet events, waveform": "added_strain",
        "time vetoed": deadtime,
        "time vetoed outside glitches": aside,
    }
    compared = {"lead": result.reference, "waveform_lead": result.waveform_reference}
    columns = {title: key for title, key in columns.items() if compared.get(key, key) is not None}
    quality = [
        {"entrant": name, **{title: per_cent(row[key], key) for title, key in columns.items()}}
        for name, row in result.figures.items()
    ]
    cost = [
        {
            "entrant": name,
            **{title: per_cent(row[key], key) for title, key in harm.items()},
            "parameters": f"{facts[name]['parameters']:,}",
            "training, min": f"{facts[name]['minutes']:.1f}",
            "epochs": str(facts[name]["epochs"] or "-"),
            "inference, ms an event": f"{1000 * facts[name]['seconds']:.1f}",
        }
        for name, row in result.figures.items()
    ]
    explained = (
        "In per cent [95 % interval, bootstrap by group], best first; medians are those over the witnessed glitches. "
        "Net of what is added anywhere. Maps of twins of energies are cleaned by subtracting energies, those of "
        f"waveforms by subtracting waveforms. {_listed(TRIVIAL)} know nothing of the witnesses: they say the same of "
        "every event, and were fitted to the very events judged, which is more than fair. Leads are paired. Made "
        f"louder is a glitch that grows by more than {100 * LOUDER:g} % of its power in the true waveform."
    )
    if result.margin is not None:
        best = next(iter(result.figures))
        explained += (
            f" {best} leads {result.runner_up}, the next one, by {per_cent(result.margin, 'lead')} points "
            "(medians of the same glitches)."
        )
    titles = {
        "entrants": "Entrants by median net power removed, with power removed from the true waveform and harm",
        "accuracy": "Share of glitches cleaned and balanced veto accuracy against the SNR² threshold",
        "groups": "Median net power removed by class of glitch and by witness SNR",
        "missing": "Median net power removed against the number of witnesses missing",
    }
    shown = [
        f"![{titles.get(name, 'Coverage of the uncertainty, and the out-of-distribution score')}]({path})"
        for name, path in pictures.items()
    ]
    trusted = [part for name in result.figures if "trust" in facts[name] for part in _trust_block(name, facts[name])]
    tables = [markdown_table(pd.DataFrame(rows)) for rows in (quality, cost)]
    classes = markdown_table(pd.DataFrame(_class_rows(result, outside)))
    parts = [introduction, explained, *tables, *([classes] if result.kinds["class"] else []), *trusted, *shown]
    return "\n\n".join(parts)


def _class_rows(result: Standings, outside: frozenset[str]) -> list[dict[str, str]]:
    """Medians by class, one row a class."""
    return [
        {
            "class": f"{kind.replace('_', ' ')}{f' {_OUTSIDE}' if kind in outside else ''}",
            "events (groups)": f"{sample.cases} ({sample.groups})",
            **{
                name: per_cent(row[index], "net_power_removed")
                for name, row in result.by_kind["class"].items()
                if name not in TRIVIAL
            },
        }
        for index, (kind, sample) in enumerate(result.kinds["class"])
    ]


def _counted(sample: Sample) -> str:
    """Numbers of events and of their groups."""
    return " in ".join(_parts(sample))


def _parts(sample: Sample) -> list[str]:
    return [f"{sample.cases} events", f"{sample.groups} group{'' if sample.groups == 1 else 's'}"]


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}".capitalize()


def _trust_block(name: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What a twin says of itself where witnesses are missing, and where much is expected: sentences and tables."""
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
    block = said, markdown_table(pd.DataFrame(rows))
    loudness = facts["trust"].get("loudness")  # results of an earlier release have none
    return block if loudness is None else (*block, *_loudness_block(name, loudness))


def _loudness_block(name: str, loudness: Mapping[str, Any]) -> tuple[str, str]:
    """How often limits hold, by the power that is expected in a pixel and the number of missing witnesses."""
    edges = [f"{edge:g}" for edge in loudness["edges"]]
    bins = [f"up to {edges[0]}", *(f"to {edge}" for edge in edges[1:]), "more"]
    rows = [
        {
            "witnesses missing": str(row["missing"]),
            **{
                kind: "-" if within is None else " / ".join(map(_share, within))
                for kind, within in zip(bins, row["within"], strict=True)
            },
        }
        for row in loudness["rows"]
    ]
    said = (
        f"Pixels of {name} within the limits of 50 and 95 %, in per cent, by the power that it expects to be left, in "
        "units of the noise's."
    )
    return said, markdown_table(pd.DataFrame(rows))


def _share(value: float | None) -> str:
    """In per cent; None where there was nothing to count."""
    return "-" if value is None else f"{100 * value:.1f}"


def per_cent(estimate: Estimate, key: str) -> str:
    """Value and interval of a figure of the leaderboard; small shares get more digits."""
    if estimate.value is None:
        return "-"
    digits = 2 if key.startswith(("added", "grown", "harmed", "deadtime")) else 1
    # no "-0.0"
    value, *ends = (
        None if end is None else f"{round(100 * end, digits) + 0.0:.{digits}f}"
        for end in (estimate.value, estimate.low, estimate.high)
    )
    return str(value) if None in ends else f"{value} [{', '.join(map(str, ends))}]"


def _bands(rows: Mapping[str, Sequence[Estimate]]) -> dict[str, Band]:
    return {name: band_of(estimates) for name, estimates in rows.items()}


def band_of(estimates: Sequence[Estimate]) -> Band:
    """Values with their intervals as pictures take them; NaN where there is none."""
    ends = [[one.value, one.low, one.high] for one in estimates]
    table = np.array([[np.nan if end is None else end for end in row] for row in ends]).reshape(-1, 3)
    return Band(table[:, 0], table[:, 1], table[:, 2])
