import importlib
import inspect
import io
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from glitchflow_plugin import plots
from glitchflow_plugin.plots.style import Picture, look, new_figure, picture, short_name


@pytest.mark.parametrize("length", [10, 34])
def test_long_names_lose_their_middle(length):
    name = "V1:ENV_" + "A" * 60 + "_Z_1000Hz"
    assert len(short_name(name, length)) == length
    assert short_name(name, length)[-4:] == "00Hz"
    assert short_name("V1:A") == "V1:A"
    assert short_name("V1:A\nB") == "V1:A B"


def test_no_global_state():
    before = dict(mpl.rcParams)
    with look():
        assert mpl.rcParams["text.parse_math"] is False
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_every_figure_is_made_under_the_look():
    modules = [
        importlib.import_module(f"{plots.__name__}.{module.name}") for module in pkgutil.iter_modules(plots.__path__)
    ]
    drawing = {
        name: function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("plot_")
    }
    assert len(drawing) >= 12
    assert [name for name, function in drawing.items() if not hasattr(function, "__wrapped__")] == []
    made = [path.name for path in Path(plots.__path__[0]).glob("*.py") if "Figure(" in path.read_text("utf-8")]
    assert made == []


def test_a_name_with_markup_is_drawn_as_it_is():
    @picture
    def named(title):
        figure = new_figure(3, 2)
        figure.suptitle(title)
        return figure

    for name in ("$x^{2$", r"\frac{", "<b>a</b> & $b$"):
        named(name).savefig(io.BytesIO(), format="png")


def test_a_picture_is_drawn_once_and_as_matplotlib_draws_it_in_two_passes(monkeypatch):
    drawn = []

    @picture
    def curves():
        figure = new_figure(4, 3)
        left, right = figure.subplots(1, 2)
        (line,) = left.semilogy([1, 20, 300], label="a name that takes room")
        draw = line.draw
        line.draw = lambda renderer: drawn.append(line) or draw(renderer)
        left.legend()
        right.set_title("two\nlines")
        return figure

    def written(**options):
        curves().savefig(file := io.BytesIO(), format="png", **options)
        return file.getvalue()

    tight = {"bbox_inches": "tight"}
    once = [written(), written(**tight)]
    assert len(drawn) == 2
    monkeypatch.setattr(Picture, "draw", Figure.draw)
    assert [written(), written(**tight)] == once
    assert len(drawn) == 6


#: Draws one figure of each kind, before and after gwpy is imported, and prints the checksums of the pixels.
_DRAW = """
import hashlib, io, sys
import numpy as np
import matplotlib as mpl
from glitchflow_plugin.plots.cleaning import CleaningExample, plot_cleaning
from glitchflow_plugin.plots.curves import plot_confusion, plot_roc
from glitchflow_plugin.plots.leaderboard import plot_missing
from glitchflow_plugin.plots.curves import Band
from glitchflow_plugin.plots.spectrograms import plot_event, plot_peak_histograms
from glitchflow_plugin.plots.timeline import plot_timeline

rng = np.random.default_rng(0)
maps, frequencies, times = rng.exponential(9, (2, 8, 16)), np.linspace(8, 400, 8), np.arange(16) * 0.25

def drawn():
    example = CleaningExample("event", 1e9, 1e9 + 2, maps[1], maps[0], maps[0])
    figures = [
        plot_cleaning([example], frequencies, times),
        plot_event(maps, ["V1:A_$x", "V1:B"], frequencies, times, gps_start=1e9, gps_event=1e9 + 2),
        plot_peak_histograms(np.arange(1.0, 21).reshape(10, 2), ["A", "B"]),
        plot_confusion(hits=1, misses=2, false_alarms=3, correct_rejections=4),
        plot_roc({"model": ([0.0, 0.1, 1.0], [0.0, 0.9, 1.0])}, {"model": 0.9}),
        plot_missing([0, 1], [9, 8], {"a": Band(np.ones(2) / 2, np.ones(2) / 3, np.ones(2))}),
        plot_timeline(1e9 + np.arange(3), np.array([9.0, 90, 900]), np.array(["quiet", "missed", "cleaned"]),
                      np.array([[1e9 + 1, 1e9 + 2]]), gps_zero=1e9),
    ]
    seal = hashlib.sha256()
    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="png")
        seal.update(file.getvalue())
    return seal.hexdigest()

print(drawn())
import gwpy.plot
assert mpl.rcParams["axes.grid"] or mpl.rcParams["font.size"] != 10
print(drawn())
"""


def test_pictures_are_the_same_whatever_was_imported_and_set(tmp_path):
    loud = tmp_path / "matplotlibrc"
    loud.write_text(
        "axes.grid: True\nfont.size: 22\nfont.family: serif\naxes.facecolor: pink\nlines.linewidth: 6\n"
        "savefig.dpi: 33\nsavefig.bbox: tight\nxtick.labelsize: 30\nfigure.facecolor: black\nimage.cmap: jet\n"
    )
    seals = []
    for settings in ({}, {"MATPLOTLIBRC": str(loud)}):
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _DRAW],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **settings},
        )
        assert ended.returncode == 0, ended.stderr
        seals += ended.stdout.split()
    assert len(seals) == 4
    assert len(set(seals)) == 1


@pytest.mark.parametrize("ends", [(12.0, 45.0), (6.0, 5000.0), (1.1, 1.9), (1e-4, 1.0)])
def test_a_logarithmic_axis_has_plain_numbers_and_enough_of_them(ends):
    @picture
    def plot():
        figure = new_figure()
        axes = figure.add_subplot()
        axes.plot(ends, ends)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(*ends)
        return figure

    figure = plot()
    figure.canvas.draw()
    ticks = [*figure.axes[0].get_xticklabels(which="both"), *figure.axes[0].get_yticklabels(which="both")]
    assert not [one.get_text() for one in ticks if "$" in one.get_text()]
    shown = [one.get_text() for one in figure.axes[0].get_xticklabels(which="both") if one.get_text()]
    assert len(shown) >= (1 if ends[1] < 2 else 2)
