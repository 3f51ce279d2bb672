import numpy as np
import pytest

from glitchflow_plugin.data.glitch_bank import BankGlitch
from glitchflow_plugin.simulation import bank
from glitchflow_plugin.simulation.noise import advirgo_asd, optimal_snr

RATE = 4096.0
SIZE = round(8 * RATE)


def glitch(frequency=100.0, width=0.05):
    time = np.arange(8192) / RATE - 1.0
    waveform = 10.0 * np.exp(-0.5 * (time / width) ** 2) * np.sin(2 * np.pi * frequency * time)
    return BankGlitch("H1", "Blip", 0, waveform, RATE, 20.0)


def placed(one, centre=SIZE // 2):
    return bank.placed(bank.tapered(one), RATE, num_samples=SIZE, centre=centre, sample_rate=RATE)


def test_a_coloured_glitch_keeps_its_snr():
    whitened = placed(glitch())
    strain = bank.coloured(whitened, advirgo_asd, RATE)
    psd = advirgo_asd(np.fft.rfftfreq(SIZE, 1.0 / RATE)) ** 2
    assert optimal_snr(strain, psd, RATE) == pytest.approx(glitch().snr, rel=1e-3)


def test_a_glitch_lies_where_it_is_placed():
    energy = np.cumsum(placed(glitch(), 12345) ** 2)
    assert abs(int(np.searchsorted(energy, 0.5 * energy[-1])) - 12345) < 30


def test_tapering_cuts_the_quiet_ends_and_keeps_the_glitch():
    one = glitch()
    noisy = BankGlitch("H1", "Blip", 0, one.waveform + 0.02, RATE, 20.0)
    tapered = bank.tapered(noisy)
    assert not tapered[:1000].any()
    assert not tapered[-1000:].any()
    assert np.sum((tapered - one.waveform) ** 2) < 1e-3 * np.sum(one.waveform**2)


@pytest.mark.parametrize("label", ["Blip", "Tomte", "Light_Modulation", "Whistle"])
def test_the_coupling_of_the_made_witness_gives_the_measured_glitch(label):
    coupling = bank.coupling_of(label)
    whitened = placed(glitch())
    modulation = 1.0 + 0.4 * np.sin(2 * np.pi * np.arange(SIZE) / RATE)
    witness = bank.made_witness(whitened, coupling, RATE, modulation)
    assert np.abs(witness).max() == 1.0
    shift = round(coupling.delay * RATE)
    late = np.roll(witness, shift)
    match coupling.form:
        case "odd_quadratic":
            arrived = late * np.abs(late)
        case "quadratic":
            arrived = late**2 - 0.5 * np.abs(bank.analytic(late)) ** 2
        case "bilinear":
            arrived = late * modulation
        case _:
            arrived = late
    match_of_shapes = np.dot(arrived, whitened) / np.sqrt(np.dot(arrived, arrived) * np.dot(whitened, whitened))
    assert match_of_shapes > 0.98


def test_the_quadratic_witness_has_half_the_frequency():
    witness = bank.made_witness(placed(glitch(100.0)), bank.coupling_of("Whistle"), RATE)
    peak = np.fft.rfftfreq(SIZE, 1.0 / RATE)[np.abs(np.fft.rfft(witness)).argmax()]
    assert peak == pytest.approx(50.0, abs=2.0)


def test_the_analytic_signal_of_a_cosine_turns():
    time = np.arange(1024) / 1024.0
    np.testing.assert_allclose(bank.analytic(np.cos(2 * np.pi * 8 * time)), np.exp(2j * np.pi * 8 * time), atol=1e-12)
