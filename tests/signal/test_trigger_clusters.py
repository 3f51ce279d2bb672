import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.signal.trigger_clusters import cluster_times, crowded

TRIGGERS = st.lists(
    st.tuples(st.integers(0, 400).map(lambda step: 1_264_000_000 + step / 16), st.floats(1, 100)),
    max_size=60,
    unique_by=(lambda one: one[0], lambda one: one[1]),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(triggers=TRIGGERS, window=st.sampled_from([1 / 16, 0.1, 0.25, 0.5, 5.0, 100.0]))
def test_it_is_the_clustering_of_gwpy(triggers, window):
    events = pytest.importorskip("gwpy.table").EventTable
    times, loudness = np.array(triggers, dtype=np.float64).reshape(-1, 2).T
    wanted = events({"time": times, "snr": loudness}).cluster("time", "snr", window)
    kept = cluster_times(times, loudness, window)
    np.testing.assert_array_equal(times[kept], np.sort(wanted["time"]))


def test_triggers_far_from_each_other_all_stay_and_a_chain_is_one_cluster():
    times = np.array([30.0, 10.0, 20.0])
    assert cluster_times(times, [1, 2, 3], 0.5).tolist() == [1, 2, 0]
    assert cluster_times(np.arange(0, 10, 0.4), np.arange(25), 0.5).tolist() == [24]
    assert cluster_times([], [], 0.5).tolist() == []


def test_the_earliest_of_equals_stays_and_none_without_a_loudness_does():
    assert cluster_times([1.02, 1.0, 1.01], [8.0, 8.0, 8.0], 0.1).tolist() == [1]
    assert cluster_times([1.0, 1.01, 9.0], [np.nan, 3.0, np.nan], 0.1).tolist() == [1, 2]


@pytest.mark.parametrize("window", [0.0, -1.0, np.nan, np.inf])
def test_windows_that_are_none_are_refused(window):
    with pytest.raises(ValueError, match="positive"):
        cluster_times([1.0], [1.0], window)
    with pytest.raises(ValueError, match="for each trigger"):
        cluster_times([1.0, 2.0], [1.0], 0.1)


def test_a_million_triggers_are_thinned_at_once():
    times = np.random.default_rng(1).uniform(1.2e9, 1.21e9, 1_000_000)
    kept = cluster_times(times, np.ones(len(times)), 0.1)
    assert np.all(np.diff(times[kept]) > 0.1)
    assert crowded(times[kept], 0.1) == (0, 0)
