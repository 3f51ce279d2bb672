import pytest
import torch
from scipy import stats

from glitchflow_plugin.signal.agreement import LEAST_POWER, agreed, octaves

SIZE = 2048


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(4)


def noise(generator, events=1, size=SIZE):
    return torch.randn(events, size, generator=generator)


def burst(power, frequency=0.1, centre=SIZE // 2, size=SIZE):
    """A sine Gaussian of this power (SNR²), at a frequency in cycles a sample, (1, time)."""
    times = torch.arange(size) - centre
    shape = torch.exp(-((times / 60.0) ** 2)) * torch.cos(2 * torch.pi * frequency * times)
    return (shape * (power / shape.square().sum()).sqrt())[None]


def power_left(strain, taken):
    return (strain - taken).square().sum(dim=-1)


@pytest.mark.parametrize("size", [500, 513, 6144])
def test_octaves_add_up_and_hold_what_is_theirs(generator, size):
    series = noise(generator, 3, size).double()
    parts = octaves(series)
    torch.testing.assert_close(parts.sum(dim=1), series)
    # 0.09 cycles a sample lies in the middle of the third octave below half the rate, between 1/16 and 1/8
    tone = torch.cos(2 * torch.pi * 0.0884 * torch.arange(4096.0, dtype=torch.float64))[None]
    shares = octaves(tone).square().sum(dim=-1)[0] / tone.square().sum()
    assert shares.argmax() == len(shares) - 3
    assert shares.max() > 0.99


def test_the_right_is_taken_whole_and_the_wrong_not_at_all(generator):
    right = burst(400.0)
    strain = right + noise(generator)
    assert agreed(right, strain).equal(right)
    assert agreed(0.8 * right, strain).equal(0.8 * right)
    for wrong in (-right, 3 * right, torch.roll(right, 500, dims=-1), burst(400.0, 0.03)):
        assert agreed(wrong, strain).abs().max() == 0
    # of what has little power nobody can tell
    assert agreed(burst(0.9 * LEAST_POWER), burst(0.9 * LEAST_POWER) + noise(generator)).abs().max() == 0
    assert agreed(torch.zeros_like(right), strain).abs().max() == 0


@pytest.mark.parametrize("power", [LEAST_POWER, 1.6 * LEAST_POWER])
def test_it_errs_as_often_as_the_noise_makes_it(generator, power):
    """The sign of a normal variable of mean P and deviation 2 sqrt(P)."""
    events, size = 4000, 512
    predicted = burst(1.0001 * power, centre=size // 2, size=size).expand(events, -1)
    expected = stats.norm.sf(power**0.5 / 2)
    for truth, wrong in ((1.0, False), (0.0, True)):
        taken = agreed(predicted, truth * predicted + noise(generator, events, size)).abs().amax(dim=-1) > 0
        errors = int((taken == wrong).sum())
        assert stats.binomtest(errors, events, expected).pvalue > 1e-3


def test_an_octave_that_is_wrong_is_left_while_the_others_are_taken(generator):
    right, wrong = burst(900.0, 0.15), burst(200.0, 0.0221)
    strain = right + noise(generator)
    taken = agreed(right + wrong, strain)
    assert ((taken - right).square().sum() / right.square().sum()) < 0.01
    # there the clean series is what was measured
    away = octaves((strain - taken) - (strain - right)).square().sum(dim=-1)[0]
    assert away.max() < 2


def test_power_never_rises_whatever_is_predicted(generator):
    strain = burst(300.0) + noise(generator, 200)
    shapes = octaves(noise(generator, 200).double()) * 3 * torch.rand(200, 8, 1, generator=generator)
    predicted = shapes.sum(dim=1).float() * 0.1 + burst(300.0) * torch.rand(200, 1, generator=generator)
    taken = agreed(predicted, strain)
    assert (power_left(strain, taken) <= power_left(strain, 0) + 1e-2).all()
    assert (power_left(strain, predicted) > power_left(strain, 0)).any()


def test_a_signal_is_never_fitted(generator):
    """What is taken are shares from 0 to 1 of what is predicted, frequency by frequency, whatever the strain holds."""
    glitch, events = burst(400.0), 50
    signal = burst(900.0, 0.09, SIZE // 2 + 40).expand(events, -1)
    predicted = (glitch * torch.linspace(0.2, 1.5, events)[:, None]) + 0.05 * noise(generator, events)
    strain = glitch + noise(generator, events)
    bare = torch.fft.rfft(predicted)
    for heard in (strain, strain + signal, signal + noise(generator, events)):
        share = torch.fft.rfft(agreed(predicted, heard)) / bare
        assert share.imag.abs().max() < 1e-2
        assert share.real.min() > -1e-2
        assert share.real.max() < 1 + 1e-2
    # a prediction that holds nothing of the signal takes nothing of it, however the signal lies beside it
    alone = agreed(glitch, signal[:1] + glitch)
    assert alone.equal(glitch) or alone.abs().max() == 0


def test_a_signal_that_a_wrong_prediction_is_like_loses_no_more_than_that(generator):
    """At all phases on top of a signal of SNR 20; without the signal all of it would be refused."""
    size = 512
    signal = burst(400.0, 0.1, size // 2, size)
    predicted = 0.5 * torch.cat([torch.roll(signal, lag, dims=-1) for lag in range(-10, 10)]).repeat(20, 1)
    background = noise(generator, len(predicted), size)
    like = (predicted * signal).sum(dim=-1) / 400
    lost = (agreed(predicted, signal + background) * signal).sum(dim=-1) / 400
    assert (lost <= like.clamp(min=0) + 1e-3).all()
    assert lost.std() < like.std()
    # the strain tells what is like the signal from what is not, so what is lost has one sign
    assert lost.min() > -1e-3
    assert lost.mean() > 0.05
    assert agreed(predicted, background).abs().amax(dim=-1).count_nonzero() < 0.01 * len(predicted)
