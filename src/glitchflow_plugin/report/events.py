"""Events of a run of a twin: their table, their time line, and omega scans of the most telling ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from markupsafe import Markup

from glitchflow_plugin.data.records import SpectrogramBatch
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.products.veto_table import outcomes
from glitchflow_plugin.report.charts import timeline
from glitchflow_plugin.report.markup import rendered
from glitchflow_plugin.report.page import Section
from glitchflow_plugin.report.scans import TimeFrequencyMap, drawn, scale, scan, top_of_scale
from glitchflow_plugin.report.tables import table
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.verdict import GLITCH_THRESHOLD, OUTCOMES

EXPLAINING = 2
"""Witnesses whose scans stand beside those of the strain."""

_COLUMNS: Mapping[str, str] = {
    "gps_event": "GPS [s]",
    "event_id": "event",
    "class": "class",
    "outcome": "outcome",
    "decision": "decision",
    "reasons": "reasons",
    "peak_snr2_measured": "measured [SNR²]",
    "peak_snr2_predicted": "predicted [SNR²]",
    "peak_snr2_cleaned": "cleaned [SNR²]",
    "segments": "vetoes",
    "vetoed_seconds": "vetoed [s]",
    "novelty_p": "novelty p",
    "witnesses_missing": "witnesses missing",
}
"""Columns of the event table that the page shows, as far as they are there, and their headings."""

_NOTHING = "(the twin predicts nothing loud)"

_DECIMALS = {f"peak_snr2_{what}": 2 for what in ("measured", "predicted", "cleaned")}
"""Of energies: noise is about 1."""

_MEMORY = 64 * 2**20
"""Bytes of maps in memory at a time."""


@dataclass(frozen=True)
class RunMaps:
    """Where the maps of a run are.

    Attributes:
        made: Cleaned and predicted maps, in this order of channels.
        measured: The maps that the run was made on; None where they are no longer there.
        witnesses: Channels that the twin looked at.
    """

    made: SpectrogramSet
    measured: SpectrogramSet | None
    witnesses: Sequence[str]


def event_sections(
    events: pd.DataFrame, vetoes: pd.DataFrame, chosen: Sequence[int], threshold: float
) -> list[Section]:
    """Time line and table of all events.

    Args:
        events: Event table, see `products.veto_table.EVENT_COLUMNS`.
        vetoes: Veto segments, see `products.veto_table.SEGMENT_COLUMNS`.
        chosen: Rows of the events whose scans the page has.
        threshold: SNR².
    """
    shown = set(chosen)
    links = [f"#{event_name(row)}" if row in shown else "#events" for row in range(len(events))]
    said = outcomes(events)
    gps = events["gps_event"].to_numpy(dtype=np.float64)
    chart = timeline(
        gps,
        loudness(events),
        said,
        vetoes[["gps_start", "gps_end"]].to_numpy(dtype=np.float64),
        links,
        threshold=threshold,
    )
    content = events.assign(
        outcome=said,
        gps_event=[
            Markup('<a href="{}">{}</a>').format(link, f"{time:.3f}") if row in shown else f"{time:.3f}"
            for row, (link, time) in enumerate(zip(links, gps, strict=True))
        ],
    )
    named = all(str(one).startswith(f"{time:.3f}") for one, time in zip(events["event_id"], gps, strict=True))
    columns = [name for name in _COLUMNS if name in content and not (name == "event_id" and named)]
    content = content[columns].round(_DECIMALS).rename(columns=dict(_COLUMNS))
    lead = (
        f"{len(chosen)} of {len(events)} events have scans in this page: their GPS times are links. A click on a "
        "heading sorts, the fields below a table filter its columns. Scans of any time: glitchflow omega GPS."
    )
    return [
        Section("timeline", "Time line", [chart]),
        Section(
            "events",
            "Events",
            [table("table-events", content, "All events by GPS time.", links=("GPS [s]",), leaves=True)],
            lead,
        ),
    ]


def event_name(row: int) -> str:
    """Name of the part of the page that shows a row of the event table."""
    return f"event-{row}"


def loudness(events: pd.DataFrame) -> Float[np.ndarray, " event"]:
    """Largest energy of each event, SNR²: measured, or predicted where nothing was."""
    return events["peak_snr2_measured"].fillna(events["peak_snr2_predicted"]).to_numpy(dtype=np.float64)


def most_telling(events: pd.DataFrame, count: int) -> list[int]:
    """Rows of the events to look at, in order of time: of each outcome the loudest, as evenly as there are such.

    Args:
        events: Event table.
        count: How many at most.
    """
    frame = pd.DataFrame({"outcome": outcomes(events), "loudness": loudness(events)}).reset_index(drop=True)
    frame = frame.sort_values("loudness", ascending=False, kind="stable")
    frame["turn"] = frame.groupby("outcome").cumcount()
    frame["place"] = frame["outcome"].map({name: place for place, name in enumerate(OUTCOMES)})
    rows = frame.sort_values(["turn", "place"], kind="stable").index[:count].to_numpy()
    return rows[np.argsort(events["gps_event"].to_numpy()[rows], kind="stable")].tolist()


def event_parts(events: pd.DataFrame, chosen: Sequence[int], maps: RunMaps) -> Iterator[Markup]:
    """The part of the page for each chosen event: what was said of it, and its scans.

    Args:
        events: Event table.
        chosen: Its rows, in the order in which one walks through them.
        maps: Of the run.
    """
    said = outcomes(events)
    for place, (row, measured, made) in enumerate(_read(chosen, maps)):
        verdict = events.iloc[row]
        scans, colours = _scans(row, verdict, measured, made, maps)
        about = f"GPS {float(verdict['gps_event']):.3f}"
        title = about if str(verdict["event_id"]).startswith(about[4:]) else f"{about}, {verdict['event_id']}"
        yield event_part(chosen, place, title=title, facts=_facts(verdict, said[row]), scans=scans, colours=colours)


def event_part(
    shown: Sequence[int], place: int, *, title: str, facts: Mapping[str, str], scans: Markup, colours: str = ""
) -> Markup:
    """The part of the page for one event, with links to those before and after it.

    Args:
        shown: Rows of all that have such a part, in the order in which one walks through them.
        place: Of this one among them.
        title: What it is called.
        facts: What is said of it.
        scans: Its scans.
        colours: Their scale, if they do not hold it.
    """
    return rendered(
        "event.html",
        name=event_name(shown[place]),
        title=title,
        before=event_name(shown[place - 1]) if place else "",
        after=event_name(shown[place + 1]) if place + 1 < len(shown) else "",
        facts=rendered("facts.html", facts=facts),
        scans=scans,
        scale=colours,
    )


def explaining(
    maps: Float[np.ndarray, "witness frequency time"],
    valid: Bool[np.ndarray, " witness"],
    predicted: Float[np.ndarray, "frequency time"],
) -> dict[int, float]:
    """The witnesses that explain a prediction: the loudest while it is at least half as loud as at its peak.

    Args:
        maps: Of the witnesses, SNR².
        valid: Whether a witness has data.
        predicted: What the twin predicts of the strain, SNR².

    Returns:
        Their largest energies then, SNR², by row, of at most `EXPLAINING` of them, the loudest first.
    """
    columns = predicted.max(axis=0)
    during = columns >= columns.max() / 2
    peaks = np.where(valid, maps[:, :, during].max(axis=(1, 2), initial=0.0), -np.inf)
    best = np.argsort(-peaks, kind="stable")[:EXPLAINING]
    return {int(one): float(peaks[one]) for one in best if valid[one]}


def _read(chosen: Sequence[int], maps: RunMaps) -> Iterator[tuple[int, SpectrogramBatch | None, SpectrogramBatch]]:
    """The maps of the chosen events, one event at a time, read some at a time."""
    sets = [one for one in (maps.measured, maps.made) if one is not None]
    size = sum(4 * len(one.channels) * len(one.frequencies) * len(one.times) for one in sets)
    step = max(1, _MEMORY // size)
    for first in range(0, len(chosen), step):
        rows = list(chosen[first : first + step])
        made = maps.made.read(rows, maps.made.channels[:2])
        wanted = None if maps.measured is None else [maps.measured.target, *maps.witnesses]
        measured = None if maps.measured is None else maps.measured.read(rows, wanted)
        for place, row in enumerate(rows):
            yield row, None if measured is None else _one(measured, place), _one(made, place)


def _one(batch: SpectrogramBatch, place: int) -> SpectrogramBatch:
    part = slice(place, place + 1)
    return SpectrogramBatch(
        batch.event_ids[part], batch.gps_start[part], batch.gps_event[part], batch.maps[part], batch.valid[part]
    )


def _scans(
    row: int, verdict: pd.Series, measured: SpectrogramBatch | None, made: SpectrogramBatch, maps: RunMaps
) -> tuple[Markup, Markup]:
    """The scans of an event about its loudest moment, and the scale of their colours."""
    cleaned, predicted = made.maps[0]
    strain = measured.maps[0, 0] if measured is not None and made.valid[0, 0] else None
    shown: list[tuple[str, np.ndarray, str]] = [("Predicted from the witnesses", predicted, "")]
    if strain is not None and maps.measured is not None:
        shown.insert(0, (f"Real: {maps.measured.target}", strain, ""))
    if made.valid[0, 0]:
        shown.append(("Cleaned: real without the prediction", cleaned, ""))
    if measured is not None:
        found = explaining(measured.maps[0, 1:], measured.valid[0, 1:], predicted)
        during = "while the prediction is above half of its peak" if predicted.max() > GLITCH_THRESHOLD else _NOTHING
        for one, energy in found.items():
            note = f"Of the loudest witnesses {during}: {energy:.4g} SNR²."
            shown.append((f"Witness: {maps.witnesses[one]}", measured.maps[0, 1 + one], note))
    columns = Columns(maps.made.times).gps(float(made.gps_start[0]))
    gps = _loudest_moment(predicted if strain is None else strain, columns, float(verdict["gps_event"]))
    peak = top_of_scale([one for _, one, _ in shown])
    start, length, frequencies = float(columns.edges[0] - gps), columns.duration, maps.made.frequencies
    scans = [
        scan(
            f"{event_name(row)}-{place}", title, [TimeFrequencyMap(energy, frequencies, start, length)], peak, note=note
        )
        for place, (title, energy, note) in enumerate(shown)
    ]
    return drawn(event_name(row), scans, gps), scale(f"scale-{row}", peak)


def _loudest_moment(energy: Float[np.ndarray, "frequency time"], columns: Columns, gps_event: float) -> float:
    """GPS time (s) of the loudest column where it is a glitch, else that of the event; edges of a map do not count."""
    peaks = energy.max(axis=0)
    margin = max(1, len(peaks) // 20)
    loudest = margin + int(peaks[margin:-margin].argmax())
    return float(columns.centre[loudest]) if peaks[loudest] > GLITCH_THRESHOLD else gps_event


def _facts(verdict: pd.Series, outcome: str) -> dict[str, str]:
    facts = {"outcome": outcome}
    for name, heading in _COLUMNS.items():
        if (
            name in verdict
            and name not in ("gps_event", "event_id")
            and not pd.isna(verdict[name])
            and verdict[name] != ""
        ):
            value = round(verdict[name], _DECIMALS[name]) if name in _DECIMALS else verdict[name]
            facts[heading] = f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
    return facts
