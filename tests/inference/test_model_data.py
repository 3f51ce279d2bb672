from functools import partial

import numpy as np
import pytest

from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.errors import ChannelMismatchError, FormatError
from glitchflow_plugin.inference.model_data import check_spectrograms


def test_missing_witnesses_are_listed(make_bundle, make_set):
    with pytest.raises(ChannelMismatchError, match=r"lacks the channels \['V1:MIC'\]"):
        check_spectrograms(make_bundle(), make_set(2, channels=("V1:STRAIN", "V1:SEIS")))


def test_maps_made_another_way_are_refused(make_bundle, make_set):
    spectrograms = make_set(2)
    check_spectrograms(make_bundle(), spectrograms)
    with pytest.raises(FormatError, match="other frequencies"):
        check_spectrograms(make_bundle(frequencies=tuple(np.linspace(10, 400, 64))), spectrograms)
    with pytest.raises(FormatError, match="other times"):
        check_spectrograms(make_bundle(times=tuple(np.arange(128) * 0.05)), spectrograms)
    recipe = {**spectrograms.recipe, "qtransform": {"q": 20.0, "num_times": 257}}
    with pytest.raises(FormatError, match=r"qtransform.q: expected 20.0, got 12.0"):
        check_spectrograms(make_bundle(recipe=recipe), spectrograms)


def test_only_what_changes_numbers_counts_as_a_difference(make_set):
    recipe = make_set(2).recipe
    other = {
        "events": {
            **recipe["events"],
            "sample_rate": 1024,  # an integer in JSON
            "channels": {
                "V1:SEIS": {"minf": 8, "maxf": 400.0, "unit": "m", "recorded_sample_rate": 500.0},
                "V1:MIC": {"minf": 9.0, "maxf": 400.0},
            },
        },
        "qtransform": recipe["qtransform"],
        "selection": {"channels": "ch_list"},
    }
    differences = partial(Recipe.from_dict(recipe).differences, Recipe.from_dict(other))
    assert differences(["V1:SEIS"]) == []
    assert differences(["V1:SEIS", "V1:MIC"]) == ["events.channels.V1:MIC.minf: expected 8.0, got 9.0"]
