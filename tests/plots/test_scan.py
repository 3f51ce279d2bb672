import io

import numpy as np
import pytest

from glitchflow_plugin.plots.scan import plot_ranking
from glitchflow_plugin.plots.style import BLUE, GREY


def draw(values, selected=(), **options):
    channels = [f"V1:CHANNEL_{row:03d}" for row in range(len(values))]
    figure = plot_ranking(
        channels,
        np.array(values),
        threshold=0.17,
        selected=selected,
        quantity="correlation",
        target="STRAIN",
        **options,
    )
    figure.savefig(io.BytesIO(), format="png")
    return figure.axes[0]


def test_bars_stand_in_order_and_selected_ones_in_colour():
    from matplotlib.colors import to_hex

    axes = draw([0.1, 0.9, 0.5], selected=["V1:CHANNEL_001"])
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.5, 0.1]
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == [BLUE, GREY, GREY]
    assert [label.get_text()[-3:] for label in axes.get_yticklabels()] == ["001", "002", "000"]


def test_no_information_is_said_and_not_drawn_as_zero_or_one():
    axes = draw([np.nan, 0.4])
    assert axes.texts[-1].get_text() == "no information"
    assert axes.patches[-1].get_width() == 0.0


@pytest.mark.parametrize("number", [1, 20, 500])
def test_many_channels_stay_readable(number):
    axes = draw(np.linspace(0, 1, number), chance=np.full(number, 0.05))
    assert len(axes.patches) == min(number, 30)
    assert ("of 500 channels" in axes.get_title(loc="left")) == (number == 500)
    assert axes.figure.get_size_inches()[1] < 12


def test_unsafe_channels_are_marked():
    axes = draw([0.9, 0.2], unsafe=["V1:CHANNEL_000"])
    assert [text.get_text() for text in axes.texts] == ["0.90  unsafe", "0.20"]


def test_nothing_but_silence():
    draw([np.nan, np.nan], chance=np.array([np.nan, np.nan]))
