import numpy as np
import pytest

from glitchflow_plugin.plots.cleaning import CleaningExample, frequencies_edges, plot_cleaning

FREQUENCIES = np.linspace(8, 400, 16)
TIMES = np.arange(33) * 0.25


def example(name, gps=1238166018.25, strain=True):
    generator = np.random.default_rng(len(name))
    measured = generator.exponential(1, (16, 33))
    measured[4:6, 10:14] += 60
    predicted = 0.9 * measured
    maps = {"measured": measured, "cleaned": np.abs(measured - predicted)} if strain else {}
    return CleaningExample(name, gps, predicted, **maps, note="vetoed")


def test_a_row_shows_real_generated_and_cleaned_on_one_scale():
    shown = example("event-a")
    figure = plot_cleaning([shown, example("event-b")], FREQUENCIES, TIMES, title="loudest")
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    titles = [axes.get_title(loc="left") for axes in panels]
    assert [title.splitlines()[-1].split(",")[0] for title in titles] == ["real", "generated", "cleaned"] * 2
    meshes = [axes.collections[0] for axes in panels[:3]]
    for mesh, energy in zip(meshes, (shown.measured, shown.predicted, shown.cleaned), strict=True):
        np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(16, 33), np.maximum(energy, 1))
    assert len({mesh.norm.vmax for mesh in meshes}) == 1
    assert titles[0].startswith("event-a, GPS 1238166018.250 s, vetoed\n")
    assert titles[3].startswith("event-b")


def test_axes_are_seconds_and_hertz():
    figure = plot_cleaning([example("event")], FREQUENCIES, TIMES)
    assert "(s)" in figure.axes[0].get_xlabel()
    assert "(Hz)" in figure.axes[0].get_ylabel()
    assert figure.axes[0].get_xlim() == pytest.approx((0, 33 * 0.25))
    assert figure.axes[0].get_yscale() == "linear"
    assert plot_cleaning([example("event")], np.geomspace(8, 400, 16), TIMES).axes[0].get_yscale() == "log"


def test_missing_strain_is_said():
    figure = plot_cleaning([example("event", strain=False)], FREQUENCIES, TIMES)
    assert [text.get_text() for text in figure.axes[0].texts] == ["no usable strain"]
    assert not figure.axes[1].texts


def test_no_example_gives_a_figure_that_says_so():
    figure = plot_cleaning([], FREQUENCIES, TIMES, title="uncleaned")
    assert "uncleaned: no such event" in figure.texts[0].get_text()


def test_row_edges_lie_half_way_on_the_even_axis():
    centres = np.geomspace(8, 512, 7)
    np.testing.assert_allclose(frequencies_edges(centres)[1:-1], np.sqrt(centres[1:] * centres[:-1]))
