"""The page of a run: what a step left in its folder, put together for a reader."""

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from glitchflow_plugin.data.ranking_file import RESULTS_NAME, ChannelRanking, read_ranking
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import FormatError, GlitchflowError
from glitchflow_plugin.inference.figures import LABELS, VETO_LABELS
from glitchflow_plugin.plots.curves import Band
from glitchflow_plugin.products.classified import STEM, TABLE_NAME
from glitchflow_plugin.products.folder import MANIFEST_NAME, read_manifest
from glitchflow_plugin.products.pictures import IMAGES
from glitchflow_plugin.products.summary import Metric, RunSummary, number, read_summary
from glitchflow_plugin.report.charts import Chart, curves, series
from glitchflow_plugin.report.classified import classified_sections, trust_section
from glitchflow_plugin.report.contest import contest_sections
from glitchflow_plugin.report.events import RunMaps, event_parts, event_sections, most_telling
from glitchflow_plugin.report.markup import picture_uri, rendered
from glitchflow_plugin.report.page import PAGE_NAME, Page, Section, write_page
from glitchflow_plugin.report.tables import table
from glitchflow_plugin.signal.noise_change import BANDS, FFT_LENGTH
from glitchflow_plugin.streaming.noise import whole_noise
from glitchflow_plugin.verdict import GLITCH_THRESHOLD

SCANS = 100
"""Events whose scans a page holds where nothing else is asked for: about 40 kB each."""

_TEXTS: Mapping[str, str] = {
    "attribution": "Shares of each prediction's power by witness (Shapley values).",
    "accuracy": "Share of glitches cleaned, and balanced accuracy of the veto, against the threshold.",
    "coincidence": "Events in which a witness glitches with the strain: maps of both, shared spikes marked.",
    "coincidences": "Events in which a witness glitches with the strain: maps of both, shared spikes marked.",
    "confusion": "Counts of events by what was measured and whether they are vetoed.",
    "corr": "Channels by the share of the strain's spikes that they share, with what chance gives.",
    "coupling": "Gain of each witness along time, compared with what it was when the twin was trained.",
    "distance": "Change of the SNR of each signal by cleaning, against its distance to the nearest glitch.",
    "entrants": "Entrants by median net power removed, with power removed from the true waveform and harm.",
    "false_alarms": "Vetoes without a glitch in the strain: real, generated and cleaned maps.",
    "groups": "Median net power removed by class of glitch and by witness SNR.",
    "iou": "Channels by shared spikes over all spikes of the two.",
    "loudest": "The loudest glitches: real, generated and cleaned maps.",
    "median": "Glitches of median loudness: real, generated and cleaned maps.",
    "missed": "Glitches without a veto in their time: real, generated and cleaned maps.",
    "missing": "Median net power removed against the number of witnesses missing.",
    "noise": "Noise before and after subtraction: spectral densities in quiet time, and the inspiral range along time.",
    "parallel": "Trials, a line each: what was drawn, what came of it, and in colour the score.",
    "ranking": "Channels by rounds and families, with the figures of each.",
    "recovered": "SNR of each signal after cleaning against that before, plain and re-weighted.",
    "roc": "Hit rate against false-alarm rate of the veto, beside the rivals.",
    "sweep": "SNR of the loudest predictions with a witness scaled or delayed.",
    "timeline": "Events and vetoes along time.",
    "transfer": "Response of the prediction to each witness along frequency: gain, and coherence.",
    "trust": "Coverage of the uncertainty, and the out-of-distribution score.",
    "uncleaned": "Glitches with a pixel above the threshold after cleaning: real, generated and cleaned maps.",
    "veto_efficiency": "Efficiency of vetoes against their deadtime, beside the rivals.",
    "veto_reliability": "Share of clean time that claims a false-alarm probability, against that probability.",
    "worst": "Glitches with the largest energy left: real, generated and cleaned maps.",
}
"""What known pictures show; the others are called by their names."""

_CHARTED = ("timeline", "roc", "veto_efficiency")
"""Pictures of which the page of a run with events has a chart."""

_TABLES: Mapping[str, str] = {
    "attribution": "shares of each prediction by witness: Shapley values, and what goes when the witness is silenced",
    "cases": "predictions as they are and with the changed witnesses",
    "coupling": "gain of each witness, by comparing the prediction with the strain",
    "entrants": "entrants of the leaderboard, with the ends of the intervals and what each cost",
    "harm": "what cleaning does to signals by kind, place and SNR, with the ends of the intervals",
    "injections": "signals one by one, before and after cleaning",
    "kinds": "median net power removed by kind of event",
    "labels": "what was made, by GPS time",
    "rank_reliability": "claimed probabilities of a glitch, and the share of times at which there is one",
    "residual": "what is left of the glitches, by band",
    "safety": "witnesses that follow the strain, and what signals lose that they hold",
    "segments": "when to veto, a box in time and frequency each",
    "sweep": "the loudest predictions with each active witness at other gains and delays",
    "transfer": "response of the prediction to a witness, by frequency and amplitude",
    "trials": "settings that were drawn, and what came of them",
    "true_witness": "the witness that the twin, loudness and the scan name, beside the true one",
    "veto_reliability": "claimed false-alarm probabilities, and the share of clean time that claims as much or less",
}
"""What known tables hold; the others are called by their names."""

_SHOWN_ELSEWHERE = ("events", "ranking", "veto_figures", STEM)
"""Tables that other sections show."""

_LINKS = 200
"""Files that are linked at most."""

_DATA = ("maps", "spikes", "records", "checkpoints", "entrants", IMAGES, "pictures")
"""Folders below a result whose files nobody opens one by one."""


def write_report(folder: Path | str, *, scans: int = SCANS) -> Path:
    """Write the page of a run into its folder, beside its summary, and return its path.

    Args:
        folder: A folder with a summary.
        scans: Events whose omega scans the page holds, at most; the table has all of them.

    Raises:
        FormatError: The folder holds no summary, or something in it is damaged.
    """
    folder = Path(folder)
    summary = read_summary(folder)
    sections = [_overview(summary), *_scan_sections(folder)]
    told, parts = _events(folder, summary, scans)
    sections += told
    if isinstance(board := summary.details.get("leaderboard"), Mapping) and "entrants" in board:
        sections += contest_sections(board)
    if (folder / TABLE_NAME).is_file():
        times, more = _classified(folder, summary, scans)
        sections, parts = [*sections, *times], [*parts, *more]
    if isinstance(trust := summary.details.get("trust"), Mapping):
        sections.append(trust_section(trust))
    sections += [*_curve_sections(folder, summary), *_stream_sections(folder)]
    sections += [
        *_table_sections(folder),
        *_picture_sections(folder, _CHARTED if told else ()),
        _files(folder, summary),
    ]
    title = f"{summary.pipeline.replace('/', ': ')}, {folder.resolve().name}"
    page = Page(title, _span(summary.started, summary.finished), sections, parts)
    return write_page(folder / PAGE_NAME, page)


def _span(started: str, finished: str) -> str:
    """From when to when a step ran, UTC."""
    first, last = (datetime.fromisoformat(one).astimezone(UTC) for one in (started, finished))
    stop = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    return f"{first:%Y-%m-%d %H:%M:%S} to {stop} UTC"


def _overview(summary: RunSummary) -> Section:
    counts = summary.events
    facts: dict[str, object] = dict(summary.inputs)
    if counts.read:
        rejected = "".join(f"; rejected {number}: {reason}" for reason, number in counts.rejected.items())
        facts["events"] = f"{counts.read} read, {counts.kept} kept{rejected}"
    facts |= {"profile": summary.profile} if summary.profile else {}
    facts |= {f"set {key}": one.told() for key, one in summary.changed.items()}
    facts |= {name: value for name, value in summary.outputs.items() if not _is_place(value)}
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    rows = [
        {"name": name, "value": _number(one.value), "interval": _interval(one), "rivals": _rivals(one)}
        for name, one in summary.metrics.items()
    ]
    blocks = [rendered("facts.html", facts=facts), rendered("notes.html", notes=summary.warnings)]
    return Section(
        "run", "What ran, and what came of it", [*blocks, *([rendered("figures.html", rows=rows)] if rows else [])]
    )


def _is_place(output: object) -> bool:
    """Whether an output is a path or an address; the others are told in words."""
    return "/" in str(output)


def _number(value: float | None) -> str:
    return "undefined" if value is None else number(value)


def _interval(one: Metric) -> str:
    return "" if one.low is None or one.high is None else f"{number(one.low)} to {number(one.high)}"


def _rivals(one: Metric) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in one.baseline.items() if value is not None)


def _scan_sections(folder: Path) -> Iterator[Section]:
    """Rounds as Hveto tells them, and all channels."""
    if not (folder / RESULTS_NAME).is_file():
        return
    ranking = read_ranking(folder)
    caption = "Rounds: the winner of each, and what a veto by it would do. Efficiency, deadtime and use are in percent."
    notes = [f"{name} is unsafe and never selected: {why}" for name, why in ranking.unsafe.items()]
    yield Section(
        "rounds",
        "Rounds",
        [rendered("notes.html", notes=notes), table("table-rounds", _rounds(ranking), caption)],
        f"Spikes of {ranking.target} that the winner of a round explains are set aside, and the rest is ranked again.",
    )
    channels = ranking.table()
    yield Section("channels", "Channels", [table("table-channels", channels, "All channels, best first.")])


def _rounds(ranking: ChannelRanking) -> pd.DataFrame:
    first = ranking.rounds[0].remaining if ranking.rounds else 0
    explained = np.cumsum([one.explained for one in ranking.rounds])
    return pd.DataFrame(
        [
            {
                "round": one.round,
                "winner": one.channel,
                "significance": one.significance,
                "spikes explained": one.explained,
                "of": one.remaining,
                "efficiency [%]": 100 * one.efficiency,
                "deadtime [%]": 100 * one.deadtime,
                "efficiency/deadtime": one.efficiency / one.deadtime if one.deadtime else np.nan,
                "use [%]": one.use_percentage,
                "explained so far [%]": 100 * total / first if first else np.nan,
                "p": one.p_value,
                "q": one.q_value,
            }
            for one, total in zip(ranking.rounds, explained, strict=True)
        ],
        columns=None if ranking.rounds else ["round", "winner", "significance"],
    )


def _events(folder: Path, summary: RunSummary, scans: int) -> tuple[list[Section], list[Markup]]:
    """Sections on the events of a run of a twin, and the part of the page of each whose scans it holds."""
    if not (folder / "events.parquet").is_file():
        return [], []
    events, vetoes = (pd.read_parquet(folder / f"{name}.parquet") for name in ("events", "segments"))
    threshold = float(str(summary.inputs.get("threshold_snr2", GLITCH_THRESHOLD)))
    try:
        maps = _maps(folder, summary, events)
    except (GlitchflowError, OSError) as error:
        maps, why = None, str(error)
    else:
        lost = maps is None or maps.measured is None
        why = f"The maps of {summary.inputs.get('spectrograms')} are no longer those of this run." if lost else ""
    chosen = [] if maps is None else most_telling(events, scans)
    sections = event_sections(events, vetoes, chosen, threshold)
    sections += [Section("scans", "Scans", [rendered("notes.html", notes=[why])])] if why else []
    return sections, [] if maps is None else list(event_parts(events, chosen, maps))


def _classified(folder: Path, summary: RunSummary, scans: int) -> tuple[list[Section], list[Markup]]:
    """Sections on the times that a model of triggers was asked about, and the part of the page of each with scans."""
    told, series = pd.read_parquet(folder / TABLE_NAME), summary.details.get("series")
    if lacking := sorted({"channel", "entropy"}.difference(told)):
        raise FormatError(
            f"{folder / TABLE_NAME}: expected the columns channel and entropy, got no {' and no '.join(lacking)}: an "
            "earlier version wrote it. Run Classify again."
        )
    listed = series if isinstance(series, list) else []
    return classified_sections(told, str(summary.inputs["target"]), listed, folder, scans)


def _maps(folder: Path, summary: RunSummary, events: pd.DataFrame) -> RunMaps | None:
    """The maps of a run, where they are still those that its table is of."""
    if not (folder / "maps").is_dir():
        return None
    made = SpectrogramSet.open(folder / "maps")
    if list(made.event_ids) != events["event_id"].tolist():
        return None
    missing = summary.details.get("witnesses_missing")
    witnesses = list(missing) if isinstance(missing, Mapping) else []
    place = _there(folder, str(summary.inputs.get("spectrograms", "")))
    measured = None if place is None else SpectrogramSet.open(place)
    if measured is not None and measured.event_ids != made.event_ids:
        measured = None
    return RunMaps(made, measured, witnesses)


def _there(folder: Path, name: str) -> Path | None:
    """A folder that a summary names: paths in it count from the run folder, which is above the summary's."""
    candidates = (Path(name), *(above / name for above in folder.resolve().parents))
    return next((one for one in candidates if name and (one / "manifest.json").is_file()), None)


def _curve_sections(folder: Path, summary: RunSummary) -> Iterator[Section]:
    charts: list[Chart] = []
    scores = summary.details.get("scores") or summary.details.get("test")
    if isinstance(scores, Mapping):
        charts += [chart for chart in (_roc(scores), _accuracy(scores)) if chart is not None]
    figures = folder / "veto_figures.parquet"
    if figures.is_file():
        charts.append(_veto_curves(pd.read_parquet(figures)))
    if charts:
        yield Section(
            "curves",
            "Curves",
            charts,
            "Bands are 95 % intervals by group of events. A click on a name hides its curve.",
        )


def _roc(scores: Mapping[str, Any]) -> Chart | None:
    found = {name: one["roc"] for name, one in scores.items() if isinstance(one, Mapping) and one.get("roc")}
    content = {}
    for name, one in found.items():
        hits = np.asarray(one["hit_rate"], dtype=np.float64)
        bare = np.full(len(hits), np.nan)
        content[LABELS.get(name, name)] = (
            np.asarray(one["false_alarm_rate"], dtype=np.float64),
            Band(hits, bare, bare),
        )
    caption = "ROC of the veto: share of glitches vetoed within their time, against the share of quiet events vetoed."
    return curves("chart-roc", caption, content, ("false-alarm rate", "hit rate")) if content else None


def _accuracy(scores: Mapping[str, Any]) -> Chart | None:
    content = {}
    for name, one in scores.items():
        curve = one.get("cleaned_share") if isinstance(one, Mapping) else None
        if isinstance(curve, Mapping):
            value, low, high = (np.array(curve[key], dtype=np.float64) for key in ("value", "low", "high"))
            content[LABELS.get(name, name)] = (
                np.asarray(curve["thresholds"], dtype=np.float64),
                Band(value, low, high),
            )
    caption = "Share of the glitches above a threshold that are cleaned, against that threshold."
    return curves("chart-cleaned", caption, content, ("threshold [SNR²]", "share cleaned")) if content else None


def _veto_curves(figures: pd.DataFrame) -> Chart:
    content = {}
    for name, rows in figures.groupby("veto", sort=False):
        one = rows[rows["deadtime"] > 0].sort_values("deadtime")
        band = Band(
            *(one[key].to_numpy(dtype=np.float64) for key in ("efficiency", "efficiency_low", "efficiency_high"))
        )
        content[VETO_LABELS.get(str(name), str(name))] = (one["deadtime"].to_numpy(dtype=np.float64), band)
    caption = "Efficiency of the vetoes (share of glitches vetoed) against deadtime (share of the judged time vetoed)."
    return curves("chart-veto", caption, content, ("deadtime", "efficiency"), x_axis_type="log")


def _stream_sections(folder: Path) -> Iterator[Section]:
    if not (folder / MANIFEST_NAME).is_file():
        return
    manifest = read_manifest(folder)
    noise = whole_noise(folder, manifest.blocks)
    if noise is not None:
        spectra = pd.DataFrame({"recorded": np.sqrt(noise.before), "clean": np.sqrt(noise.after)})
        spectra.index = pd.Index(np.arange(len(spectra)) / FFT_LENGTH)
        spectra = spectra.loc[BANDS[0] :]
        caption = f"Amplitude spectral density of {manifest.strain} in quiet time, before and after subtraction."
        labels = ("frequency [Hz]", "ASD [recorded unit/√Hz]")
        chart = series("chart-noise", caption, spectra, labels, x_axis_type="log", y_axis_type="log")
        yield Section("noise", "Noise", [chart])
    rows = [
        {
            "GPS start [s]": one.start,
            "GPS stop [s]": one.stop,
            "files": ", ".join(file.name for file in one.files) or "none: no strain",
            **{f"{name} [s]": seconds for name, seconds in one.seconds.items()},
            "witnesses missing": ", ".join(f"{name} {time:.0f} s" for name, time in one.missing.items()),
        }
        for one in manifest.blocks
    ]
    caption = "Blocks by GPS time, and for how long each bit of the state is set."
    yield Section("blocks", "Blocks", [table("table-blocks", pd.DataFrame(rows), caption, leaves=True)])


def _table_sections(folder: Path) -> Iterator[Section]:
    files = [path for path in sorted(folder.glob("*.csv")) if path.stem not in _SHOWN_ELSEWHERE]
    tables = [
        table(
            f"table-{number}",
            pd.read_csv(path),
            f"{path.stem}: {_TABLES[path.stem]}." if path.stem in _TABLES else f"{path.stem}.",
        )
        for number, path in enumerate(files)
    ]
    if tables:
        yield Section("tables", "Tables", tables)


def _picture_sections(folder: Path, shown: Collection[str]) -> Iterator[Section]:
    """Pictures, but for those whose content is `shown` as a chart."""
    places = (folder, folder / IMAGES, folder / "pictures")
    files = [path for place in places for path in sorted(place.glob("*.png")) if path.stem not in shown]
    blocks = []
    for path in files:
        uri, width, height = picture_uri(path)
        text = _caption(path.stem)
        link = path.relative_to(folder).as_posix()
        blocks.append(rendered("picture.html", uri=uri, text=text, width=width, height=height, link=link))
    if blocks:
        yield Section("pictures", "Pictures", blocks)


def _caption(name: str) -> str:
    """What a picture shows; `trust-coupling` is that of `trust` for one entrant."""
    if name in _TEXTS:
        return _TEXTS[name]
    kind, _, whose = name.partition("-")
    return f"{whose}: {_TEXTS[kind]}" if kind in _TEXTS else name.replace("_", " ").replace("-", " ")


def _files(folder: Path, summary: RunSummary) -> Section:
    """Links to what lies beside the page, and where the rest is."""
    beside = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("[!.]*")) if path.is_file())
    names = [name for name in beside if name.split("/")[0] not in _DATA and name != PAGE_NAME]
    links = [{"url": quote(name), "name": name, "text": ""} for name in names[:_LINKS]]
    elsewhere = {
        name: str(value)
        for name, value in summary.outputs.items()
        if _is_place(value) and f"{folder.resolve().name}/" not in str(value)
    }
    links += [{"url": "", "name": name, "text": value} for name, value in elsewhere.items()]
    more = f" The first {_LINKS} of {len(names)}." if len(names) > _LINKS else ""
    return Section(
        "files", "Files", [rendered("links.html", links=links)], f"Links lead to files beside this page.{more}"
    )
