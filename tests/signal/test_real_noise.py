"""Whitened strain of H1, L1 and V1 (32 s each from GWOSC) is flat, and Gaussian when nothing happens.

What is not noise is left out by rules: lines are bins above three times the running median of the spectrum as
recorded, with their neighbours; a stretch is quiet when each of its seconds has an rms within a fifth of the file's
median, and when no merger is in it.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, stats
from scipy import signal as scipy_signal

from glitchflow_plugin.data.readers import gwosc
from glitchflow_plugin.signal.conditioning import ConditioningSettings, condition
from glitchflow_plugin.signal.psd import welch_psd
from glitchflow_plugin.signal.whitening import WhiteningSettings, unwhiten, whiten, whitening_filter

RATE, LOW, HIGH, SECONDS = 1024, 20.0, 400.0, 28
MERGERS = {1126259447: 1126259462.4, 1186741846: 1186741861.5}
FOLDER = Path(os.environ.get("GLITCHFLOW_TEST_DATA") or "missing") / "gwosc"
FILES = sorted(FOLDER.glob("*.hdf5"))
pytestmark = pytest.mark.skipif(not FILES, reason="GLITCHFLOW_TEST_DATA does not name a folder of real detector data")


def conditioned(path, **changed):
    """A file's strain, conditioned; seconds are counted from the GPS second two seconds after its start."""
    centre = changed.pop("centre", SECONDS / 2)
    whitening = WhiteningSettings(exclude_length=changed.pop("exclude", 0.0), method=changed.pop("method", "median"))
    stored = gwosc.describe(path)
    (name,) = stored.channels
    channel = gwosc.read(path, [name], stored.start, stored.stop)[name]
    settings = ConditioningSettings(
        **{"low": LOW, "high": HIGH, "sample_rate": RATE, "duration": SECONDS, "whitening": whitening} | changed
    )
    return condition(channel.series, channel.sample_rate, channel.t0, stored.start + 2 + centre, settings)[0]


def is_line(recorded):
    density = welch_psd(recorded, RATE, 1.0, 0.75).values
    lines = density > 3 * ndimage.median_filter(density, 33)
    return np.convolve(lines, np.ones(3), "same") > 0


def band_ratios(whitened, lines):
    """Density over 2 / rate, away from lines, in bands of 16 Hz."""
    frequencies, density = scipy_signal.welch(whitened, RATE, "hann", RATE, RATE * 3 // 4)
    ratio = density * RATE / 2
    bands = [(frequencies >= low) & (frequencies < low + 16) & ~lines for low in range(24, 384, 16)]
    return np.array([ratio[band].mean() for band in bands if band.sum() >= 4])


def quiet_stretches(path, whitened, length=4):
    rms = whitened.reshape(-1, RATE).std(axis=1)
    calm = np.abs(rms / np.median(rms) - 1) < 0.2
    start = int(path.stem.split("-")[2])
    merger = int(MERGERS.get(start, 0) - start - 2)
    for first in range(0, SECONDS - length + 1, length):
        if calm[first : first + length].all() and not first <= merger < first + length:
            yield whitened[first * RATE : (first + length) * RATE].astype(np.float64)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_whitened_by_their_own_mean_spectrum_real_data_are_flat(path):
    ratios = band_ratios(conditioned(path, method="mean"), is_line(conditioned(path, whiten=False)))
    assert len(ratios) >= 18
    np.testing.assert_allclose(ratios, 1, atol=0.2)  # the most at the feet of Virgo's broad lines at 300 Hz


@pytest.mark.parametrize("path", [path for path in FILES if path.stem[0] in "HL"], ids=lambda path: path.stem)
@pytest.mark.parametrize("centre", [3.0, 25.0])
def test_whitened_by_a_spectrum_that_has_not_seen_them_real_data_are_flat(path, centre):
    lines = is_line(conditioned(path, whiten=False))
    ratios = band_ratios(conditioned(path, duration=6, exclude=6.0, centre=centre), lines)
    assert ratios.mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(ratios, 1, atol=0.45)  # 6 s of 16 Hz scatter by a tenth, the spectrum of 20 s as well


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_quiet_stretches_are_gaussian_and_flat(path):
    lines = is_line(conditioned(path, whiten=False))
    stretches = list(quiet_stretches(path, conditioned(path)))
    assert len(stretches) >= 2
    for stretch in stretches:
        thinned = stretch[::2]  # the band holds 380 Hz: every second sample is nearly independent of the next
        anderson = stats.anderson(thinned, "norm", method="interpolate").statistic
        assert abs(stats.kurtosis(stretch)) < 0.4  # five standard deviations
        assert anderson < 1.092  # the 1 % level for fitted mean and variance
    ratios = np.mean([band_ratios(stretch, lines) for stretch in stretches], axis=0)
    assert ratios.mean() == pytest.approx(1, abs=0.1)
    if path.stem[0] in "HL":  # Virgo's level wanders by more than that within these half minutes
        np.testing.assert_allclose(ratios, 1, atol=0.2)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_strain_comes_back_from_its_whitened_series(path):
    strain = conditioned(path, whiten=False)
    taps = whitening_filter(welch_psd(strain, RATE, 1.0, 0.75), RATE, 2.0, (LOW, HIGH))
    inner = scipy_signal.sosfiltfilt(scipy_signal.butter(8, (30, 350), "bandpass", fs=RATE, output="sos"), strain)
    whitened, corrupted = whiten(inner, taps)
    back, lost = unwhiten(whitened[corrupted:-corrupted], taps, RATE, (LOW, HIGH), tolerance=1e-2)
    error = (back - inner[corrupted:-corrupted])[lost:-lost]
    assert error.std() < 0.02 * inner.std()  # strong lines ring beyond the ends
    assert whiten(error, taps)[0][corrupted:-corrupted].std() < 1e-4  # 1 is the noise
