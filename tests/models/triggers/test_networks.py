import pytest
import torch
from tests._triggers import CHANNELS, GLOBALS, KINDS, random_sets

from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.models.triggers.build import NETWORKS, SIZES, build_network, load_network, save_network
from glitchflow_plugin.models.triggers.hypertransformer import ChannelLinear
from glitchflow_plugin.models.triggers.parts import Scaling
from glitchflow_plugin.models.triggers.pet import nearest_points
from glitchflow_plugin.types.triggers import UNKNOWN, TriggerSets

VARIANTS = {
    "condonly": {},
    "hypertransformer": {"heads": 2, "layers": 2, "rank": 4},
    "one_hot": {"heads": 2, "layers": 2, "context": "one_hot"},
    "static": {"heads": 2, "layers": 2, "context": "static"},
    "pet": {"heads": 2, "layers": 2, "neighbours": 3},
    "pointvit": {"heads": 2, "layers": 2},
}
SETS = [name for name in VARIANTS if name != "condonly"]


def made(variant):
    torch.manual_seed(1)
    name = variant if variant in NETWORKS else "hypertransformer"
    settings = {"num_channels": CHANNELS, "num_globals": GLOBALS, "num_kinds": KINDS, "dim": 16, **VARIANTS[variant]}
    network = build_network(name, **settings)
    for parameter in network.parameters():  # as after some steps: biases of attention start at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network, name, settings


def answers(network, sets):
    with torch.no_grad():
        told = network.eval()(sets)
    return torch.cat([told.glitch[:, None], told.kind, told.log1p_snr[:, None], told.channel], dim=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_answer_is_the_same_whatever_the_padding_holds(variant):
    network, _, _ = made(variant)
    short = random_sets([5, 0, 1])
    long = random_sets([5, 0, 1], padding=40, seed=3)
    long.points[~long.mask] = torch.nan
    long.points[:, :5][short.mask], long.channels[:, :5][short.mask] = (
        short.points[short.mask],
        short.channels[short.mask],
    )
    long = TriggerSets(long.points, long.channels, long.mask, short.globals_, short.globals_valid)
    torch.testing.assert_close(answers(network, long), answers(network, short), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_answer_is_the_same_whatever_the_order_of_the_triggers(variant):
    network, _, _ = made(variant)
    sets = random_sets([7, 7])
    order = torch.randperm(7)
    other = TriggerSets(
        sets.points[:, order], sets.channels[:, order], sets.mask[:, order], sets.globals_, sets.globals_valid
    )
    torch.testing.assert_close(answers(network, other), answers(network, sets), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_learns(variant):
    network, _, _ = made(variant)
    told = network.train()(random_sets([9, 4, 0, 1]))
    (told.glitch.sum() + told.kind.square().sum() + told.log1p_snr.sum() + told.channel.square().sum()).backward()
    still = [name for name, one in network.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize("variant", SETS)
def test_triggers_count_and_channels_count_where_the_network_looks_at_them(variant):
    network, _, _ = made(variant)
    sets = random_sets([6, 6])
    fewer = TriggerSets(
        sets.points, sets.channels, sets.mask & (torch.arange(6) < 5), sets.globals_, sets.globals_valid
    )
    assert not torch.allclose(answers(network, fewer), answers(network, sets), atol=1e-4)
    moved = (sets.channels + 1) % CHANNELS
    elsewhere = TriggerSets(sets.points, moved, sets.mask, sets.globals_, sets.globals_valid)
    assert torch.allclose(answers(network, elsewhere), answers(network, sets), atol=1e-5) is (variant == "static")


def test_globals_alone_do_not_see_triggers():
    network, _, _ = made("condonly")
    sets = random_sets([6, 2])
    none = TriggerSets(sets.points * 3, sets.channels, ~sets.mask, sets.globals_, sets.globals_valid)
    assert torch.equal(answers(network, none), answers(network, sets))


@pytest.mark.parametrize("variant", SETS)
def test_a_channel_that_was_never_seen_is_the_unknown_one(variant):
    network, _, _ = made(variant)
    sets = random_sets([4])
    new, unknown = (
        TriggerSets(sets.points, torch.full_like(sets.channels, one), sets.mask, sets.globals_, sets.globals_valid)
        for one in (CHANNELS + 5, UNKNOWN)
    )
    assert torch.equal(answers(network, new), answers(network, unknown))


@pytest.mark.parametrize("variant", ["pointvit", "pet", "hypertransformer"])
def test_two_thousand_triggers_fit(variant):
    network, _, _ = made(variant)
    assert answers(network, random_sets([2000])).isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded_it_answers_the_same(variant):
    network, name, settings = made(variant)
    sets = random_sets([3, 0])
    again = load_network(save_network(network, name, settings))
    assert torch.equal(answers(again, sets), answers(network, sets))


def test_what_is_no_network_is_refused():
    with pytest.raises(FormatError, match="Train it again"):
        load_network(b"12345678{}")
    with pytest.raises(ConfigurationError, match="Nearest: pointvit"):
        build_network("pointvt")
    with pytest.raises(ConfigurationError, match="cannot be built"):
        build_network("pet", depth=3)
    with pytest.raises(ConfigurationError, match="size out of S, M, L"):
        build_network("pet", size="XL")


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_settings_of_both_networks_of_points(size):
    for name in ("pointvit", "pet"):
        with torch.device("meta"):
            network = build_network(name, num_channels=9, num_globals=4, num_kinds=2, size=size)
        assert len(network.blocks) == SIZES[size]["layers"]


def test_a_weight_of_a_channel_is_the_matrix_that_it_stands_for():
    linear = ChannelLinear(5, 4, context=3, rank=2)
    tokens, context = torch.randn(1, 1, 5), torch.randn(1, 1, 3)
    matrix = (
        linear.static.weight + linear.expand.weight @ torch.diag(linear.hyper(context)[0, 0]) @ linear.reduce.weight
    )
    torch.testing.assert_close(linear(tokens, context)[0, 0], matrix @ tokens[0, 0] + linear.static.bias)


def test_scaling_takes_valid_numbers_alone():
    sets = random_sets([50, 3, 0], padding=4)
    sets.points[~sets.mask], sets.globals_[~sets.globals_valid] = torch.nan, torch.nan
    scaling = Scaling(GLOBALS)
    scaling.fit([sets[:1], sets[1:]])
    valid = sets.points[sets.mask]
    torch.testing.assert_close(scaling.point_mean, valid.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(scaling.point_spread, valid.std(0, unbiased=False), atol=1e-5, rtol=1e-4)
    scaled = scaling.points(sets)
    assert scaled.isfinite().all()
    assert (scaled[~sets.mask] == 0).all()
    assert scaling.globals(sets).isfinite().all()


def test_neighbours_are_the_nearest_ones_that_are_there():
    places = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [5.0, 0.0], [0.1, 0.0]]])
    nearest, there = nearest_points(places, torch.tensor([[True, True, True, False]]), 2)
    assert nearest[0, 0].tolist() == [1, 2]
    assert nearest[0, 2].tolist() == [1, 0]
    assert there[0, :3].all()
    assert not nearest_points(places[:, :1], torch.tensor([[True]]), 2)[1].any()
