import pytest
import torch

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.wiener import WienerFilter, WienerSums


def coupled(num_events, noise=1.0):
    """Two witnesses; the strain is the first, 7 samples later and halved, minus the second a sample earlier."""
    witnesses = torch.randn(num_events, 2, 2048)
    strain = 0.5 * witnesses[:, :1].roll(7, dims=-1) - witnesses[:, 1:].roll(-1, dims=-1)
    return witnesses, strain + noise * torch.randn_like(strain)


def test_it_finds_a_linear_coupling():
    sums = WienerSums(2, filter_size=65)
    for _ in range(4):
        sums.add(*coupled(16))
    found = sums.solve(1e-6)
    taps = found.filters.detach()
    assert taps[0].argmax() == 32 + 7
    assert taps[1].argmin() == 32 - 1
    assert float(taps[0, 39]) == pytest.approx(0.5, abs=0.02)
    assert float(taps[1, 31]) == pytest.approx(-1.0, abs=0.02)
    witnesses, strain = coupled(4, noise=0.0)
    left = (strain - found(witnesses))[..., 64:-64]
    assert left.square().mean() < 0.02 * strain.square().mean()


def test_witnesses_that_tell_nothing_get_next_to_no_weight():
    sums = WienerSums(2, filter_size=65)
    sums.add(torch.randn(64, 2, 2048), torch.randn(64, 1, 2048))
    # 64 x 2048 samples: each of the 65 taps is known to 1 / sqrt(131072)
    assert sums.solve(1e-3).filters.abs().max() < 6 / 131072**0.5


def test_a_strong_ridge_gives_nothing():
    sums = WienerSums(2, filter_size=65)
    sums.add(*coupled(4))
    assert sums.solve(1e6).filters.abs().max() < 1e-5


def test_a_silent_witness_does_no_harm():
    witnesses, strain = coupled(16)
    witnesses[:, 1] = 0
    sums = WienerSums(2, filter_size=65)
    sums.add(witnesses, strain)
    found = sums.solve(1e-4).filters
    assert bool(torch.isfinite(found).all())
    assert found[1].abs().max() == 0


def test_nothing_to_solve_is_refused():
    with pytest.raises(ConfigurationError, match="expected data"):
        WienerSums(1).solve(0.1)
    with pytest.raises(ConfigurationError, match="odd filter_size"):
        WienerFilter(1, filter_size=64)


def test_events_shorter_than_a_segment_will_do():
    sums = WienerSums(2)
    witnesses, strain = coupled(64)
    sums.add(witnesses[..., :1000], strain[..., :1000])
    assert sums.solve(1e-2).filters[0].argmax() == 256 + 7


def test_smoothed_sums_are_those_of_correlations_under_a_triangle():
    sums = WienerSums(2, filter_size=17)
    witnesses, strain = torch.randn(4, 2, 400), torch.randn(4, 1, 400)
    sums.add(witnesses, strain)
    smoothed = sums.smoothed(5)
    size = sums.segment_size
    lag = torch.arange(size)
    triangle = (1 - torch.minimum(lag, size - lag) / 6).clamp(min=0)
    before, after = (torch.fft.irfft(each.products, n=size, dim=0) for each in (sums, smoothed))
    torch.testing.assert_close(after, before * triangle[:, None, None].double())
    assert smoothed.products.diagonal(dim1=-2, dim2=-1).real.min() > 0
    torch.testing.assert_close(sums.smoothed(10**9).targets, sums.targets)
