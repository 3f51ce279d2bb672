import numpy as np

from glitchflow_plugin.plots.what_if import (
    ResponseCurve,
    SweepCurves,
    plot_attribution,
    plot_cases,
    plot_sweeps,
    plot_transfer,
)


def test_cases_stand_below_each_other_on_one_scale(tmp_path):
    maps = np.ones((2, 4, 8))
    maps[1, 2, 3] = 50.0
    strain = np.zeros((2, 800))
    strain[0, 400], strain[1, 405] = 5.0, 7.0
    given = {"gps_start": 1e9, "sample_rate": 100.0}
    figure = plot_cases(["unchanged", "A x 2"], maps, strain, np.arange(10.0, 14), np.arange(8.0), **given)
    figure.savefig(tmp_path / "cases.png")
    left, right = figure.axes[0], figure.axes[3]
    assert left.get_title(loc="left") == "unchanged"
    grey, blue = right.lines
    assert grey.get_xdata()[grey.get_ydata().argmax()] == 4.0
    assert blue.get_xdata()[blue.get_ydata().argmax()] == 4.05
    assert figure.axes[1].get_ylim() == right.get_ylim()
    plot_cases(["unchanged"], maps[:1], None, np.arange(10.0, 14), np.arange(8.0), gps_start=1e9).savefig(
        tmp_path / "maps.png"
    )


def test_shares_are_stacked_and_negative_ones_go_to_the_left(tmp_path):
    shares = np.array([[0.7, 0.3, 0.0], [1.2, -0.2, 0.0]])
    figure = plot_attribution(["first", "second"], ["A", "B", "C"], shares)
    figure.savefig(tmp_path / "attribution.png")
    bars = figure.axes[0].containers
    assert len(bars) == 2  # who has no share is not drawn
    assert [(round(bar.get_x(), 6), round(bar.get_width(), 6)) for bar in bars[1]] == [(0.7, 0.3), (0.0, -0.2)]
    plot_attribution([], ["A"], np.zeros((0, 1))).savefig(tmp_path / "empty.png")


def test_sweeps_have_a_line_an_event_and_the_median(tmp_path):
    values = {"gain": np.array([0.0, 1.0]), "delay": np.array([-0.01, 0.0, 0.01])}
    ratio = {"gain": np.array([[0.0, 1.0], [0.1, 1.0], [0.5, 1.0]]), "delay": np.ones((3, 3))}
    figure = plot_sweeps([SweepCurves("A", values, ratio, ratio)])
    figure.savefig(tmp_path / "sweep.png")
    median = next(line for line in figure.axes[0].lines if line.get_label() == "predicted SNR")
    assert median.get_ydata().tolist() == [0.1, 1.0]
    assert figure.axes[1].lines[0].get_xdata().tolist() == [-10.0, 0.0, 10.0]
    plot_sweeps([]).savefig(tmp_path / "empty.png")


def test_a_delay_is_shown_where_something_arrives(tmp_path):
    frequency, gain, delay = np.array([10.0, 100.0]), np.array([0.01, 1.0]), np.array([0.09, 0.01])
    curves = [ResponseCurve("twin", frequency, gain, delay), ResponseCurve("truth", frequency, gain, delay, True)]
    figure = plot_transfer({"A": curves, "B": curves[:1]})
    figure.savefig(tmp_path / "transfer.png")
    shown = figure.axes[1].lines[0].get_ydata()
    assert np.isnan(shown[0])
    assert shown[1] == 10.0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["twin", "truth"]
    plot_transfer({}).savefig(tmp_path / "empty.png")
