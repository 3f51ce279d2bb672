import numpy as np
import pytest
import torch
from scipy import signal

from glitchflow_plugin.training.harm import added_by_octave, octave_edges

RATE = 1024.0


def test_octaves_reach_from_zero_to_half_the_rate():
    assert octave_edges(1024.0) == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    assert octave_edges(100.0)[-2:] == (32, 50)


@pytest.mark.parametrize("num_samples", [6144, 6143])
def test_the_octaves_add_up_to_the_change_of_power(num_samples):
    generator = torch.Generator().manual_seed(0)
    measured, predicted = torch.randn(2, 3, num_samples, generator=generator).double()
    added, power, noise = added_by_octave(measured, predicted, RATE)
    change = (measured - predicted).square().sum(dim=1) - measured.square().sum(dim=1)
    np.testing.assert_allclose(added.sum(axis=1), change)
    np.testing.assert_allclose(power.sum(axis=1), measured.square().sum(dim=1))
    assert noise.sum() == num_samples


@pytest.mark.parametrize(("frequency", "octave"), [(3.0, 2), (50.0, 6), (500.0, 9), (0.25, 0)])
def test_a_tone_is_found_in_its_octave(frequency, octave):
    times = torch.arange(6144) / RATE
    tone = 0.3 * torch.sin(2 * torch.pi * frequency * times)[None]
    added, _, noise = added_by_octave(torch.randn(1, 6144), tone, RATE)
    assert int(np.argmax(added[0] / noise)) == octave
    edges = octave_edges(RATE)
    expected = 0.3**2 / 2 / ((edges[octave + 1] - edges[octave]) / (RATE / 2))
    assert added[0, octave] / noise[octave] == pytest.approx(expected, rel=0.35)


def test_noise_that_is_rightly_explained_counts_below_zero():
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 6144)))
    explained = torch.from_numpy(signal.sosfilt(signal.butter(4, [60, 100], "bandpass", fs=RATE, output="sos"), noise))
    right, _, _ = added_by_octave(noise + 2 * explained, 2 * explained, RATE)
    turned, _, _ = added_by_octave(noise + 2 * explained, -2 * explained, RATE)
    assert (right.sum(axis=1) < 0).all()
    assert (turned.sum(axis=1) > 0).all()
