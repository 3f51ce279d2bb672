import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.inference.cases import map_statistics
from glitchflow_plugin.inference.run import InferenceSettings, cleaned_name, predicted_name, run_inference
from glitchflow_plugin.inference.score import score_statistics
from glitchflow_plugin.inference.subject import weights_fingerprint
from glitchflow_plugin.inference.trivial import TRIVIAL
from glitchflow_plugin.products.veto_table import outcomes
from glitchflow_plugin.signal.columns import Columns

SETTINGS = InferenceSettings(batch_events=3, replicates=100)
GROUPS = tuple(f"wave {row % 5}" for row in range(10))


def run(bundle, spectrograms, tmp_path, settings=SETTINGS, **options):
    return run_inference(bundle, spectrograms, tmp_path / "out", settings, progress=False, **options)


def test_maps_and_tables_belong_to_their_events(make_bundle, make_set, tmp_path):
    groups = tuple(f"wave {row % 3}" for row in range(10))
    bundle, spectrograms = make_bundle(), make_set(groups=groups)
    result = run(bundle, spectrograms, tmp_path, model={"name": "m", "version": 3})
    source, made = spectrograms.read(), result.maps.read()
    assert made.event_ids == source.event_ids
    assert made.groups == source.groups == groups
    np.testing.assert_array_equal(made.gps_start, source.gps_start)
    assert result.maps.channels == (cleaned_name(bundle.target), predicted_name(bundle.target))
    np.testing.assert_allclose(made.maps[:, 1], 0.9 * source.maps[:, 1], rtol=1e-6)
    np.testing.assert_allclose(
        made.maps[:, 0], np.abs(source.maps[:, 0] - 0.9 * source.maps[:, 1]), rtol=1e-5, atol=1e-5
    )
    assert result.maps.recipe["model"] == {"name": "m", "version": 3}
    assert result.events["event_id"].tolist() == list(source.event_ids)
    np.testing.assert_array_equal(result.events["gps_event"], source.gps_event)
    np.testing.assert_allclose(result.events["peak_snr2_measured"].to_numpy(float), source.maps[:, 0].max(axis=(1, 2)))
    columns = Columns(spectrograms.times)
    assert result.segments["event_id"].tolist() == list(source.event_ids[::2])
    for _, segment in result.segments.iterrows():
        event = source.event_ids.index(segment["event_id"])
        loud = np.flatnonzero(made.maps[event, 1].max(axis=0) > 16)
        edges = columns.left[loud[0]] - SETTINGS.veto_padding, columns.right[loud[-1]] + SETTINGS.veto_padding
        assert segment["gps_start"] == pytest.approx(source.gps_start[event] + edges[0], abs=1e-6)
        assert segment["gps_end"] == pytest.approx(source.gps_start[event] + edges[1], abs=1e-6)
        assert segment["peak_snr2_predicted"] == made.maps[event, 1].max()


def test_verdicts_and_scores_of_a_good_twin(make_bundle, make_set, tmp_path):
    result = run(make_bundle(), make_set(groups=GROUPS), tmp_path)
    has_glitch = [index % 2 == 0 for index in range(10)]
    assert result.events["glitch"].tolist() == has_glitch
    assert result.events["veto"].tolist() == has_glitch
    assert result.events["veto_in_time"].tolist() == has_glitch
    assert result.events["cleaned"].tolist() == has_glitch
    metrics = {name: scores.metrics() for name, scores in result.scores.items()}
    assert set(metrics) == {"model", "linear", "zero", *TRIVIAL}
    # the witness's own noise, which this twin passes on, adds more to the faintest glitch's event than is taken away
    assert metrics["model"]["cleaned_share_snr2_16"].value == pytest.approx(4 / 5)
    assert metrics["zero"]["cleaned_share_snr2_16"].value == 0
    assert metrics["linear"]["cleaned_share_snr2_16"].value == 0
    assert metrics["zero"]["net_power_removed"].value == 0
    assert all(metrics[name]["net_power_removed"].value < 0.3 for name in TRIVIAL)
    assert all(metrics[name]["veto_roc_auc"].value <= 0.5 for name in TRIVIAL)
    assert result.scores["model"].num_events == 10
    assert result.scores["model"].num_groups == 5
    assert result.events["group"].tolist() == [0, 1, 2, 3, 4] * 2
    assert result.events["segments"].tolist() == [1, 0] * 5
    assert result.num_unmeasured == 0


def test_scores_equal_those_of_one_pass_in_memory(make_bundle, make_set, tmp_path):
    spectrograms = make_set(groups=GROUPS)
    source = torch.from_numpy(spectrograms.read().maps)
    # what lies within one tile of an edge mixes both ends of the event
    tile, since = 12 / (2 * np.pi * spectrograms.frequencies[:, None]), spectrograms.times
    inside = (since >= tile) & (since <= 6 - tile)
    expected = map_statistics(source[:, 0], 0.9 * source[:, 1], spectrograms.event_ids, inside=inside, groups=GROUPS)
    scores = run(make_bundle(), spectrograms, tmp_path).scores["model"]
    assert scores.to_dict() == score_statistics(expected, replicates=100).to_dict()


def test_order_of_witnesses_is_the_models(make_bundle, make_set, tmp_path):
    spectrograms = make_set(channels=("V1:STRAIN", "V1:MIC", "V1:SEIS"))  # the maps put MIC first, where the glitch is
    first, second = (
        run_inference(
            make_bundle(witnesses=order), spectrograms, tmp_path / order[0][3:], SETTINGS, progress=False
        ).maps.read()
        for order in (("V1:MIC", "V1:SEIS"), ("V1:SEIS", "V1:MIC"))
    )
    source = spectrograms.read().maps
    np.testing.assert_allclose(first.maps[:, 1], 0.9 * source[:, 1], rtol=1e-6)
    np.testing.assert_allclose(second.maps[:, 1], 0.9 * source[:, 2], rtol=1e-6)


def test_an_invalid_witness_is_silent_counted_and_flagged(make_bundle, make_set, tmp_path):
    valid = np.ones((10, 4), bool)
    valid[2, 1] = valid[3, 1] = valid[3, 2] = valid[4, 3] = False  # the last one is not a witness of the model
    result = run(make_bundle(), make_set(valid=valid), tmp_path)
    assert result.witnesses_missing == {"V1:SEIS": 2, "V1:MIC": 1}
    assert result.events["witnesses_missing"].tolist() == [0, 0, 1, 2, 0, 0, 0, 0, 0, 0]
    assert not result.events["veto"][2]  # only the dead witness saw this glitch
    assert not result.events["cleaned"][2]
    assert result.maps.read([2]).maps[0, 1].max() == 0


def test_events_without_strain_are_vetoed_and_not_scored(make_bundle, make_set, tmp_path):
    valid = np.ones((10, 4), bool)
    valid[[0, 1], 0] = False
    result = run(make_bundle(), make_set(valid=valid), tmp_path)
    assert result.events["veto"].tolist()[:3] == [True, False, True]
    assert result.events["glitch"].isna().tolist() == [True, True] + [False] * 8
    assert result.scores["model"].num_events == 8
    assert result.num_unmeasured == 2
    made = result.maps.read([0])
    assert made.valid.tolist() == [[False, True]]
    assert made.maps[0, 0].max() == 0
    assert made.maps[0, 1].max() > 16


@pytest.mark.parametrize("present", [True, False])
def test_data_without_strain_give_predictions_alone(make_bundle, make_set, tmp_path, present):
    valid = np.ones((6, 4), bool)
    valid[:, 0] = False
    # the strain is dead in all events, or another channel leads the set
    spectrograms = make_set(6, valid=valid) if present else make_set(6, channels=("V1:SEIS", "V1:MIC"))
    result = run(make_bundle(), spectrograms, tmp_path)
    assert result.scores == {}
    assert result.events["veto"].tolist() == [True, False] * 3
    assert result.events["cleaned"].isna().all()
    assert not result.maps.valid[:, 0].any()


def test_a_run_resumes_and_another_model_starts_anew(make_bundle, make_set, tmp_path):
    spectrograms = make_set()
    run(make_bundle(), spectrograms, tmp_path)
    shards = sorted((tmp_path / "out").glob("shard-*.h5"))
    assert len(shards) == 4  # ten events, three at a time
    times = [path.stat().st_mtime_ns for path in shards]
    shards[1].unlink()
    again = run(make_bundle(), spectrograms, tmp_path)
    after = [path.stat().st_mtime_ns for path in shards]
    assert [old == new for old, new in zip(times, after, strict=True)] == [True, False, True, True]
    again.maps.verify()
    other = make_bundle()
    other.twin.share.fill_(0.5)
    half = run(other, spectrograms, tmp_path).maps.read()
    np.testing.assert_allclose(half.maps[:, 1], 0.5 * spectrograms.read().maps[:, 1], rtol=1e-6)


def test_fingerprint_follows_the_weights():
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    assert weights_fingerprint(first) != weights_fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert weights_fingerprint(first) == weights_fingerprint(second)


def test_memory_is_bounded_by_the_batch(make_bundle, make_set, tmp_path, monkeypatch):
    spectrograms = make_set()
    sizes = []
    read = type(spectrograms).read

    def counting(self, rows=None, channels=None):
        sizes.append(len(rows))
        return read(self, rows, channels)

    monkeypatch.setattr(type(spectrograms), "read", counting)
    run(make_bundle(), spectrograms, tmp_path)
    assert sizes == [3, 3, 3, 1] * 3  # the trivial entrants need the measured maps twice more


def test_diverged_models_are_refused(make_bundle, make_set, tmp_path):
    bundle = make_bundle()
    bundle.twin.share.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        run(bundle, make_set(), tmp_path)


def test_settings_check_themselves():
    assert InferenceSettings(accuracy_range=[1, 50]).thresholds == tuple(range(1, 51))
    for wrong in ({"accuracy_range": [5, 1]}, {"accuracy_range": [1]}, {"threshold": 0}, {"batch_events": 0}):
        with pytest.raises(ConfigurationError):
            InferenceSettings(**wrong)
    with pytest.raises(TypeError):
        InferenceSettings(treshold=3)
    assert dataclasses.asdict(InferenceSettings())["threshold"] == 16.0


def test_how_much_is_shown_makes_no_other_result():
    shown = {"batch_size": 2, "batch_events": 2, "examples": 1, "tensorboard_rows": 3, "tensorboard_pictures": 0}
    assert InferenceSettings(**shown).decisive() == InferenceSettings().decisive()
    assert InferenceSettings(stride=8).decisive() != InferenceSettings().decisive()


def test_the_table_and_the_scores_count_the_same_events(make_bundle, make_set, tmp_path):
    result = run(make_bundle(), make_set(groups=GROUPS), tmp_path)
    said, counts = outcomes(result.events).tolist(), result.scores["model"].confusion
    assert counts.hits == said.count("cleaned") + said.count("not cleaned") > 0
    assert (counts.misses, counts.false_alarms) == (said.count("missed"), said.count("false alarm"))
    assert counts.correct_rejections == said.count("quiet")
