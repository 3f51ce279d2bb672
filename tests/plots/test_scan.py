import io
from types import SimpleNamespace

import numpy as np
import pytest

from glitchflow_plugin.data.ranking_file import ChannelRanking, RankingRound
from glitchflow_plugin.plots.scan import plot_coincidences, plot_families, plot_ranking
from glitchflow_plugin.plots.style import BLUE, GREY


def draw(values, selected=(), threshold=0.17, **options):
    channels = [f"V1:CHANNEL_{row:03d}" for row in range(len(values))]
    figure = plot_ranking(
        channels,
        np.array(values),
        threshold=threshold,
        selected=selected,
        quantity="correlation",
        target="STRAIN",
        **options,
    )
    figure.savefig(io.BytesIO(), format="png")
    return figure.axes[0]


def test_bars_stand_in_order_and_selected_ones_in_colour():
    from matplotlib.colors import to_hex

    axes = draw([0.1, 0.9, 0.5], selected=["V1:CHANNEL_001"])
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.5, 0.1]
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == [BLUE, GREY, GREY]
    assert [label.get_text()[-3:] for label in axes.get_yticklabels()] == ["001", "002", "000"]


@pytest.mark.parametrize("threshold", [0.17, None])
def test_a_threshold_is_drawn_where_there_is_one(threshold):
    axes = draw([0.4], threshold=threshold)
    told = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert [line.get_xdata() for line in axes.lines] == ([[0.17, 0.17]] if threshold else [])
    assert any("threshold" in text for text in told) == bool(threshold)


def test_no_information_is_said_and_not_drawn_as_zero_or_one():
    axes = draw([np.nan, 0.4])
    assert axes.texts[-1].get_text() == "no information"
    assert axes.patches[-1].get_width() == 0.0


@pytest.mark.parametrize("number", [1, 20, 500])
def test_many_channels_stay_readable(number):
    axes = draw(np.linspace(0, 1, number), chance=np.full(number, 0.05))
    assert len(axes.patches) == min(number, 30)
    assert ("of 500 channels" in axes.get_title(loc="left")) == (number == 500)
    assert axes.figure.get_size_inches()[1] < 12


def test_unsafe_channels_are_marked():
    axes = draw([0.9, 0.2], unsafe=["V1:CHANNEL_000"])
    assert [text.get_text() for text in axes.texts] == ["0.90  unsafe", "0.20"]


def test_nothing_but_silence():
    draw([np.nan, np.nan], chance=np.array([np.nan, np.nan]))


def ranking_of(number, selected=(), unsafe=(), rounds=(), family=None):
    """Channels of falling significance; the last without information."""
    names = tuple(f"V1:CHANNEL_{row:03d}" for row in range(number))
    real = np.append(np.geomspace(400, 0.1, number - 1), np.nan)
    whole = np.append(np.full(number - 1, 9), 0)
    won = np.zeros(number, dtype=int)
    won[list(rounds)] = np.arange(1, len(rounds) + 1)
    family = np.zeros(number, dtype=int) if family is None else np.array(family)
    keys = ("correlation", "iou", "chance", "p_value", "p_common", "q_value", "efficiency", "deadtime", "lag")
    keys += ("efficiency_over_deadtime", "use_percentage", "lag_error", "safety_p_value")
    return ChannelRanking(
        target="STRAIN",
        channels=names,
        significance=real,
        **{key: np.append(np.linspace(0.9, 0.1, number - 1), np.nan) for key in keys},
        **dict.fromkeys(("events", "strain_spikes", "witness_spikes", "shared_spikes"), whole),
        round=won,
        family=family,
        representative=won > 0,
        selected=tuple(names[row] for row in selected),
        unsafe={names[row]: "listed" for row in unsafe},
        rounds=tuple(
            RankingRound(place, names[row], 5, 9, 3.0, 0.1, 0.1, 0.5, 0.5, 0.1, 50.0)
            for place, row in enumerate(rounds, 1)
        ),
    )


def drawn(figure):
    figure.savefig(io.BytesIO(), format="png")
    return figure


def test_families_stand_together_in_the_order_of_their_rounds():
    ranking = ranking_of(6, selected=[1, 2, 3], unsafe=[0], rounds=[2, 1], family=[3, 2, 1, 1, 0, 0])
    axes, table = drawn(plot_families(ranking)).axes
    # channel 2 won the first round and 3 is of its family; then the second round, the unsafe, the others
    assert [label.get_text()[-3:] for label in axes.get_yticklabels()] == ["002", "003", "001", "000", "004", "005"]
    notes = [text.get_text() for text in axes.texts]
    assert notes == ["family 1", "family 1, copy", "family 2", "family 3, UNSAFE (listed)", "", ""]
    colours = [bar.get_edgecolor()[:3] for bar in axes.patches]
    assert colours[0] == colours[1] != colours[2]
    texts = [text.get_text() for text in table.texts]
    assert "no information" in texts
    assert texts[:2] == ["1", f"{ranking.correlation[2]:.3f}"]


@pytest.mark.parametrize("number", [2, 600])
def test_ranking_picture_of_any_size(number):
    figure = drawn(plot_families(ranking_of(number)))
    assert figure.get_size_inches()[1] < 12
    assert len(figure.axes[0].patches) == min(number, 30)
    assert ("of 600 channels" in figure.axes[0].get_title(loc="left")) == (number == 600)


def test_coincidences_show_strain_above_witness_about_the_shared_spike():
    rng = np.random.default_rng(0)
    frequencies, times = np.linspace(8, 400, 32), np.arange(129) * 6.0 / 129

    def example(shared):
        spikes = (np.array([shared]), np.array([60.0])), (np.array([shared + 0.1, 0.5]), np.array([80.0, 30.0]))
        maps = rng.exponential(1.4, (2, 32, 129))
        return SimpleNamespace(channel="V1:MIC", gps_start=1.4e9, maps=maps, spikes=spikes, shared=shared)

    figure = drawn(plot_coincidences([example(3.0), example(0.4)], frequencies, times, target="STRAIN"))
    strain, other, witness = figure.axes[0], figure.axes[1], figure.axes[2]
    assert [panel.get_title() for panel in (strain, witness)] == ["STRAIN", "V1:MIC"]
    np.testing.assert_allclose(strain.collections[1].get_offsets(), [[0.0, 60.0]])
    np.testing.assert_allclose(witness.collections[1].get_offsets(), [[0.1, 80.0], [-2.5, 30.0]])
    assert strain.get_xlim() == (-1.5, 1.5)
    assert other.get_xlim() == (-0.4, 1.5)  # no further than the event reaches
    assert "1400000003.000" in witness.get_xlabel()


def test_no_coincidence_is_said():
    figure = drawn(plot_coincidences([], np.arange(2.0), np.arange(2.0), target="STRAIN"))
    assert "No channel coincides with STRAIN" in figure._suptitle.get_text()
