import pytest
import torch
from tests._configuration import section
from tests._networks import NETWORKS
from torch import nn

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.build import MODELS, WAVEFORM_MODELS, build_model, check_network, full_settings
from glitchflow_plugin.models.twins import EnergyTwin, WaveformTwin
from glitchflow_plugin.models.weights import load_twin, save_twin

SMALL = {
    "deep_decoder": {"base": 4, "depth": 2, "features": 12},
    "linear": {},
    "plain_unet": {"base": 4, "depth": 2},
    "resnet": {"base": 4, "blocks": 2},
    "shallow_decoder": {"base": 6},
    "unet": {"base": 4, "depth": 2, "attention_heads": 2},
}
DEEP = sorted(set(SMALL) - {"linear"})


def small(name, channels=2, **settings):
    return build_model(name, in_channels=channels, **{"window_size": 16, **SMALL[name], **settings})


def test_every_network_is_tested_here():
    assert set(SMALL) == set(MODELS) - WAVEFORM_MODELS  # those have tests of their own


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3, 11])
def test_any_number_of_witnesses_gives_one_strain(name, channels):
    predicted = small(name, channels, window_size=32)(torch.randn(2, channels, 32, 32))
    assert predicted.shape == (2, 1, 32, 32)
    assert (predicted >= 0).all()


@pytest.mark.parametrize("name", DEEP)
def test_signed_predictions_of_several_channels(name):
    network = small(name, out_channels=3, positive=False)
    predicted = network(torch.randn(4, 2, 16, 16))
    assert predicted.shape == (4, 3, 16, 16)
    assert (predicted < 0).any()
    assert (predicted > 0).any()
    network.positive = True
    assert (network(torch.randn(4, 2, 16, 16)) > 0).all()


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_learns(name):
    network = small(name)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    # what starts at zero lets a gradient through from the second step on
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.rand(4, 2, 16, 16)).square().mean().backward()
        optimizer.step()
    assert not [key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]


@pytest.mark.parametrize("name", DEEP)
def test_it_learns_four_windows_by_heart_and_silence_among_them(name):
    """The strain of three windows is a delayed product of two witnesses; the fourth is silent."""
    network = small(name, base=8)
    # smooth maps: what must pass through few coarse pixels cannot hold noise
    coarse = torch.rand(2 * 4, 1, 4, 4)
    fast, slow = nn.functional.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(min=0).unflatten(0, (2, 4))
    fast[3] = slow[3] = 0
    strain = torch.roll(2 * fast * slow, 1, dims=-1)
    witnesses = torch.cat([fast, slow], dim=1)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=300)
    for step in range(1, 301):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(witnesses), strain).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20:
            continue
        predicted = network(witnesses).detach()
        error = nn.functional.mse_loss(predicted[:3], strain[:3]) / strain[:3].var()
        # an output that never moved is 0.05
        if error < 0.1 and predicted[3].mean() < 0.04:
            return
    pytest.fail(f"{error:.2f} of the variance is left, {predicted[3].mean():.3f} where there was silence")


@pytest.mark.parametrize("name", ["deep_decoder", "plain_unet", "shallow_decoder"])
def test_an_untrained_network_keeps_silence_and_passes_power_on(name):
    network = small(name, positive=False)
    assert network(torch.zeros(2, 2, 16, 16)).abs().max() == 0
    power = network(torch.randn(64, 2, 16, 16)).square().mean()
    assert 0.02 < power < 50


@pytest.mark.parametrize("name", SMALL)
def test_the_exported_network_takes_any_number_of_windows(name):
    network = small(name).eval()
    windows = torch.rand(2, 2, 16, 16)
    program = torch.export.export(network, (windows,), dynamic_shapes=({0: torch.export.Dim("window", min=1)},))
    many = torch.rand(5, 2, 16, 16)
    torch.testing.assert_close(program.module()(many), network(many), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_weights_come_back_without_pickle(name):
    settings = {"in_channels": 2, "window_size": 16, "base": None, **SMALL[name]}
    network = build_model(name, **settings)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1)
    twin = EnergyTwin(network, clamp=1e4, witness_scale=[5.0, 7.0], target_scale=4.0).eval()
    windows = 100 * torch.rand(3, 2, 16, 16)
    assert torch.equal(load_twin(save_twin(twin, name, settings))(windows), twin(windows))


@pytest.mark.parametrize("name", SMALL)
def test_channels_last_changes_nothing(name):
    network = small(name).eval()
    windows = torch.rand(2, 2, 16, 16)
    expected = network(windows)
    turned = network.to(memory_format=torch.channels_last)(windows.to(memory_format=torch.channels_last))
    torch.testing.assert_close(turned, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 5}, "halved 5 times"),
        ({"window_size": 18, "depth": 2}, r"multiple of 4.*18"),
        ({"depth": 0}, "'depth': 0"),
        ({"base": 0}, "'base': 0"),
        ({"in_channels": 0}, "'in_channels': 0"),
        ({"bse": 4}, r"bse.*base"),
        ({"base": "wide"}, "cannot be built"),
    ],
)
def test_impossible_settings_are_refused(name, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        build_model(name, **{"in_channels": 2, "window_size": 16, **SMALL[name], **settings})


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"linear.*unet.*unett"):
        build_model("unett", in_channels=2)


def test_null_stands_for_the_default_of_each_network():
    assert full_settings("unet", in_channels=7, base=None, depth=3, attention_heads=None) == {
        "in_channels": 7,
        "base": 64,
        "depth": 3,
        "attention_heads": 4,
        "window_size": 64,
        "out_channels": 1,
        "positive": True,
    }
    with pytest.raises(ConfigurationError, match="in_channels"):
        full_settings("unet", base=4)
    # every network can be chosen with the keys that a file of before has for all of them
    for name in MODELS:
        if name != "linear":
            assert build_model(name, in_channels=1, base=None, depth=None) is not None


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_file_of_a_network_is_taken_and_holds_nothing_of_another(name):
    model = section("model", f"conf/model={name}")
    check_network(model)
    assert build_model(**model, in_channels=3, window_size=64) is not None
    assert section("training.config.optim_lr", f"conf/model={name}") > 0
    assert set(section("hpo.search_space", f"conf/model={name}").get("model", {})) < set(model)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"name": "unet", "bse": 8}, r"'bse'\. Nearest: base\. It takes base, depth, attention_heads"),
        ({"name": "unet", "features": 16}, r"'features'.*conf/model=unet"),
        ({"name": "coupling", "in_channels": 3}, r"'in_channels'.*It takes features"),
        ({"name": "unnet"}, r"got 'unnet'\. Nearest: unet"),
        ({"base": 8}, "got None"),
    ],
)
def test_a_key_of_another_network_is_told_with_the_nearest(model, told):
    with pytest.raises(ConfigurationError, match=told):
        check_network(model)


@pytest.mark.parametrize("name", sorted(WAVEFORM_MODELS - {"stft_unet", "tcn"}))
def test_what_the_witnesses_add_sums_up_to_the_prediction(name):
    net = build_model(name, in_channels=3, **NETWORKS[name]).eval()
    series = 5 * torch.randn(2, 3, 512)
    series[1, 2] = 0
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        parts, whole = net.contributions(series), net(series)
    assert parts.shape == series.shape
    torch.testing.assert_close(parts.sum(dim=1, keepdim=True), whole, atol=1e-4, rtol=1e-4)
    assert parts[1, 2].abs().max() == 0
    assert (parts[0].abs().amax(dim=-1) > 0).all()


def test_a_network_that_is_no_sum_adds_its_prediction_as_a_whole():
    twin, series = WaveformTwin(FirstWitness()), torch.randn(2, 3, 64)
    assert twin.contributions(series).equal(series[:, :1])


class FirstWitness(nn.Module):
    def forward(self, witnesses):
        return witnesses[:, :1]
