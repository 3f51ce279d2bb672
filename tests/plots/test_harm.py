import numpy as np

from glitchflow_plugin.plots.harm import plot_change, plot_recovered


def test_signals_are_shown_by_place_with_the_threshold():
    before, after = np.array([5.0, 20.0]), np.array([6.0, 18.0])
    figure = plot_recovered({"SNR": {"quiet": (before, after), "near": (after, before)}}, threshold=8.0)
    [axes] = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["quiet (2)", "near (2)"]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([before, after], axis=1))
    low, high = axes.get_xlim()
    assert low < before.min()
    assert high > before.max()


def test_a_signal_without_a_glitch_anywhere_is_shown_at_the_far_end():
    figure = plot_change({"binary": (np.array([0.0, 3.0, np.inf]), np.array([-1.0, 0.2, 0.0]))}, near=0.5, quiet=4.0)
    [axes] = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.05, 3.0, 8.0])
    figure.canvas.draw()


def test_the_largest_change_lies_within_the_axes():
    figure = plot_change({"binary": (np.array([0.0, 3.0, 9.0]), np.array([19.0, -0.1, 0.0]))}, near=0.5, quiet=4.0)
    [axes] = figure.axes
    figure.canvas.draw()
    height = axes.transAxes.inverted().transform(axes.transData.transform([0.05, 19.0]))[1]
    assert height < 0.98


def test_nothing_at_all_can_be_shown():
    plot_recovered({"SNR": {}}, threshold=8.0).canvas.draw()
    plot_change({}, near=0.5, quiet=4.0).canvas.draw()
