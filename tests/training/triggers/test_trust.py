import numpy as np
import pandas as pd
import pytest

from glitchflow_plugin.data.triggers.labels import LabelledTimes
from glitchflow_plugin.training.triggers.trust import confusion, reliability


def held_out(glitch, kind, group=None):
    number = len(glitch)
    return LabelledTimes(
        np.arange(number), np.array(glitch), np.array(kind), np.where(glitch, 10.0, np.nan),
        np.arange(number) if group is None else np.array(group), np.ones(number), np.full(number, "test"),
    )  # fmt: skip


def test_probabilities_that_are_right_lie_within_their_intervals():
    generator = np.random.default_rng(1)
    claimed = generator.uniform(size=20_000)
    times = held_out(generator.uniform(size=20_000) < claimed, np.full(20_000, ""), np.arange(20_000) // 100)
    found = reliability(claimed, times, replicates=200, seed=0)
    assert found["times"].sum() == 20_000
    assert found["claimed"].tolist() == pytest.approx([0.05, 0.2, 0.4, 0.6, 0.8, 0.95], abs=0.01)
    assert ((found["low"] <= found["claimed"]) & (found["claimed"] <= found["high"])).sum() >= 5
    # a model that claims too much is seen
    proud = reliability(np.sqrt(claimed), times, replicates=200, seed=0)
    assert (proud["high"] < proud["claimed"])[1:-1].all()


def test_empty_bins_are_left_out_and_the_others_are_means():
    found = reliability(np.array([0.02, 0.04, 0.99]), held_out([False, True, True], ["", "", ""]), replicates=0, seed=0)
    assert found[["claimed", "observed", "times"]].to_numpy().tolist() == [
        [pytest.approx(0.03), 0.5, 2],
        [pytest.approx(0.99), 1.0, 1],
    ]
    assert found["low"].isna().all()


def test_what_was_said_is_counted_by_what_is_true():
    told = pd.DataFrame({"glitch": [0.1, 0.9, 0.8, 0.2, 0.6], "kind": ["blip", "blip", "whistle", "blip", "blip"]})
    times = held_out([False, True, True, True, True], ["", "blip", "blip", "blip", ""])
    counts = confusion(told, times)
    assert counts.loc["blip"].to_dict() == {"blip": 1, "quiet": 1, "whistle": 1}
    assert counts.loc["quiet"].to_dict() == {"blip": 0, "quiet": 1, "whistle": 0}
    assert counts.loc["glitch"].to_dict() == {"blip": 1, "quiet": 0, "whistle": 0}
