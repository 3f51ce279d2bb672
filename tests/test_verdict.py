"""Everybody who says what an event is says the same of it, at any threshold and in either precision."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from glitchflow_plugin import verdict
from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.records import SpectrogramBatch
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.inference.cases import map_statistics
from glitchflow_plugin.inference.clean import loudest_by_column, residual_area
from glitchflow_plugin.inference.generate import label_table
from glitchflow_plugin.inference.run import InferenceSettings, run_inference
from glitchflow_plugin.inference.score import score_statistics
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.plots.timeline import OUTCOMES
from glitchflow_plugin.products.veto_table import EventVerdicts, event_table, outcomes, veto_segments
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.training.energy import EnergyLearner
from glitchflow_plugin.training.gate import GateSettings
from glitchflow_plugin.training.judged_events import Gate, gate_notes
from glitchflow_plugin.types.tensors import host

JUDGED = np.ones((3, 8), dtype=bool)
COLUMNS = Columns(np.arange(8) * 0.5)


def energies(threshold):
    """Energies a map can hold, those next to the threshold among them."""
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
    names, start = [str(row) for row in range(len(peaks))], np.arange(len(peaks)) * 10.0
    statistics = map_statistics(measured, predicted, names, threshold, cleaned=cleaned)
    verdicts = EventVerdicts(
        loudest_predicted=host(loudest_by_column(predicted)),
        peak_measured=statistics.peak_measured,
        peak_in_time=statistics.peak_in_time,
        peak_cleaned=statistics.peak_cleaned,
        residual_area=host(residual_area(cleaned, threshold)),
        measured_valid=np.ones(len(peaks), dtype=bool),
        witnesses_missing=np.zeros(len(peaks), dtype=np.int64),
    )
    segments = veto_segments(names, start, COLUMNS, verdicts.loudest_predicted, threshold=threshold)
    told = {"verdicts": verdicts, "segments": segments, "threshold": threshold, "judged": JUDGED}
    return event_table(names, start, start + 2, COLUMNS, groups=np.arange(len(peaks)), **told), statistics


@settings(deadline=None, max_examples=50)
@given(cases())
@example((16.0, np.array([[16.0, 16.0, 16.0]], dtype=np.float32)))
@example((16.1, np.array([[16.1, 16.1, 16.1]], dtype=np.float32)))
@example((16.1, np.array([[30.0, 30.0, 16.1], [2.0, 2.0, 16.1]], dtype=np.float32)))
def test_tables_and_scores_agree(case):
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
    grown = peaks[:, 2].astype(float) > 1.05 * peaks[:, 0].astype(float)
    np.testing.assert_array_equal(statistics.harmed, ~glitch & (left | grown))
    scores = score_statistics(statistics, thresholds=(), replicates=0)
    assert (scores.glitches.cases, scores.quiet.cases) == (glitch.sum(), (~glitch).sum())
    assert (scores.confusion.hits, scores.confusion.misses) == ((glitch & vetoed).sum(), (glitch & ~vetoed).sum())
    assert scores.confusion.false_alarms == (~glitch & vetoed).sum()
    expected = np.where(~glitch, np.where(vetoed, "false alarm", "quiet"), np.where(left, "not cleaned", "cleaned"))
    assert outcomes(table).tolist() == np.where(glitch & ~vetoed, "missed", expected).tolist()


@settings(deadline=None, max_examples=50)
@given(cases())
def test_where_nothing_is_added_the_score_counts_what_the_table_calls_cleaned(case):
    threshold, peaks = case
    peaks = np.stack([peaks[:, 0], np.zeros(len(peaks), np.float32), np.minimum(peaks[:, 2], peaks[:, 0])], axis=1)
    table, statistics = tables(peaks, threshold)
    share = score_statistics(statistics, thresholds=(), replicates=0).cleaned_share.at(threshold).value
    glitch = table["glitch"].to_numpy(dtype=bool)
    assert share == (pytest.approx(table["cleaned"].to_numpy(dtype=bool)[glitch].mean()) if glitch.any() else None)


@given(cases())
def test_precision_and_library_do_not_matter(case):
    threshold, peaks = case
    expected = [truth(row, threshold).tolist() for row in peaks]
    for array in (peaks, peaks.astype(float), torch.from_numpy(peaks), torch.from_numpy(peaks).double()):
        assert verdict.above(array, threshold).tolist() == expected
        assert (~verdict.is_quiet(array, threshold)).tolist() == expected
    levels = np.array([threshold, 2 * threshold])
    assert verdict.above(peaks.astype(float)[..., None], levels)[..., 0].tolist() == expected


def test_what_is_no_number_is_neither_a_glitch_nor_quiet():
    for nothing in (np.array([np.nan]), torch.tensor([torch.nan])):
        assert not verdict.holds_glitch(nothing, 16.0).any()
        assert not verdict.is_quiet(nothing, 16.0).any()


def test_only_what_is_sure_to_be_cleaned_is_subtracted():
    came = [*["cleaned"] * 4, "not cleaned", "missed", "false alarm", "quiet", "no strain", "no strain"]
    vetoed = np.array([True, True, True, True, True, False, True, False, True, False])
    missing, new = np.array([0, 2, 0, 0, 0, 0, 0, 0, 0, 0]), np.array([np.nan, 0.5, 0.01, *[0.5] * 7])
    decisions, reasons = verdict.decide(np.array(came), vetoed, missing, new, np.arange(10) == 3)
    expected = ["subtract", "veto", "veto", "veto", "veto", "pass", "veto", "pass", "veto", "pass"]
    assert decisions.tolist() == expected
    doubts = ["witness missing", "new to the model", "witness stopped"]
    assert reasons[1:4].tolist() == [f"cleaned; {doubt}" for doubt in doubts]
    assert reasons[[0, *range(4, 10)]].tolist() == [came[0], *came[4:]]


def test_every_outcome_can_be_drawn():
    assert tuple(OUTCOMES) == verdict.OUTCOMES


class FirstWitness(nn.Module):
    """Predicts what the first witness shows."""

    def __init__(self):
        super().__init__()
        self.register_buffer("number", torch.zeros(1))

    def forward(self, witnesses):
        return witnesses[:, :1]


def test_a_whole_run_the_windows_the_labels_and_the_gate_agree(tmp_path):
    threshold = 16.1  # which single precision rounds up
    near = np.float32(threshold)
    levels = [np.float32(2), np.nextafter(near, np.float32(0)), near, np.float32(40)]
    # of each event: the strain where the witness is silent, the strain where it is not, and the witness there
    peaks = np.array(list(itertools.product(levels, repeat=3)), dtype=np.float32)
    # the gate knows copies of a strain, so each has noise of its own
    maps = np.random.default_rng(0).random((len(peaks), 2, 64, 257), dtype=np.float32)
    maps[:, 0, 40, 128], maps[:, 0, 30, 128], maps[:, 1, 30, 128] = peaks.T
    maps[:, 1, 40, 128] = 0
    start = 1_200_000_000.0 + 1000.0 * np.arange(len(peaks))
    axes = {"frequencies": np.linspace(8, 400, 64), "times": np.arange(257) * 6 / 256}
    writer = ShardedWriter(
        folder=tmp_path / "maps",
        kind="spectrograms",
        target="STRAIN",
        channels=("STRAIN", "GUIDE"),
        axes={name: values.tolist() for name, values in axes.items()},
        units="SNR^2",
        recipe={"qtransform": {"q": 12.0, "num_times": 257}},
        event_ids=tuple(f"event-{row:02d}" for row in range(len(peaks))),
        shard_size=len(peaks),
    )
    for plan in writer.pending():
        valid = np.ones((len(peaks), 2), dtype=bool)
        writer.write(plan, SpectrogramBatch(plan.event_ids, start, start + 3, maps, valid))
    spectrograms = writer.finish()
    folder = str(tmp_path / "training")
    split = {"block_length": 100.0, "train": 0.1, "validation": 0.1, "gate": 0.7, "test": 0.1}
    parts = Splitter(split, str(spectrograms.folder), folder).execute(spectrograms)
    training_set = Processor({"threshold": threshold}, str(spectrograms.folder), folder).execute(parts)
    bundle = ModelBundle(
        twin=FirstWitness(),
        target="STRAIN",
        witnesses=("GUIDE",),
        recipe=spectrograms.recipe,
        window_size=64,
        **{name: tuple(values.tolist()) for name, values in axes.items()},
        notes=dict(gate_notes(training_set)),
    )

    run_settings = InferenceSettings(threshold=threshold, replicates=0, accuracy_range=(16, 17))
    result = run_inference(bundle, spectrograms, tmp_path / "out", run_settings, progress=False)
    glitch = truth(peaks[:, :2].max(axis=1), threshold)
    vetoed = truth(peaks[:, 2], threshold)
    left = truth(np.maximum(peaks[:, 0], np.abs(peaks[:, 1] - peaks[:, 2])), threshold)
    table = result.events
    assert table["glitch"].tolist() == glitch.tolist()
    assert table["veto"].tolist() == vetoed.tolist()
    assert table["cleaned"].tolist() == (glitch & ~left).tolist()
    counts = result.scores["model"].confusion
    assert (counts.hits, counts.false_alarms) == ((glitch & vetoed).sum(), (~glitch & vetoed).sum())

    windows = training_set.windows.groupby("event_id")["glitch"].any()
    assert windows.to_dict() == dict(zip(table["event_id"], glitch.tolist(), strict=True))
    assert (label_table(spectrograms, threshold)["label"] == "glitch").tolist() == glitch.tolist()

    gate_settings = GateSettings(injections=0, min_groups=5, min_quiet=1, replicates=100)
    losses = EnergyLearner(training_set, {"name": "unet"}).event_losses
    gate = Gate(training_set, None, losses, bundle, gate_settings, torch.device("cpu"), threshold=threshold)
    figures = gate.decide().figures
    judged = np.isin(table["event_id"], training_set.split.gate.event_ids)
    assert figures["quiet_events"] == (~glitch & judged).sum() > 0
    assert figures["harmed_share"] == pytest.approx((left & ~glitch & judged).sum() / (~glitch & judged).sum())
