import numpy as np
import pytest

from glitchflow_plugin.errors import DataError
from glitchflow_plugin.signal.clusters import Spikes, find_spikes

FREQUENCIES, TIMES = np.linspace(10.0, 80.0, 8), np.arange(20) * 0.1


def zero_maps(events=1, channels=1):
    return np.zeros((events, channels, len(FREQUENCIES), len(TIMES)), dtype=np.float32)


def test_one_spike_a_region_at_its_largest_pixel():
    maps = zero_maps()
    maps[0, 0, 2, 3:6] = 25.0, 60.0, 30.0
    maps[0, 0, 3, 6] = 40.0  # touches at a corner: same region
    maps[0, 0, 6, 12] = 22.0
    spikes = find_spikes(maps, 20.0, FREQUENCIES, TIMES)
    assert len(spikes) == 2
    np.testing.assert_allclose(spikes.time, [0.4, 1.2])
    np.testing.assert_allclose(spikes.frequency, [30.0, 70.0])
    np.testing.assert_allclose(spikes.energy, [60.0, 22.0])


def test_peaks_on_both_sides_of_a_seam_between_events_stay_apart():
    maps = zero_maps(events=3)
    maps[0, 0, 4, -2:] = 50.0
    maps[1, 0, 4, :2] = 50.0
    spikes = find_spikes(maps, 20.0, FREQUENCIES, TIMES)
    assert spikes.event.tolist() == [0, 1]
    np.testing.assert_allclose(spikes.time, [TIMES[-2], TIMES[0]])


def test_peaks_on_both_sides_of_a_seam_between_channels_stay_apart():
    maps = zero_maps(channels=3)
    maps[0, :, -1, 7] = 50.0
    maps[0, :, 0, 7] = 50.0
    spikes = find_spikes(maps, 20.0, FREQUENCIES, TIMES)
    assert spikes.channel.tolist() == [0, 0, 1, 1, 2, 2]


def test_batch_of_events_gives_the_spikes_of_each_event_alone():
    maps = np.random.default_rng(0).exponential(1 / np.log(2), (4, 3, 8, 20)).astype(np.float32)
    together = find_spikes(maps, 4.0, FREQUENCIES, TIMES)
    alone = Spikes.concatenate(
        find_spikes(maps[e : e + 1, c : c + 1], 4.0, FREQUENCIES, TIMES).moved(events=e, channels=c)
        for e in range(4)
        for c in range(3)
    )
    assert len(together) > 20
    for name in ("event", "channel", "time", "frequency", "energy"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))


def test_time_only_joins_regions_that_overlap_in_time():
    maps = zero_maps()
    maps[0, 0, 1, 5:9] = 30.0
    maps[0, 0, 6, 7:11] = 50.0
    maps[0, 0, 3, 15] = 30.0
    assert len(find_spikes(maps, 20.0, FREQUENCIES, TIMES)) == 3
    spikes = find_spikes(maps, 20.0, FREQUENCIES, TIMES, time_only=True)
    np.testing.assert_allclose(spikes.time, [0.7, 1.5])
    np.testing.assert_allclose(spikes.frequency, [70.0, 40.0])


def test_threshold_itself_is_not_above():
    maps = zero_maps()
    maps[0, 0, 1, 1] = 20.0
    assert len(find_spikes(maps, 20.0, FREQUENCIES, TIMES)) == 0


def test_nan_and_wrong_axes_are_refused():
    maps = zero_maps()
    with pytest.raises(DataError, match="axes"):
        find_spikes(maps, 20.0, FREQUENCIES[:-1], TIMES)
    maps[0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        find_spikes(maps, 20.0, FREQUENCIES, TIMES)


def test_columns_of_different_length_are_refused():
    with pytest.raises(DataError, match="one length"):
        Spikes(np.zeros(1, int), np.zeros(1, int), np.zeros(2), np.zeros(1), np.zeros(1))
