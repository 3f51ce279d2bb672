import numpy as np

from glitchflow_plugin.plots.coupling import WitnessHistory, plot_coupling


def test_each_witness_has_a_panel_with_its_gains_and_when_it_was_stopped(tmp_path):
    gps = 1e9 + 10.0 * np.arange(5)
    known = WitnessHistory("SEIS", gps, np.array([1, 0.9, -1, -1, -9.0]), np.full(5, 0.1), (0.6, 1.4), gps[3])
    unknown = WitnessHistory("MIC", gps[:1], np.ones(1), np.ones(1), None, None)
    figure = plot_coupling([known, unknown], gps_zero=1e9)
    figure.savefig(tmp_path / "coupling.png")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["SEIS", "MIC"]
    marked = [line.get_label() for line in figure.axes[0].lines]
    assert "stopped" in marked
    assert "stopped" not in [line.get_label() for line in figure.axes[1].lines]
    drawn = figure.axes[0].containers[0].lines[0].get_ydata()
    assert drawn.min() == -3.0  # beyond the axis, at its edge
    plot_coupling([], gps_zero=1e9).savefig(tmp_path / "empty.png")
