import io

import numpy as np
import pytest

from glitchflow_plugin.plots.spectrograms import plot_event, plot_peak_histograms

FREQUENCIES, TIMES = np.linspace(8, 400, 16), np.arange(33) * 6 / 33


@pytest.mark.parametrize("channels", [1, 2, 5, 14])
def test_event_has_a_panel_a_channel_with_one_scale_and_its_time(channels):
    maps = np.random.default_rng(0).exponential(1.4, (channels, 16, 33))
    names = [f"V1:CHANNEL_{row}" for row in range(channels)]
    valid = np.arange(channels) != 1
    figure = plot_event(
        maps, names, FREQUENCIES, TIMES, gps_start=1e9, gps_event=1e9 + 3.25, event_id="event-7", valid=valid
    )
    figure.savefig(io.BytesIO(), format="png")
    shown = min(channels, 12)
    assert len(figure.axes) == shown + 1  # and the colour bar
    assert "GPS 1000000003.250" in figure.get_suptitle()
    assert "event-7" in figure.get_suptitle()
    assert "(target)" in figure.axes[0].get_title()
    limits = {tuple(panel.collections[0].get_clim()) for panel in figure.axes[:shown]}
    assert len(limits) == 1
    places = {
        (round(box.y0, 6), round(box.height, 6)) for box in (panel.get_position() for panel in figure.axes[:shown])
    }
    rows = figure.axes[0].get_subplotspec().get_gridspec().nrows
    assert len(places) == rows
    assert len({height for _, height in places}) == 1  # a regular grid, also where the last row is incomplete
    for panel in figure.axes[:shown]:
        assert any(label.get_visible() and label.get_text() for label in panel.get_xticklabels())
    assert figure.get_supxlabel() == "time from GPS 1000000003.250 [s]"
    if channels > 1:
        assert figure.axes[1].texts[0].get_text() == "not valid"


def test_time_axis_is_zero_at_the_event():
    maps = np.ones((1, 16, 33))
    maps[0, 4, 11] = 100.0
    figure = plot_event(maps, ["A"], FREQUENCIES, TIMES, gps_start=1e9, gps_event=1e9 + 2.0)
    mesh = figure.axes[0].collections[0]
    assert mesh.get_array().reshape(16, 33)[4, 11] == 100.0
    corners = mesh.get_coordinates()
    assert corners[4, 11, 0] < TIMES[11] - 2.0 < corners[4, 12, 0]


def test_histograms_leave_out_what_is_not_valid():
    peaks = np.array([[10.0, 0.0], [20.0, 30.0]])
    figure = plot_peak_histograms(peaks, ["A", "B"], valid=np.array([[True, False], [True, True]]))
    figure.savefig(io.BytesIO(), format="png")
    heights = [sum(bar.get_height() for bar in panel.patches) for panel in figure.axes]
    assert heights == [2, 1]


def test_histograms_of_no_events():
    plot_peak_histograms(np.empty((0, 1)), ["A"]).savefig(io.BytesIO(), format="png")


def test_class_is_said_where_it_is_known():
    given = {"gps_start": 1e9, "gps_event": 1e9 + 2.0, "event_id": "event-7"}
    maps = np.ones((1, 16, 33))
    named = plot_event(maps, ["A"], FREQUENCIES, TIMES, **given, label="scattered light").get_suptitle()
    assert named == "event-7, GPS 1000000002.000, scattered light"
    assert plot_event(maps, ["A"], FREQUENCIES, TIMES, **given).get_suptitle() == "event-7, GPS 1000000002.000"
    assert plot_event(maps, ["A"], FREQUENCIES, TIMES, **given, axis="linear").axes[0].get_yscale() == "linear"
