"""Continuous data with glitches that a witness sees, and a model that is exact but for the witness's own noise."""

from dataclasses import asdict, replace

import numpy as np
import torch

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.inference import rank_report
from glitchflow_plugin.inference.closed_loop import NOTE
from glitchflow_plugin.inference.veto_report import VETOES
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.models.wiener import WienerFilter
from glitchflow_plugin.preprocessing.channel_recipe import ChannelRecipe, as_recipe
from glitchflow_plugin.signal.conditioning import ConditioningSettings
from glitchflow_plugin.signal.continuous import SpectrumSettings
from glitchflow_plugin.signal.false_alarm import calibrate_false_alarm
from glitchflow_plugin.signal.gain_watch import GainReference
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.signal.rank_calibration import RankedGlitches
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings

STRAIN, GUIDE, OTHER = "V1:STRAIN", "V1:GUIDE", "V1:OTHER"
GPS, LENGTH = 1_400_000_000.0, 96.0
RATES = {STRAIN: 2048.0, GUIDE: 1024.0, OTHER: 256.0}
UNITS = {STRAIN: "strain", GUIDE: "V", OTHER: "V"}
GLITCHES = (20.3, 50.0, 71.7)
"""Times of the glitches from the start, s; 50 is the end of a block of 25 s."""

CONDITIONING = ConditioningSettings(low=10.0, high=200.0, sample_rate=512.0, duration=4.0)
SETTINGS = StreamSettings(
    block_length=25, stride=1.0, spectrum=SpectrumSettings(length=48.0, stride=16.0), batch_size=8
)
MAPS = QTransformSettings(frequency_low=20.0, frequency_high=150.0, num_frequencies=32, num_times=128)
LEVEL = 1e-21
"""Standard deviation of the strain's samples at its own rate."""


def glitch(rate, at=0.0, times=GLITCHES, frequency=60.0):
    """What is in the strain, (time,), in units of its noise; `at` is the time of the first sample, s."""
    time = at + np.arange(round(LENGTH * rate)) / rate
    bursts = [np.exp(-(((time - one) / 0.05) ** 2)) * np.sin(2 * np.pi * frequency * (time - one)) for one in times]
    return 6.0 * sum(bursts)


def recordings(seed=1, first=0.0, times=GLITCHES):
    """Strain and witnesses; their samples begin `first` s after GPS."""
    rng = np.random.default_rng(seed)
    noise = {name: rng.standard_normal(round(LENGTH * rate)) for name, rate in RATES.items()}
    # per root hertz the guide's noise is a twentieth of what it sees of the glitch
    noise[STRAIN] = LEVEL * (noise[STRAIN] + glitch(RATES[STRAIN], first, times))
    noise[GUIDE] = noise[GUIDE] * (RATES[GUIDE] / RATES[STRAIN]) ** 0.5 / 20 + glitch(RATES[GUIDE], first, times)
    return {name: Channel(name, one, GPS + first, RATES[name], UNITS[name]) for name, one in noise.items()}


def twin():
    """The strain is a twentieth of the guide, both whitened; of the other witness it is nothing."""
    network = WienerFilter(2, filter_size=33)
    with torch.no_grad():
        network.filters[0, 16] = 1 / 20
    return WaveformTwin(network).eval()


def write_files(folder, channels=None, length=32.0, write=hdf5.write, **changed):
    """Continuous files of 32 s."""
    channels = {**(channels or recordings()), **changed}
    for start in np.arange(0, LENGTH, length):
        parts = {}
        for name, one in channels.items():
            first, last = (round(edge * one.sample_rate) for edge in (start, start + length))
            parts[name] = replace(one, series=one.series[first:last], t0=one.t0 + start)
        ending = "gwf" if write is frames.write else "h5"
        write(folder / f"V-SIM-{GPS + start:.0f}-{length:.0f}.{ending}", parts)
    return folder


def changed(recorded, addition, since=0.0):
    """The recordings with something added to the guide from some time on (s), as its own rate has it."""
    guide = recorded[GUIDE]
    series = guide.series.copy()
    first = round(since * RATES[GUIDE])
    series[first:] += addition[first:]
    return {**recorded, GUIDE: replace(guide, series=series)}


REFERENCE = GainReference((GUIDE, OTHER), (1.0, None), (0.05, None), (0.1, None), (9, 0), (0.8, 0.0))
"""What validation would have told of the gains of the two witnesses."""


def recipes():
    return [ChannelRecipe(name, CONDITIONING, UNITS[name], RATES[name]) for name in (STRAIN, GUIDE, OTHER)]


def model():
    target, *witnesses = recipes()
    return StreamModel(twin(), target, tuple(witnesses), MAPS)


def ranks():
    """What a model would know of its ranks: clean time up to an energy of 12, glitches above 8."""
    clean = np.random.default_rng(0).uniform(0, 12, (400, 10))
    false_alarm = calibrate_false_alarm(clean, np.ones_like(clean, bool), np.arange(400))
    loud = np.geomspace(8, 2000, 100)
    glitches = RankedGlitches.of(loud, np.sqrt(4 * loud), np.arange(100), 4 / 128)
    return {"false_alarm": false_alarm.to_dict(), rank_report.GLITCHES: glitches.to_dict()}


def bundle(**changes):
    content = ModelBundle(
        twin=twin(),
        target=STRAIN,
        witnesses=(GUIDE, OTHER),
        recipe={"events": as_recipe(STRAIN, recipes()), "qtransform": asdict(MAPS)},
        window_size=2,
        frequencies=(8.0, 400.0),
        times=(0.0, 1.0),
        model={"name": "wiener", "filter_size": 33},
        notes={"registered": {"name": "twin", "version": 7}, NOTE: REFERENCE.to_dict(), VETOES: ranks()},
    )
    return replace(content, **changes)
