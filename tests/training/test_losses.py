import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as reference_similarity

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.training.losses import LossSettings, map_loss, structural_similarity


@pytest.mark.parametrize("data_range", [1.0, 4.0])
@pytest.mark.parametrize("sigma", [1.5, 2.0])
def test_similarity_is_that_of_scikit_image(data_range, sigma):
    generator = np.random.default_rng(0)
    first = generator.random((3, 64, 48))
    second = np.clip(first + 0.3 * generator.normal(size=first.shape), 0, 1)
    found = structural_similarity(
        torch.from_numpy(first[:, None]), torch.from_numpy(second[:, None]), data_range, sigma
    )
    for row in range(3):
        expected = reference_similarity(
            first[row],
            second[row],
            data_range=data_range,
            gaussian_weights=True,
            sigma=sigma,
            use_sample_covariance=False,
        )
        assert found[row].item() == pytest.approx(expected, abs=1e-10)


def test_limits_of_similarity():
    maps = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(structural_similarity(maps, maps), torch.ones(2))
    assert (structural_similarity(maps, 1 - maps) < 0).all()


def test_equal_maps_cost_nothing_and_weights_add_up():
    maps, other = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    assert map_loss(maps, maps, LossSettings()).abs().max() < 1e-6
    absolute = (maps - other).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(map_loss(maps, other, LossSettings(l1=1.0, ssim=0.0)), absolute)
    structure = 1 - structural_similarity(maps, other)
    torch.testing.assert_close(map_loss(maps, other, LossSettings()), 0.8 * absolute + 0.2 * structure)


def test_the_gradient_is_right_and_finite_at_equality():
    wanted = torch.rand(1, 1, 14, 14, dtype=torch.float64)
    predicted = torch.rand(1, 1, 14, 14, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: map_loss(x, wanted, LossSettings()), predicted)
    same = wanted.clone().requires_grad_()
    map_loss(same, wanted, LossSettings()).sum().backward()
    assert same.grad.isfinite().all()


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigurationError, match="not both 0"):
        LossSettings(l1=0, ssim=0)
    with pytest.raises(ConfigurationError, match="11 x 11"):
        structural_similarity(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
