import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.inference.clean import loudest_by_column
from glitchflow_plugin.inference.predict import expected_maps, expected_maps_and_peaks
from glitchflow_plugin.products.veto_table import veto_segments
from glitchflow_plugin.signal.columns import Columns, tile_length
from glitchflow_plugin.signal.qtransform import QTransformSettings, axes

RATE, DURATION, THRESHOLD, PADDING = 1024.0, 6.0, 16.0, 0.02
TRANSFORM = QTransformSettings()
FREQUENCIES, TIMES = axes(DURATION, TRANSFORM)
COLUMNS = Columns(TIMES)


def test_each_column_has_the_largest_energy_of_its_rows():
    predicted = torch.rand(3, 8, 5, generator=torch.Generator().manual_seed(1)) * 40
    assert torch.equal(loudest_by_column(predicted), predicted.max(dim=1).values)


def test_pixels_that_are_not_looked_at_say_nothing():
    predicted = torch.full((2, 3, 4), 50.0)
    inside = torch.tensor([[False, True, True, False], [False, False, True, False], [False, False, False, False]])
    predicted[1, 0, 1] = 20.0
    assert loudest_by_column(predicted, inside).tolist() == [[0, 50, 50, 0], [0, 20, 50, 0]]


def burst(time, frequency, cycles, energy):
    """A sine-Gaussian of so many cycles, whose map peaks near `energy` (SNR²) where the event holds all of it."""
    since = np.arange(int(DURATION * RATE)) / RATE - time
    width = cycles / frequency
    shape = np.exp(-((since / width) ** 2)) * np.sin(2 * np.pi * frequency * since)
    # the sum of the squares of a whole one, in units of the median of noise
    whole = 0.5 * width * RATE * math.sqrt(math.pi / 2) * math.log(2)
    return (shape * math.sqrt(2 * energy / whole * math.log(2) ** 2)).astype(np.float32)


def vetoes(series):
    loudest = expected_maps_and_peaks(torch.from_numpy(series), RATE, TRANSFORM)[1].numpy()
    names = [str(row) for row in range(len(series))]
    return veto_segments(names, np.zeros(len(series)), COLUMNS, loudest, threshold=THRESHOLD, padding=PADDING)


def check(time, frequency, cycles, energy):
    """The burst lies in a veto, and nothing is vetoed but where it or a tile about it reaches."""
    series = burst(time, frequency, cycles, energy)[None]
    found = vetoes(series)
    inside = (found["gps_start"] <= time) & (time <= found["gps_end"])
    assert inside.sum() == 1
    maps = expected_maps(torch.from_numpy(series), RATE, TRANSFORM)[0].numpy()
    loud = maps.max(axis=1) > THRESHOLD / 4
    tile = tile_length(FREQUENCIES[loud], 12.0).max() if loud.any() else 0.0
    over = max(maps.max(), THRESHOLD) / THRESHOLD
    # the energy of a tile falls by more than 225 / (sqrt(11) n)^6 over n of its lengths
    reach = tile * (225 * 4 * over) ** (1 / 6) / math.sqrt(11) + cycles / frequency * math.sqrt(math.log(4 * over))
    # a column begins half its length before the sample in which it is loud, and the last one is longer
    reach += PADDING + 1.5 * COLUMNS.width
    assert found["gps_start"].min() >= max(0.0, time - reach)
    assert found["gps_end"].max() <= min(DURATION, time + reach)


@settings(deadline=None)
@given(
    time=st.one_of(
        st.floats(0.0, DURATION - 1 / RATE),
        st.sampled_from(np.append(COLUMNS.edges[:-1], 5.999).tolist()),
        st.floats(5.9, 5.999),
        st.floats(0.0, 0.1),
        st.floats(2.97, 3.0),
    ),
    frequency=st.floats(12.0, 380.0),
    cycles=st.floats(0.7, 8.0),
    energy=st.floats(400.0, 1e4),
)
def test_a_burst_lies_in_its_veto_and_nothing_else_is_vetoed(time, frequency, cycles, energy):
    check(time, frequency, cycles, energy)


@pytest.mark.parametrize("time", [0.0, 0.001, 1.494, 2.978, 2.9825, 2.987, 4.5, 5.95, 5.99, 5.998])
@pytest.mark.parametrize(("frequency", "cycles"), [(12.0, 1.0), (12.0, 8.0), (60.0, 2.0), (380.0, 1.0), (380.0, 6.0)])
def test_at_edges_and_seams_too(time, frequency, cycles):
    check(time, frequency, cycles, 2000.0)


def test_short_bursts_between_two_columns_are_found():
    times = COLUMNS.edges[20:240:4]
    series = np.stack([burst(time, 370.0, 4.0, 120.0) for time in times])
    by_samples = loudest_by_column(expected_maps(torch.from_numpy(series), RATE, TRANSFORM)).amax(dim=1)
    assert (by_samples < THRESHOLD).any()  # columns alone would miss some
    found = vetoes(series)
    assert sorted(found["event_id"].astype(int)) == list(range(len(times)))


def test_maps_are_those_of_the_columns_and_peaks_no_smaller():
    series = torch.randn(4, int(DURATION * RATE), generator=torch.Generator().manual_seed(2))
    maps, loudest = expected_maps_and_peaks(series, RATE, TRANSFORM)
    torch.testing.assert_close(maps, expected_maps(series, RATE, TRANSFORM), rtol=1e-4, atol=1e-4)
    assert (loudest >= maps.amax(dim=1)).all()
    assert loudest.shape == (4, 257)


def test_some_columns_are_those_of_all_to_the_edges():
    series = torch.randn(2, int(DURATION * RATE), generator=torch.Generator().manual_seed(3))
    whole = expected_maps_and_peaks(series, RATE, TRANSFORM)
    for columns in ((0, 5), (100, 150), (250, 257)):
        for some, of_all in zip(expected_maps_and_peaks(series, RATE, TRANSFORM, columns), whole, strict=True):
            torch.testing.assert_close(some, of_all[..., slice(*columns)], rtol=1e-5, atol=1e-5)
