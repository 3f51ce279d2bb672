import io

import numpy as np
import pytest

from glitchflow_plugin.plots.cleaning import CleaningExample, plot_cleaning

FREQUENCIES = np.linspace(8, 400, 16)
TIMES = np.arange(33) * 0.25


def example(name, gps=1238166018.25, strain=True):
    generator = np.random.default_rng(len(name))
    measured = generator.exponential(1, (16, 33))
    measured[4:6, 10:14] += 60
    predicted = 0.9 * measured
    maps = {"measured": measured, "cleaned": np.abs(measured - predicted)} if strain else {}
    return CleaningExample(name, gps, gps + 4, predicted, **maps, note="blip, vetoed")


def test_a_row_shows_real_generated_and_cleaned_on_one_scale():
    shown = example("event-a")
    figure = plot_cleaning([shown, example("event-b")], FREQUENCIES, TIMES, title="loudest")
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    titles = [axes.get_title(loc="left") for axes in panels]
    assert [title.split(",")[0] for title in titles] == ["real", "generated", "cleaned"] * 2
    meshes = [axes.collections[0] for axes in panels[:3]]
    for mesh, energy in zip(meshes, (shown.measured, shown.predicted, shown.cleaned), strict=True):
        np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(16, 33), np.maximum(energy, 1))
    assert len({mesh.norm.vmax for mesh in meshes}) == 1
    named = [[text.get_text() for text in axes.texts] for axes in (panels[0], panels[3])]
    assert named == [["event-a, blip, vetoed"], ["event-b, blip, vetoed"]]
    assert "white contour: SNR² 16" in figure.texts[0].get_text()


def test_axes_are_seconds_and_hertz():
    figure = plot_cleaning([example("event")], FREQUENCIES, TIMES)
    first, middle = figure.axes[:2]
    assert middle.get_xlabel() == "time from GPS 1238166022.250 [s]"
    assert first.get_ylabel() == "frequency [Hz]"
    assert first.get_xlim() == pytest.approx((-4, 4.25))
    assert first.get_ylim() == pytest.approx((8, 400))
    assert first.get_yscale() == "log"
    assert plot_cleaning([example("event")], FREQUENCIES, TIMES, axis="linear").axes[0].get_yscale() == "linear"
    assert figure.axes[3].get_ylabel() == "normalized energy [SNR²]"


def test_missing_strain_is_said():
    figure = plot_cleaning([example("event", strain=False)], FREQUENCIES, TIMES)
    assert figure.axes[0].texts[0].get_text() == "no usable strain"
    assert not figure.axes[1].texts


def test_no_example_gives_a_figure_that_says_so():
    figure = plot_cleaning([], FREQUENCIES, TIMES, title="uncleaned")
    assert "uncleaned: no such event" in figure.texts[0].get_text()


def test_nothing_is_clipped_and_rows_do_not_meet():
    figure = plot_cleaning([example("event-a"), example("e" * 200)], FREQUENCIES, TIMES, title="loudest")
    figure.savefig(io.BytesIO(), format="png")
    width, height = figure.bbox.size
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
    # the name of the second event lies below the time axis of the first
    above = figure.axes[1].xaxis.label.get_window_extent()
    assert figure.axes[3].texts[0].get_window_extent().y1 < above.y0
