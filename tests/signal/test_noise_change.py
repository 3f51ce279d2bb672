import numpy as np
import pytest
from gwpy.astro import sensemon_range
from gwpy.timeseries import TimeSeries
from scipy import signal

from glitchflow_plugin.signal.noise_change import BANDS, HIGHEST, PIECE_LENGTH, amplitude_change, noise_changes

RATE, START = 4096.0, 1_400_000_016.0
"""Half-way through a piece."""


@pytest.fixture(scope="module")
def strain():
    """Coloured noise of 80 s: 16 s, 32 s and 32 s of the grid."""
    white = np.random.default_rng(4).standard_normal(round(80 * RATE))
    return 1e-21 * signal.lfilter([1.0], [1.0, -0.9], white)


def changes(strain, clean, quiet=None):
    quiet = np.ones(16 * 80, dtype=bool) if quiet is None else quiet
    return list(noise_changes(strain, clean, quiet, START, RATE))


def test_pieces_lie_on_a_grid_of_gps_times_whatever_is_looked_at(strain):
    found = changes(strain, strain)
    assert [(one.start - START, one.stop - START) for one in found] == [(0, 16), (16, 48), (48, 80)]
    assert [one.quiet for one in found] == [7, 15, 15]
    (alone,) = noise_changes(
        strain[round(16 * RATE) :][: round(32 * RATE)], strain[: round(32 * RATE)], np.ones(9, bool), START + 16, RATE
    )
    np.testing.assert_allclose(alone.before, found[1].before)
    assert PIECE_LENGTH == 32


def test_spectra_and_ranges_are_those_of_gwpy(strain):
    _, piece, _ = changes(strain, 0.5 * strain)
    series = TimeSeries(strain[round(16 * RATE) : round(48 * RATE)], sample_rate=RATE, unit="strain")
    mean = series.psd(4.0, 2.0, method="welch", window="hann")
    inside = slice(1, round(HIGHEST * 4))
    np.testing.assert_allclose(piece.mean_before[inside], mean.value[inside], rtol=1e-6)
    np.testing.assert_allclose(piece.mean_after[inside], mean.value[inside] / 4, rtol=1e-6)
    median = series.psd(4.0, 2.0, method="median", window="hann").value
    # scipy's median has the same bias
    np.testing.assert_allclose(piece.before[inside], median[inside], rtol=1e-6)
    assert piece.range_before == pytest.approx(sensemon_range(mean, fmin=10.0).value, rel=2e-4)
    assert piece.range_after == pytest.approx(2 * piece.range_before)


def test_where_nothing_is_taken_nothing_changes_and_a_known_change_is_told_in_its_band(strain):
    (_, piece, _) = changes(strain, strain)
    assert np.array_equal(piece.before, piece.after)
    assert not amplitude_change(piece.before, piece.after).any()
    band = signal.butter(8, (80, 160), "bandpass", fs=RATE, output="sos")
    (_, piece, _) = changes(strain, strain - 0.5 * signal.sosfiltfilt(band, strain))
    told = dict(zip(BANDS, amplitude_change(piece.before, piece.after), strict=False))
    assert told[80.0] == pytest.approx(-0.5, abs=0.05)
    assert abs(told[20.0]) < 1e-3
    assert abs(told[640.0]) < 1e-3


def test_a_loud_segment_is_no_quiet_one_but_costs_range(strain):
    loud = strain.copy()
    burst = slice(round(30 * RATE), round(30.2 * RATE))
    loud[burst] += 1e-19 * np.sin(2 * np.pi * 60 * np.arange(round(0.2 * RATE)) / RATE)
    quiet = np.ones(16 * 80, dtype=bool)
    quiet[16 * 30 : 16 * 31] = False
    _, piece, _ = changes(loud, strain, quiet)
    assert piece.quiet == 13  # of 15: two hold the burst
    np.testing.assert_array_equal(piece.before, piece.after)
    assert piece.range_before < 0.95 * piece.range_after


def test_what_is_missing_does_not_count(strain):
    holey = strain.copy()
    holey[round(20 * RATE) : round(21 * RATE)] = np.nan
    first, piece, _ = changes(holey, holey)
    assert (first.quiet, piece.quiet) == (7, 13)
    assert np.isfinite(piece.range_before)
    assert not changes(np.full_like(strain, np.nan), strain)
    (short,) = noise_changes(strain[: round(7 * RATE)], strain[: round(7 * RATE)], np.zeros(7, bool), START, RATE)
    assert (short.quiet, short.before.any()) == (0, False)
    assert np.isnan(amplitude_change(short.before, short.after)).all()
    assert not list(noise_changes(strain[: round(5 * RATE)], strain[: round(5 * RATE)], np.ones(5, bool), START, RATE))


def test_a_low_rate_has_no_range(strain):
    slow = strain[::2]
    first = next(noise_changes(slow, slow, np.ones(80, bool), START, RATE / 2))
    assert np.isnan(first.range_before)
    assert len(first.before) == 4 * 1024 + 1
