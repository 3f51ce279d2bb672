import numpy as np
import pytest

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.signal.qtransform import QTransformSettings

QTRANSFORM = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=128)


@pytest.fixture
def make_coupled_events(make_event_set, tmp_path):
    """Training set and event set of a strain that follows one witness by 8 samples, at half its amplitude.

    Each event lasts 3 s; three in four have a burst in the witness, another witness is noise. The event set has a third
    channel, which no map was made of.
    """

    def make(num_events=16, seed=0, **changes):
        generator = np.random.default_rng(seed)
        series = generator.standard_normal((num_events, 4, 3072)).astype(np.float32)
        for event in range(num_events):
            if event % 4 == 3:
                continue
            start = 1400 + int(generator.integers(0, 200))
            burst = 10 * generator.standard_normal(60)
            series[event, 1, start : start + 60] += burst
            series[event, 0, start + 8 : start + 68] += 0.5 * burst
        events = make_event_set(series, **changes)
        maps = make_spectrograms(events, ("WITNESS_1", "WITNESS_2"), QTRANSFORM, tmp_path / "maps", device="cpu")
        folder = str(tmp_path / "training")
        split = Splitter({"block_length": 100.0}, str(maps.folder), folder).execute(maps)
        return Processor({}, str(maps.folder), folder).execute(split), events

    return make
