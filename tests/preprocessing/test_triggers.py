"""Which triggers become events, and whether the report says where the others went."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glitchflow_plugin.components.data_processor import DataProcessor
from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.data.readers.trigger_table import event_id_at
from glitchflow_plugin.data.readers.triggers import TriggerSettings
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.sources import open_datasets
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.preprocessing.ingest import ingest, ingest_with_recipe
from glitchflow_plugin.preprocessing.quality import read_quality
from glitchflow_plugin.preprocessing.triggers import chosen, chosen_for
from glitchflow_plugin.products.summary import read_summary
from glitchflow_plugin.signal.whitening import WhiteningSettings

T0 = 1_264_000_000.0
TARGET, WITNESS = "V1:STRAIN", "V1:A"
ROWS = st.lists(
    st.tuples(st.integers(0, 4000).map(lambda step: T0 + step / 20), st.sampled_from([5.0, 9.0, 20.0, None])),
    min_size=1,
    max_size=40,
)


def write(path, rows):
    lines = (f"{time:.6f},{'' if snr is None else snr}" for time, snr in rows)
    path.write_text("\n".join(["time,snr", *lines]) + "\n")
    return str(path)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(ROWS, min_size=1, max_size=3),
    asked=st.tuples(st.sampled_from([None, 8.0]), st.sampled_from([None, 0.1, 0.5, 5.0])),
    segments=st.sampled_from([None, [[T0, T0 + 100]], [[T0 + 20, T0 + 50], [T0 + 50, T0 + 150]]]),
    needed=st.sampled_from([0.0, 10.0]),
)
def test_what_was_read_is_what_fell_and_what_stayed(tmp_path, files, asked, segments, needed):
    low, cluster = asked
    for old in tmp_path.iterdir():
        old.unlink()
    for number, rows in enumerate(files):
        write(tmp_path / f"{number}.csv", rows)
    select = {} if low is None else {"snr": [low, None]}
    triggers = TriggerSettings(path=str(tmp_path), select=select, cluster=cluster, segments=segments)
    rows = [row for part in files for row in part]
    passed = [row for row in rows if low is None or (row[1] is not None and row[1] >= low)]
    try:
        table = chosen(triggers, needed, 6.0)
    except NoEventsError:
        assert not passed or segments is not None
        return
    report = table.report
    assert (report.read, report.files) == (len(rows), len(files))
    assert report.read == report.events + sum(report.fell.values())
    assert report.events == len(table) == len(table.triggers())
    assert all(number >= 0 for number in report.fell.values())
    assert set(table.times.tolist()) <= {time for time, _ in passed}
    assert np.all(np.diff(table.times) > (cluster or 0))
    assert sum(number for reason, number in report.fell.items() if "select" in reason) == len(rows) - len(passed)
    if segments is not None:
        reach = T0 + 150 if len(segments) == 2 else T0 + 100
        assert np.all((table.times >= segments[0][0] + needed / 2) & (table.times <= reach - needed / 2))
    for time in table.times:  # the loudest of those about it
        loudest = max((snr or 0 for other, snr in passed if abs(other - time) <= (cluster or 0)), default=0)
        assert cluster is None or loudest == max((snr or 0 for other, snr in passed if other == time), default=0)


def test_the_loudest_of_a_glitch_stays(tmp_path):
    path = write(tmp_path / "t.csv", [(T0 + 1, 8), (T0 + 1.05, 30), (T0 + 1.12, 9), (T0 + 60, 8), (T0 + 60.2, 7)])
    found = chosen(TriggerSettings(path=path, cluster=0.1))
    assert found.times.tolist() == [T0 + 1.05, T0 + 60, T0 + 60.2]
    assert found.report.fell["cluster"] == 2
    everything = chosen(TriggerSettings(path=path), crop=6.0).report
    assert (everything.crowded, everything.overlapping) == (3, 3)


def test_a_table_without_loudness_cannot_be_clustered_and_a_list_of_times_keeps_the_earliest(tmp_path, caplog):
    (tmp_path / "t.csv").write_text(f"time,strength\n{T0},1\n")
    with pytest.raises(FormatError, match=r"keeps the loudest.*triggers\.loudness"):
        chosen(TriggerSettings(path=str(tmp_path / "t.csv"), cluster=0.1))
    assert len(chosen(TriggerSettings(path=str(tmp_path / "t.csv"), cluster=0.1, loudness="strength"))) == 1
    found = chosen(TriggerSettings(times=(T0, T0 + 0.05, T0 + 9), cluster=0.1))
    assert found.times.tolist() == [T0, T0 + 9]
    assert "no loudness is known" in caplog.text


@pytest.mark.parametrize("shift", [-1000.0, 1000.0, 2.0])
def test_times_that_never_lie_in_a_segment_are_told_with_both_ranges(tmp_path, shift):
    path = write(tmp_path / "t.csv", [(T0 + 5 + shift, 8)])
    asked = TriggerSettings(path=path, segments=[[T0, T0 + 10]])
    with pytest.raises(NoEventsError, match=rf"from GPS {T0 + 5 + shift:.3f} to .*segments from {T0:.3f} to") as told:
        chosen(asked, needed=9.0)
    assert ("1 lie in a segment, but less than 4.50 s from its ends" in str(told.value)) == (shift == 2.0)


def continuous(folder, start, duration, rate=1024.0):
    generator = np.random.default_rng(int(start))
    held = {name: Channel(name, generator.normal(size=round(duration * rate)), start, rate, "m")
            for name in (TARGET, WITNESS)}  # fmt: skip
    folder.mkdir(exist_ok=True)
    hdf5.write(folder / f"V-TEST-{start:.0f}-{duration}.h5", held)


def entry(tmp_path, **triggers):
    return {"path": str(tmp_path / "data"), "target": TARGET, "segment": 16.0, "triggers": triggers}


def test_an_event_lies_in_a_segment_with_all_that_its_filters_need(tmp_path):
    """An event at each quarter of a second: of those at the ends, the last that is taken can be conditioned."""
    continuous(tmp_path / "data", T0, 60)
    times = [T0 + 15 + step / 4 for step in range(120)]
    segments = [[T0 + 20, T0 + 40]]
    one = DatasetSettings.from_mapping(entry(tmp_path, times=times, segments=segments))
    table = chosen_for(one, WhiteningSettings())
    assert table.times[0] - (T0 + 20) == pytest.approx(T0 + 40 - table.times[-1])
    assert 4.5 < table.times[0] - (T0 + 20) < 5.25
    catalogue = open_datasets([one], choose=lambda dataset: chosen_for(dataset, WhiteningSettings()))
    for event in catalogue.events:
        series = event.load().event.channels[TARGET]
        assert series.t0 >= T0 + 20
        assert series.t0 + series.duration <= T0 + 40
    assert catalogue.fingerprint != open_datasets([entry(tmp_path, times=table.times.tolist())]).fingerprint
    events = DataProcessor([one], str(tmp_path / "out"), engine={"workers": 1}).execute()
    assert len(events) == len(table)


def test_data_sets_with_clusters_or_segments_are_chosen_by_preprocessing(tmp_path):
    continuous(tmp_path / "data", T0, 60)
    with pytest.raises(ConfigurationError, match="preprocessing"):
        open_datasets([entry(tmp_path, times=[T0 + 30], cluster=0.1)])


def test_the_step_tells_where_the_triggers_went(tmp_path, capsys):
    continuous(tmp_path / "data", T0, 100)
    continuous(tmp_path / "data", T0 + 200, 100)
    folder = tmp_path / "triggers"
    folder.mkdir()
    rows = [(T0 + 20, 30), (T0 + 20.05, 9), (T0 + 50, 5), (T0 + 60, None), (T0 + 80, 12), (T0 + 98, 12), (T0 + 150, 12)]
    write(folder / "a.csv", rows)
    write(folder / "b.csv", [(T0 + 150, 12), (T0 + 220, 20), (T0 + 291, 20), (T0 + 400, 20)])
    (folder / "c.csv").write_text("when\nsoon\n")
    (tmp_path / "science.txt").write_text(f"{T0} {T0 + 300}\n")
    triggers = {"path": str(folder), "select": {"snr": [8, None]}, "cluster": 0.1,
                "segments": str(tmp_path / "science.txt")}  # fmt: skip
    one = entry(tmp_path, **triggers) | {"events": {"min": 0, "max": 5}}
    events = DataProcessor([one], str(tmp_path / "out"), engine={"workers": 1}).execute()
    assert events.event_ids == tuple(map(event_id_at, (T0 + 20, T0 + 80, T0 + 220)))
    quality = read_quality(tmp_path / "out")
    [report] = quality.triggers
    assert (report.read, report.files, list(report.unreadable)) == (11, 2, ["c.csv"])
    assert dict(report.fell) == {
        "select snr in [8, null]": 1,
        "select snr in [8, null]: no value": 1,
        "repeated": 1,
        "cluster": 1,
        "segments": 1,
        "index range": 1,
    }
    assert dict(report.rejected) == {"target: gap": 1, "target: outside the data": 1}
    assert report.events == 3
    assert report.read == report.events + sum(report.fell.values()) + sum(report.rejected.values())
    summary = read_summary(tmp_path / "out")
    assert summary.details["triggers"][0]["fell"]["cluster"] == 1
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "11 triggers from 2 files (1 more cannot be read)" in shown
    assert any("1 file(s) of triggers cannot be read" in text for text in summary.warnings)
    assert json.loads((tmp_path / "out" / "quality.json").read_text())["triggers"][0]["events"] == 3


def test_crowded_triggers_are_told_with_numbers_and_what_to_do(tmp_path):
    continuous(tmp_path / "data", T0, 100)
    times = [T0 + 20, T0 + 20.1, T0 + 20.3, T0 + 60]
    DataProcessor([entry(tmp_path, times=times)], str(tmp_path / "out"), engine={"workers": 1}).execute()
    told = [text for text in read_summary(tmp_path / "out").warnings if "triggers" in text or "overlap" in text]
    assert told[0].startswith("2 of 4 triggers stand within 0.5 s of the one before")
    assert "`cluster`" in told[0]
    assert told[1].startswith("2 of 4 events overlap")


def test_groups_of_triggers_reach_the_event_set(tmp_path):
    continuous(tmp_path / "data", T0, 100)
    (tmp_path / "t.csv").write_text(f"time,ml_label\n{T0 + 20},Blip\n{T0 + 50},Tomte\n{T0 + 80},Blip\n")
    one = entry(tmp_path, path=str(tmp_path / "t.csv"), group_column="ml_label")
    DataProcessor([one], str(tmp_path / "out"), engine={"workers": 1}).execute()
    assert Counter(EventSet.open(tmp_path / "out").groups) == {"Blip": 2, "Tomte": 1}


def test_two_data_sets_at_the_same_triggers_each_tell_of_theirs(tmp_path):
    continuous(tmp_path / "data", T0, 100)
    rows = write(tmp_path / "t.csv", [(T0 + 20, 30), (T0 + 20.05, 9), (T0 + 60, 9)])
    one = entry(tmp_path, path=rows, cluster=0.1)
    both = [one | {"ch_list": [TARGET]}, one | {"ch_list": [WITNESS]}]
    events = DataProcessor(both, str(tmp_path / "out"), engine={"workers": 1}).execute()
    assert len(events) == 2
    for report in read_quality(tmp_path / "out").triggers:
        assert (report.read, report.fell["cluster"], report.events) == (3, 1, 2)


def test_data_sets_of_other_bands_take_the_same_events(tmp_path):
    continuous(tmp_path / "data", T0, 60)
    one = entry(tmp_path, times=[T0 + 15 + step / 8 for step in range(0, 240, 2)], segments=[[T0 + 20, T0 + 40]])
    witness = {key: value for key, value in one.items() if key != "target"}
    both = [one | {"ch_list": [TARGET]}, witness | {"ch_list": [WITNESS], "processing": {"minf": 30.0}}]
    DataProcessor(both, str(tmp_path / "out"), engine={"workers": 1}).execute()
    first, second = read_quality(tmp_path / "out").triggers
    assert first.events == second.events > 0
    assert not first.rejected
    assert not second.rejected


def test_inference_chooses_as_training_does(tmp_path):
    continuous(tmp_path / "data", T0, 60)
    rows = write(tmp_path / "t.csv", [(T0 + 22, 9), (T0 + 30, 9), (T0 + 30.05, 20), (T0 + 50, 9)])
    one = entry(tmp_path, path=rows, cluster=0.1, segments=[[T0 + 20, T0 + 40]])
    first = ingest([one], None, tmp_path / "training")
    again = ingest_with_recipe([one], first.manifest.recipe, None, tmp_path / "inference")
    assert first.event_ids == again.event_ids == (event_id_at(T0 + 30.05),)
    assert read_quality(tmp_path / "training").triggers == read_quality(tmp_path / "inference").triggers
