import numpy as np
import pytest
import torch
from scipy import signal

from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.intervention import (
    Intervention,
    cases,
    delayed_maps,
    delayed_series,
    matching,
    own_noise,
)

RATE = 1024.0


@pytest.mark.parametrize("samples", [0, 7, -12])
def test_a_delay_of_whole_samples_moves_samples_and_brings_in_nothing(samples):
    series = torch.randn(2, 3, 200)
    expected = torch.zeros_like(series)
    kept = 200 - abs(samples)
    expected[..., max(samples, 0) : max(samples, 0) + kept] = series[..., max(-samples, 0) : max(-samples, 0) + kept]
    torch.testing.assert_close(delayed_series(series, samples), expected, atol=1e-5, rtol=0)


def test_a_part_of_a_sample_is_the_phase_of_a_sine():
    time = torch.arange(1024, dtype=torch.float64)
    envelope = torch.exp(-0.5 * ((time - 512) / 60) ** 2)

    def burst(delay):
        return torch.exp(-0.5 * ((time - delay - 512) / 60) ** 2) * torch.sin(0.9 * (time - delay))

    assert envelope[0] < 1e-9
    torch.testing.assert_close(delayed_series(burst(0.0), 2.37), burst(2.37), atol=1e-9, rtol=0)


def test_maps_move_by_columns_and_keep_their_energy_inside():
    maps = torch.zeros(1, 4, 20)
    maps[0, 2, 8] = 6.0
    moved = delayed_maps(maps, -2.25)
    assert moved[0, 2, 5:7].tolist() == [1.5, 4.5]
    assert moved.sum() == 6.0
    assert delayed_maps(maps, 15.0).sum() == 0


@pytest.mark.parametrize("move", [delayed_series, delayed_maps])
def test_a_delay_longer_than_the_event_is_refused(move):
    for steps in (64, -70.5):
        with pytest.raises(ConfigurationError, match="shorter than the event of 64"):
            move(torch.ones(2, 64), steps)


def test_noise_has_the_spectrum_of_the_quiet_part_and_none_of_the_burst():
    generator = np.random.default_rng(3)
    colour = signal.butter(2, [50, 200], "bandpass", fs=RATE, output="sos")
    quiet = signal.sosfilt(colour, generator.standard_normal(16384))
    loud = quiet.copy()
    loud[8000:8040] += 200.0
    made = own_noise(loud, RATE, [1, 2])
    (frequency, found), (_, wanted) = (signal.welch(each, RATE, nperseg=512) for each in (made, quiet))
    inside = (frequency > 60) & (frequency < 180)
    assert np.median(found[inside] / wanted[inside]) == pytest.approx(1, abs=0.1)
    assert np.abs(made).max() < 6 * quiet.std()
    assert not np.array_equal(made, own_noise(loud, RATE, [1, 3]))
    np.testing.assert_array_equal(made, own_noise(loud, RATE, [1, 2]))


def test_names_that_fit_nothing_are_told_with_the_nearest():
    names = ("V1:ENV-MIC", "V1:ENV-MAG", "V1:PSL-POWER")
    assert matching(["V1:ENV-*", "V1:ENV-MIC"], names) == [0, 1]
    with pytest.raises(ChannelMismatchError, match=r"V1:ENV-MIK.*Nearest: V1:ENV-MI?A?[CG]"):
        matching(["V1:ENV-MIK"], names)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"channels": "A", "action": "scale"}, "factor for the action scale"),
        ({"channels": "A", "action": "scale", "factor": 2, "delay": 0.1}, "got channels"),
        ({"channels": "A", "action": "silence", "factor": 0}, "neither for the action silence"),
        ({"channels": [], "action": "silence"}, "expected channels"),
        ({"channels": "A", "action": "delay", "delay": 0.1, "event": "x"}, "swap alone"),
        ({"channels": "A", "action": "mute"}, "scale"),
        ({"channels": "A", "action": "scale", "faktor": 1}, "Nearest: factor"),
    ],
)
def test_what_does_not_belong_to_an_action_is_refused(content, said):
    with pytest.raises(ConfigurationError, match=said):
        built(Intervention, content, "what_if")


def test_changes_of_one_case_belong_together():
    changes = [
        Intervention("A", "silence", case="both"),
        Intervention("B", "noise"),
        Intervention("C", "swap", case="both"),
    ]
    assert {name: len(found) for name, found in cases(changes).items()} == {"both": 2, "B its noise alone": 1}
