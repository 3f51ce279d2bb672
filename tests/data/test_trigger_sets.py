import numpy as np
import pyarrow.dataset as ds
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data.triggers.sets import SetSettings, Vocabulary, trigger_sets
from glitchflow_plugin.data.triggers.store import TriggerWriter, open_triggers
from glitchflow_plugin.data.triggers.table import NANOSECONDS, trigger_table
from glitchflow_plugin.errors import ConfigurationError

START = 1_262_304_018 * NANOSECONDS  # near the end of a day: sets reach over two files
TARGET = "L1:STRAIN"
KNOWN = Vocabulary(("L1:A", "L1:B"))


def triggers(rows):
    """Of (offset in ns, channel, SNR)."""
    offsets, channels, snr = (list(one) for one in zip(*rows, strict=True)) if rows else ([], [], [])
    times = START + np.array(offsets, dtype=np.int64)
    return trigger_table(
        {
            "time": times,
            "frequency": np.full(len(times), 64.0),
            "snr": snr,
            "channel": channels,
            "q": np.full(len(times), np.nan),
        }
    )


def sets(table, times, **given):
    return list(
        trigger_sets(ds.dataset(table), START + np.array(times, dtype=np.int64), KNOWN, TARGET, SetSettings(**given))
    )


ROWS = st.lists(
    st.tuples(
        st.integers(-3 * 10**9, 3 * 10**9), st.sampled_from(["L1:A", "L1:B", "L1:NEW", TARGET]), st.floats(1, 1e4)
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=25)
@given(rows=ROWS, times=st.lists(st.integers(-3 * 10**9, 3 * 10**9), min_size=1, max_size=6), batch=st.integers(1, 3))
def test_a_set_has_the_triggers_within_its_window_and_none_of_the_strain(rows, times, batch):
    times = sorted(times)
    found = sets(triggers(rows), times, window=1.0, rate_window=2.0, batch=batch)
    made = [one[place : place + 1] for one in found for place in range(len(one))]
    for time, one in zip(times, made, strict=True):
        near = [(offset, name) for offset, name, _ in rows if abs(offset - time) <= 10**9 and name != TARGET]
        expected = sorted(
            (offset - time, max(0, ("", "L1:A", "L1:B").index(name)) if name != "L1:NEW" else 0)
            for offset, name in near
        )
        dt = (one.points[0, :, 0][one.mask[0]].double() * 1e9).tolist()
        got = sorted(zip(dt, one.channels[0][one.mask[0]].tolist(), strict=True))
        assert [name for _, name in got] == [name for _, name in expected] or len({o for o, _ in expected}) < len(
            expected
        )
        np.testing.assert_allclose([t for t, _ in got], [t for t, _ in expected], atol=100)
        rates = [
            sum(abs(o - time) <= 2 * 10**9 and name == channel for o, name, _ in rows) for channel in KNOWN.channels
        ]
        np.testing.assert_allclose(one.globals_[0], np.log1p(rates), rtol=1e-6)


def test_a_time_is_known_to_a_nanosecond_and_what_is_not_known_is_nan():
    (one,) = sets(triggers([(17, "L1:B", np.e)]), [0])
    assert one.points[0, 0, 0].item() == pytest.approx(17e-9, rel=1e-6)
    assert one.points[0, 0, 1:3].tolist() == pytest.approx([6.0, 1.0])
    assert one.points[0, 0, 3:].isnan().all()
    assert one.channels.tolist() == [[2]]


def test_of_too_many_the_loudest_are_kept():
    (one,) = sets(triggers([(place, "L1:A", 5.0 + place) for place in range(50)]), [0], most=3)
    np.testing.assert_allclose(one.points[0, :, 2].exp(), [52.0, 53.0, 54.0], rtol=1e-5)


def test_sets_of_a_store_are_those_of_the_table(tmp_path):
    generator = np.random.default_rng(0)
    rows = [(int(generator.integers(-9e13, 9e13)), ("L1:A", "L1:B", TARGET)[place % 3], 6.0) for place in range(900)]
    with TriggerWriter(tmp_path / "store") as writer:
        writer.write(triggers(rows))
    times = START + np.sort(generator.integers(-9 * 10**13, 9 * 10**13, 40))
    given = SetSettings(window=500.0, rate_window=900.0, batch=7)
    stored = trigger_sets(open_triggers(tmp_path / "store"), times, KNOWN, TARGET, given)
    held = trigger_sets(ds.dataset(triggers(rows)), times, KNOWN, TARGET, given)
    assert sum(int(one.mask.sum()) for one in stored) > 0
    for one, other in zip(
        trigger_sets(open_triggers(tmp_path / "store"), times, KNOWN, TARGET, given), held, strict=True
    ):
        assert torch.equal(one.points.nan_to_num(), other.points.nan_to_num())
        assert torch.equal(one.channels, other.channels)


def test_a_vocabulary_with_the_target_and_times_that_fall_are_refused():
    empty = ds.dataset(triggers([]))
    with pytest.raises(ConfigurationError, match="without the target"):
        next(trigger_sets(empty, np.array([1]), Vocabulary((TARGET,)), TARGET, SetSettings()))
    with pytest.raises(ConfigurationError, match="rising"):
        next(trigger_sets(empty, np.array([2, 1]), KNOWN, TARGET, SetSettings()))
    assert not next(trigger_sets(empty, np.array([1, 2]), KNOWN, TARGET, SetSettings())).mask.any()
