from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data.files import read_json, write_json
from glitchflow_plugin.data.splits import PARTS, Split, SplitPart, SplitSettings, make_split
from glitchflow_plugin.errors import ConfigurationError, FormatError, LeakageError, NoEventsError


def events(gps, span=6.0):
    gps = np.asarray(gps, dtype=np.float64)
    return tuple(f"e{row}" for row in range(len(gps))), gps, gps + span, gps + span / 2


def part(gps, span=6.0, prefix="e"):
    ids, start, stop, event = events(gps, span)
    return SplitPart(tuple(f"{prefix}{i}" for i in ids), start, stop, event)


def test_shares_are_met_and_nothing_is_lost():
    gps = 1.2e9 + 64.0 * np.arange(400)
    split = make_split(*events(gps), settings=SplitSettings(block_length=256.0))
    sizes = {name: len(split.part(name)) for name in PARTS}
    assert sum(sizes.values()) == 400
    assert sizes["train"] == pytest.approx(280, abs=5)
    assert sizes["validation"] == pytest.approx(60, abs=5)


def test_the_seed_decides():
    gps = 1.2e9 + 64.0 * np.arange(100)
    same = [make_split(*events(gps), settings=SplitSettings(seed=3)).train.event_ids for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != make_split(*events(gps), settings=SplitSettings(seed=4)).train.event_ids


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.floats(0.1, 80.0), min_size=60, max_size=120),
    block=st.floats(5.0, 60.0),
    seed=st.integers(0, 1000),
)
def test_no_split_ever_shares_noise(gaps, block, seed):
    gps = 1.2e9 + np.cumsum(gaps)
    try:
        split = make_split(*events(gps), settings=SplitSettings(block_length=block, seed=seed))
    except NoEventsError:
        return  # everything hangs together; birth checks of Split do the judging otherwise
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        a, b = split.part(first), split.part(second)
        overlap = (a.gps_start[:, None] < b.gps_stop[None]) & (b.gps_start[None] < a.gps_stop[:, None])
        assert not overlap.any()
        assert not set(a.blocks(block)) & set(b.blocks(block))


def test_events_of_one_block_stay_together():
    gps = np.concatenate([1000.0 * block + np.array([0.0, 100.0, 200.0]) for block in range(12)])
    split = make_split(*events(gps), settings=SplitSettings(block_length=1000.0))
    part_of = split.part_of()
    for block in range(12):
        assert len({part_of[f"e{3 * block + k}"] for k in range(3)}) == 1


def test_a_shared_event_is_refused():
    with pytest.raises(LeakageError, match="share 2 events"):
        Split(part([0.0, 1000.0]), part([1000.0, 0.0]), part([5000.0], prefix="x"), 100.0, 0)


def test_a_shared_block_is_refused():
    with pytest.raises(LeakageError, match="GPS blocks of 1000 s"):
        Split(part([0.0]), part([500.0], prefix="v"), part([9000.0], prefix="t"), 1000.0, 0)


def test_overlap_in_time_is_refused_across_a_block_border():
    with pytest.raises(LeakageError, match="overlap in time"):
        Split(part([994.0]), part([999.0], prefix="v"), part([9000.0], prefix="t"), 1000.0, 0)


def test_a_long_event_hides_no_overlap():
    long = SplitPart(("l", "m"), np.array([0.0, 10.0]), np.array([90.0, 16.0]), np.array([3.0, 13.0]))
    with pytest.raises(LeakageError, match="overlap in time"):
        Split(long, part([50.0], prefix="v"), part([9000.0], prefix="t"), 20.0, 0)


def test_it_comes_back_from_disk_as_it_was(tmp_path):
    split = make_split(*events(1.2e9 + 64.25 * np.arange(60)), settings=SplitSettings(), source={"folder": "x"})
    split.save(tmp_path)
    back = Split.open(tmp_path)
    for name in PARTS:
        assert back.part(name).event_ids == split.part(name).event_ids
        assert (back.part(name).gps_start == split.part(name).gps_start).all()
    assert back.source == {"folder": "x"}


def test_a_file_edited_into_leakage_is_refused(tmp_path):
    path = make_split(*events(1.2e9 + 64.0 * np.arange(60)), settings=SplitSettings()).save(tmp_path)
    content = read_json(path)
    content["test"].append(content["train"][0])
    write_json(path, content)
    with pytest.raises(LeakageError):
        Split.open(path)
    write_json(path, {"format_version": 1})
    with pytest.raises(FormatError, match="run the Splitter"):
        Split.open(path)


def test_too_few_blocks_say_so():
    with pytest.raises(NoEventsError, match="smaller block_length"):
        make_split(*events([0.0, 10.0, 20.0]), settings=SplitSettings(block_length=1000.0))


def test_no_test_share_is_allowed():
    split = make_split(*events(100.0 * np.arange(20)), settings=SplitSettings(0.8, 0.2, 0.0, 50.0))
    assert len(split.test) == 0


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigurationError, match="add up to 1"):
        SplitSettings(train=0.9)
    with pytest.raises(ConfigurationError, match="block_length"):
        replace(SplitSettings(), block_length=0.0)
    with pytest.raises(TypeError, match="blok"):
        SplitSettings(blok=1)
    with pytest.raises(FormatError, match="float64"):
        SplitPart(("a",), *[np.zeros(1, dtype=np.float32)] * 3)
