from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.signal.slow import SHARE
from glitchflow_plugin.training.filter_start import folds_of
from glitchflow_plugin.training.slow_start import Context, find_context, set_context

RATE, SAMPLES, EVENTS = 1024.0, 2048, 40
SMALL = {"features": 4, "filter_size": 65}


def events(how):
    """A witness of bursts, two that swing slowly, and a strain that follows the second by `how`, in noise."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(SAMPLES) / RATE
    spectra = torch.fft.rfft(torch.randn(EVENTS, 3, SAMPLES, generator=generator))
    spectra[..., : round(8.0 * SAMPLES / RATE)] = 0  # as whitening leaves it
    witnesses = torch.fft.irfft(spectra, n=SAMPLES)
    phase = 2 * np.pi * torch.rand(EVENTS, 2, 1, generator=generator)
    angle = 2 * np.pi * 0.6 * time + phase
    tone = 2 * np.pi * 60.0 * time + 2 * np.pi * torch.rand(EVENTS, 1, generator=generator)
    envelope = 8.0 * torch.exp(-(((time - 1.0) / 0.1) ** 2))
    burst = envelope * torch.sin(tone)
    witnesses[:, 0] += burst
    witnesses[:, 1:] += SHARE * torch.sin(angle)
    place, speed = torch.sin(angle[:, 1]), torch.cos(angle[:, 1])
    arrived = {
        "place": burst * (1 + 0.7 * place),
        "direction": envelope * torch.sin(tone + speed.sign()),
        "alone": burst,
    }[how]
    return witnesses, (arrived + 0.5 * torch.randn(arrived.shape, generator=generator))[:, None]


def batches(witnesses, strain):
    for first in range(0, EVENTS, 8):
        part = slice(first, first + 8)
        yield witnesses[part], strain[part], torch.ones(len(strain[part]), 1, 1)


def network():
    torch.manual_seed(0)
    return CouplingNet(3, **SMALL, slow_context=True).eval()


@pytest.mark.parametrize("how", ["place", "direction", "alone"])
def test_a_witness_follows_the_channel_that_decides_and_no_other(how):
    found = find_context(network(), batches(*events(how)), folds_of(np.arange(EVENTS)), [1, 2], RATE)
    if how == "alone":
        assert found == []
        return
    assert [replace(one, strength=None) for one in found] == [Context(0, 2, None)]
    if how == "place":
        # the swing of one scale, less what averaging over frames takes from 0.6 Hz
        assert found[0].strength == pytest.approx(0.7, abs=0.11)
    else:
        assert found[0].strength is None


def test_a_witness_that_foretells_nothing_follows_nothing():
    witnesses, strain = events("alone")
    noise = torch.randn(strain.shape, generator=torch.Generator().manual_seed(2))
    assert find_context(network(), batches(witnesses, 5.0 * noise), folds_of(np.arange(EVENTS)), [1, 2], RATE) == []


def test_nothing_is_followed_where_there_are_too_few_groups():
    assert find_context(network(), batches(*events("place")), folds_of(np.zeros(EVENTS)), [1, 2], RATE) == []


@pytest.mark.parametrize(("how", "strength"), [("place", 0.7), ("direction", None)])
def test_a_network_begins_by_what_was_found(how, strength):
    net = network()
    witnesses, strain = events(how)
    with torch.no_grad():
        plain = net.law_series(witnesses)
        set_context(net, [1, 2], [Context(0, 2, strength)], RATE)
        laws = net.law_series(witnesses)
        assert torch.equal(laws[:, 1:, 0], plain[:, 1:, 0])
        assert not plain[:, :, -1].any()
        if how == "place":
            # amplitudes count: events are taken together
            before, after = (
                functional.cosine_similarity(each[:, 0, 0].flatten(), strain.flatten(), dim=0) for each in (plain, laws)
            )
            assert after > before + 0.03
        else:
            # phases that differ by twice the angle between both directions
            assert (laws[:, 0, -1].abs() <= laws[:, 0, 0].abs()).all()
            assert laws[:, 0, -1].abs().max() > 0.8 * laws[:, 0, 0].abs().max()
