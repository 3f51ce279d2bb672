import math

import numpy as np
import pytest
from gwpy.astro import sensemon_range
from gwpy.frequencyseries import FrequencySeries

from glitchflow_plugin.signal.inspiral_range import inspiral_range
from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.simulation.noise import sensitivity


@pytest.fixture(params=["advirgo", "aligo"])
def psd(request):
    return Psd(sensitivity(request.param)(np.maximum(np.arange(8193) / 4, 1.0)) ** 2, 0.25)


@pytest.mark.parametrize(("masses", "snr"), [((1.4, 1.4), 8.0), ((1.2, 2.0), 5.0), ((30.0, 30.0), 8.0)])
def test_it_is_that_of_gwpy(psd, masses, snr):
    told = FrequencySeries(psd.values, df=0.25, unit="1/Hz")
    expected = sensemon_range(told, snr, *masses, fmin=10.0).value
    assert inspiral_range(psd, *masses, snr) == pytest.approx(expected, rel=2e-4)  # of G, c and the Sun


def test_of_white_noise_the_integral_is_known():
    """The integral of f^(-7/3) is 3/4 f^(-4/3); of a pair of equal masses the last orbit is that of 4400 / M Hz."""
    white, fine = 1e-46, 1 / 64
    heard = inspiral_range(Psd(np.full(64 * 2048, white), fine))
    chirp = 1.4 * 2**-0.2 * 4.925491e-6
    integral = 0.75 * (10 ** (-4 / 3) - (1 / (6**1.5 * math.pi * 2.8 * 4.925491e-6)) ** (-4 / 3)) / white
    amplitude = math.sqrt(5 / 24) * math.pi ** (-2 / 3) * chirp ** (5 / 6)  # times c over the distance
    horizon = 2 * amplitude * math.sqrt(integral) / 8 * 299792458.0 / 3.0856776e22
    assert heard == pytest.approx(horizon / 2.26, rel=1e-3)


def test_it_falls_as_noise_and_snr_rise(psd):
    heard = inspiral_range(psd)
    assert inspiral_range(Psd(4 * psd.values, 0.25)) == pytest.approx(heard / 2)
    assert inspiral_range(psd, snr=16.0) == pytest.approx(heard / 2)
    assert inspiral_range(Psd(np.full(8193, np.inf), 0.25)) == 0


def test_a_hole_in_the_density_is_refused(psd):
    values = psd.values.copy()
    values[400] = 0
    with pytest.raises(ValueError, match="positive from 10 to 1570 Hz"):
        inspiral_range(Psd(values, 0.25))
