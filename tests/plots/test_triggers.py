"""Pictures of triggers: every trigger in its bin, whatever its number."""

import io

import numpy as np
import pyarrow.dataset as ds
import pytest

from glitchflow_plugin.data.triggers.glitchgram import glitchgram
from glitchflow_plugin.data.triggers.table import NANOSECONDS, trigger_table
from glitchflow_plugin.plots.triggers import plot_glitchgram

START = 1_400_000_000


def found(times, frequencies, snrs, channels=None, bins=(10, 4)):
    table = trigger_table(
        {
            "time": np.array([(START + time) * NANOSECONDS for time in times], dtype=np.int64),
            "frequency": np.array(frequencies, dtype=float),
            "snr": np.array(snrs, dtype=float),
            "channel": channels or ["L1:A"] * len(times),
        }
    )
    return glitchgram(ds.dataset(table), "L1:A", (START, START + 100), (10.0, 160.0), bins=bins)


def test_a_bin_has_its_loudest_and_time_its_count():
    made = found([0, 9, 99, 50], [10.0, 15.0, 159.0, 50.0], [6.0, 9.0, 7.0, 99.0], ["L1:A"] * 3 + ["L1:B"])
    assert made.loudest[0, 0] == 9.0
    assert made.loudest[3, 9] == 7.0
    assert np.count_nonzero(made.loudest) == 2
    assert made.counts.tolist() == [2, *[0] * 8, 1]
    assert np.interp([6.5, 8.0, 10.0], made.snrs, made.louder).tolist() == [2, 1, 0]
    assert made.louder[0] == 3


def test_what_lies_beyond_the_band_goes_to_its_edge_and_beyond_the_time_out():
    made = found([5, 100, -1], [1.0, 50.0, 50.0], [8.0, 9.0, 9.0])
    assert made.counts.sum() == 1
    assert made.loudest[0, 0] == 8.0


@pytest.mark.parametrize("number", [0, 1, 500])
def test_a_glitchgram_shows_time_frequency_rate_and_loudness(number):
    draw = np.random.default_rng(0)
    made = found(draw.integers(0, 100, number), draw.uniform(10, 160, number), draw.uniform(6, 60, number))
    figure = plot_glitchgram(made, "L1:A_B", threshold=5.5)
    figure.savefig(io.BytesIO(), format="png")
    where, rate, loud = figure.axes[:3]
    assert where.get_title(loc="left") == f"L1:A_B: {number} triggers"
    assert rate.get_xlabel() == f"time from GPS {START} [s]"
    assert sum(text.get_text() == "no triggers" for text in loud.texts) == (number == 0)
