"""Rounds in Hveto's layout: keys and files as hveto 2.1 writes them, read as its own tools do."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from gwpy.segments import DataQualityDict, SegmentList
from tests.preprocessing.test_scan import SETTINGS, detector, overlapping

from glitchflow_plugin.preprocessing.scan import _Scan, rounds_in_time, scan_channels
from glitchflow_plugin.preprocessing.spikes import event_spikes
from glitchflow_plugin.products.hveto import write_hveto

KEYS = {"user", "host", "date", "configuration", "ifo", "gpsstart", "gpsend", "call", "rounds"}
KEYS_OF_ROUND = {
    *("round", "name", "window", "snr", "significance", "nveto", "use-percentage", "efficiency", "deadtime"),
    *("cumulative-efficiency", "cumulative-deadtime", "files"),
}


@pytest.fixture
def written(make_event_set, tmp_path):
    """Two rounds: the second witness sees what the first does not."""
    series = detector()
    series[::3, 1] = np.random.default_rng(1).standard_normal(series[::3, 1].shape)
    events = make_event_set(series)
    ranking = scan_channels(events, SETTINGS, tmp_path / "spikes")
    rounds = rounds_in_time(events, ranking, SETTINGS, tmp_path / "spikes")
    paths = write_hveto(tmp_path / "hveto", "V1:STRAIN", rounds, configuration="results.yaml", call="scan")
    return events, ranking, rounds, json.loads(paths[0].read_text()), tmp_path


def test_the_summary_has_hvetos_keys_and_the_figures_of_the_ranking(written):
    events, ranking, _, summary, _ = written
    assert set(summary) == KEYS
    assert [set(one) for one in summary["rounds"]] == [KEYS_OF_ROUND] * len(ranking.rounds)
    assert len(ranking.rounds) == 2
    assert summary["gpsstart"] <= events.gps_start.min() < summary["gpsend"]
    for told, one in zip(summary["rounds"], ranking.rounds, strict=True):
        assert (told["name"], told["round"], told["nveto"]) == (one.channel, one.round, one.explained)
        assert told["efficiency"] == pytest.approx(100 * one.efficiency)
        # edges on multiples of 1/512 s
        assert told["deadtime"] == pytest.approx(100 * one.deadtime, rel=0.02)
        assert told["snr"] == SETTINGS.threshold**0.5
    last = summary["rounds"][-1]
    explained = sum(one.explained for one in ranking.rounds)
    assert last["cumulative-efficiency"] == pytest.approx(100 * explained / ranking.rounds[0].remaining)


def test_segments_are_read_as_hvetos_tools_read_them(written):
    events, ranking, _, summary, folder = written
    scan = _Scan(events, SETTINGS)
    reference, witness, _ = scan.parted(event_spikes(events, scan.spike_settings, folder / "spikes", batch=scan.batch))
    times = scan.stretches.gps_start[reference.event] + reference.time
    vetoed = np.zeros(len(times), bool)
    for told in summary["rounds"]:
        (name,) = told["files"]["VETO_SEGS"]
        assert re.fullmatch(rf"segments/V1-HVETO_VETO_SEGS_ROUND_{told['round']}-\d+-\d+\.txt", name)
        vetoes = SegmentList.read(folder / "hveto" / name, format="segwizard")
        hit = np.array([time in vetoes for time in times]) & ~vetoed
        assert hit.sum() == told["nveto"]
        vetoed |= hit
        analysed = SegmentList.read(folder / "hveto" / name.replace("VETO_SEGS", "ANALYSIS_SEGS"), format="segwizard")
        assert abs(vetoes & analysed) == abs(vetoes)
        assert 100 * float(abs(vetoes)) / float(abs(analysed)) == pytest.approx(told["deadtime"])
        own = witness.select(witness.channel == scan.witnesses.index(told["name"]))
        if told["round"] == 1:  # all of its spikes are still there
            centres = scan.stretches.gps_start[own.event] + own.time
            assert all(centre in vetoes for centre in centres)
    flags = DataQualityDict.read(next((folder / "hveto" / "segments").glob("*.h5")), format="hdf5")
    assert list(flags) == ["V1:HVT-ROUND_1:1", "V1:HVT-ROUND_2:1"]
    second = flags["V1:HVT-ROUND_2:1"]
    assert not abs(second.known & flags["V1:HVT-ROUND_1:1"].active)
    assert f"winner={ranking.rounds[1].channel}" in second.description


def test_times_of_overlapping_events_count_once(make_event_set, tmp_path):
    series, starts = overlapping(3, num_glitches=6)
    events = make_event_set(series, starts=starts)
    ranking = scan_channels(events, replace(SETTINGS, num_slides=32), tmp_path / "spikes")
    (one, *_) = rounds_in_time(events, ranking, SETTINGS, tmp_path / "spikes")
    assert len(one.analysed) == 6
    assert (np.diff(one.analysed.ravel()) > 0).all()
    assert np.diff(one.vetoes).sum() / np.diff(one.analysed).sum() == pytest.approx(
        one.vetoed and ranking.rounds[0].deadtime
    )
