"""The auxiliary channels of the simulated detector: names, rates, units and their own noise."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy import fft

from glitchflow_plugin.simulation.noise import LOWEST_FREQUENCY, Line, coloured_noise, line_noise, optimal_snr
from glitchflow_plugin.types.arrays import Series


@dataclass(frozen=True)
class Sensor:
    """One auxiliary channel.

    Attributes:
        name: Without the detector's prefix.
        sample_rate: Hz.
        unit: Unit of its samples.
        floor: White noise, unit/√Hz.
        knee: Below this frequency the noise rises, Hz.
        slope: Power of the rise.
        offset: Constant part, unit.
        mains: Height of the mains line, as in `noise.Line`.
        swell: Microseismic peak near 0.2 Hz, unit/√Hz.
    """

    name: str
    sample_rate: float
    unit: str
    floor: float
    knee: float = 5.0
    slope: float = 1.0
    offset: float = 0.0
    mains: float = 0.0
    swell: float = 0.0

    def asd(self) -> Callable[[np.ndarray], np.ndarray]:
        """The sensor's noise as a function of frequency (Hz), unit/√Hz."""

        def density(frequency: np.ndarray) -> np.ndarray:
            rise = self.knee / np.maximum(frequency, 0.1)
            peak = self.swell * np.exp(-0.5 * ((frequency - 0.2) / 0.05) ** 2)
            return np.sqrt(self.floor**2 * (1.0 + rise ** (2.0 * self.slope)) + peak**2)

        return density


SENSORS = (
    # true witnesses of the embedded families of `families.py`
    Sensor("SUS-SB_STRAY_PD", 1024.0, "W", floor=2e-9, knee=8.0),
    Sensor("PSL-FSS_VCO_FREQ", 2048.0, "Hz", floor=1e-2, knee=20.0, offset=79.4),
    Sensor("ASC-ACT_DRIVE", 1024.0, "V", floor=5e-6, knee=10.0, mains=8.0),
    Sensor("PSL-POWER_MON", 2048.0, "W", floor=3e-6, knee=30.0, offset=25.0),
    Sensor("ENV-MAG_CEB", 1024.0, "T", floor=2e-12, knee=4.0, mains=15.0),
    Sensor("ENV-MIC_DET", 2048.0, "Pa", floor=4e-5, knee=25.0),
    Sensor("ENV-ACC_DET", 1024.0, "m/s^2", floor=3e-6, knee=12.0, mains=5.0),
    # slow causes: they shape a glitch, from below the band in which a scan looks for spikes
    Sensor("SUS-SB_DISP", 256.0, "m", floor=2e-11, knee=3.0, slope=2.0, swell=8e-7),
    Sensor("ENV-SEIS_SB", 256.0, "m/s", floor=1e-9, knee=1.0, swell=1e-6),
    Sensor("ASC-BEAM_POS", 256.0, "m", floor=1e-8, knee=1.0, offset=1e-4),
    # distractors: busy, and nothing to do with the strain
    Sensor("ENV-MAG_EXT", 1024.0, "T", floor=1e-12, knee=6.0, mains=10.0),
    Sensor("ENV-MIC_EXT", 2048.0, "Pa", floor=1e-4, knee=30.0),
    Sensor("ENV-SEIS_EXT", 1024.0, "m/s", floor=2e-9, knee=2.0, swell=1e-6),
    Sensor("INF-PUMP_ACC", 1024.0, "m/s^2", floor=1e-5, knee=10.0, mains=6.0),
)
"""Every channel beside strain, unsafe, dead, the bank's witnesses and those that come with a family."""

DISTRACTORS = SENSORS[-4:]
BEAM, SPOT = "ASC-BEAM_POS", "ASC-SPOT_POS"
BEAM_WANDER, SPOT_WANDER = 2e-5, 2e-4
"""How far beams wander, m."""
CAUSES = ("SUS-SB_DISP", "ENV-SEIS_SB", BEAM, SPOT)
STRAIN = "Hrec_hoft"
UNSAFE = Sensor("LSC-DARM_PICKOFF", 2048.0, "W", floor=0.0)
"""Picks up the strain itself: mergers too. A twin that used it would subtract signals."""
DEAD = Sensor("ENV-MAG_DEAD", 1024.0, "T", floor=0.0, offset=3.2e-5)


def further_distractors(number: int) -> list[Sensor]:
    """More distractors like the four that are there anyway, numbered."""
    return [replace(DISTRACTORS[i % 4], name=f"{DISTRACTORS[i % 4].name}_{i // 4 + 1:03d}") for i in range(number)]


def bank_sensor(family: str) -> Sensor:
    """The witness that is made for a class of measured glitches."""
    return Sensor(f"BANK-{family.upper()}_WIT", 2048.0, "V", floor=1e-6, knee=15.0)


class SensorArray:
    """Sensors that record events of one length, with their noise spectra at hand.

    Args:
        sensors: The auxiliary channels.
        duration: Length of an event, s.
        mains: Frequency of the mains network, Hz.
    """

    def __init__(self, sensors: Iterable[Sensor], duration: float, mains: float) -> None:
        self.duration, self.mains = duration, mains
        self.by_name = {sensor.name: sensor for sensor in sensors}
        self._psd = {
            name: sensor.asd()(fft.rfftfreq(self.size(sensor), 1.0 / sensor.sample_rate)) ** 2
            for name, sensor in self.by_name.items()
        }

    def __getitem__(self, name: str) -> Sensor:
        """The sensor of that name."""
        return self.by_name[name]

    def size(self, sensor: Sensor) -> int:
        """Number of samples of an event."""
        return round(self.duration * sensor.sample_rate)

    def time(self, name: str) -> Series:
        """Times of a sensor's samples from the start of the event, s, shape (time,)."""
        return np.arange(self.size(self.by_name[name])) / self.by_name[name].sample_rate

    def noise(self, rng: np.random.Generator, name: str) -> Series:
        """The sensor's own noise and mains line, without its offset, shape (time,)."""
        sensor, size = self.by_name[name], self.size(self.by_name[name])
        lines = (Line(self.mains, sensor.mains, 0.01),) if sensor.mains else ()
        noise = coloured_noise(rng, sensor.asd(), sensor.sample_rate, size)
        return noise + line_noise(rng, lines, sensor.asd(), sensor.sample_rate, size)

    def snr(self, name: str, series: Series) -> float:
        """Optimal SNR of a transient in a sensor, in the band in which a scan looks."""
        return optimal_snr(series, self._psd[name], self.by_name[name].sample_rate, low=LOWEST_FREQUENCY)
