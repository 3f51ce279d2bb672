import sys

import numpy as np
import pytest

from glitchflow_plugin.plots.style import colour_image, energy_scale, frequency_axis, new_figure, short_name


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


def test_axis_follows_the_spacing_of_the_frequencies():
    for frequencies, scale in ((np.linspace(8, 400, 64), "linear"), (np.geomspace(8, 400, 64), "log")):
        axes = new_figure().add_subplot()
        frequency_axis(axes, frequencies)
        assert axes.get_yscale() == scale
        assert "Hz" in axes.get_ylabel()


@pytest.mark.parametrize("length", [10, 34])
def test_long_names_lose_their_middle(length):
    name = "V1:ENV_" + "A" * 60 + "_Z_1000Hz"
    assert len(short_name(name, length)) == length
    assert short_name(name, length)[-4:] == "00Hz"
    assert short_name("V1:A") == "V1:A"


def test_no_global_state():
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
