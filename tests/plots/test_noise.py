import io

import numpy as np
import pytest

from glitchflow_plugin.plots.noise import plot_noise

FREQUENCIES = np.arange(8193) / 4
BEFORE = 1e-23 * np.ones(8193)
SPAN = 1_400_000_000.0 + np.array([[0.0, 32.0], [32.0, 64.0], [96.0, 128.0]])


def drawn(before=BEFORE, after=1.05 * BEFORE, ranges=((100.0, 110.0), (90.0, 111.0), (80.0, 112.0))):
    figure = plot_noise(FREQUENCIES, before, after, SPAN, np.array(ranges), strain="V1:STRAIN")
    figure.savefig(io.BytesIO())
    return figure.axes


def test_spectra_their_ratio_and_the_range_of_each_piece_are_shown():
    density, ratio, ranges = drawn()
    assert [line.get_label() for line in density.lines] == ["recorded", "clean"]
    np.testing.assert_allclose(ratio.lines[1].get_ydata(), 1.05)
    assert ratio.get_ylim()[1] > 1.05
    assert ratio.get_xlim() == (10, 2048)
    recorded, clean = (line.get_xydata() for line in ranges.lines)
    np.testing.assert_allclose(recorded[:2], [[0, 100], [32, 100]])
    assert np.isnan(recorded[2, 1])  # a gap between pieces is no line
    assert np.nanmax(clean[:, 1]) == 112
    assert ranges.get_xlabel() == "time from GPS 1400000000 [s]"


@pytest.mark.parametrize("ranges", [((100.0, 110.0),) * 3, ((np.nan, np.nan),) * 3])
def test_without_quiet_time_or_range_the_picture_says_so(ranges):
    density, _, right = drawn(np.zeros(8193), np.zeros(8193), ranges)
    assert density.texts[0].get_text() == "no quiet time"
    assert bool(right.texts) == bool(np.isnan(ranges).any())
