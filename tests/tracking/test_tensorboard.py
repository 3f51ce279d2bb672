import numpy as np
import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker
from glitchflow_plugin.tracking.tracker import Tracker


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0, "histograms": 0})
    events.Reload()
    return events


def test_everything_is_on_disk_at_the_end(tmp_path):
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    with TensorBoardTracker(tmp_path / "tb") as tracker:
        tracker.metric("loss", np.float32(0.5), 3)
        tracker.figure("picture", figure, 2)
        tracker.image("image", np.zeros((4, 6, 3), dtype=np.uint8), 1)
        tracker.histogram("peaks", np.array([1.0, 2.0]))
        tracker.histogram("empty", np.array([]))
        tracker.text("note", "| a |\n|---|\n| b |")
        tracker.params({"scan": {"threshold": 20, "q": [8, 12]}, "name": "a|b"})
    events = read(tmp_path / "tb")
    assert [(point.step, point.value) for point in events.Scalars("loss")] == [(3, 0.5)]
    assert events.Images("picture")[0].step == 2
    assert (events.Images("image")[0].height, events.Images("image")[0].width) == (4, 6)
    assert set(events.Tags()["histograms"]) == {"peaks"}
    table = events.Tensors("params/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| scan.threshold | 20 |" in table
    assert "a\\|b" in table


def fail_after_one_point(folder):
    with TensorBoardTracker(folder) as tracker:
        tracker.metric("loss", 1.0, 0)
        raise RuntimeError


def test_closes_when_the_run_fails(tmp_path):
    with pytest.raises(RuntimeError):
        fail_after_one_point(tmp_path)
    assert read(tmp_path).Scalars("loss")


def test_is_a_tracker(tmp_path):
    tracker: Tracker = TensorBoardTracker(tmp_path)
    for name in ("metric", "figure", "params", "text"):
        assert callable(getattr(tracker, name))


def test_a_second_run_replaces_the_first(tmp_path):
    for value in (1.0, 2.0):
        with TensorBoardTracker(tmp_path) as tracker:
            tracker.metric("loss", value, 0)
    assert [point.value for point in read(tmp_path).Scalars("loss")] == [2.0]
