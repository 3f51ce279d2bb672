import numpy as np
import pytest
from matplotlib.colors import to_hex

from glitchflow_plugin.plots.timeline import OUTCOMES, plot_timeline

GPS = 1400000005.0


def drawn(last, outcomes=("cleaned", "missed", "quiet"), vetoes=((0.25, 1.75),)):
    gps = GPS + np.linspace(0.5, last, len(outcomes))
    segments = GPS + np.array(vetoes, dtype=np.float64).reshape(-1, 2)
    return plot_timeline(gps, np.array([200.0, 90.0, 9.0]), np.array(outcomes), segments, gps_zero=GPS)


def test_events_and_vetoes_stand_at_their_time():
    events, lane = drawn(100.0).axes
    points = {group.get_label(): group.get_offsets()[0] for group in events.collections}
    np.testing.assert_allclose(points["cleaned (1)"], [0.5, 200])
    np.testing.assert_allclose(points["quiet (1)"], [100, 9])
    colours = {to_hex(group.get_facecolors()[0]).upper() for group in events.collections}
    assert colours == {OUTCOMES[name][0] for name in ("cleaned", "missed", "quiet")}
    (segment,) = lane.collections[0].get_paths()
    np.testing.assert_allclose([segment.vertices[:, 0].min(), segment.vertices[:, 0].max()], [0.25, 1.75])
    assert lane.get_xlabel() == "time from GPS 1400000005 [s]"
    assert lane.get_yticklabels()[0].get_text() == "vetoed (1)"


@pytest.mark.parametrize(("last", "unit", "place"), [(5 * 3600, "h", 5), (40 * 86400, "d", 40)])
def test_long_runs_count_in_hours_and_days(last, unit, place):
    events, lane = drawn(last).axes
    assert lane.get_xlabel().endswith(f"[{unit}]")
    assert max(group.get_offsets()[0][0] for group in events.collections) == pytest.approx(place)


def test_nothing_vetoed():
    assert drawn(10.0, vetoes=()).axes[1].get_yticklabels()[0].get_text() == "vetoed (0)"
