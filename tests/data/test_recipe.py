import json
from dataclasses import replace

import numpy as np
import pytest

from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.recipe import Recipe, differences, told
from glitchflow_plugin.data.sharded_writer import ShardedWriter
from glitchflow_plugin.errors import FormatError

STORED = json.loads(
    """{
  "events": {
    "target": "V1:H", "sample_rate": 1024.0, "duration": 6.0, "whiten": true,
    "whitening": {"fft_length": 1.0, "overlap": 0.75, "method": "median", "exclude_length": 4.0, "filter_length": 2.0,
                  "fill": true},
    "order": 4, "flat_length": 1.0, "crop_jitter": 0.5, "crop_seed": 0,
    "channels": {
      "V1:H": {"minf": 8.0, "maxf": 400.0, "unit": "strain", "recorded_sample_rate": 4096.0},
      "V1:MIC": {"minf": 8.0, "maxf": 400.0, "unit": "Pa", "recorded_sample_rate": null,
                 "psd": {"spacing": 0.25, "values": [1.0, 2.5, 3e-46]}}
    }
  },
  "qtransform": {"q": [8.0, 12.0], "frequency_low": 8.0, "frequency_high": 400.0, "num_frequencies": 64,
                 "num_times": 257, "log_frequency": false, "mismatch": 0.2, "norm": "median"},
  "selection": {"channels": "scan", "threshold": 20.0},
  "generated": {"model": {"name": "twin", "version": 2}, "threshold": 21.0, "only_glitches": true, "stride": null}
}"""
)
RECIPE = Recipe.from_dict(STORED)
CHANNELS = ("V1:H", "V1:MIC")


def changed(path, value):
    """The stored recipe with one value changed, or without it if `value` is `...`."""
    content = json.loads(json.dumps(STORED))
    *way, last = path.split(".")
    place = content
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return Recipe.from_dict(content)


def test_a_stored_recipe_keeps_its_bytes_and_fingerprints(tmp_path):
    assert json.dumps(RECIPE.to_dict(), indent=2) == json.dumps(STORED, indent=2)
    assert content_hash(RECIPE.to_dict()) == "7eecba042553e949f73da30f1ea4bf3dad53e13f312d4046eb9901d0c0469c77"
    set_of = {"folder": tmp_path, "target": "V1:H", "channels": CHANNELS, "units": "SNR^2", "event_ids": ("a", "b")}
    axes = {"frequencies": [8.0, 400.0], "times": [0.0, 3.0]}
    writer = ShardedWriter(kind="spectrograms", axes=axes, recipe=RECIPE.to_dict(), inputs="events", **set_of)
    assert writer.fingerprint == "6666c1555c851b3b70220d29bd15525d6f151bac3609a702e3494411c1bb10fe"


def test_only_what_is_there_is_stored():
    for content in ({}, {"made": "by hand", "q": 12.0}, {"qtransform": {}, "whiten": True}, {"selection": {}}):
        assert Recipe.from_dict(content).to_dict() == content
    cleaned = {"spectrograms": STORED, "model": {}, "stride": 32}
    assert Recipe.from_dict(cleaned).to_dict() == cleaned


@pytest.mark.parametrize(
    ("path", "value", "told_of"),
    [
        ("events.sample_rate", 2048.0, "events.sample_rate: expected 1024.0, got 2048.0"),
        ("events.whitening.method", "mean", "events.whitening.method: expected 'median', got 'mean'"),
        ("events.channels.V1:MIC.maxf", 300, "events.channels.V1:MIC.maxf: expected 400.0, got 300"),
        ("events.channels.V1:MIC.psd", ..., "events.channels.V1:MIC.psd: expected {"),
        ("events.channels.V1:MIC", ..., "events.channels.V1:MIC: expected {"),
        ("qtransform.q", 12.0, "qtransform.q: expected [8.0, 12.0], got 12.0"),
        ("qtransform.norm", "mean", "qtransform.norm: expected 'median', got 'mean'"),
        ("qtransform", ..., "qtransform: expected {"),
    ],
)
def test_what_changes_numbers_differs_for_data_and_for_twins(path, value, told_of):
    other = changed(path, value)
    for origin in (False, True):
        (found,) = RECIPE.differences(other, CHANNELS, origin=origin)
        assert found.startswith(told_of)
    assert RECIPE.treatment(CHANNELS) != other.treatment(CHANNELS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("events.channels.V1:MIC.unit", "V"),
        ("events.channels.V1:MIC.recorded_sample_rate", 500.0),
        ("events.channels.V1:OTHER", {"minf": 1.0, "maxf": 2.0}),
        ("events.sample_rate", 1024),
        ("selection", {"channels": "ch_list"}),
        ("selection", ...),
        ("qtransform.norm", ...),
        ("qtransform.q", (8.0, np.float64(12.0))),
        ("events.order", ...),
    ],
)
def test_what_changes_no_numbers_does_not_differ(path, value):
    other = changed(path, value)
    assert RECIPE.differences(other, CHANNELS) == RECIPE.differences(other, CHANNELS, origin=True) == []


@pytest.mark.parametrize(
    ("path", "value", "told_of"),
    [
        ("events.crop_jitter", 0.0, "events.crop_jitter: expected 0.5, got 0.0"),
        ("events.crop_jitter", ..., "events.crop_jitter: expected 0.5, got 0.0"),
        ("events.crop_seed", 3, "events.crop_seed: expected 0, got 3"),
        ("events.target", "H1:H", "events.target: expected 'V1:H', got 'H1:H'"),
        ("generated", ..., "generated: expected {"),
    ],
)
def test_twins_differ_in_their_events_too_and_data_do_not(path, value, told_of):
    other = changed(path, value)
    assert RECIPE.differences(other, CHANNELS) == []
    (found,) = RECIPE.differences(other, CHANNELS, origin=True)
    assert found.startswith(told_of)


def test_channels_that_do_not_matter_are_not_compared():
    other = changed("events.channels.V1:MIC.minf", 20.0)
    assert RECIPE.differences(other, ["V1:H"]) == []
    assert RECIPE.differences(other, ["V1:H", "V1:NOBODY"]) == []


def test_what_is_not_a_recipe_is_refused_and_what_is_missing_is_named():
    for content in ({"events": "evil"}, {"qtransform": [1]}, {"events": {"channels": ["V1:H"]}}, {"selection": 3}):
        with pytest.raises(FormatError, match=r"named values .* Make it again"):
            Recipe.from_dict(content)
    with pytest.raises(FormatError, match=r"no 'qtransform'.*train a model"):
        replace(RECIPE, qtransform=None).part("qtransform")
    assert RECIPE.part("events")["duration"] == 6.0


def test_the_sentence_tells_the_first_and_how_many_more():
    differing = differences({}, {f"key{number}": number for number in range(9)})
    assert told(differing) == "; ".join(differing[:6]) + "; and 3 more"
    assert told(differing[:2]) == "key0: expected None, got 0; key1: expected None, got 1"
