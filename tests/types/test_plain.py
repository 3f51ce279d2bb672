import json
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from glitchflow_plugin.types.plain import plain


def test_what_json_does_not_know_becomes_what_it_knows():
    content = {
        1: (np.int64(2), np.float32(0.5), np.array([[True]])),
        "set": {"b", "a"},
        "path": Path("a/b"),
        "nested": {"none": None, "flag": True, "text": "abc"},
        "of yaml": OmegaConf.create({"q": [8, 12.0]}),
    }
    found = plain(content)
    assert found == {
        "1": [2, 0.5, [[True]]],
        "set": ["a", "b"],
        "path": "a/b",
        "nested": {"none": None, "flag": True, "text": "abc"},
        "of yaml": {"q": [8, 12.0]},
    }
    assert json.loads(json.dumps(found)) == found
    assert type(found["1"][1]) is float


def test_numbers_that_are_not_finite_stay_unless_json_is_to_be_strict():
    content = {"a": [np.nan, -np.inf, 1.0], "b": np.array([np.inf])}
    assert np.isnan(plain(content)["a"][0])
    assert plain(content)["b"] == [np.inf]
    assert plain(content, finite=True) == {"a": [None, None, 1.0], "b": [None]}
