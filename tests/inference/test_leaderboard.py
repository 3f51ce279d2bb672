import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from glitchflow_plugin.data.files import read_json, write_json
from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.inference.cases import map_statistics
from glitchflow_plugin.inference.clean import clean_maps
from glitchflow_plugin.inference.leaderboard import (
    EntrantJudgement,
    HeldOut,
    LeaderboardSettings,
    judge_entrant,
    judge_trivial,
    standings,
    taken_away,
)
from glitchflow_plugin.inference.predict import MapPredictor, Prediction
from glitchflow_plugin.inference.score import Sample
from glitchflow_plugin.inference.trivial import TRIVIAL
from glitchflow_plugin.preprocessing.truth import GlitchTruth, measured_truth

SETTINGS = LeaderboardSettings(missing=(1, 2), batch_events=4, replicates=200, witness_snr=(20.0,), seed=3)


class Share(torch.nn.Module):
    """Predicts a share of what the first witness shows."""

    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, windows):
        return self.share * windows[:, :1]


class Waveform:
    """Knows the true glitch and predicts a share of it."""

    def __init__(self, truth, maps, share):
        self.row_of = {name: row for row, name in enumerate(maps.event_ids)}
        self.truth, self.share = truth, share

    def __call__(self, batch):
        glitch = torch.from_numpy(self.truth.strain[[self.row_of[name] for name in batch.event_ids]])
        measured = torch.from_numpy(batch.maps[:, 0])
        return Prediction(measured, self.share * measured, measured, self.share * glitch, glitch + 1.0)


@pytest.fixture
def held_out(make_set):
    """Ten events; the even ones have a glitch, which the first witness sees, but for the last of them."""
    maps = make_set(10)
    glitch = np.arange(10) % 2 == 0
    strain = np.zeros((10, 32), dtype=np.float32)
    strain[glitch] = np.random.default_rng(0).normal(size=(5, 32))
    seen = glitch & (np.arange(10) < 8)
    truth = GlitchTruth(
        event_ids=maps.event_ids,
        strain=strain,
        label=tuple(("blip" if row < 5 else "tomte") if glitch[row] else "" for row in range(10)),
        snr=np.where(glitch, 20.0, 0.0),
        witness_snr=np.where(seen, 10.0 + 5 * np.arange(10), 0.0),
        witnesses=tuple((maps.channels[1],) if one else () for one in seen),
        has_merger=np.arange(10) == 1,
        group=maps.event_ids,
    )
    return HeldOut(maps, truth)


def maps_of(share):
    return MapPredictor(Share(share), 3)


def test_what_is_kept_of_an_entrant_is_what_it_did_to_the_maps(held_out):
    judged = judge_entrant(maps_of(0.9), held_out, SETTINGS, {"epochs": 3})
    batch = held_out.maps.read()
    measured = torch.from_numpy(batch.maps[:, 0])
    predicted = 0.9 * torch.from_numpy(batch.maps[:, 1])
    expected = map_statistics(measured, predicted, cleaned=clean_maps(measured, predicted))
    np.testing.assert_allclose(judged.statistics.net_removed, expected.net_removed, rtol=1e-5)
    np.testing.assert_allclose(judged.statistics.total_measured, measured.double().sum(dim=(1, 2)), rtol=1e-6)
    assert judged.power_removed is None
    assert judged.seconds > 0
    assert judged.facts == {"epochs": 3}
    # in the order of the events
    assert list(judged.statistics.event) == list(held_out.maps.event_ids)


def test_a_judgement_survives_its_file(held_out, tmp_path):
    judged = judge_entrant(Waveform(held_out.truth, held_out.maps, 0.5), held_out, SETTINGS)
    write_json(tmp_path / "one.json", judged.to_dict())
    again = EntrantJudgement.from_dict(read_json(tmp_path / "one.json"))
    for name in ("power_removed", "series_added"):
        np.testing.assert_array_equal(getattr(again, name), getattr(judged, name))
    for name, values in vars(judged.statistics).items():
        np.testing.assert_array_equal(getattr(again.statistics, name), values)
    assert set(again.without) == {1, 2}
    first, second = (standings({"a": one}, held_out, SETTINGS).to_dict() for one in (judged, again))
    assert json.dumps(first) == json.dumps(second)


def test_witnesses_are_taken_away_alike_for_all_and_one_after_the_other():
    one, two = (taken_away(200, 7, number, 5) for number in (1, 2))
    assert (one.sum(axis=1) == 1).all()
    assert (two.sum(axis=1) == 2).all()
    assert not (one & ~two).any()
    assert one.any(axis=0).all()
    np.testing.assert_array_equal(one, taken_away(200, 7, 1, 5))
    assert (one != taken_away(200, 7, 1, 6)).any()


def test_without_the_witness_there_is_no_figure_and_without_others_nothing_changes(held_out):
    judged = judge_entrant(maps_of(0.9), held_out, SETTINGS)
    away = taken_away(10, 3, 2, SETTINGS.seed)
    chosen = SETTINGS.chosen(held_out.truth)
    kept = chosen & ~away[:, 0]
    assert 0 < kept.sum() < chosen.sum()
    np.testing.assert_array_equal(np.isfinite(judged.without[2]), kept)
    np.testing.assert_allclose(judged.without[2][kept], judged.statistics.net_removed[kept])

    class Second(Share):
        def forward(self, windows):
            return self.share * windows[:, 1:2]

    # what a twin makes of the channel that was taken away is what it makes of silence
    blind = judge_entrant(MapPredictor(Second(100.0), 3), held_out, SETTINGS)
    silent = kept & away[:, 1]
    assert silent.any()
    np.testing.assert_allclose(blind.without[2][silent], 0.0, atol=1e-6)


def test_standings_are_medians_of_the_chosen_best_first(held_out):
    entrants = {"zero": 0.0, "linear": 0.3, "ours": 0.8}
    judged = {name: judge_entrant(maps_of(share), held_out, SETTINGS) for name, share in entrants.items()}
    judged["wave"] = judge_entrant(Waveform(held_out.truth, held_out.maps, 0.5), held_out, SETTINGS)
    result = standings(judged, held_out, SETTINGS, ["linear"])
    chosen = SETTINGS.chosen(held_out.truth)
    assert chosen.sum() == 4
    assert list(result.figures)[:2] == ["ours", "linear"]
    assert result.reference == "linear"
    for name in entrants:
        expected = np.median(judged[name].statistics.net_removed[chosen])
        assert result.figures[name]["median_net_removed"].value == pytest.approx(expected)
    assert result.figures["zero"]["median_net_removed"].value == pytest.approx(0)
    lead = result.figures["ours"]["lead"]
    assert lead.value == pytest.approx(
        result.figures["ours"]["median_net_removed"].value - result.figures["linear"]["median_net_removed"].value
    )
    assert result.figures["wave"]["power_removed"].value == pytest.approx(0.75)
    assert result.figures["ours"]["power_removed"].value is None
    assert result.figures["wave"]["grown"].value == 0
    assert result.figures["ours"]["grown"].value is None
    order = list(result.figures)
    assert result.runner_up == order[1]
    best, second = (result.figures[name]["median_net_removed"].value for name in order[:2])
    assert result.margin.value == pytest.approx(best - second)
    assert result.figures["zero"]["added_map"].value == pytest.approx(0)
    assert result.figures["wave"]["added_strain"].value == 0  # nothing is predicted where there is no glitch
    assert result.kinds["class"] == [("blip", Sample(3, 3)), ("tomte", Sample(1, 1))]
    assert result.kinds["witness SNR"] == [("< 20", Sample(1, 1)), ("> 20", Sample(3, 3))]
    assert result.kinds["witnesses missing"][0] == ("0", Sample(4, 4))
    by_class = result.by_kind["class"]["ours"]
    assert by_class[1].value == pytest.approx(judged["ours"].statistics.net_removed[6])


def test_waveforms_are_compared_with_the_best_linear_one_and_counted_where_they_grow(held_out):
    shares = {"ours": 0.9, "wiener": 0.6, "transfer": 0.3, "wild": 2.5}
    judged = {
        name: judge_entrant(Waveform(held_out.truth, held_out.maps, share), held_out, SETTINGS)
        for name, share in shares.items()
    }
    result = standings(judged, held_out, SETTINGS, ["wiener", "transfer"])
    assert result.waveform_reference == "wiener"
    for name, share in shares.items():
        lead = (1 - (1 - share) ** 2) - (1 - 0.4**2)
        assert result.figures[name]["waveform_lead"].value == pytest.approx(lead, abs=1e-6)
        assert result.figures[name]["grown"].value == (1 if name == "wild" else 0)


def test_where_nothing_is_known_the_maps_tell_which_events_hold_a_glitch(make_set):
    maps = make_set(10, groups=tuple(f"night {row // 2}" for row in range(10)))
    truth = measured_truth(maps, 32, threshold=16.0)
    glitch = np.arange(10) % 2 == 0
    assert truth.measured
    np.testing.assert_array_equal(truth.snr > 0, glitch)
    np.testing.assert_array_equal(truth.quiet, ~glitch)
    np.testing.assert_allclose(truth.snr[glitch], np.sqrt(60.0 + 10 * np.arange(0, 10, 2)))
    np.testing.assert_array_equal(truth.witness_snr > 0, glitch)
    assert set(truth.witnesses) == {(maps.channels[1],), ()}
    assert truth.group == maps.groups
    # what lies outside the pixels that are judged is no glitch
    inside = np.ones((64, 257), bool)
    inside[:, :22] = False
    first = measured_truth(maps, 32, 16.0, inside & (np.arange(257) >= 22 + 14))
    np.testing.assert_array_equal(first.snr > 0, glitch & (np.arange(10) > 0))
    assert measured_truth(maps, 32, threshold=1e3).quiet.all()


def test_wrong_settings_and_truth_of_other_events_are_refused(held_out):
    for wrong in (
        {"witness_snr": (40, 20)},
        {"missing": (0,)},
        {"replicates": -1},
        {"accuracy_range": (5,)},
        {"block_length": 0},
    ):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            LeaderboardSettings(**wrong)
    with pytest.raises(DataError, match="one row an event"):
        HeldOut(held_out.maps, replace(held_out.truth, event_ids=held_out.truth.event_ids[::-1]))


def test_an_entrant_may_be_spared_the_missing_witnesses(held_out):
    judged = {"ours": judge_entrant(maps_of(0.8), held_out, SETTINGS)}
    judged["wide"] = judge_entrant(maps_of(0.5), held_out, replace(SETTINGS, missing=()))
    result = standings(judged, held_out, SETTINGS, [])
    assert [name for name, _ in result.kinds["witnesses missing"]] == ["0", "1", "2"]
    ours, wide = (result.by_kind["witnesses missing"][name] for name in ("ours", "wide"))
    assert all(one.value is not None for one in ours)
    assert wide[0].value is not None
    assert [one.value for one in wide[1:]] == [None, None]


def test_trivial_entrants_are_judged_on_the_same_events_and_spared_the_missing_witnesses(held_out):
    judged = judge_trivial(held_out, SETTINGS)
    assert tuple(judged) == TRIVIAL
    measured = torch.from_numpy(held_out.maps.read().maps[:, 0])
    mean = measured.double().mean(dim=0).expand_as(measured)
    expected = map_statistics(measured, mean.to(measured))
    np.testing.assert_allclose(judged["mean map"].statistics.total_cleaned, expected.total_cleaned, rtol=1e-5)
    judged["ours"] = judge_entrant(maps_of(0.8), held_out, SETTINGS)
    result = standings(judged, held_out, SETTINGS)
    assert next(iter(result.figures)) == "ours"
    merits = result.scores["ours"].merits()
    for name in TRIVIAL:
        for figure, estimate in result.scores[name].merits().items():
            assert estimate.value is None or estimate.value <= merits[figure].value, (name, figure)


def test_intervals_draw_groups_and_there_is_none_of_few(held_out):
    labels = tuple(f"waveform {row // 2}" if row % 2 == 0 else f"night {row}" for row in range(10))
    grouped = replace(held_out, truth=replace(held_out.truth, group=labels))
    judged = {"ours": judge_entrant(maps_of(0.8), grouped, SETTINGS)}
    result = standings(judged, grouped, SETTINGS)
    assert result.samples == {"glitches": Sample(4, 4), "quiet": Sample(4, 4)}
    figures = result.figures["ours"]
    for name in ("median_net_removed", "added_map"):
        assert figures[name].low is None
        assert "4 independent groups" in figures[name].reason
    # without labels the events of a block of time are one group
    blocks = replace(held_out, truth=replace(held_out.truth, group=()))
    length = 2 * float(np.ptp(held_out.maps.gps_event) + 1)
    settings = replace(SETTINGS, block_length=length)
    assert standings(judged, blocks, settings).samples["glitches"].groups <= 2


def test_pixels_that_are_not_judged_change_nothing(held_out):
    shape = held_out.maps.read([0]).maps.shape[2:]
    inside = np.zeros(shape, bool)
    inside[:, shape[1] // 4 : -shape[1] // 4] = True
    judged = judge_entrant(maps_of(0.8), replace(held_out, inside=inside), SETTINGS)
    measured = torch.from_numpy(held_out.maps.read().maps[:, 0]).double()
    np.testing.assert_allclose(
        judged.statistics.total_measured, measured[:, torch.from_numpy(inside)].sum(dim=1), rtol=1e-5
    )
