import pytest
import torch

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.clean import clean_maps, residual_area


@pytest.fixture
def maps():
    return torch.rand(3, 8, 10, generator=torch.Generator().manual_seed(0)) * 30


def test_nothing_predicted_nothing_removed(maps):
    assert torch.equal(clean_maps(maps, torch.zeros_like(maps)), maps)


def test_a_perfect_prediction_leaves_nothing(maps):
    assert not clean_maps(maps, maps.clone()).any()


def test_too_much_counts_like_too_little(maps):
    assert torch.allclose(clean_maps(maps, maps + 2), clean_maps(maps, maps - 2))


def test_shapes_must_agree(maps):
    with pytest.raises(ConfigurationError, match="one shape"):
        clean_maps(maps, maps[:1])


def test_area_counts_pixels_of_each_map():
    maps = torch.zeros(2, 3, 4)
    maps[0, 0, 1], maps[0, 2, 3], maps[1, 1, 1] = 20.0, 16.0, 17.0
    assert residual_area(maps, 16.0).tolist() == [1, 1]  # a pixel at the threshold is not above it
