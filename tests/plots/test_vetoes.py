import numpy as np

from glitchflow_plugin.plots.curves import Band
from glitchflow_plugin.plots.vetoes import VetoCurve, plot_reliability, plot_veto_efficiency


def test_efficiency_is_drawn_against_deadtime_with_what_is_to_be_beaten():
    deadtime, efficiency = np.array([0.0, 0.01, 0.1]), np.array([0.0, 0.5, 0.9])
    curve = VetoCurve(deadtime, Band(efficiency, efficiency - 0.1, efficiency + 0.1))
    axes = plot_veto_efficiency({"model": curve}, written=(0.02, 0.6)).axes[0]
    chance, tenfold, model, written, _ = axes.lines
    np.testing.assert_array_equal(chance.get_xdata(), chance.get_ydata())
    assert (tenfold.get_ydata() >= chance.get_ydata()).all()
    assert model.get_xydata().tolist() == [[0.01, 0.5], [0.1, 0.9]]  # none of the time cannot be drawn
    assert written.get_xydata().tolist() == [[0.02, 0.6]]
    assert axes.xaxis.get_major_formatter()(0.01) == "0.01"


def test_reliability_is_drawn_with_bars():
    claimed, observed = np.array([0.01, 0.1]), np.array([0.0, 0.2])
    axes = plot_reliability(claimed, Band(observed, observed / 2, observed * 2)).axes[0]
    assert axes.containers[0].lines[0].get_xydata().tolist() == [[0.1, 0.2]]
