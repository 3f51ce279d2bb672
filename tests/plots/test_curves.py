import numpy as np

from glitchflow_plugin.plots.curves import Band, plot_accuracy, plot_confusion, plot_roc

THRESHOLDS = np.arange(1.0, 51.0)


def band(level, width=0.1):
    value = np.full(50, level)
    value[45:] = np.nan
    return Band(value, value - width, value + width)


def test_accuracy_shows_model_and_baselines_with_bands():
    none = np.full(50, np.nan)
    curves = {"model": band(0.8), "zero": Band(np.zeros(50), none, none)}
    figure = plot_accuracy(THRESHOLDS, curves, curves)
    left, right = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "model",
        "zero",
        "threshold of a glitch, SNR² 16",
    ]
    np.testing.assert_array_equal(left.lines[0].get_ydata(), band(0.8).value)
    assert len(left.collections) == len(right.collections) == 1  # the band of the model alone
    assert "SNR²" in right.get_xlabel()


def test_roc_has_areas_and_working_points():
    figure = plot_roc({"model": ([0.0, 0.1, 1.0], [0.0, 0.9, 1.0])}, {"model": 0.9}, points={"model": (0.1, 0.9)})
    axes = figure.axes[0]
    assert "model, area 0.900" in [text.get_text() for text in axes.get_legend().get_texts()]
    assert axes.lines[1].get_xydata().tolist() == [[0.1, 0.9]]
    assert "are needed" in plot_roc({}, {}).axes[0].texts[0].get_text()


def test_confusion_puts_each_count_in_its_cell():
    figure = plot_confusion(hits=7, misses=3, false_alarms=2, correct_rejections=8)
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    columns = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    vetoed, glitch = columns.index("vetoed"), rows.index("glitch")
    assert cells[vetoed, glitch].startswith("hits\n7\n(70.0 %)")
    assert cells[1 - vetoed, glitch].startswith("misses\n3\n")
    assert cells[vetoed, 1 - glitch].startswith("false alarms\n2\n")
    assert cells[1 - vetoed, 1 - glitch].startswith("correct rejections\n8\n")


def test_empty_counts_do_not_divide_by_zero():
    figure = plot_confusion(hits=0, misses=0, false_alarms=0, correct_rejections=5)
    assert "(0.0 %)" in figure.axes[0].texts[0].get_text()
