import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.windows import cut_windows, join_windows, tile_starts, window_starts


def test_a_map_of_257_columns_gives_three_windows_and_two_between():
    assert window_starts(257, 64) == (32, 96, 160, 64, 128)


def test_a_map_of_one_window_gives_that_window():
    assert window_starts(64, 64) == (0,)
    assert tile_starts(64, 64) == (0,)


@given(num_times=st.integers(8, 300), size=st.integers(4, 8))
def test_training_windows_lie_inside_and_tiles_cover(num_times, size):
    assert all(0 <= start <= num_times - size for start in window_starts(num_times, size))
    covered = np.zeros(num_times, dtype=bool)
    for start in tile_starts(num_times, size):
        covered[start : start + size] = True
    assert covered.all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("num_times", [64, 100, 128, 257])
def test_joining_undoes_cutting_exactly(kind, num_times):
    maps = np.random.default_rng(0).normal(size=(3, 2, 5, num_times)).astype(np.float32)
    maps = torch.from_numpy(maps) if kind == "torch" else maps
    starts = tile_starts(num_times, 64)
    windows = cut_windows(maps, starts, 64)
    assert tuple(windows.shape) == (3, len(starts), 2, 5, 64)
    back = join_windows(windows, starts, num_times)
    assert type(back) is type(maps)
    assert (np.asarray(back) == np.asarray(maps)).all()


def test_each_window_shows_its_own_event_and_columns():
    maps = np.arange(2 * 1 * 1 * 10).reshape(2, 1, 1, 10)
    windows = cut_windows(maps, (3, 0), 4)
    assert windows[1, 0, 0, 0].tolist() == [13, 14, 15, 16]
    assert windows[0, 1, 0, 0].tolist() == [0, 1, 2, 3]


def test_overlapping_columns_come_from_the_window_that_sees_them_best():
    windows = np.zeros((1, 2, 1, 8))
    windows[0, 1] = 1
    joined = join_windows(windows, (0, 4), 12)[0, 0]
    assert joined.tolist() == [0] * 6 + [1] * 6


def test_errors_say_what_to_do():
    with pytest.raises(ConfigurationError, match="at least one window"):
        window_starts(63, 64)
    with pytest.raises(ConfigurationError, match="inside maps of 10"):
        cut_windows(np.zeros((1, 1, 10)), (8,), 4)
    with pytest.raises(ConfigurationError, match="in none"):
        join_windows(np.zeros((1, 1, 1, 4)), (0,), 6)
    with pytest.raises(ConfigurationError, match="one start for each"):
        join_windows(np.zeros((1, 2, 1, 4)), (0,), 4)


def test_nothing_slow_is_imported():
    rooms = "glitchflow_plugin.signal.windows, glitchflow_plugin.signal.scaling"
    code = f"import sys, {rooms}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
