"""Everybody who says what an event is says the same of it, at any threshold and in either precision."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glitchflow_plugin import verdict
from glitchflow_plugin.data.training_set import WindowSettings, _check_windows, index_windows
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.inference.clean import residual_area
from glitchflow_plugin.inference.generate import label_table
from glitchflow_plugin.inference.predict import Prediction
from glitchflow_plugin.inference.report import pictured
from glitchflow_plugin.inference.run import _judge
from glitchflow_plugin.inference.score import map_statistics, score_statistics
from glitchflow_plugin.plots import timeline
from glitchflow_plugin.products.veto_table import event_table, outcomes, veto_segments
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.training.judged_events import Gate

JUDGED = np.ones((3, 8), dtype=bool)
COLUMNS = Columns(np.arange(8) * 0.5)


def energies(threshold):
    """Energies a map can hold, those about the threshold among them."""
    near = np.float32(threshold)
    close = [near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))]
    return st.one_of(st.sampled_from(close), st.floats(0, 1000, width=32).map(np.float32))


@st.composite
def cases(draw):
    """A threshold, and the largest measured and predicted energies and what is left in some events."""
    threshold = draw(st.one_of(st.sampled_from([16.0, 16.1, 0.1, 25.3]), st.floats(0.01, 100)))
    peaks = draw(st.lists(st.tuples(*[energies(threshold)] * 3), min_size=1, max_size=6))
    return threshold, np.array(peaks, dtype=np.float32)


def maps_of(peaks):
    """Maps (event, frequency, time) that are silent but for one pixel."""
    maps = torch.zeros(len(peaks), 3, 8)
    maps[:, 1, 4] = torch.from_numpy(np.ascontiguousarray(peaks))
    return maps


def truth(peaks, threshold):
    """Python's own comparison of real numbers."""
    return np.array([float(peak) > threshold for peak in peaks])


def tables(peaks, threshold):
    """The event table, and what scoring knows, of events with these energies."""
    measured, predicted, cleaned = (maps_of(peaks[:, column]) for column in range(3))
    names = [str(row) for row in range(len(peaks))]
    verdicts, statistics = _judge(
        {"model": Prediction(measured, predicted, cleaned)},
        events=names,
        groups=np.arange(len(peaks)),
        has_strain=np.ones(len(peaks), dtype=bool),
        witnesses_missing=np.zeros(len(peaks), dtype=np.int64),
        judged=JUDGED,
        threshold=threshold,
    )
    start = np.arange(len(peaks)) * 10.0
    segments = veto_segments(names, start, COLUMNS, verdicts.loudest_predicted, threshold=threshold)
    table = event_table(
        names,
        start,
        start + 2,
        COLUMNS,
        verdicts=verdicts,
        segments=segments,
        threshold=threshold,
        judged=JUDGED,
        groups=np.arange(len(peaks)),
    )
    return table, statistics["model"]


def gate_figures(peaks, threshold):
    """What the gate finds in the same events."""
    measured, predicted, cleaned = (maps_of(peaks[:, column]) for column in range(3))
    gate = object.__new__(Gate)
    losses = lambda said, inside: (torch.zeros(len(said.measured)), torch.zeros(len(said.measured), 1))  # noqa: E731
    for name, value in {"threshold": threshold, "losses": losses, "events": None, "_inside": torch.ones(3, 8)}.items():
        gate.__dict__[name] = value
    return gate._figures(Prediction(measured, predicted, cleaned))


@settings(deadline=None)
@given(cases())
@example((16.0, np.array([[16.0, 16.0, 16.0]], dtype=np.float32)))
@example((16.1, np.array([[16.1, 16.1, 16.1]], dtype=np.float32)))
@example((16.1, np.array([[30.0, 30.0, 16.1], [2.0, 2.0, 16.1]], dtype=np.float32)))
def test_tables_scores_and_gate_agree(case):
    threshold, peaks = case
    glitch, vetoed, left = (truth(peaks[:, column], threshold) for column in range(3))
    table, statistics = tables(peaks, threshold)
    assert table["glitch"].tolist() == glitch.tolist()
    assert table["veto"].tolist() == vetoed.tolist()
    assert table["cleaned"].tolist() == (glitch & ~left).tolist()
    assert (table["residual_area_pixels"] > 0).tolist() == left.tolist()
    np.testing.assert_array_equal(statistics.glitch, glitch)
    np.testing.assert_array_equal(statistics.columns_of_glitch > 0, glitch)
    np.testing.assert_array_equal(statistics.columns_vetoed > 0, vetoed)
    np.testing.assert_array_equal(statistics.glitch_power != 0, glitch)
    grown = peaks[:, 2].astype(float) > 1.05 * peaks[:, 0].astype(float)
    np.testing.assert_array_equal(statistics.harmed, ~glitch & (left | grown))
    scores = score_statistics(statistics, thresholds=(), replicates=0)
    assert (scores.glitches.cases, scores.quiet.cases) == (glitch.sum(), (~glitch).sum())
    assert scores.confusion.hits == (glitch & vetoed).sum()
    assert scores.confusion.false_alarms == (~glitch & vetoed).sum()
    judged = gate_figures(peaks, threshold)
    np.testing.assert_array_equal(judged["quiet"], ~glitch)
    np.testing.assert_array_equal(judged["harmed"], ~glitch & left)
    said = {(0, 0): "quiet", (0, 1): "false alarm", (1, 0): "missed"}
    expected = [
        said.get((one, veto), "not cleaned" if rest else "cleaned")
        for one, veto, rest in zip(glitch, vetoed, left, strict=True)
    ]
    assert outcomes(table).tolist() == expected


@settings(deadline=None)
@given(cases())
def test_a_share_of_cleaned_glitches_counts_those_that_the_table_calls_cleaned(case):
    threshold, peaks = case
    # nothing predicted and no energy added: then the score is as lenient as the table
    peaks = np.stack([peaks[:, 0], np.zeros(len(peaks), np.float32), np.minimum(peaks[:, 2], peaks[:, 0])], axis=1)
    table, statistics = tables(peaks, threshold)
    share = score_statistics(statistics, thresholds=(), replicates=0).cleaned_share.at(threshold).value
    glitch = table["glitch"].to_numpy(dtype=bool)
    assert share == (pytest.approx(table["cleaned"].to_numpy(dtype=bool)[glitch].mean()) if glitch.any() else None)


@settings(deadline=None)
@given(cases())
def test_precision_and_library_do_not_matter(case):
    threshold, peaks = case
    expected = [truth(row, threshold).tolist() for row in peaks]
    for array in (peaks, peaks.astype(float), torch.from_numpy(peaks), torch.from_numpy(peaks).double()):
        assert verdict.above(array, threshold).tolist() == expected
        assert (~verdict.is_quiet(array, threshold)).tolist() == expected
    levels = np.array([threshold, 2 * threshold])
    assert verdict.above(peaks.astype(float)[..., None], levels)[..., 0].tolist() == expected
    assert residual_area(maps_of(peaks[:, 0]), threshold).tolist() == [int(row[0]) for row in expected]


@settings(deadline=None)
@given(cases())
def test_windows_and_generated_maps_are_labelled_alike(case):
    threshold, peaks = case
    glitch = truth(peaks[:, 0], threshold)
    batch = SimpleNamespace(
        event_ids=[str(row) for row in range(len(peaks))],
        gps_start=np.zeros(len(peaks)),
        gps_event=np.zeros(len(peaks)),
        maps=maps_of(peaks[:, 0]).numpy()[:, None],
        valid=np.ones((len(peaks), 1), dtype=bool),
    )
    batch.__class__.__len__ = lambda self: len(self.event_ids)
    maps = SimpleNamespace(
        event_ids=batch.event_ids,
        target="strain",
        times=COLUMNS.centre,
        frequencies=np.arange(3.0),
        batches=lambda *_, **__: [batch],
    )
    assert (label_table(maps, threshold)["label"] == "glitch").tolist() == glitch.tolist()
