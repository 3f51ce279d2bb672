import numpy as np
import pytest

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.files import read_json
from glitchflow_plugin.data.splits import PARTS, Split
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import NoEventsError


def test_groups_decide_and_the_summary_counts_them(make_coupled_maps, tmp_path):
    groups = [f"wave {row % 6}" for row in range(20)] + [""] * 4
    maps = make_coupled_maps(groups=groups)
    Splitter({"block_length": 100.0}, str(maps.folder), str(tmp_path)).execute()
    split = Split.open(tmp_path)
    label_of = dict(zip(maps.event_ids, groups, strict=True))
    found = {name: {label_of[event] for event in split.part(name).event_ids} - {""} for name in PARTS}
    assert sum(map(len, found.values())) == 6
    summary = read_json(tmp_path / "splitter" / "summary.json")
    counted = {name: summary["metrics"][f"groups_{name}"]["value"] for name in PARTS}
    assert counted == {
        name: len(set(split.part(name).group)) - ("" in split.part(name).group) + split.part(name).group.count("")
        for name in PARTS
    }


def test_a_group_that_is_too_large_is_in_the_summary(make_coupled_maps, tmp_path):
    maps = make_coupled_maps(groups=["blip"] * 18 + [f"own {row}" for row in range(6)])
    Splitter({}, str(maps.folder), str(tmp_path)).execute(maps)
    (warning, *_) = read_json(tmp_path / "splitter" / "summary.json")["warnings"]
    assert "largest of 18 events (blip)" in warning
    with pytest.raises(NoEventsError, match="1 group"):
        Splitter({}, "unused", str(tmp_path)).execute(make_coupled_maps(name="one", groups=["blip"] * 24))


def test_a_part_without_a_share_is_no_reason_to_warn(make_coupled_maps, tmp_path):
    maps, asked = make_coupled_maps(), {"block_length": 100.0, "gate": 0.25, "test": 0.0}
    split = Splitter(asked, str(maps.folder), str(tmp_path)).execute(maps)
    assert len(split.test) == 0
    for threshold, expected in ((16.0, []), (1e9, ["train, validation, gate"])):
        Processor({"threshold": threshold}, str(maps.folder), str(tmp_path)).execute(split)
        warnings = read_json(tmp_path / "processor" / "summary.json")["warnings"]
        assert [warning.partition(" in ")[2].partition(":")[0] for warning in warnings] == expected


def test_the_gate_has_windows_and_no_part_in_the_scaling(make_coupled_maps, tmp_path):
    scales = []
    for name, louder in (("plain", ()), ("loud", ("validation", "gate", "test"))):
        gain = np.ones(24)
        if louder:
            split = Split.open(tmp_path / "plain")
            gain = np.array([100.0 if split.part_of()[f"event-{row:03d}"] in louder else 1.0 for row in range(24)])
        maps = make_coupled_maps(name=f"maps {name}", gain=gain[:, None, None])
        folder = str(tmp_path / name)
        training = Processor({}, str(maps.folder), folder).execute(
            Splitter({"block_length": 100.0}, str(maps.folder), folder).execute(maps)
        )
        assert set(training.part("gate")["event_id"]) == set(training.split.gate.event_ids)
        assert TrainingSet.open(folder).counts()["gate"] == training.counts()["gate"]
        scales.append(training.scaling["scale"])
    assert scales[0] == scales[1]
