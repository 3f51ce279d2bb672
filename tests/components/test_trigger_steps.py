"""Steps of triggers before training: simulated, labelled, divided; each alone or handed its predecessor's record."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from glitchflow_plugin.components.label_triggers import LabelTriggers
from glitchflow_plugin.components.simulate_triggers import SimulateTriggers
from glitchflow_plugin.components.split_triggers import SplitTriggers
from glitchflow_plugin.data.triggers.formats import read_triggers, write_triggers
from glitchflow_plugin.data.triggers.labelled import LabelledSet
from glitchflow_plugin.data.triggers.labels import LabelSettings
from glitchflow_plugin.data.triggers.live import LiveTime
from glitchflow_plugin.data.triggers.store import LIVE_NAME, TRUTH_NAME, open_triggers
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.products.summary import read_summary

DETECTOR = {"duration": 20_000.0, "num_distractors": 1}
LABEL = {"block_length": 1000.0, "times": "strain"}
STRAIN = "V1:Hrec_hoft"


def live_time(store):
    found = LiveTime.read(store)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Simulated triggers."""
    return SimulateTriggers(DETECTOR, str(tmp_path_factory.mktemp("store"))).execute()


def labelled(store, folder, **others):
    return LabelTriggers(LABEL, str(store), str(folder), **others).execute()


def test_a_simulation_is_labelled_and_divided_from_what_is_on_disk(store, tmp_path):
    labelled(store, tmp_path / "labels")
    SplitTriggers({"validation": 0.2, "test": 0.3}, str(tmp_path / "labels"), str(tmp_path / "split")).execute()
    found = LabelledSet.open(tmp_path / "split")
    times = found.times()
    truth = pq.read_table(store / "truth.parquet").to_pandas().set_index("time")
    glitches = times[times.glitch]
    # of a simulation all classes and SNRs are known, and those of chance triggers of the strain are not
    known = glitches[glitches.kind != ""]
    assert len(known) > 0.95 * len(glitches)
    exact = np.isin(known.time, truth.index)
    assert exact.mean() > 0.95
    assert (truth.loc[known.time[exact], "kind"] == known.kind[exact]).all()
    np.testing.assert_array_equal(truth.loc[known.time[exact], "snr"], known.snr[exact])
    assert found.record.target == STRAIN
    assert found.check_store() == store
    counts = read_summary(tmp_path / "split").events
    assert counts.kept == sum(len(times.of(part)) for part in ("training", "validation", "test"))
    told = read_summary(tmp_path / "labels")
    assert told.events.kept == times.glitch.sum()
    assert told.events.read == told.events.kept + sum(told.events.rejected.values())


def test_times_of_witnesses_are_labelled_unless_others_are_wanted(store, tmp_path):
    times = LabelTriggers({"block_length": 1000.0}, str(store), str(tmp_path)).execute().times()
    table = open_triggers(store).to_table().to_pandas()
    others = set(table.query("channel != @STRAIN")["time"])
    assert set(times.time) <= others
    told = read_summary(tmp_path).events
    assert told.kept == times.glitch.sum() > 100
    assert any("no time of witnesses within 0.1 s" in one for one in told.rejected)
    # of a simulation each has the class and SNR of its glitch
    truth = pq.read_table(store / "truth.parquet").to_pandas()
    assert set(times.snr[times.kind != ""]) <= set(truth["snr"])
    assert (times.kind[times.glitch] != "").mean() > 0.95
    assert LabelledSet.open(tmp_path).record.labels == LabelSettings(block_length=1000.0)


def test_only_live_time_is_labelled(store, tmp_path):
    start = 1_400_000_000.0
    live = [[start + 2000, start + 8000], [start + 11_000, start + 19_000]]
    times = labelled(store, tmp_path, segments=live).times()
    seconds = times.time / NANOSECONDS
    assert ((seconds[:, None] >= np.array(live)[:, 0]) & (seconds[:, None] < np.array(live)[:, 1])).any(1).all()


def test_classes_come_from_a_table_of_others(store, tmp_path):
    strain = open_triggers(store).to_table().to_pandas().query("channel == @STRAIN and snr > 20").sort_values("time")
    written = [f"{time // NANOSECONDS}.{time % NANOSECONDS:09d}" for time in strain["time"] + 20_000_000]
    table = pd.DataFrame({"event_time": written, "ml_label": "Blip"})
    table.to_csv(tmp_path / "spy.csv", index=False)
    found = labelled(store, tmp_path / "labels", classes=str(tmp_path / "spy.csv")).times()
    loud = found.glitch & (found.snr > 20)
    assert loud.any()
    assert (found.kind[loud] == "Blip").all()
    assert (found.kind[~found.glitch] == "").all()
    assert (found.kind[found.glitch & (found.snr < 12)] == "").mean() > 0.9
    table.rename(columns={"ml_label": "mlabel"}).to_csv(tmp_path / "spy.csv", index=False)
    with pytest.raises(
        FormatError, match=r"one of \['kind', 'ml_label', 'label', 'class'\], got \['event_time', 'mlabel'\]"
    ):
        labelled(store, tmp_path / "labels", classes=str(tmp_path / "spy.csv"))


def test_triggers_of_others_need_a_strain_and_its_live_time(store, tmp_path):
    write_triggers(read_triggers(store), tmp_path / "theirs", "parquet")
    with pytest.raises(ConfigurationError, match=r"which channel is the strain\. Name it: triggers\.target"):
        labelled(tmp_path / "theirs", tmp_path / "labels")
    with pytest.raises(ConfigurationError, match="holds no trigger of V1:STRAIN"):
        labelled(tmp_path / "theirs", tmp_path / "labels", target="V1:STRAIN")
    with pytest.raises(ConfigurationError, match=r"Give its science segments: triggers\.label\.segments"):
        labelled(tmp_path / "theirs", tmp_path / "labels", target=STRAIN)
    live = [live_time(store).live[0]]
    assert (labelled(tmp_path / "theirs", tmp_path / "labels", target=STRAIN, segments=live).times().kind == "").all()


def test_what_is_told_of_triggers_goes_with_them(tmp_path):
    store = SimulateTriggers({**DETECTOR, "duration": 2000.0}, str(tmp_path)).execute()
    assert (store / LIVE_NAME).is_file()
    assert (store / TRUTH_NAME).is_file()
    write_triggers(read_triggers(store).slice(1), store, "parquet")
    with pytest.raises(ConfigurationError, match="which channel is the strain"):
        labelled(store, tmp_path / "labels")
    # nor has a later label a class of those that are gone
    times = labelled(store, tmp_path / "labels", target=STRAIN, segments=[[1_400_000_000, 1_400_002_000]]).times()
    assert (times.kind == "").all()


def test_labels_of_other_triggers_and_files_that_changed_are_refused(store, tmp_path):
    write_triggers(read_triggers(store), tmp_path / "store", "parquet")
    live_time(store).write(tmp_path / "store")
    made = labelled(tmp_path / "store", tmp_path / "labels")
    write_triggers(read_triggers(store).slice(1), tmp_path / "store", "parquet")
    with pytest.raises(FormatError, match=r"other triggers than those that .* has labels of"):
        made.check_store()
    (tmp_path / "labels" / "times.parquet").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match="not what was written"):
        LabelledSet.open(tmp_path / "labels")
    (tmp_path / "store" / LIVE_NAME).write_text('{"target": "V1:Hrec_hoft", "live": [[5.0, 3.0]]}')
    with pytest.raises(FormatError, match="live"):
        labelled(tmp_path / "store", tmp_path / "labels")
