from dataclasses import replace

import pytest
import torch
from tests._series import CHANNELS, random_series

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.triggers.seriesae import (
    SeriesAutoencoder,
    SeriesClassifier,
    SeriesEncoder,
    SeriesScaling,
    hide,
)
from glitchflow_plugin.types.series import SeriesSets

KINDS = ["attention", "gru"]


def made(kind="attention"):
    torch.manual_seed(2)
    network = SeriesAutoencoder(
        SeriesEncoder(CHANNELS, dim=16, heads=2, layers=2, kind=kind), CHANNELS, dim=16, heads=2
    )
    for parameter in network.parameters():  # as after some steps: biases of attention start at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.encoder.scaling.fit([random_series([40, 40])])
    return network.eval()


def hidden_in(series, seed=0):
    return hide(series, 0.4, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_reaches_the_decoder(kind):
    """Whatever the hidden samples are, and whatever else is told of them, the network says the same."""
    network, series = made(kind), random_series([30, 12, 5])
    shown, asked, hidden = hidden_in(series)
    told = network(shown, asked)[0]
    other = {name: torch.where(hidden, 1e3, getattr(series, name)) for name in ("values", "uncertainties", "weights")}
    again, queries, same = hidden_in(replace(series, **other))
    assert torch.equal(same, hidden)
    assert torch.equal(network(again, queries)[0][hidden], told[hidden])
    # nor does a gradient: the values that are shown have one, those that are hidden do not
    values = series.values.clone().requires_grad_()
    shown, asked, hidden = hidden_in(replace(series, values=values))
    network(shown, asked)[0][hidden].sum().backward()
    assert (values.grad[hidden] == 0).all()
    assert (values.grad[series.mask & ~hidden] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_says_nothing_and_hides_no_other_sample(kind):
    network = made(kind)
    short, long = random_series([9, 0, 1]), random_series([9, 0, 1], padding=20, seed=5)
    for name in ("times", "values", "uncertainties", "weights"):
        getattr(long, name)[:] = torch.nan
        getattr(long, name)[:, :9][short.mask] = getattr(short, name)[short.mask]
    long.channels[:] = 10**6
    long.channels[:, :9][short.mask] = short.channels[short.mask]
    torch.testing.assert_close(network.encoder(long)[0], network.encoder(short)[0], atol=1e-5, rtol=1e-5)
    # one more sample of one channel leaves those of the others where they are: they still count
    silent = replace(short, mask=short.mask & (short.channels != 0))
    moved = replace(silent, values=silent.values + (silent.channels == 1))
    assert not torch.allclose(network.encoder(moved)[0][0], network.encoder(silent)[0][0], atol=1e-4)


def test_a_sample_counts_by_its_weight():
    network, series = made(), random_series([6])
    twice = SeriesSets(*(torch.cat([one, one], 1) for one in vars(series).values()))
    half = replace(twice, weights=twice.weights / 2)
    summary = network.encoder(series)[0]
    torch.testing.assert_close(network.encoder(half)[0], summary, atol=1e-5, rtol=1e-5)
    heavier = replace(series, weights=series.weights * torch.tensor([[5.0, 1, 1, 1, 1, 1]]))
    assert not torch.allclose(network.encoder(heavier)[0], summary, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_no_weight_is_not_there_and_its_uncertainty_is_seen(kind):
    network, series = made(kind), random_series([6])
    none = torch.arange(6)[None] == 2
    weightless = replace(series, weights=series.weights.masked_fill(none, 0.0))
    absent = replace(series, mask=series.mask & ~none)
    torch.testing.assert_close(network.encoder(weightless)[0], network.encoder(absent)[0], atol=1e-5, rtol=1e-5)
    unsure = replace(series, uncertainties=series.uncertainties * 10)
    assert not torch.allclose(network.encoder(unsure)[0], network.encoder(series)[0], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_samples_does_not_matter(kind):
    network, series = made(kind), random_series([12])
    order = torch.randperm(12)
    other = SeriesSets(*(one[:, order] for one in vars(series).values()))
    torch.testing.assert_close(network.encoder(other)[0], network.encoder(series)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind):
    network = made(kind).train()
    shown, asked, hidden = hidden_in(random_series([30, 20]))
    told, summary = network(shown, asked)
    (told[hidden].square().sum() + summary.square().sum()).backward()
    assert [name for name, one in network.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0] == []


def test_a_frozen_encoder_has_no_gradient():
    network = made()
    frozen = SeriesClassifier(network.encoder, 2, dim=16, frozen=True)
    frozen(random_series([5, 3])).glitch.sum().backward()
    learnt = {name.split(".")[0] for name, one in frozen.named_parameters() if one.grad is not None}
    assert learnt == {"heads"}


def test_scaling_is_by_channel_and_weight():
    series = random_series([200], padding=3)
    series.values[~series.mask] = torch.nan
    scaling = SeriesScaling(CHANNELS)
    scaling.fit([series])
    for channel in range(CHANNELS):
        own = series.mask & (series.channels == channel)
        weights, values = series.weights[own], series.values[own]
        mean = (weights * values).sum() / weights.sum()
        spread = ((weights * (values - mean) ** 2).sum() / weights.sum()).sqrt()
        torch.testing.assert_close(scaling.mean[channel], mean, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(scaling.spread[channel], spread, atol=1e-3, rtol=1e-3)
    assert scaling.reach == series.times[series.mask].abs().max()
    # the unit of a channel, such as that of strain, is none of its concern
    faint = replace(series, values=series.values * 2.0**-75, uncertainties=series.uncertainties * 2.0**-75)
    own, told = SeriesScaling(CHANNELS), scaling(series)
    own.fit([faint])
    torch.testing.assert_close(own(faint).values, told.values)
    torch.testing.assert_close(own(faint).uncertainties, told.uncertainties)
    # and of a channel that does not move nothing is made
    own.fit([replace(series, values=torch.full_like(series.values, 0.1))])
    assert (own.spread == 1.0).all()
    assert scaling(series).values.isfinite().all()


def test_what_cannot_be_built_is_told():
    with pytest.raises(ConfigurationError, match="Nearest: attention"):
        SeriesEncoder(2, kind="atention")
    with pytest.raises(ConfigurationError, match="heads that divide"):
        SeriesEncoder(2, dim=10, heads=4)
    with pytest.raises(ConfigurationError, match="share of samples to hide"):
        hide(random_series([2]), 1.0, torch.Generator())
