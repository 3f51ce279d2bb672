import numpy as np

from glitchflow_plugin.plots.curves import Band
from glitchflow_plugin.plots.leaderboard import (
    plot_accuracies,
    plot_groups,
    plot_learning,
    plot_missing,
    plot_ranking,
    plot_trust,
)

NAMES = [f"entrant-{number}" for number in range(10)]  # more than there are colours


def band(*values):
    value = np.array(values, dtype=float)
    return Band(value, value - 0.1, value + 0.2)


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def drawn(container):
    """Places and lengths of the dots of an errorbar and its lines."""
    return container.lines[0].get_xydata(), [line.get_segments() for line in container.lines[2]]


def test_ranking_has_the_best_on_top_and_per_cent():
    figure = plot_ranking(NAMES, {"maps": band(*np.linspace(0.9, 0, 10)), "waveform": band(*[0.5] + [np.nan] * 9)})
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == NAMES
    assert left.get_ylim()[0] > left.get_ylim()[1]
    places, segments = drawn(left.containers[0])
    np.testing.assert_allclose(places, [[90, 0]])
    np.testing.assert_allclose(segments[0][0], [[80, 0], [110, 0]])
    assert np.isnan(drawn(right.containers[1])[0][0, 0])


def test_accuracies_show_every_entrant():
    thresholds = np.arange(1.0, 51)
    curves = {name: np.full(50, 0.1 * index) for index, name in enumerate(NAMES)}
    figure = plot_accuracies(thresholds, curves, curves)
    left, right = figure.axes
    assert labels(right) == [*NAMES, "threshold of a glitch, SNR² 16"]
    for index in range(10):
        np.testing.assert_array_equal(left.lines[index].get_ydata(), curves[NAMES[index]])
    styles = {(line.get_color(), line.get_linestyle()) for line in left.lines[:10]}
    assert len(styles) == 10


def test_groups_stand_at_their_names_with_their_counts():
    classes = ["scattered_light\n11 events in 7 groups", "blip\n3 events in 1 group"]
    bands = {"ours": band(0.8, 0.5), "bad": band(-30.0, np.nan)}
    figure = plot_groups({"by class": (classes, bands), "by witness SNR": (["< 30\n4 events"], {"ours": band(0.4)})})
    left, right = figure.axes
    assert [text.get_text() for text in left.get_xticklabels()] == [
        "scattered light\n11 events in 7 groups",
        "blip\n3 events in 1 group",
    ]
    np.testing.assert_array_equal(drawn(left.containers[0])[0][:, 1], [0.8, 0.5])
    assert np.abs(drawn(left.containers[0])[0][:, 0] - [0, 1]).max() < 0.5
    # one who makes everything worse does not squeeze the others
    assert left.get_ylim()[0] > -1.2
    assert right.get_title() == "by witness SNR"


def test_missing_witnesses_along_the_axis():
    axes = plot_missing([0, 1, 4], ["60", "50", "9 events"], {"ours": band(0.8, 0.7, 0.1), "zero": band(0, 0, 0)}).axes[
        0
    ]
    assert labels(axes) == ["ours", "zero"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0\n60", "1\n50", "4\n9 events"]


def test_learning_curves_have_their_numbers_on_a_logarithmic_axis():
    panels = {
        "training events": ([50, 160, 500], {"ours": band(0.5, 0.6, 0.8), "wiener": band(0.3, 0.3, 0.4)}),
        "groups": ([5, 10], {"ours": band(0.4, np.nan)}),
    }
    left, right = plot_learning(panels, "median power removed").axes
    assert left.get_xscale() == "log"
    assert [text.get_text() for text in left.get_xticklabels()] == ["50", "160", "500"]
    np.testing.assert_allclose(drawn(left.containers[0])[0], [[50, 0.5], [160, 0.6], [500, 0.8]])
    # entrants stand beside each other
    assert (drawn(left.containers[1])[0][:, 0] > [50, 160, 500]).all()
    assert right.get_xlabel() == "groups"
    assert left.get_ylabel() == "median power removed"


def test_trust_shows_coverage_and_the_distribution_of_p_values():
    figure = plot_trust({"all": ([0.5, 0.9], [0.48, 0.91])}, {"usual": np.array([0.9, 0.1, 0.5, 0.7])})
    left, right = figure.axes
    np.testing.assert_array_equal(left.lines[0].get_xydata(), [[0.5, 0.48], [0.9, 0.91]])
    np.testing.assert_array_equal(right.lines[0].get_xydata(), [[0.1, 0.25], [0.5, 0.5], [0.7, 0.75], [0.9, 1.0]])
