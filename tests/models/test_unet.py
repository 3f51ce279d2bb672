import pytest
import torch
from torch import nn

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.blocks import AttentionGate, ResidualBlock, RowResponse, SelfAttention, squareplus
from glitchflow_plugin.models.unet import UNet


def test_it_can_learn_to_say_nothing_where_nothing_is_seen():
    network = UNet(1, base=4, depth=2, attention_heads=0, window_size=16)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    silence, noise = torch.zeros(4, 1, 16, 16), torch.rand(4, 1, 16, 16)
    for _ in range(150):
        optimizer.zero_grad()
        predicted = network(torch.cat([silence, noise]))
        (predicted[:4].mean() + (predicted[4:] - 1).abs().mean()).backward()
        optimizer.step()
    predicted = network(torch.cat([silence, noise])).detach()
    assert predicted[:4].mean() < 0.02
    assert predicted[4:].mean() == pytest.approx(1, abs=0.2)


def test_evaluation_is_a_fixed_function_of_each_window():
    network = UNet(2, base=4, depth=2).eval()
    windows = torch.rand(5, 2, 64, 64)
    torch.testing.assert_close(network(windows)[3:4], network(windows[3:4]), rtol=1e-4, atol=1e-5)


def test_a_network_at_zero_everywhere_can_come_back():
    values = torch.full((1, 1, 2, 2), -10.0, requires_grad=True)
    squareplus(values).sum().backward()
    assert (values.grad > 1e-6).all()
    assert squareplus(torch.full((1, 1, 1, 1), -100.0)) > 0


def test_each_frequency_row_has_its_own_response():
    response = RowResponse(2, 8)
    with torch.no_grad():
        response.gain[1, 3] = 2.0
        response.offset[0, 5] = 1.0
    expected = torch.ones(1, 2, 8, 4)
    expected[:, 1, 3] = 3.0
    expected[:, 0, 5] = 2.0
    assert torch.equal(response(torch.ones(1, 2, 8, 4)), expected)


def test_louder_witnesses_are_not_normalised_away():
    block = ResidualBlock(2, 2)
    nn.init.normal_(block.conv_out.weight)
    windows = torch.rand(1, 2, 8, 8)
    quiet, loud = block(windows), block(10 * windows)
    assert loud.abs().mean() > 3 * quiet.abs().mean()


def test_the_gate_lies_between_nothing_and_everything():
    gate = AttentionGate(4, 6, 3)
    skip = torch.rand(2, 4, 8, 8)
    weighed = gate(skip, torch.randn(2, 6, 8, 8))
    assert weighed.shape == skip.shape
    share = weighed / skip
    assert ((share > 0) & (share < 1)).all()
    # one weight a pixel, for all features
    torch.testing.assert_close(share, share[:, :1].expand_as(share), rtol=1e-4, atol=1e-5)


def test_self_attention_is_what_torch_calls_attention():
    torch.manual_seed(0)
    ours = SelfAttention(8, heads=2).eval()
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    nn.init.normal_(ours.project.weight)
    with torch.no_grad():
        reference.in_proj_weight.copy_(ours.query_key_value.weight[..., 0, 0])
        reference.in_proj_bias.copy_(ours.query_key_value.bias)
        reference.out_proj.weight.copy_(ours.project.weight[..., 0, 0])
        reference.out_proj.bias.copy_(ours.project.bias)
        maps = torch.randn(3, 8, 4, 4)
        tokens = nn.functional.group_norm(maps, 1).flatten(2).transpose(1, 2)
        expected = maps + reference(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(ours(maps), expected, rtol=1e-4, atol=1e-5)


def test_attention_never_sees_many_pixels():
    sizes = []

    def watch(_, arguments):
        sizes.append(arguments[0].shape[-2] * arguments[0].shape[-1])

    network = UNet(2, base=4, depth=3)
    network.attention.register_forward_pre_hook(watch)
    network(torch.rand(1, 2, 64, 64))
    assert sizes == [64]
    with pytest.raises(ConfigurationError, match="grow with the square"):
        UNet(2, base=4, depth=1, window_size=128)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention_heads": -1}, "at least 0, got -1"),
        ({"base": 5, "depth": 2, "attention_heads": 3}, "divide"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        UNet(2, **settings)
