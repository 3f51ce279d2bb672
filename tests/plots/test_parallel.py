import numpy as np
import pytest

from glitchflow_plugin.plots.parallel import Axis, plot_parallel
from glitchflow_plugin.plots.style import GREY

RATE = Axis("optim_lr", np.array([1e-4, 1e-3, 1e-2]), logarithmic=True)
SIZE = Axis("base", np.array([0.0, 1.0, 0.0]), labels=["8", "16"])


def test_heights_follow_the_axis():
    np.testing.assert_allclose(RATE.heights(), [0, 0.5, 1])
    np.testing.assert_allclose(Axis("x", np.array([2.0, 3.0, np.nan, 6.0])).heights(), [0, 0.25, np.nan, 1])
    np.testing.assert_allclose(SIZE.heights(), [0, 1, 0])
    np.testing.assert_allclose(Axis("same", np.array([4.0, 4.0])).heights(), [0.5, 0.5])


def test_a_line_a_trial_the_best_last_and_the_excluded_in_grey():
    figure = plot_parallel([RATE, SIZE], np.array([0.9, 0.2, -np.inf]))
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 2 and line.get_xdata()[0] == 0]
    drawn = [line for line in lines if list(line.get_xdata()) == [0, 1]]
    np.testing.assert_allclose([line.get_ydata()[0] for line in drawn], [1, 0.5, 0])
    assert [line.get_color() == GREY for line in drawn] == [True, False, False]
    assert drawn[0].get_linestyle() == "--"
    assert drawn[1].get_color() != pytest.approx(drawn[2].get_color())
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["optim_lr", "base"]


def test_one_trial_or_none_that_counts_is_drawn():
    for score in ([0.5], [-np.inf]):
        assert plot_parallel([Axis("x", np.array([1.0]))], np.array(score)).axes
