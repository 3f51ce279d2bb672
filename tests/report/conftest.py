"""A run of a twin with hostile names, its page, and a browser to look at it."""

import numpy as np
import pytest

from glitchflow_plugin.data.records import SpectrogramBatch
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, write_summary
from glitchflow_plugin.products.veto_table import (
    EventVerdicts,
    event_table,
    veto_segments,
    with_decisions,
    write_table,
)
from glitchflow_plugin.signal.columns import Columns

HOSTILE = "V1:</script><script>hacked=1</script><img src=x onerror='hacked=1'>&\"'"
TIMES = np.arange(257) * 6.0 / 257
FREQUENCIES = np.linspace(8, 400, 64)


def tables(folder, num_events, *, measured=None, predicted=None, cleaned=None, valid=None):
    """The tables of a run as inference writes them; drawn peaks where no maps are given."""
    generator = np.random.default_rng(0)
    columns = Columns(TIMES)
    starts = 1_400_000_000.25 + 64.0 * np.arange(num_events)
    loudest = generator.exponential(3, (num_events, len(TIMES))) if predicted is None else predicted.max(axis=1)
    peaks = [
        generator.uniform(5, 200, num_events) if one is None else one.max(axis=(1, 2)) for one in (measured, cleaned)
    ]
    verdicts = EventVerdicts(
        loudest_predicted=loudest,
        peak_measured=peaks[0],
        peak_in_time=loudest.max(axis=1),
        peak_cleaned=peaks[1],
        residual_area=(peaks[1] > 16).astype(np.int64),
        measured_valid=np.ones(num_events, bool) if valid is None else valid,
        witnesses_missing=np.zeros(num_events, np.int64),
    )
    ids = [f"event-{row:05d}" if row else HOSTILE for row in range(num_events)]
    segments = veto_segments(ids, starts, columns, loudest, threshold=16.0)
    events = event_table(
        ids,
        starts,
        starts + 3,
        columns,
        verdicts=verdicts,
        segments=segments,
        threshold=16.0,
        judged=np.ones((len(FREQUENCIES), len(TIMES)), bool),
        groups=np.arange(num_events),
    )
    write_table(segments, folder, "segments")
    write_table(with_decisions(events), folder, "events")
    return ids, starts


def write_maps(folder, channels, maps, *, valid, ids, starts):
    writer = ShardedWriter(
        folder=folder,
        kind="spectrograms",
        target=channels[0],
        channels=channels,
        axes={"frequencies": FREQUENCIES.tolist(), "times": TIMES.tolist()},
        units="SNR^2",
        recipe={"made": "for a test"},
        event_ids=tuple(ids),
    )
    for plan in writer.pending():
        rows = [ids.index(one) for one in plan.event_ids]
        batch = SpectrogramBatch(plan.event_ids, starts[rows], starts[rows] + 3, maps[rows], valid[rows])
        writer.write(plan, batch)
    writer.finish()


def run_folder(root, num_events=24):
    """A run in which the witness LOUD explains every other event; in the last there is no strain."""
    generator = np.random.default_rng(1)
    channels = ("V1:STRAIN", "V1:QUIET", "V1:LOUD", HOSTILE)
    maps = generator.exponential(1.0, (num_events, 4, 64, 257)).clip(max=9).astype(np.float32)
    for row in range(0, num_events, 2):
        maps[row, [0, 2], 20:24, 60 + row : 70 + row] = 50 + row
    valid = np.ones((num_events, 4), bool)
    valid[-1, 0] = False
    predicted = maps[:, 2] * (maps[:, 2] > 16)
    cleaned = np.maximum(maps[:, 0] - predicted, 0.5)
    place = root / "inference" / "run"
    ids, starts = tables(
        place, num_events, measured=maps[:, 0], predicted=predicted, cleaned=cleaned, valid=valid[:, 0]
    )
    write_maps(root / "temp" / "maps", channels, maps, valid=valid, ids=ids, starts=starts)
    made, whole = np.stack([cleaned, predicted], axis=1), valid[:, :1].repeat(2, 1)
    write_maps(
        place / "maps",
        ("V1:STRAIN_CLEANED", "V1:STRAIN_PREDICTED"),
        made,
        valid=whole,
        ids=ids,
        starts=starts,
    )
    summary = RunSummary(
        "inference_pipeline/Make-inference",
        "2026-01-01T00:00:00+00:00",
        inputs={"spectrograms": "temp/maps", "target": HOSTILE, "threshold_snr2": 16.0},
        events=EventCounts.from_reasons(num_events, []),
        metrics={"veto_roc_auc": Metric(0.9, 0.8, 0.95, {"linear": 0.7})},
        outputs={"events": HOSTILE},
        warnings=(HOSTILE,),
        details={"witnesses_missing": dict.fromkeys(channels[1:], 0)},
    )
    write_summary(place, summary)
    return place


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return run_folder(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def page_file(run):
    pytest.importorskip("bokeh")
    pytest.importorskip("itables")
    from glitchflow_plugin.report.run import write_report

    return write_report(run)


@pytest.fixture
def visit(browser):
    """Open a page at a width; whatever it asks of the network, and whatever goes wrong in it, fails the test."""
    opened, troubles = [], []

    def visit(file, width=1440, part="", wait="#events table.dataTable tbody tr td"):
        page = browser.new_page(viewport={"width": width, "height": 900})
        opened.append(page)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: troubles.append(asked.url) if asked.url.startswith(("http", "//")) else None)
        page.goto(file.as_uri() + part)
        page.wait_for_selector(wait)
        return page

    yield visit
    for page in opened:
        page.close()
    assert not troubles


def flaws(page):
    """What is wrong with a page for those who do not see it, or not well."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    return [(one["id"], one["nodes"][0]["html"]) for one in axe.run(page).response["violations"]]
