import numpy as np
import pytest
from scipy import signal

from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.data.readers.continuous import span_in_name
from glitchflow_plugin.data.truth_file import read_truth
from glitchflow_plugin.simulation.continuous import simulate_stream
from glitchflow_plugin.simulation.settings import SimulationSettings

SETTINGS = SimulationSettings(
    num_events=4, spacing=16.0, sample_rate=2048.0, families={"blip": {"snr": (60.0, 80.0)}}, no_glitch_fraction=0.0
)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    return simulate_stream(SETTINGS, tmp_path_factory.mktemp("stream"), file_length=24.0)


def test_files_cover_the_stretch_without_a_seam_and_hold_the_glitches_of_the_events(stream):
    paths = sorted(stream.frames.iterdir())
    spans = [span_in_name(path) for path in paths]
    assert [start - SETTINGS.gps_start for start, _ in spans] == [0, 24, 48]
    assert spans[-1][1] - SETTINGS.gps_start == 64
    pieces = [hdf5.read(path, [stream.target], *span)[stream.target] for path, span in zip(paths, spans, strict=True)]
    strain = np.concatenate([one.series for one in pieces])
    assert len(strain) == 64 * 2048
    band = signal.butter(4, (30, 300), "bandpass", fs=2048, output="sos")
    whitened = signal.sosfiltfilt(band, strain) / signal.sosfiltfilt(band, strain).std()
    truth = read_truth(stream.folder)
    assert len(truth.events) == 4
    times = [glitch.gps_time - SETTINGS.gps_start for event in truth.events.values() for glitch in event.glitches]
    for time in times:
        near = slice(round((time - 0.2) * 2048), round((time + 0.2) * 2048))
        assert np.abs(whitened[near]).max() > 5
    away = np.min(np.abs(np.arange(len(strain))[:, None] / 2048 - times), axis=1) > 1.0
    away[:2048] = away[-2048:] = False
    # at the seams of files and of events as anywhere else
    assert np.abs(whitened[away]).max() < 5
