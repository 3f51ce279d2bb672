import numpy as np
import pytest

from glitchflow_plugin.data.classes import event_classes
from glitchflow_plugin.data.truth_file import EventTruth, Truth, WaveformTruth, truth_path, write_truth
from glitchflow_plugin.errors import FormatError


def waveform(label, snr):
    return WaveformTruth(label, 1e9, 1e9, 16.0, np.array([0.0, 1.0]), (1e9, 1e9 + 0.1), snr)


def simulated(folder, **events):
    folder.mkdir(parents=True)
    known = {name: EventTruth(name, 1e9, 1e9, 6.0, **parts) for name, parts in events.items()}
    write_truth(truth_path(folder), Truth("V1:STRAIN", 16.0, {}, {}, known))


@pytest.fixture
def folder(tmp_path):
    loudest = (waveform("blip", 9.0), waveform("scattered_light", 20.0))
    simulated(tmp_path / "sets" / "training", a={"glitches": loudest}, b={}, c={"signals": (waveform("merger", 8.0),)})
    simulated(tmp_path / "sets" / "inference", d={"glitches": loudest[:1]})
    return tmp_path


def test_simulations_below_a_folder_know_their_classes(folder):
    expected = {"a": "scattered_light", "b": "no glitch", "c": "merger", "d": "blip"}
    assert event_classes([folder / "sets"]) == expected
    assert event_classes([folder / "nowhere"]) == {}


def test_the_name_of_a_folder_may_have_a_dot(folder):
    (folder / "sets").rename(folder / "o4.1")
    assert set(event_classes([folder / "o4.1"])) == {"a", "b", "c", "d"}
    assert event_classes([folder / "o4.2"]) == {}


def test_a_table_overrules_and_adds(folder):
    table = folder / "labels.csv"
    table.write_text("event_id,label\na,Whistle\nz,Koi_Fish\n")
    classes = event_classes([folder / "sets", table])
    assert (classes["a"], classes["z"], classes["d"]) == ("Whistle", "Koi_Fish", "blip")


def test_a_missing_or_damaged_source_is_told(folder):
    with pytest.raises(FormatError, match=r"labels\.csv"):
        event_classes([folder / "labels.csv"])
    path = truth_path(folder / "sets" / "training")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError, match="simulate_pipeline"):
        event_classes([folder / "sets"])
