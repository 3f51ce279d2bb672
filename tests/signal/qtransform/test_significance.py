import numpy as np
import pytest
import torch
from scipy import stats

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.qtransform import (
    QTransformSettings,
    Spectrum,
    expected_excursions,
    map_p_value,
    plane,
    q_transform,
    tile_p_value,
)

RATE, SAMPLES = 1024.0, 6144
WHITE = QTransformSettings(norm="white")


def noise(number, seed):
    return torch.randn(number, SAMPLES, generator=torch.Generator().manual_seed(seed))


def loudest(series, settings):
    """The loudest tile of each series, over its expectation."""
    return plane(SAMPLES, RATE, settings.qs[0], settings, "cpu").maps(Spectrum.of(series))[1].amax(dim=-1)


def test_p_values_of_single_pixels_are_uniform_in_noise():
    maps = q_transform(noise(200, 0), RATE, WHITE)
    # Pixels so far apart that they are independent, away from the rows' ends where the outermost value is kept.
    pixels = tile_p_value(maps[:, 8:60:12, 8:250:60]).flatten().numpy()
    assert stats.kstest(pixels, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("q", "band"), [(12.0, (8.0, 400.0)), (6.0, (16.0, 300.0)), (40.0, (20.0, 400.0))], ids=["q12", "q6", "q40"]
)
def test_p_values_of_the_loudest_tile_are_uniform_in_noise(q, band):
    settings = QTransformSettings(q=q, frequency_low=band[0], frequency_high=band[1], norm="white", num_times=9)
    p = map_p_value(loudest(noise(1000, 1), settings), SAMPLES, RATE, settings).numpy()
    # The law is one for high levels: a few per cent off where the probability is not small.
    assert stats.kstest(p, "uniform").statistic < 0.08
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.02)


def test_a_steady_line_is_significant_and_over_the_median_of_its_row_it_is_not():
    time = np.arange(SAMPLES) / RATE
    series = noise(1, 2) + 1.0 * torch.from_numpy(np.sin(2 * np.pi * 100.0 * time)).float()
    assert map_p_value(loudest(series, WHITE), SAMPLES, RATE, WHITE).item() < 1e-6
    over_median = q_transform(series, RATE, QTransformSettings())
    row = int(np.abs(np.linspace(8, 400, 64) - 100).argmin())
    assert over_median[0, row].max() < 4


def test_excursions_grow_with_band_and_duration_and_fall_with_the_level():
    levels = np.array([5.0, 10.0, 20.0])
    one = expected_excursions(levels, SAMPLES, RATE, WHITE)
    assert np.all(np.diff(one) < 0)
    longer = expected_excursions(levels, 2 * SAMPLES, RATE, WHITE)
    np.testing.assert_allclose(longer / one, 2.0, rtol=0.05)


def test_finely_sampled_field_has_the_closed_form():
    fine = QTransformSettings(norm="white", mismatch=0.002)
    level, q, duration = 12.0, 12.0, 6.0
    area = (fine.frequency_high - fine.frequency_low) * duration * np.sqrt(3 / 11 + 3 / (4 * q**2))
    edges = np.pi * duration / q * (fine.frequency_high + fine.frequency_low)
    closed = np.exp(-level) * (area * (2 * level - 1) + np.sqrt(level / np.pi) * edges)
    assert expected_excursions(np.array(level), SAMPLES, RATE, fine) == pytest.approx(closed, rel=0.02)


def test_the_loudest_pixel_of_a_fine_map_is_the_peak_and_that_of_a_coarse_one_below_it():
    fine = QTransformSettings(norm="white", num_frequencies=256, num_times=1025)
    share = {}
    for name, settings in (("coarse", WHITE), ("fine", fine)):
        pixel = torch.cat([q_transform(noise(50, seed), RATE, settings).amax(dim=(1, 2)) for seed in range(8)])
        share[name] = float((map_p_value(pixel, SAMPLES, RATE, settings) <= 0.2).double().mean())
    # of 400 maps: 0.02
    assert share["fine"] == pytest.approx(0.2, abs=0.05)
    assert share["coarse"] < 0.12


def test_louder_is_never_more_likely_and_the_quietest_is_certain():
    p = map_p_value(torch.linspace(0, 40, 300), SAMPLES, RATE, WHITE)
    assert p[0] == 1
    assert torch.all(p.diff() <= 0)
    assert torch.all(map_p_value(q_transform(torch.zeros(1, SAMPLES), RATE, WHITE), SAMPLES, RATE, WHITE) == 1)
    assert 0 < tile_p_value(torch.tensor(500.0)) < 1e-200


def test_energies_over_the_median_are_refused():
    with pytest.raises(ConfigurationError, match="norm white"):
        map_p_value(torch.ones(1), SAMPLES, RATE, QTransformSettings())


def test_several_q_are_refused():
    with pytest.raises(ConfigurationError, match="one Q"):
        expected_excursions(np.ones(1), SAMPLES, RATE, QTransformSettings(q=(8.0, 12.0), norm="white"))
