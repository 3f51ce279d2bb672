import html
import re

import numpy as np
import pytest
from astropy.time import Time
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html

from glitchflow_plugin.tracking.tensorboard import TensorBoardTracker, unix_time
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


NAMES = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "[a](javascript:alert(1))",
    "![a](http://example.org/x.png)",
    "<http://example.org>",
    "V1:ENV_CEB_*MIC*",
    "a|b",
    "`a` &amp; \\|",
    "a\nb",
)


def test_what_stands_in_a_cell_is_shown_as_it_is(tmp_path):
    with TensorBoardTracker(tmp_path) as tracker:
        tracker.table("channels", ("channel", "role"), [(name, "witness") for name in NAMES], "a *note*")
        tracker.params({name: name for name in NAMES})
    for tag, columns in (("channels", 1), ("params", 2)):
        text = read(tmp_path).Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
        shown = markdown_to_safe_html(text)  # as TensorBoard's server does
        cells = [html.unescape(cell) for cell in re.findall("<td>(.*?)</td>", shown)]
        assert set(cells[::2]) == {" ".join(name.split()) for name in NAMES}
        assert columns == 1 or cells[::2] == cells[1::2]
        assert not re.search("<(img|script|a|em|code)", shown.replace("<em>note</em>", ""))


def test_points_carry_the_time_of_the_detector(tmp_path):
    figure = Figure(figsize=(1, 1))
    with TensorBoardTracker(tmp_path) as tracker:
        tracker.metric("peak", 1.0, 3, gps=1400000008.125)
        tracker.figure("row/0003", figure, 3, gps=1400000008.125)
    expected = Time(1400000008.125, format="gps").unix
    assert read(tmp_path).Scalars("peak")[0].wall_time == pytest.approx(expected, abs=1e-3)
    assert read(tmp_path).Images("row/0003")[0].wall_time == pytest.approx(expected, abs=1e-3)


def test_leap_seconds_are_left_out_as_in_unix_time():
    # astropy spreads a leap second over its day: compare in the middle of years
    for gps in np.arange(0.0, 1.5e9, 1e7) + 0.5:
        reference = Time(gps, format="gps")
        if reference.utc.datetime.month not in (6, 7, 12, 1):
            assert unix_time(gps) == pytest.approx(reference.unix, abs=1e-3)
