import json
import pickle

import pytest
import torch
from safetensors.torch import save

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.predict import predict_strain
from glitchflow_plugin.models.build import build_model, representation
from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.models.weights import load_twin, save_twin

SMALL = {"features": 4, "frame_size": 32, "filter_size": 65}


def pulse(num_events, num_samples=512, height=8.0):
    """A burst of 100 samples of noise in the first of three witnesses, beside unit noise in all."""
    series = torch.randn(num_events, 3, num_samples)
    series[:, 0, 200:300] += height * torch.randn(num_events, 100)
    return series


@pytest.fixture
def net():
    return CouplingNet(3, **SMALL).eval()


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_the_number_of_witnesses_and_the_length_are_free(channels):
    net = CouplingNet(channels, **SMALL)
    for num_samples in (256, 300):
        found = net(torch.randn(2, channels, num_samples), explained=True)
        assert found.strain.shape == (2, 1, num_samples)
        assert found.variance.shape == (2, 17, net.transform.num_frames(num_samples))
        assert found.summary.shape == (2, 4 * channels)


def test_silence_predicts_nothing(net):
    assert net(torch.zeros(1, 3, 512)).abs().max() == 0
    assert net(torch.zeros(1, 3, 512), explained=True).variance.min() >= 1


def test_noise_is_held_back_before_anything_is_learnt(net):
    with torch.no_grad():
        net.filters.zero_()
        net.filters[:, 0, 32] = 1  # what passes the gate arrives as it is
        noise = torch.randn(8, 3, 2048)
        passed = net(noise).square().mean() * 25 / noise.square().mean() / 3
        burst = pulse(8)
        kept = (net(burst)[:, 0, 210:290] * 5 - burst[:, 0, 210:290]).square().mean()
    assert passed < 0.05
    assert kept / burst[:, 0, 210:290].square().mean() < 0.25


def test_a_missing_witness_says_nothing_and_the_others_go_on(net):
    series = pulse(2)
    alone = series.clone()
    alone[:, 1:] = 0
    with torch.no_grad():
        net.filters.normal_(std=0.1)
        single = net(alone)
        series[:, 0] = 0
        assert single.square().sum() > 100 * net(series)[..., 150:350].square().sum()


def test_events_do_not_mix(net):
    series = pulse(3)
    with torch.no_grad():
        torch.testing.assert_close(net(series)[1:2], net(series[1:2]), atol=1e-6, rtol=1e-4)


def test_a_shift_of_the_witnesses_shifts_the_prediction(net):
    series = torch.zeros(1, 3, 768)
    series[:, :, 200:300] = 5 * torch.randn(1, 3, 100)
    # whole frames of the encoder: its stride is 4 hops of 8 samples
    with torch.no_grad():
        first, second = net(series), net(series.roll(64, dims=-1))
    torch.testing.assert_close(second[..., 200:500], first.roll(64, dims=-1)[..., 200:500], atol=1e-5, rtol=1e-3)


def test_filters_are_linear_convolutions(net):
    with torch.no_grad():
        net.filters.zero_()
        net.filters[0, 0] = torch.randn(65)
        series = torch.randn(1, 3, 200)
        wanted = torch.nn.functional.conv1d(series[:, :1], net.filters[0, 0].flip(0)[None, None], padding=32)
        torch.testing.assert_close(net._filtered(net._laws(series, None))[:, :1], wanted, atol=1e-4, rtol=1e-4)


def test_all_parameters_learn():
    net = CouplingNet(3, channel_dropout=0.0, **SMALL)
    series = pulse(4)
    target = 0.5 * series[:, :1].roll(5, dims=-1)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        found = net(series, explained=True)
        left = net.transform((target - found.strain.detach())[:, 0]).abs().square()
        loss = (target - found.strain)[..., 190:310].square().mean()
        (loss + (found.variance.log() + left / found.variance).mean()).backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("event_gain", [False, True])
def test_it_can_be_exported(event_gain):
    net = CouplingNet(3, **SMALL, event_gain=event_gain).eval()
    with torch.no_grad():
        net.filters.normal_(std=0.1)
    batch = {0: torch.export.Dim("event", min=1, max=1024)}
    program = torch.export.export(WaveformTwin(net), (pulse(2),), dynamic_shapes=(batch,)).module()
    series = pulse(5)
    torch.testing.assert_close(program(series), net(series))


def test_a_twin_comes_back_from_its_bytes(net):
    twin = WaveformTwin(net, summary_size=12, num_references=19, num_levels=2)
    with torch.no_grad():
        net.filters.normal_(std=0.1)
        twin.variance_factor.fill_(2.0)
        twin.summary_references[:, 0] = torch.arange(19.0)
    again = load_twin(save_twin(twin, "coupling", {"in_channels": 3, **SMALL}))
    series = pulse(2)
    for first, second in zip(twin.explain(series), again.explain(series), strict=True):
        assert torch.equal(first, second)
    summary = torch.zeros(3, 12)
    summary[:, 0] = torch.tensor([0.0, 15.5, 40.0])
    assert again.strangeness(summary).tolist() == pytest.approx([1.0, 4 / 20, 1 / 20])


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": 0},
        {"filter_size": 64},
        {"heads": 3},
        {"channel_dropout": 1.0},
        {"thresholds": -1},
        {"filter_rate": 0.0},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"conf/model"):
        CouplingNet(3, **{**SMALL, **wrong})


def test_it_is_built_by_name():
    assert isinstance(build_model("coupling", in_channels=3, **SMALL), CouplingNet)
    assert representation("coupling") == representation("wiener") == "waveform"
    assert representation("unet") == "energy"


def test_a_twin_of_an_earlier_version_keeps_its_limits_and_has_no_novelty(net):
    weights = {f"network.{key}": value for key, value in net.state_dict().items()}
    calibration = {"variance_noise": torch.tensor(0.9), "variance_factor": torch.tensor(2.0)}
    limits = torch.arange(10.0).reshape(2, 5)
    summaries = {"summary_mean": torch.zeros(12), "summary_axes": torch.eye(12), "novelty_reference": torch.zeros(40)}
    described = json.dumps({"name": "coupling", "settings": {"in_channels": 3, **SMALL}})
    twin = load_twin(save({**weights, **calibration, "limits": limits, **summaries}, metadata={"model": described}))
    series = pulse(2)
    explained = twin.explain(series)
    assert torch.equal(explained.strain, WaveformTwin(net).eval()(series))
    assert torch.equal(twin.residual_limits(torch.tensor([1.0, 10.0])), limits * torch.tensor([[1.0], [10.0]]))
    assert twin.strangeness(explained.summary).isnan().all()


def test_a_twin_keeps_its_bins_of_loudness_and_the_powers_of_its_references(net):
    twin = WaveformTwin(net)
    edges, powers = torch.tensor([1.5, 4.0]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 30.0, 0.0]]).repeat(20, 1)
    references = torch.zeros(40, 12)
    references[:, 4] = torch.arange(40.0) + 100 * (torch.arange(40) % 2)  # the second witness is loud
    twin.keep(
        summary_mean=torch.zeros(12), summary_covariance=torch.eye(12), limits=torch.rand(1, 3, 5), loudness=edges
    )
    twin.keep(summary_references=references, summary_powers=powers)
    again = load_twin(save_twin(twin, "coupling", {"in_channels": 3, **SMALL}))
    variance, summary = torch.tensor([1.0, 3.0, 9.0]), torch.zeros(1, 12)
    assert torch.equal(again.residual_limits(variance), variance[:, None] * twin.limits[0])
    summary[:, 4] = 30.0
    quiet, loud = torch.zeros(1, 1, 512), torch.ones(1, 1, 512)
    for strain, expected in ((quiet, 6 / 21), (loud, 1.0), (None, 26 / 41)):
        assert again.strangeness(summary, strain).tolist() == pytest.approx([expected])
    # without the loud witness all references are quiet ones, and all are alike
    summary[:, 4:8] = torch.nan
    assert again.strangeness(summary, quiet).tolist() == again.strangeness(summary, None).tolist() == [1.0]


def test_a_twin_without_groups_of_references_has_each_as_one_of_its_own(net):
    twin = WaveformTwin(net, summary_size=12, num_references=40)
    twin.summary_references[:, 0] = torch.arange(40.0)
    summary = torch.zeros(1, 12)
    before = twin.strangeness(summary + 20.5)
    later = ("summary_groups", "summary_powers", "loudness")
    tensors = {key: value for key, value in twin.state_dict().items() if key not in later}
    described = json.dumps({"name": "coupling", "settings": {"in_channels": 3, **SMALL}})
    again = load_twin(save(tensors, metadata={"model": described}))
    assert torch.equal(again.strangeness(summary + 20.5), before)
    twin.keep(summary_groups=torch.arange(40) // 2)
    grouped = load_twin(save_twin(twin, "coupling", {"in_channels": 3, **SMALL}))
    assert torch.equal(grouped.summary_groups, twin.summary_groups)


def test_a_gain_for_the_whole_event_begins_as_one_and_follows_loudness():
    plain, net = (CouplingNet(3, **SMALL, event_gain=given) for given in (False, True))
    net.load_state_dict(plain.state_dict(), strict=False)
    plain, net = plain.eval(), net.eval()
    loud = pulse(2)
    loud[1] *= 2
    with torch.no_grad():
        for each in (plain, net):
            each.filters.zero_()
            each.filters[0, 0, 32] = 5.0
        torch.testing.assert_close(net(loud), plain(loud), atol=1e-3, rtol=1e-3)
        # what is left of the noise has so little power that the witness is not believed
        for each in (plain, net):
            each.filters *= 0.01
        assert net(loud).square().sum() < 1e-3 * plain(loud).square().sum()
        torch.testing.assert_close(net.train()(loud), plain.train()(loud))
        net.event_gain[:, 0] = 0.5  # with the root of the power
        cleaned = net.law_series(loud)[:, :, 0]
        gain = net.whole_gain(cleaned)
        assert 1.05 < gain[1, 0] / gain[0, 0] < 2**0.5 + 0.1
        # nothing that is extrapolated grows without bounds
        assert net.whole_gain(1e6 * loud).max() < 5


def test_a_twin_of_the_former_network_comes_back_without_the_new_parts(net):
    series = pulse(2)
    stored = json.dumps({"name": "coupling", "settings": {"in_channels": 3, **SMALL}})
    weights = WaveformTwin(net).state_dict()
    assert not any("event_gain" in key for key in weights)
    again = load_twin(save(weights, metadata={"model": stored}))
    assert again.network.event_gain is None
    assert torch.equal(again(series), net(series))


def test_the_series_of_the_laws_times_the_filters_are_the_first_prediction(net):
    series = pulse(2)
    with torch.no_grad():
        net.filters.normal_(std=0.1)
        laws = net.law_series(series).flatten(1, 2)
        wanted = torch.nn.functional.conv1d(laws, net.filters.flatten(0, 1).flip(-1)[None], padding=32)
        torch.testing.assert_close(net(series), wanted, atol=1e-3, rtol=1e-3)


def test_a_slow_context_changes_nothing_before_it_is_set_and_then_the_witness_that_follows_alone():
    plain, net = (CouplingNet(3, **SMALL, slow_context=given) for given in (False, True))
    with torch.no_grad():
        plain.filters.normal_(std=0.1)
        net.load_state_dict(plain.state_dict() | {"filters": net.filters}, strict=False)
        net.filters[:, :-1] = plain.filters
        net.filters[:, -1] = plain.filters[:, 0]
        series = pulse(2)
        series[:, 2] += 0.05
        torch.testing.assert_close(net(series), plain(series))
        net.place[0, 2] = 1.0
        torch.testing.assert_close(net(series), plain(series))
        net.slow_channels[2] = 1.0
        followed = net.contributions(series) / plain.contributions(series)
        torch.testing.assert_close(followed[:, 1:], torch.ones_like(followed[:, 1:]))
        assert (followed[:, 0, 220:280].median(dim=-1).values > 1.1).all()
        # without the channel that it follows: as on the average
        series[:, 2] = 0
        torch.testing.assert_close(net(series), plain(series))


@pytest.mark.parametrize("length", [512, 500])
def test_slow_motion_is_known_at_its_time(length):
    net = CouplingNet(2, **SMALL, slow_context=True)
    motion = torch.linspace(-1, 1, length).expand(1, 2, length)
    frames, speed = net.slow_motion(motion)
    found = net.by_sample(frames, motion.shape)
    gain = float(net.transform.window.sum()) / 32**0.5
    torch.testing.assert_close((found / gain)[..., 60:-60], motion[..., 60:-60], atol=3e-3, rtol=0)
    torch.testing.assert_close(speed[..., 10:-10] / gain, torch.full_like(speed[..., 10:-10], 8 * 2 / (length - 1)))


def test_foretold_are_strain_and_summary_of_what_is_explained(net):
    twin, series = WaveformTwin(net, summary_size=12), pulse(2)
    explained = twin.explain(series)
    strain, summary = twin.foretell(series)
    assert torch.equal(strain, explained.strain)
    assert torch.equal(summary, explained.summary)


def test_what_distances_need_is_made_anew_once_its_source_has_changed(net):
    twin = WaveformTwin(net, summary_size=12, num_references=40)
    twin.summary_references[:, 0] = torch.arange(40.0)
    summary = torch.zeros(1, 12)
    summary[:, 0] = 30.5
    assert twin.strangeness(summary).tolist() == pytest.approx([10 / 41])
    assert twin.strangeness(summary).tolist() == pytest.approx([10 / 41])
    twin.summary_references[:, 0] += 5.0
    assert twin.strangeness(summary).tolist() == pytest.approx([15 / 41])
    twin.keep(summary_mean=torch.full((12,), 25.0))
    assert twin.strangeness(summary).tolist() == pytest.approx([30 / 41])
    twin.keep(summary_references=torch.full((40, 12), 25.0))
    assert twin.strangeness(summary).tolist() == pytest.approx([1 / 41])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_changed_filters_are_noticed_though_their_transforms_are_kept(net, mode):
    witnesses, other = pulse(2), CouplingNet(3, **SMALL).eval()
    with mode():
        before = net(witnesses)
        assert net(witnesses).equal(before)
    with torch.no_grad():
        net.filters.mul_(2.0)
    with mode():
        assert not net(witnesses).equal(before)
        other.load_state_dict(net.state_dict())
        assert net(witnesses).equal(other(witnesses))
    net.filters = torch.nn.Parameter(0.5 * net.filters.detach())
    with mode():
        assert net(witnesses).equal(before)
    # gradients after a time without
    net(witnesses).square().sum().backward()
    assert net.filters.grad is not None
    assert net.filters.grad.abs().max() > 0


def test_filters_that_are_set_while_learning_are_noticed(net):
    """That changes no version of a parameter; nor does moving it, for which tests/test_devices.py looks."""
    witnesses = pulse(2)
    with torch.no_grad():
        before = net(witnesses)
        net.train()
        net.filters.data.mul_(2.0)
        net.eval()
        assert not net(witnesses).equal(before)


def test_filters_that_a_fused_optimiser_has_taught_are_noticed(net):
    """It changes parameters without counting it as a change."""
    witnesses, other = pulse(2), CouplingNet(3, **SMALL).eval()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        net(witnesses)
    net.train()(witnesses).square().sum().backward()
    optimiser.step()
    net.eval()
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert net(witnesses).equal(other(witnesses))


def test_what_is_kept_of_a_network_does_not_travel(net):
    size = len(pickle.dumps(net))
    with torch.no_grad():
        net(pulse(1))
    assert len(pickle.dumps(net)) == size


def test_one_prediction_after_the_other_transforms_the_filters_once(net, monkeypatch):
    transformed, rfft = [], torch.fft.rfft

    def counted(series, *args, **kwargs):
        transformed.append(series is net.filters)
        return rfft(series, *args, **kwargs)

    monkeypatch.setattr(torch.fft, "rfft", counted)
    twin, witnesses = WaveformTwin(net).eval(), pulse(1)
    first, second = (predict_strain(twin, witnesses)[0] for _ in range(2))
    assert sum(transformed) == 1
    assert first.equal(second)
