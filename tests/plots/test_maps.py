import numpy as np
import pytest

from glitchflow_plugin.plots.maps import centred_edges, colour_image, draw_map, energy_bar, energy_scale, frequency_axis
from glitchflow_plugin.plots.style import new_figure
from glitchflow_plugin.signal.columns import Columns


def test_scale_starts_at_the_noise_and_ends_at_the_peak():
    assert (energy_scale(np.array([0.0, 500.0])).vmin, energy_scale(np.array([0.0, 500.0])).vmax) == (1.0, 500.0)
    assert energy_scale(np.zeros(3)).vmax == 30.0
    assert energy_scale(np.empty(0)).vmax == 30.0


def test_image_has_the_highest_frequency_on_top():
    maps = np.ones((4, 6), dtype=np.float32)
    maps[3, 2] = 100.0
    image = colour_image(maps, energy_scale(maps))
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert image[0, 2].sum() > image[3, 2].sum()


@pytest.mark.parametrize("spacing", [np.linspace, np.geomspace])
@pytest.mark.parametrize("kind", ["log", "linear"])
def test_axis_is_the_chosen_one_over_the_band(spacing, kind):
    axes = new_figure().add_subplot()
    frequency_axis(axes, spacing(8, 400, 64), kind)
    assert axes.get_yscale() == kind
    assert axes.get_ylim() == pytest.approx((8, 400))
    assert axes.get_ylabel() == "frequency [Hz]"


def test_low_frequencies_have_their_share_of_the_height_by_default():
    axes = new_figure().add_subplot()
    frequency_axis(axes, np.linspace(8, 400, 64))
    low, high = (axes.transData.transform((0, frequency))[1] for frequency in (8, 50))
    assert (high - low) / axes.bbox.height > 0.4


def test_pixels_are_centred_on_their_samples():
    axes = new_figure().add_subplot()
    frequencies, times = np.geomspace(8, 512, 7), np.arange(5) * 0.5
    columns = Columns(times, start=-1.0)
    judged = np.ones((7, 5), dtype=bool)
    judged[:2, 0] = False
    mesh = draw_map(axes, np.ones((7, 5)), frequencies, columns, energy_scale(np.ones(1)), judged=judged)
    corners = mesh.get_coordinates()
    # the first and the last reach to the edges of the event
    np.testing.assert_allclose(corners[0, :, 0], [-1, -0.75, -0.25, 0.25, 0.75, 1.5])
    assert axes.get_xlim() == (-1, 1.5)
    veil = axes.collections[1].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(veil), judged)
    np.testing.assert_allclose(corners[1:-1, 0, 1], np.sqrt(frequencies[1:] * frequencies[:-1]))
    np.testing.assert_allclose(centred_edges(np.array([10.0, 20.0, 30.0])), [5, 15, 25, 35])


def test_colour_bar_has_plain_numbers_and_a_unit():
    figure = new_figure()
    energy_bar(figure, energy_scale(np.array([1e4])), ax=figure.add_subplot())
    figure.canvas.draw()
    bar = figure.axes[1]
    figure.draw_without_rendering()
    labels = [text.get_text() for text in bar.get_yticklabels()]
    assert {"1", "10", "100", "1000"} <= set(labels)
    assert bar.get_ylabel() == "normalized energy [SNR²]"
