import numpy as np
import pytest
import torch
from scipy.signal import ShortTimeFFT

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.stft import ShortTimeFourier


@pytest.mark.parametrize("num_samples", [64, 100, 1000, 6144])
@pytest.mark.parametrize("frame_size", [16, 128])
def test_the_inverse_is_exact(num_samples, frame_size):
    transform = ShortTimeFourier(frame_size)
    series = torch.randn(2, 3, num_samples)
    coefficients = transform(series)
    assert coefficients.shape == (2, 3, transform.num_frequencies, transform.num_frames(num_samples))
    torch.testing.assert_close(transform.inverse(coefficients, num_samples), series, atol=2e-6, rtol=0)


def test_it_agrees_with_scipy():
    transform = ShortTimeFourier(128)
    series = torch.randn(1024)
    window = transform.window.double().numpy()
    reference = ShortTimeFFT(window, hop=32, fs=1.0, fft_mode="onesided")
    # scipy's slice p is centred on sample 32 p, ours begins 96 samples before the first sample
    wanted = reference.stft(series.double().numpy(), p0=-1, p1=20) / np.sqrt(128)
    centre = np.exp(-2j * np.pi * np.arange(65) * 0)[:, None]
    ours = transform(series)[:, :21].numpy()
    np.testing.assert_allclose(np.abs(ours), np.abs(wanted * centre), atol=1e-5)


def test_white_noise_has_unit_power():
    transform = ShortTimeFourier(128)
    power = transform(torch.randn(64, 4096)).abs().square()[:, 1:-1, 4:-4]
    # about 64 x 63 x 30 independent pixels
    assert float(power.mean()) == pytest.approx(1.0, abs=0.01)


def test_energy_is_kept():
    # a tight frame: the sum over all frames is 4 times the power, each sample being seen by four frames
    transform = ShortTimeFourier(64)
    series = torch.randn(1, 512)
    coefficients = transform(series)
    weight = torch.full((33, 1), 2.0)
    weight[[0, -1]] = 1.0
    total = (weight * coefficients.abs().square()).sum()
    torch.testing.assert_close(total, 4 * series.square().sum(), rtol=1e-4, atol=0)


def test_gradients_go_through():
    transform = ShortTimeFourier(16)
    series = torch.randn(1, 40, dtype=torch.float32, requires_grad=True)
    transform.inverse(transform(series), 40).square().sum().backward()
    torch.testing.assert_close(series.grad, 2 * series.detach(), atol=1e-5, rtol=1e-5)


def test_a_frame_that_has_no_quarters_is_refused():
    with pytest.raises(ConfigurationError, match="divided by 4"):
        ShortTimeFourier(126)
