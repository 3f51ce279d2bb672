import pytest

from glitchflow_plugin.data import results
from glitchflow_plugin.data.lock import at_work
from glitchflow_plugin.data.results import FORMER, claim, gps_range, keep_former, name_of_path, place
from glitchflow_plugin.errors import ConfigurationError

ONE, OTHER = {"data": "a", "threshold": 16.0, "range": (1, 50)}, {"data": "a", "threshold": 20.0, "range": (1, 50)}


def make(root, name, what, **choice):
    folder = place(root, name, what, **choice)
    claim(folder, what)
    (folder / "events.csv").write_text(str(what["threshold"]))
    return folder


def test_results_lie_side_by_side_and_the_same_one_finds_its_folder(tmp_path):
    first = make(tmp_path, "day-v1", ONE)
    second = make(tmp_path, "day-v1", OTHER)
    assert first.name == "day-v1"
    assert second.name.startswith("day-v1-")
    for _ in range(2):
        assert make(tmp_path, "day-v1", ONE) == first
        assert make(tmp_path, "day-v1", OTHER) == second
    assert [(folder / "events.csv").read_text() for folder in (first, second)] == ["16.0", "20.0"]


def test_a_folder_that_only_a_lock_has_made_is_free(tmp_path):
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / ".lock").touch()
    assert place(tmp_path, "day", ONE).name == "day"


def test_another_result_of_a_chosen_name_is_replaced_when_asked_for_alone(tmp_path):
    folder = make(tmp_path, "day", ONE, chosen="mine")
    assert folder == tmp_path / "mine"
    with pytest.raises(ConfigurationError, match=r"threshold 16.0, here 20.0\)\..*inference\.replace=true"):
        claim(folder, OTHER)
    with pytest.raises(ConfigurationError, match=r"holds another result \(of another kind of step\)"):
        claim(folder, {"data": "a", "passes": 2})
    assert (folder / "events.csv").read_text() == "16.0"
    claim(folder, OTHER, replace=True)
    assert not (folder / "events.csv").exists()
    claim(folder, OTHER)
    with pytest.raises(ConfigurationError, match="expected letters"):
        place(tmp_path, "day", ONE, chosen="../away")


def test_what_is_no_result_is_never_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "events.h5").touch()
    with pytest.raises(ConfigurationError, match="does not say what it is of"):
        claim(tmp_path / "data", ONE, replace=True)
    assert (tmp_path / "data" / "events.h5").exists()


def test_former_results_are_kept_and_known_folders_stay(tmp_path):
    (tmp_path / "spikes").mkdir()
    assert keep_former(tmp_path, ONE, stay=("spikes",)) is None
    (tmp_path / "ranking.csv").write_text("first")
    assert keep_former(tmp_path, ONE, stay=("spikes",)) is None
    kept = set()
    for what, text in ((OTHER, "second"), (ONE, "third")):
        kept.add(keep_former(tmp_path, what, stay=("spikes",)))
        assert not (tmp_path / "ranking.csv").exists()
        (tmp_path / "ranking.csv").write_text(text)
    assert {(folder / "ranking.csv").read_text() for folder in kept} == {"first", "second"}
    assert {folder.parent for folder in kept} == {tmp_path / FORMER}
    assert (tmp_path / "spikes").is_dir()


def test_what_other_steps_hold_below_the_same_folder_stays(tmp_path):
    others = tmp_path / "maps" / "training"
    with at_work(others, "QT-dataset"):
        (others / "manifest.json").write_text("{}")
    (tmp_path / "ranking.csv").write_text("first")
    kept = keep_former(tmp_path, ONE)
    assert kept is not None
    assert (kept / "ranking.csv").exists()
    assert (others / "manifest.json").exists()


def test_tasks_of_a_job_array_claim_one_folder_at_the_same_time(tmp_path, monkeypatch):
    read = results.read_json

    def late(path):
        monkeypatch.setattr(results, "read_json", read)
        try:
            return read(path)
        finally:
            claim(tmp_path, ONE)  # another task, meanwhile
            (tmp_path / "events").mkdir()

    monkeypatch.setattr(results, "read_json", late)
    claim(tmp_path, ONE)
    assert {path.name for path in tmp_path.iterdir()} == {"what.json", "events"}


def test_names_say_what_was_analysed():
    assert gps_range([1400000064.25, 1400000000.25], 6.0) == "1400000000-1400000071"
    for path, name in (
        ("/data/2024-01-02/*.gwf", "2024-01-02"),
        ("datasets/demo/inference", "inference"),
        ("a/day.hdf5", "day"),
        ("*.gwf", "data"),
        ("/", "_"),
        ("a/<b>&", "_b__"),
        ("open_data", "open_data"),
    ):
        assert name_of_path(path) == name
