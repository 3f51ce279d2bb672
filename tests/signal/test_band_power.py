import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfiltfilt

from glitchflow_plugin.signal.band_power import EDGES, band_power


@pytest.mark.parametrize("num_samples", [1024, 1023])
def test_the_bands_add_up_to_the_power_and_hold_what_lies_in_them(num_samples):
    time = np.arange(num_samples) / 1024
    tones = np.stack([np.sin(2 * np.pi * frequency * time) for frequency in (20, 100, 300)])
    found = band_power(torch.from_numpy(np.vstack([tones, tones.sum(axis=0)])), 1024.0).numpy()
    np.testing.assert_allclose(found[3].sum(), (tones.sum(axis=0) ** 2).sum(), rtol=0.02)
    assert found[:3].argmax(axis=1).tolist() == [1, 3, 5]
    np.testing.assert_allclose(found[:3].max(axis=1), (tones**2).sum(axis=1), rtol=0.02)


def test_power_is_that_of_a_band_pass():
    noise = np.random.default_rng(0).normal(size=(1, 65536))
    found = band_power(torch.from_numpy(noise), 1024.0)[0].numpy()
    for low, high, power in zip(EDGES[1:5], EDGES[2:6], found[1:5], strict=True):
        passed = sosfiltfilt(butter(8, [low, high], "bandpass", fs=1024, output="sos"), noise[0])
        assert power == pytest.approx((passed**2).sum(), rel=0.1)
        assert power == pytest.approx(65536 * (high - low) / 512, rel=0.1)


def test_what_lies_beyond_half_the_sample_rate_is_nothing():
    assert band_power(torch.randn(2, 256), 128.0)[:, 4:].abs().max() < 1e-9
