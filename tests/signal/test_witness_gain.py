"""Gains of the parts of a prediction, against the least squares of NumPy and known changes."""

import numpy as np
import pytest
import torch

from glitchflow_plugin.signal.witness_gain import witness_gains


def burst(centre, frequency, height=5.0, num_samples=2048, rate=1024.0):
    time = torch.arange(num_samples) / rate - centre
    return height * torch.exp(-((time / 0.05) ** 2)) * torch.sin(2 * torch.pi * frequency * time)


@pytest.fixture
def parts():
    return torch.stack([burst(0.5, 60), burst(1.2, 90), torch.zeros(2048)])[None]


@pytest.mark.parametrize("gains", [(1.0, 1.0), (-1.0, 1.0), (3.0, -1.0), (0.0, 0.3)])
def test_gains_are_those_of_least_squares(parts, gains):
    generator = torch.Generator().manual_seed(1)
    strain = gains[0] * parts[:, 0] + gains[1] * parts[:, 1] + torch.randn(1, 2048, generator=generator)
    found = witness_gains(strain, parts, 50)
    expected = np.linalg.lstsq(parts[0, :2].T.numpy(), strain[0].numpy(), rcond=None)[0]
    np.testing.assert_allclose(found.gain[0, :2], expected, rtol=2e-3, atol=2e-3)
    assert (abs(found.gain[0, :2] - torch.tensor(gains)) < 4 * found.variance[0, :2].sqrt()).all()
    assert found.gain[0, 2].isnan()
    assert found.power[0, 2] == 0


def test_the_variance_is_that_of_many_draws(parts):
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(400, 2048, generator=generator)
    found = witness_gains(parts[:, :2].sum(dim=1) + noise, parts.expand(400, -1, -1), 10)
    for part in (0, 1):
        assert found.gain[:, part].mean() == pytest.approx(1, abs=0.01)
        assert found.gain[:, part].std() == pytest.approx(float(found.variance[:, part].mean().sqrt()), rel=0.2)


def test_another_transient_at_the_same_time_makes_the_gain_uncertain(parts):
    alone = witness_gains(parts.sum(dim=1), parts, 10)
    with_signal = witness_gains(parts.sum(dim=1) + burst(0.5, 35, height=10), parts, 10)
    assert with_signal.variance[0, 0] > 5 * alone.variance[0, 0]
    assert with_signal.variance[0, 1] == pytest.approx(float(alone.variance[0, 1]), rel=1e-3)


def test_two_parts_that_are_alike_tell_little_of_each_other():
    one = burst(1.0, 60)
    other = one + 0.02 * burst(1.0, 90)
    alone = witness_gains(2 * one[None], one[None, None], 10)
    both = witness_gains(2 * one[None], torch.stack([one, other])[None], 10)
    assert alone.power[0, 0] == pytest.approx(float(one.square().sum()), rel=1e-4)
    assert both.power.max() < 1
    # nor does one that is wrong spoil the other where they differ
    apart = torch.stack([burst(0.5, 60), burst(0.5, 90)])[None]
    found = witness_gains(apart[:, 0] - apart[:, 1], apart, 10)
    assert found.gain[0].tolist() == pytest.approx([1, -1], abs=0.02)


@pytest.mark.parametrize("samples", [-20, 0, 10])
def test_the_lag_is_by_how_much_the_strain_comes_later(parts, samples):
    strain = -torch.roll(parts[:, 0], samples, dims=-1) + parts[:, 1]
    assert witness_gains(strain, parts, 40).lag[0].tolist() == [samples, 0, 0]


def test_noise_that_a_part_passes_on_tells_nothing(parts):
    generator = torch.Generator().manual_seed(3)
    passed = parts[:, :1] + 0.5 * torch.randn(8, 1, 2048, generator=generator)
    strain = parts[:, 0] + torch.randn(8, 2048, generator=generator)
    found = witness_gains(strain, passed, 10)
    assert found.gain.mean() == pytest.approx(1, abs=0.05)
    assert found.power.mean() == pytest.approx(float(parts[0, 0].square().sum()), rel=0.1)
    assert witness_gains(strain, passed - parts[:, :1], 10).power.max() < 25
