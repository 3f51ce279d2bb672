"""Times that a model of triggers was asked about: their table, how many of what, and which deserve a look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from glitchflow_plugin.data.readers.continuous import matches
from glitchflow_plugin.errors import GlitchflowError
from glitchflow_plugin.plots.curves import Band
from glitchflow_plugin.preprocessing.omega import channels_at, scan_windows
from glitchflow_plugin.products.classified import EXPLAINED, HEADINGS, QUIET, readable
from glitchflow_plugin.products.summary import number
from glitchflow_plugin.report.charts import Chart, curves
from glitchflow_plugin.report.events import event_name, event_part
from glitchflow_plugin.report.omega import channel_scans
from glitchflow_plugin.report.page import Section
from glitchflow_plugin.report.scans import WINDOWS
from glitchflow_plugin.report.tables import Table, table

EXAMPLES = 12
"""Times of each sort, glitches and uncertain ones, that have scans at most: each is read and transformed anew."""

_MOST = 10_000
"""Times that the page lists at most, some MB."""

_QUEUE = 50
"""Uncertain times that are listed."""


@dataclass(frozen=True)
class Example:
    """A time with scans.

    Attributes:
        row: Its row in the table.
        gps: The time, GPS s.
        facts: What is said of it.
        scans: Of the strain and of the channel with the loudest trigger.
    """

    row: int
    gps: str
    facts: Mapping[str, str]
    scans: Markup


def classified_sections(
    told: pd.DataFrame, target: str, series: Sequence[Mapping[str, Any]], folder: Path, scans: int
) -> tuple[list[Section], list[Markup]]:
    """Sections on times that a model was asked about, and the parts of the page with their scans.

    Args:
        told: Content of `classified.parquet`.
        target: The strain channel.
        series: Entries of datasets.yaml: where there are series about these times.
        folder: Of the result; relative paths of the series count from a folder above it.
        scans: Times with scans, at most.
    """
    told = readable(told)
    queue = told.sort_values("entropy", ascending=False, kind="stable").head(_QUEUE)
    at_hand = _at_hand(series, folder)
    asked = _examples(told, queue, scans) if at_hand else []
    shown, why = _scanned(told, asked, target, at_hand)
    links = {one.row: event_name(one.row) for one in shown}
    listed = told if len(told) <= _MOST else told.nlargest(_MOST, "rank").sort_values("time")
    cut = f" The {_MOST} of the highest ranks of {len(told)}; the files have all." if len(listed) < len(told) else ""
    caption = f"Times by GPS.{cut} {EXPLAINED}"
    lead = (
        f"{len(shown)} of {len(told)} times have scans in this page: their GPS times are links. A click on a heading "
        "sorts, the fields below a table filter its columns."
        if shown
        else f"No time has scans here: {why or 'no series are at hand (triggers.classify.series)'}."
    )
    sections = [
        Section("counts", "Counts", [_counts(told)]),
        Section("events", "Times", [_times("table-events", listed, links, caption, leaves=True)], lead),
        Section(
            "uncertain",
            "Uncertain times",
            [_times("table-uncertain", queue, links, "Times of which least is known, the least known first.")],
            "A look at these by eye teaches most: of their answers the entropy is the largest.",
        ),
    ]
    rows = [one.row for one in shown]
    parts = [
        event_part(rows, place, title=f"GPS {one.gps}", facts=one.facts, scans=one.scans)
        for place, one in enumerate(shown)
    ]
    return sections, parts


def trust_section(trust: Mapping[str, Any]) -> Section:
    """How far the answers of a model hold: `training.triggers.trust`, as its notes have it.

    Args:
        trust: The note.
    """
    found = pd.DataFrame(trust["reliability"]).astype(np.float64)
    rows = found.rename(columns={"low": "observed from", "high": "to"}).astype({"times": int})
    confusion = trust["confusion"]
    counts = pd.DataFrame(confusion["counts"], columns=[f"said {one}" for one in confusion["told"]])
    counts.insert(0, "true", confusion["true"])
    blocks: list[Chart | Table] = [
        _reliability(found),
        table(
            "table-reliability",
            rows,
            "The same in numbers, with 95 % intervals by block of time; none has a width where all times agree.",
        ),
        table(
            "table-confusion",
            counts,
            "Held-out times by what is true of them, a row each, and what the model says. Quiet: its glitch is below "
            "0.5. glitch: of a class that is not known.",
        ),
    ]
    lead = "The model asked about blocks of time that taught and chose nothing of it."
    return Section("trust", "How far it can be trusted", blocks, lead)


def _reliability(found: pd.DataFrame) -> Chart:
    claimed, band = found["claimed"].to_numpy(), Band(*(found[key].to_numpy() for key in ("observed", "low", "high")))
    ends, none = np.array([0.0, 1.0]), np.full(2, np.nan)
    content = {"the model": (claimed, band), "as claimed": (ends, Band(ends, none, none))}
    caption = (
        "Share of held-out times with a glitch, against the probability that is claimed of times drawn as these are; "
        "the column glitch follows from it by the rate among all times."
    )
    return curves("chart-reliability", caption, content, ("claimed probability", "share of glitches"), marked=True)


def _counts(told: pd.DataFrame) -> Table:
    """Times by loudest channel and what is said of them."""
    names = told["channel"].replace("", "(no trigger)")
    counts = pd.crosstab(names, told["said"])
    words = sorted(counts.columns, key=lambda word: (word != QUIET, word))
    content = pd.DataFrame({"loudest channel": counts.index, "times": counts.sum(axis=1).to_numpy()})
    content["glitches expected"] = told["glitch"].groupby(names).sum().loc[counts.index].to_numpy()
    for word in words:
        content[word] = counts[word].to_numpy()
    caption = "Times by the channel of the loudest trigger about them, and by what the model says."
    return table("table-counts", content.sort_values("glitches expected", ascending=False), caption)


def _times(name: str, rows: pd.DataFrame, links: Mapping[int, str], caption: str, *, leaves: bool = False) -> Table:
    content = rows[[one for one in HEADINGS if one in rows]].copy()
    content["gps"] = [
        Markup('<a href="#{}">{}</a>').format(links[row], time) if row in links else time
        for row, time in zip(rows.index, rows["gps"], strict=True)
    ]
    return table(name, content.rename(columns=dict(HEADINGS)), caption, links=("GPS [s]",), leaves=leaves)


def _examples(told: pd.DataFrame, queue: pd.DataFrame, scans: int) -> list[int]:
    """Rows that are shown, by time: of each class the surest in turn, and the least known."""
    glitches = told[told["said"] != QUIET].sort_values("rank", ascending=False, kind="stable")
    turn = glitches.groupby("said").cumcount()
    sure = glitches.index[np.argsort(turn.to_numpy(), kind="stable")][:EXAMPLES]
    return sorted(list(dict.fromkeys([*sure, *queue.index[:EXAMPLES]]))[:scans])


def _at_hand(series: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Entries whose files are here; the others would have to be asked for over the network."""
    places = [Path(), *folder.resolve().parents]
    found = []
    for entry in series:
        paths = [at / entry["path"] for at in places] if entry.get("path") else []
        path = next((one for one in paths if one.exists() or matches(one)), None)
        found += [] if path is None else [{**entry, "path": str(path)}]
    return found


def _scanned(
    told: pd.DataFrame, rows: Sequence[int], target: str, series: Sequence[Mapping[str, Any]]
) -> tuple[list[Example], str]:
    """The times with their scans, where there are data about them; else why the first has none."""
    found, why = [], ""
    for row in rows:
        time = told.loc[row]
        witness = [str(time["channel"])] if ":" in str(time["channel"]) else []
        try:
            at = channels_at(series, None, float(time["time"]) / 1e9, channels=[target, *witness])
        except (GlitchflowError, OSError) as error:
            why = why or str(error)
            continue
        scans = channel_scans(event_name(row), at, scan_windows(at, WINDOWS), range(len(at.channels)))
        facts = {heading: _fact(time[name]) for name, heading in HEADINGS.items() if name in time and name != "gps"}
        found.append(Example(row, time["gps"], facts, scans))
    return found, why


def _fact(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)
