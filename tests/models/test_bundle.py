import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.linear import LinearFilter
from glitchflow_plugin.models.twins import EnergyTwin
from glitchflow_plugin.models.unet import UNet
from glitchflow_plugin.models.weights import load_twin, save_twin


def make_twin(network=None, *, transform="sqrt"):
    network = network or UNet(2, base=4, depth=2)
    return EnergyTwin(network, clamp=1e4, witness_scale=[5.0, 7.0], target_scale=4.0, transform=transform).eval()


def make_bundle(**changes):
    values = {
        "twin": make_twin(),
        "target": "STRAIN",
        "witnesses": ("GUIDE", "BYSTANDER"),
        "recipe": {"q": 12.0},
        "window_size": 64,
        "frequencies": tuple(float(row) for row in range(64)),
        "times": tuple(column / 64 for column in range(257)),
    }
    return ModelBundle(**{**values, **changes})


def test_an_identity_between_equal_scales_gives_the_energy_back():
    twin = EnergyTwin(nn.Identity(), clamp=1e4, witness_scale=[3.0], target_scale=3.0)
    energy = torch.rand(2, 1, 8, 8) * 100
    torch.testing.assert_close(twin(energy), energy, rtol=1e-4, atol=1e-4)
    assert twin(torch.zeros(1, 1, 8, 8)).abs().max() == 0
    assert twin(torch.full((1, 1, 8, 8), 1e6)).max() == pytest.approx(1e4, rel=1e-3)


def test_a_linear_twin_sees_energies_as_they_are():
    network = LinearFilter(2, 8, (0,))
    with torch.no_grad():
        network.weight.fill_(0.5)
        network.bias.zero_()
    twin = make_twin(network, transform="none")
    torch.testing.assert_close(twin(torch.full((1, 2, 8, 8), 40.0)), torch.full((1, 1, 8, 8), 40.0))


@pytest.mark.parametrize("transform", ["none", "sqrt", "log1p"])
def test_weights_come_back_without_pickle(transform):
    network = LinearFilter(2, 16, (-1, 0))
    nn.init.uniform_(network.weight)
    twin = make_twin(network, transform=transform)
    content = save_twin(twin, "linear", network.settings)
    assert b"pickle" not in content
    windows = torch.rand(3, 2, 16, 16) * 50
    assert torch.equal(load_twin(content)(windows), twin(windows))


def test_other_bytes_are_refused():
    for content in (b"", b"abc", bytes(100)):
        with pytest.raises(FormatError, match="not the weights"):
            load_twin(content)


def test_the_description_survives_json():
    bundle = make_bundle(metrics={"validation_loss": 0.25}, dataset="abc", notes={"epochs": 3})
    back = ModelBundle.from_dict(json.loads(json.dumps(bundle.to_dict())), bundle.twin, None)
    assert back.to_dict() == bundle.to_dict()
    assert back.channels == ("STRAIN", "GUIDE", "BYSTANDER")


def test_a_bundle_that_cannot_be_fed_is_refused():
    with pytest.raises(FormatError, match="witness channels"):
        make_bundle(witnesses=("STRAIN",))
    with pytest.raises(FormatError, match="frequency rows"):
        make_bundle(frequencies=(1.0, 2.0))
    content = {**make_bundle().to_dict(), "format_version": 99}
    with pytest.raises(FormatError, match="version 99"):
        ModelBundle.from_dict(content, make_twin(), None)
    with pytest.raises(FormatError, match="unknown parts"):
        ModelBundle.from_dict({**make_bundle().to_dict(), "surprise": 1}, make_twin(), None)


def test_replacing_keeps_the_checks():
    with pytest.raises(FormatError):
        replace(make_bundle(), witnesses=())
