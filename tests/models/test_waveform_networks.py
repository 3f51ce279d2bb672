"""The networks on series beside `coupling`; it has tests of its own."""

import pytest
import torch
from tests._networks import NETWORKS

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.build import WAVEFORM_MODELS, build_model, representation
from glitchflow_plugin.models.transfer import solve_transfer, transfer_sums
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.models.weights import load_twin, save_twin

NAMES = sorted(WAVEFORM_MODELS - {"coupling"})
DEEP = ["stft_unet", "tcn"]


def small(name, channels=2, *, stirred=True):
    """A small network; stirred, it predicts something before it was trained."""
    network = build_model(name, in_channels=channels, **NETWORKS[name])
    if stirred:
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    return network.eval()


@pytest.mark.parametrize("name", NAMES)
def test_number_of_witnesses_and_length_are_free_and_events_do_not_mix(name):
    for channels, num_samples in ((1, 512), (7, 700)):
        network = small(name, channels)
        assert representation(name) == "waveform"
        series = torch.randn(3, channels, num_samples)
        predicted = network(series)
        assert predicted.shape == (3, 1, num_samples)
        assert predicted.square().mean() > 0
        torch.testing.assert_close(network(series[1:2]), predicted[1:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_predicted_before_anything_is_learnt(name):
    assert small(name, stirred=False)(torch.randn(2, 2, 512)).abs().max() == 0


@pytest.mark.parametrize("name", sorted({*NAMES} - {"stft_unet"}))
def test_silent_witnesses_give_nothing_by_construction(name):
    assert small(name)(torch.zeros(2, 2, 512)).abs().max() == 0


@pytest.mark.parametrize("name", DEEP)
def test_every_weight_learns(name):
    network = small(name, stirred=False).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    # the head starts at zero and lets a gradient through from the second step on
    for _ in range(4):
        optimizer.zero_grad()
        (network(torch.randn(4, 2, 512)) - torch.randn(4, 1, 512)).square().mean().backward()
        optimizer.step()
    assert not [key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]


def bursts(num_events, num_samples=256):
    """Bursts of noise in the first of two witnesses; the strain is their delayed odd square, and the last is silent."""
    series = torch.zeros(num_events, 2, num_samples)
    series[:, 0, 100:164] = 3 * torch.nn.functional.avg_pool1d(torch.randn(num_events, 1, 68), 5, stride=1)[:, 0]
    series[-1] = 0
    first = series[:, :1]
    return series, 3 * (first * first.abs()).roll(3, dims=-1)


@pytest.mark.parametrize("name", DEEP)
def test_it_learns_three_events_by_heart_and_silence_among_them(name):
    settings = {"tcn": {"features": 8, "blocks": 4}, "stft_unet": {"frame_size": 32, "base": 8, "depth": 1}}[name]
    network = build_model(name, in_channels=2, **settings)
    witnesses, strain = bursts(4)
    optimizer = torch.optim.Adam(network.parameters())
    steps = 80
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-2, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (network(witnesses) - strain).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    left = (strain - network(witnesses).detach()).square().sum(dim=(1, 2))
    power = strain.square().sum(dim=(1, 2))
    assert (left[:3] < 0.25 * power[:3]).all()
    assert left[3] < 0.01 * power[:3].mean()


@pytest.mark.parametrize("name", [*DEEP, "transfer"])
def test_it_comes_back_from_its_bytes_and_can_be_exported(name):
    twin = WaveformTwin(small(name)).eval()
    series = torch.randn(2, 2, 512)
    again = load_twin(save_twin(twin, name, {"in_channels": 2, **NETWORKS[name]}))
    assert torch.equal(again(series), twin(series))
    assert not twin.explains
    batch = {0: torch.export.Dim("event", min=1, max=1024)}
    program = torch.export.export(twin, (series,), dynamic_shapes=(batch,)).module()
    many = torch.randn(5, 2, 512)
    torch.testing.assert_close(program(many), twin(many), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("stft_unet", {"frame_size": 36, "depth": 3}),
        ("stft_unet", {"channel_dropout": 1.0}),
        ("tcn", {"kernel_size": 4}),
        ("tcn", {"blocks": 0}),
        ("tcn", {"channel_dropout": -0.1}),
        ("transfer", {"frame_size": 30}),
    ],
)
def test_wrong_settings_are_refused(name, wrong):
    with pytest.raises(ConfigurationError, match="expected"):
        build_model(name, in_channels=2, **wrong)


def test_transfer_functions_are_the_ratio_of_cross_and_auto_spectrum_of_scipy():
    from scipy import signal

    witness = torch.randn(1, 1, 2**15, dtype=torch.float64)
    strain = 0.5 * witness.roll(4, dims=-1) + 0.1 * torch.randn_like(witness)
    sums = transfer_sums(1, frame_size=64)
    sums.add(witness, strain)
    found = torch.view_as_complex(solve_transfer(sums, 0.0).response.detach())[0]
    options = {"nperseg": 64, "window": "hann", "detrend": False, "scaling": "density"}
    cross = signal.csd(witness.flatten(), strain.flatten(), **options)[1]
    expected = cross / signal.welch(witness.flatten(), **options)[1]
    torch.testing.assert_close(found, torch.from_numpy(expected).to(found), rtol=2e-3, atol=2e-3)


def test_transfer_functions_subtract_what_is_coupled_linearly_and_only_that():
    witnesses = torch.randn(32, 2, 2048)
    coupled = 0.5 * witnesses[:, :1].roll(5, dims=-1)
    sums = transfer_sums(2, frame_size=128)
    sums.add(witnesses, coupled + witnesses[:, 1:].square() - 1)
    found = solve_transfer(sums, 1e-3)
    fresh = torch.randn(4, 2, 2048)
    wanted = 0.5 * fresh[:, :1].roll(5, dims=-1)
    left = (wanted - found(fresh))[..., 128:-128].square().mean() / wanted.square().mean()
    # a delay of 5 samples in frames of 128 costs (5 / 128)^2 and the quadratic path adds its noise
    assert left < 0.1
    assert torch.view_as_complex(found.response.detach())[1].abs().mean() < 0.1
