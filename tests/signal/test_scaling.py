import numpy as np
import pytest
import torch

from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, NoEventsError
from glitchflow_plugin.models.twins import scale_energy, unscale_energy
from glitchflow_plugin.signal.scaling import ScaleFit, Scaling, ScalingSettings

CHANNELS = ("STRAIN", "LOUD", "SILENT", "DEAD")


@pytest.fixture
def maps():
    generator = np.random.default_rng(0)
    maps = generator.exponential(1.5, size=(6, 4, 32, 40)).astype(np.float32)
    maps[:, 1] *= 1000
    maps[:, 2] = 0
    maps[:, 3] = 0
    return maps


@pytest.fixture
def valid(maps):
    valid = np.ones(maps.shape[:2], dtype=bool)
    valid[:, 3] = False
    return valid


@pytest.mark.parametrize("transform", ["sqrt", "log1p"])
def test_the_scale_is_the_quantile_of_what_the_network_sees(maps, valid, transform):
    fit = ScaleFit(CHANNELS, ScalingSettings(clamp=1e5, quantile=0.99, transform=transform))
    fit.add(maps, valid)
    scaling = fit.result()
    function = getattr(np, transform)
    for row, name in enumerate(CHANNELS[:2]):
        expected = np.quantile(function(maps[:, row]), 0.99)
        assert scaling.scale[name] == pytest.approx(expected, rel=5e-3)


def test_batches_give_the_same_as_one_piece(maps, valid):
    whole, parts = ScaleFit(CHANNELS), ScaleFit(CHANNELS)
    whole.add(maps, valid)
    for row in range(len(maps)):
        parts.add(maps[row : row + 1], valid[row : row + 1])
    assert whole.result() == parts.result()


def test_silent_and_dead_channels_are_left_as_they_are(maps, valid):
    fit = ScaleFit(CHANNELS)
    fit.add(maps, valid)
    scaling = fit.result()
    assert scaling.scale["SILENT"] == scaling.scale["DEAD"] == 1.0


def test_an_invalid_event_does_not_count(maps, valid):
    spoilt = maps.copy()
    spoilt[2, 1] = 1e9
    valid[2, 1] = False
    reference, fit = ScaleFit(CHANNELS), ScaleFit(CHANNELS)
    reference.add(np.delete(maps, 2, axis=0), np.delete(valid, 2, axis=0))
    fit.add(spoilt, valid)
    assert fit.result().scale["LOUD"] == reference.result().scale["LOUD"]


@pytest.mark.parametrize("transform", ["sqrt", "log1p"])
def test_networks_scale_and_come_back_exactly_up_to_the_clamp(maps, transform):
    scale = torch.tensor([3.0, 7.0, 1.0, 1.0])[:, None, None]
    scaled = scale_energy(torch.from_numpy(maps), torch.tensor(500.0), scale, transform)
    expected = getattr(np, transform)(np.minimum(maps, 500.0)) / scale.numpy()
    np.testing.assert_allclose(scaled.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert not scaled[:, 2:].any()
    back = unscale_energy(scaled, torch.tensor(500.0), scale, transform)
    np.testing.assert_allclose(back.numpy(), np.minimum(maps, 500.0), rtol=1e-4, atol=1e-4)


def test_errors_say_what_is_wrong():
    with pytest.raises(ConfigurationError, match=r"clamp: expected float \(above 0"):
        ScalingSettings(clamp=0)
    with pytest.raises(ConfigurationError, match="sqrt"):
        ScalingSettings(transform="root")
    with pytest.raises(ConfigurationError, match="positive scales"):
        Scaling(clamp=1.0, scale={"A": 0.0})
    with pytest.raises(ChannelMismatchError, match="B"):
        Scaling(clamp=1.0, scale={"A": 1.0}).scales(("A", "B"))
    with pytest.raises(NoEventsError):
        ScaleFit(("A",)).result()
