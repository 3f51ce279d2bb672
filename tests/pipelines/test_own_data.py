"""Somebody's own data, from the files to spectrograms: `glitchflow new`, then the commands that it shows, unchanged."""

import numpy as np
import pytest
from tests._commands import run

from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.sharded import SpectrogramSet

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]

STRAIN, WITNESS, BYSTANDER, SLOW = "V1:Hrec_hoft_4096Hz", "V1:ENV_MIC", "V1:SUS_POS", "V1:TEMP_64Hz"
RATES = {STRAIN: 4096.0, WITNESS: 2048.0, BYSTANDER: 1024.0, SLOW: 64.0}
LENGTH = 8.0


def write_events(folder, num_events=16):
    """Events of 8 s: the strain glitches when the fast witness does, of which the others know nothing."""
    generator = np.random.default_rng(0)
    for number in range(num_events):
        gps = 1_264_000_000.3 + 300 * number
        start, glitch, frequency = gps - LENGTH / 2, gps + generator.uniform(-0.5, 0.5), generator.uniform(40, 150)
        held = {}
        for name, rate in RATES.items():
            times = start + np.arange(round(LENGTH * rate)) / rate
            series = generator.standard_normal(len(times)) * np.sqrt(rate / 1024)
            if name in (STRAIN, WITNESS):
                late = times - glitch
                series += 10 * np.exp(-((late / 0.03) ** 2)) * np.sin(2 * np.pi * frequency * late)
            held[name] = Channel(name, series, start, rate, "strain" if name == STRAIN else "V")
        write_event(folder / f"glitch-{number:02d}.h5", RawEvent(f"glitch-{number:02d}", gps, held))


def shell(command, folder):
    return run(folder, "bash", "-c", command).stdout


def test_short_events_with_a_slow_channel_get_through_at_the_first_attempt(tmp_path):
    write_events(tmp_path / "events")
    shown = shell("glitchflow new 'my run' --data events", tmp_path)
    assert f"{SLOW} " in shown
    assert "64 Hz it needs" in shown
    commands = [line.strip() for line in shown.split("Next:")[1].splitlines() if line.strip()]
    assert commands[0] == "cd 'my run'"
    shell(" && ".join(commands), tmp_path)
    maps = SpectrogramSet.open(tmp_path / "my run/QTdatasets/my-run")
    assert maps.channels == (STRAIN, WITNESS)
    assert len(maps) == 16
    assert maps.read().valid.all()
