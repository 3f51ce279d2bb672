import math
import types

import numpy as np
import pytest

from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.files import read_json
from glitchflow_plugin.training.retraining import (
    GateNeeds,
    RetrainDecision,
    RetrainSettings,
    begin,
    decide,
    end,
    forgive,
    pinned,
    resume,
    too_few,
    with_groups,
)

NEEDS = GateNeeds(groups=50, share=0.25)


def drifted(*channels):
    return types.SimpleNamespace(drifted=[types.SimpleNamespace(channel=name) for name in channels])


def test_the_gate_needs_a_group_an_event_in_its_share():
    assert NEEDS.events == 200
    assert GateNeeds(groups=6, share=0.15).events == 40
    assert GateNeeds(groups=6, share=0.0).events == math.inf
    assert "in a share of 0.25 (split.gate): 200 events or more." in str(NEEDS)


@pytest.mark.parametrize(
    ("number", "force", "said"), [(99, True, "at least 100"), (199, False, "too few"), (200, False, "")]
)
def test_few_events_are_not_looked_at(number, force, said):
    found = too_few(number, RetrainSettings("buffer", min_events=100, force=force), NEEDS)
    assert said in found if said else found is None
    assert too_few(199, RetrainSettings("buffer", min_events=100, force=True), NEEDS) is None


def test_drift_decides_unless_training_is_forced():
    assert decide(drifted()) == RetrainDecision("keep", "no channel has drifted")
    assert decide(drifted("A", "B")) == RetrainDecision("train", "drifted: A, B")
    assert decide(None) == RetrainDecision("train", "forced")
    assert decide(drifted(), []).reason == "no channel has drifted and no coupling has changed"
    assert decide(drifted(), ["A (gain_low)"]) == RetrainDecision("train", "coupling changed: A (gain_low)")
    assert decide(drifted("B"), ["A (gain_low)"]).reason == "drifted: B; coupling changed: A (gain_low)"
    assert decide(drifted(), [], []).reason.endswith(", no coupling has changed and of no kind of glitch more is left")
    assert decide(drifted(), [], ["class blip"]) == RetrainDecision("train", "more is left: class blip")


def test_too_few_groups_wait_unless_training_is_forced(caplog):
    wanted = decide(drifted("A"))
    assert with_groups(wanted, 50, NEEDS, force=False) == wanted
    assert with_groups(wanted, 49, NEEDS, force=False).action == "wait"
    assert with_groups(wanted, 49, NEEDS, force=True) == wanted
    assert "49 groups" in caplog.text


def test_what_was_begun_is_continued_a_few_times_with_the_same_events(tmp_path):
    channel = Channel("STRAIN", np.zeros(8), 1e9, 8.0)
    write_event(tmp_path / "buffer" / "one.h5", RawEvent("one", 1e9, {"STRAIN": channel}))
    settings, cycle = RetrainSettings(str(tmp_path / "buffer")), tmp_path / "cycle"
    assert resume(cycle, "running") is None
    begin(cycle, "content", settings)
    (tmp_path / "buffer" / "one.h5").unlink()
    assert [path.name for path in pinned(cycle).iterdir()] == ["one.h5"]
    assert resume(cycle, "done") is None
    assert [resume(cycle, "failed").attempts for _ in range(2)] == [2, 3]
    assert resume(cycle, "failed") is None
    forgive(cycle)
    assert read_json(cycle / "plan.json") == {"buffer": "content", "attempts": 2}
    end(cycle)
    assert resume(cycle, "running") is None
