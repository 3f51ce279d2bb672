from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.data.files import read_json, write_json
from glitchflow_plugin.data.split_drawing import make_split, share_warnings
from glitchflow_plugin.data.splits import PARTS, Split, SplitPart, SplitSettings
from glitchflow_plugin.errors import ConfigurationError, FormatError, LeakageError, NoEventsError


def events(gps, span=6.0):
    gps = np.asarray(gps, dtype=np.float64)
    return tuple(f"e{row}" for row in range(len(gps))), gps, gps + span, gps + span / 2


def part(gps, span=6.0, prefix="e"):
    ids, start, stop, event = events(gps, span)
    return SplitPart(tuple(f"{prefix}{i}" for i in ids), start, stop, event)


GATE = part([20000.0], prefix="g")


def test_shares_are_met_and_nothing_is_lost():
    gps = 1.2e9 + 64.0 * np.arange(400)
    split = make_split(*events(gps), settings=SplitSettings(block_length=256.0))
    sizes = {name: len(split.part(name)) for name in PARTS}
    assert sum(sizes.values()) == 400
    assert sizes == {"train": 240, "validation": 60, "gate": 60, "test": 40}


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
    for first, second in combinations(PARTS, 2):
        a, b = split.part(first), split.part(second)
        assert not overlap(a, b)
        assert not set(np.floor(a.gps_event / block)) & set(np.floor(b.gps_event / block))


def overlap(a, b):
    return ((a.gps_start[:, None] < b.gps_stop[None]) & (b.gps_start[None] < a.gps_stop[:, None])).any()


@settings(max_examples=80, deadline=None)
@given(
    gaps=st.lists(st.floats(0.1, 80.0), min_size=20, max_size=120),
    labels=st.lists(st.sampled_from(["", "", "", *"abcdefghijkl"]), min_size=120, max_size=120),
    spread=st.booleans(),
    block=st.floats(5.0, 60.0),
    seed=st.integers(0, 1000),
)
def test_no_label_no_block_and_no_overlap_is_ever_in_two_parts(gaps, labels, spread, block, seed):
    gps = 1.2e9 + np.cumsum(gaps) + (np.arange(len(gaps)) * 100.0 if spread else 0.0)
    ids, *times = events(gps)
    labels = tuple(labels[: len(ids)])
    asked = SplitSettings(block_length=block, seed=seed)
    try:
        split = make_split(ids, *times, settings=asked, groups=labels)
    except NoEventsError:
        return  # fewer than four groups
    assert sorted(event for name in PARTS for event in split.part(name).event_ids) == sorted(ids)
    assert all(len(split.part(name)) for name in PARTS)
    for name in PARTS:
        assert split.part(name).group == tuple(labels[ids.index(event)] for event in split.part(name).event_ids)
    for first, second in combinations(PARTS, 2):
        a, b = split.part(first), split.part(second)
        assert not set(a.group) & set(b.group) - {""}
        assert not blocks_without(a, block) & blocks_without(b, block)
        assert not overlap(a, b)
    again = make_split(ids, *times, settings=asked, groups=labels)
    assert [again.part(name).event_ids for name in PARTS] == [split.part(name).event_ids for name in PARTS]


def blocks_without(part, block):
    return {np.floor(gps / block) for gps, label in zip(part.gps_event, part.group, strict=True) if not label}


def test_labels_and_not_blocks_decide_where_there_are_labels():
    gps = 1.2e9 + 64.0 * np.arange(400)
    split = make_split(
        *events(gps), settings=SplitSettings(block_length=1e6), groups=[f"wave {row % 20}" for row in range(400)]
    )
    assert {name: len(split.part(name)) for name in PARTS} == {"train": 240, "validation": 60, "gate": 60, "test": 40}
    assert {name: len(set(split.part(name).group)) for name in PARTS} == {
        "train": 12,
        "validation": 3,
        "gate": 3,
        "test": 2,
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "sizes", [(60, 15, 15, 10), (30, 30, 10, 5, 15, 10), (1, 2, 3, 4, 5, 35, 50), (53, 21, 9, 7, 5, 3, 2)]
)
def test_whole_groups_come_as_near_to_the_shares_as_any_choice(sizes, seed):
    labels = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    gps = 1000.0 * np.arange(sum(sizes))
    split = make_split(*events(gps), settings=SplitSettings(seed=seed), groups=labels)
    wanted = np.array(list(SplitSettings().shares().values())) * sum(sizes)
    found = np.abs([len(split.part(name)) for name in PARTS] - wanted).sum()
    choices = np.array(list(product(range(4), repeat=len(sizes))))
    filled = np.stack([(np.array(sizes) * (choices == part)).sum(axis=1) for part in range(4)], axis=1)
    best = np.abs(filled - wanted)[(filled > 0).all(axis=1)].sum(axis=1).min()
    assert found == pytest.approx(best)


def test_events_that_overlap_stay_together_whatever_their_labels():
    gps = np.concatenate([1000.0 * pair + np.array([0.0, 3.0]) for pair in range(30)])
    split = make_split(*events(gps), settings=SplitSettings(), groups=[f"own {row}" for row in range(60)])
    part_of = split.part_of()
    assert all(part_of[f"e{2 * pair}"] == part_of[f"e{2 * pair + 1}"] for pair in range(30))


def test_one_group_of_everything_is_refused_with_numbers():
    gps = 1000.0 * np.arange(50)
    with pytest.raises(NoEventsError, match=r"50 events make 1 group\(s\).*largest of 50 events \(blip\).*4 parts"):
        make_split(*events(gps), settings=SplitSettings(), groups=["blip"] * 50)


def test_a_group_larger_than_its_share_is_told_with_numbers():
    gps, asked = 1000.0 * np.arange(100), SplitSettings()
    labels = ["blip"] * 90 + [f"own {row}" for row in range(10)]
    split = make_split(*events(gps), settings=asked, groups=labels)
    told = " ".join(share_warnings(split, asked))
    assert "train got 90 events where 0.6 are 60" in told
    assert "11 group(s)" in told
    assert "largest of 90 events (blip)" in told
    even = make_split(*events(gps), settings=asked, groups=[f"own {row}" for row in range(100)])
    assert share_warnings(even, asked) == ()
    assert "fewer than 5 tell no interval" in " ".join(share_warnings(split, asked))


def test_a_label_in_two_parts_is_refused(tmp_path):
    path = make_split(
        *events(1000.0 * np.arange(60)), settings=SplitSettings(), groups=[f"wave {row // 2}" for row in range(60)]
    ).save(tmp_path)
    content = read_json(path)
    content["gate"][0]["group"] = content["train"][0]["group"]
    write_json(path, content)
    with pytest.raises(LeakageError, match="train and gate share 1 groups"):
        Split.open(path)


def test_a_split_of_an_earlier_version_is_refused_with_what_to_do(tmp_path):
    path = make_split(*events(1000.0 * np.arange(60)), settings=SplitSettings()).save(tmp_path)
    content = read_json(path)
    content["format_version"] = 1
    del content["gate"]
    for name in ("train", "validation", "test"):
        for event in content[name]:
            del event["group"]
    write_json(path, content)
    with pytest.raises(FormatError, match="format version 1, this program reads 2: it has no part for the gate"):
        Split.open(path)


def test_events_of_one_block_stay_together():
    gps = np.concatenate([1000.0 * block + np.array([0.0, 100.0, 200.0]) for block in range(12)])
    split = make_split(*events(gps), settings=SplitSettings(block_length=1000.0))
    part_of = split.part_of()
    for block in range(12):
        assert len({part_of[f"e{3 * block + k}"] for k in range(3)}) == 1


def test_a_shared_event_is_refused():
    with pytest.raises(LeakageError, match="share 2 events"):
        Split(part([0.0, 1000.0]), part([1000.0, 0.0]), GATE, part([5000.0], prefix="x"), 100.0, 0)


def test_a_shared_block_is_refused():
    with pytest.raises(LeakageError, match="GPS blocks of 1000 s"):
        Split(part([0.0]), part([500.0], prefix="v"), GATE, part([9000.0], prefix="t"), 1000.0, 0)


def test_overlap_in_time_is_refused_across_a_block_border():
    with pytest.raises(LeakageError, match="overlap in time"):
        Split(part([994.0]), part([999.0], prefix="v"), GATE, part([9000.0], prefix="t"), 1000.0, 0)


def test_a_long_event_hides_no_overlap():
    long = SplitPart(("l", "m"), np.array([0.0, 10.0]), np.array([90.0, 16.0]), np.array([3.0, 13.0]))
    with pytest.raises(LeakageError, match="overlap in time"):
        Split(long, part([50.0], prefix="v"), GATE, part([9000.0], prefix="t"), 20.0, 0)


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
    with pytest.raises(FormatError, match="Run the Splitter"):
        Split.open(path)


def test_too_few_blocks_say_so():
    with pytest.raises(NoEventsError, match="smaller block_length"):
        make_split(*events([0.0, 10.0, 20.0]), settings=SplitSettings(block_length=1000.0))


def test_no_test_share_is_allowed():
    split = make_split(*events(100.0 * np.arange(20)), settings=SplitSettings(0.6, 0.2, 0.2, 0.0, 50.0))
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


def test_the_shipped_configuration_is_the_default_of_the_code(request):
    content = yaml.safe_load((request.config.rootpath / "conf" / "split.yaml").read_text())
    assert SplitSettings(**content) == SplitSettings()
