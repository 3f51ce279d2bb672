import pytest
import torch
from torch import nn

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.training import precision
from glitchflow_plugin.training.precision import choose_precision, in_precision

CPU = torch.device("cpu")


def test_auto_follows_the_device(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    assert choose_precision("auto", CPU) is torch.bfloat16
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    assert choose_precision("auto", CPU) is torch.float32
    assert choose_precision("bf16", CPU) is torch.bfloat16
    with pytest.raises(ConfigurationError, match="bf16"):
        choose_precision("fp16", CPU)  # type: ignore[arg-type]


def test_a_cpu_without_the_instructions_has_no_bf16(monkeypatch):
    monkeypatch.setattr(precision, "cpu_instructions", lambda: frozenset({"avx2", "avx512f"}))
    assert not precision.has_bf16(CPU)


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_have_bf16_from_ampere_on(monkeypatch, capability, native):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert precision.has_bf16(torch.device("cuda")) is native


def test_products_are_rounded_and_the_rest_is_not():
    network = nn.Conv2d(2, 3, 3)
    windows = torch.randn(4, 2, 8, 8)
    exact, mixed = network(windows), in_precision(network, torch.bfloat16)(windows)
    assert mixed.dtype is torch.float32
    assert not torch.equal(exact, mixed)
    torch.testing.assert_close(exact, mixed, rtol=0.05, atol=0.05)
    mixed.sum().backward()
    assert network.weight.grad.dtype is torch.float32
    assert in_precision(network, torch.float32) is network
