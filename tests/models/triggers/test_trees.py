import numpy as np
import pytest
import torch
from skops import io as skops
from tests._triggers import CHANNELS, GLOBALS, KINDS, coupled_sets, random_sets

from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.models.triggers.trees import fit_trees, set_features, table, unpacked
from glitchflow_plugin.types.triggers import TriggerSets

SMALL = {"boosting": {"max_iter": 15, "min_samples_leaf": 10}, "forest": {"n_estimators": 15}}
SIZES = {"num_channels": CHANNELS, "num_kinds": KINDS}


def test_features_of_a_set_by_hand():
    sets = random_sets([3, 0])
    sets.channels[0, :3] = torch.tensor([2, 2, CHANNELS + 4])
    sets.points[0, :3, :3] = torch.tensor([[-0.5, 5.0, 1.0], [0.2, 6.0, 3.0], [0.1, 7.0, 2.0]])
    found = set_features(sets, CHANNELS)
    channels = found[:, : CHANNELS * 5].reshape(2, CHANNELS, 5)
    np.testing.assert_allclose(channels[0, 2], [3.0, 0.2, 6.0, 0.2, 2], rtol=1e-6)
    np.testing.assert_allclose(channels[0, 0], [2.0, 0.1, 7.0, 0.1, 1], rtol=1e-6)
    assert np.isnan(channels[1, :, :4]).all()
    assert (channels[1, :, 4] == 0).all()
    assert (np.isnan(found[:, -GLOBALS:]) == ~sets.globals_valid.numpy()).all()


def test_features_depend_neither_on_order_nor_on_padding():
    short, long = random_sets([5, 2]), random_sets([5, 2], padding=9, seed=4)
    order = torch.randperm(5)
    long.points[~long.mask] = torch.nan
    points, channels, mask = (
        torch.cat([a[:, order], b[:, 5:]], 1)
        for a, b in zip(
            (short.points, short.channels, short.mask), (long.points, long.channels, long.mask), strict=True
        )
    )
    other = TriggerSets(points, channels, mask, short.globals_, short.globals_valid)
    np.testing.assert_array_equal(set_features(other, CHANNELS), set_features(short, CHANNELS))


@pytest.mark.parametrize("kind", SMALL)
def test_trees_find_what_is_coupled_and_stay_the_same_in_a_file(kind):
    trees = fit_trees(kind, *table([coupled_sets(300), coupled_sets(200, seed=5)], CHANNELS), **SIZES, **SMALL[kind])
    sets, true = coupled_sets(400, seed=1)
    told = unpacked(trees.packed())(sets)
    assert torch.equal(told.glitch, trees(sets).glitch)
    glitch = true.glitch > 0
    assert ((told.glitch > 0) == glitch).float().mean() > 0.9
    assert (told.kind.argmax(1)[glitch] == true.kind[glitch]).float().mean() > 0.9
    assert (told.log1p_snr - true.log1p_snr)[glitch].square().mean() < 0.3 * true.log1p_snr[glitch].var()
    assert told.channel.unique().numel() == 1  # no label, no answer


@pytest.mark.parametrize("content", [b"", b"no zip", skops.dumps({"estimators": {"glitch": np.testing.assert_equal}})])
def test_what_are_no_trees_is_refused(content):
    with pytest.raises(FormatError, match="Train them again"):
        unpacked(content)


def test_settings_and_labels_that_make_no_trees_are_told():
    sets, labels = coupled_sets(40)
    with pytest.raises(ConfigurationError, match="boosting or forest"):
        fit_trees("oak", *table([(sets, labels)], CHANNELS), **SIZES)
    with pytest.raises(ConfigurationError, match="depth"):
        fit_trees("forest", *table([(sets, labels)], CHANNELS), **SIZES, depth=3)
    quiet = torch.nonzero(labels.glitch == 0)[:, 0]
    with pytest.raises(DataError, match="Label more times"):
        fit_trees("forest", *table([(sets[quiet], labels[quiet])], CHANNELS), **SIZES)
    with pytest.raises(DataError, match="share of the split"):
        fit_trees("forest", *table([], CHANNELS), **SIZES)


@pytest.mark.parametrize("kind", SMALL)
def test_a_channel_without_triggers_is_no_obstacle(kind):
    sets, labels = coupled_sets(300)
    sets.mask[sets.channels == 3] = False  # silent always
    sets.mask[(sets.channels == 4) & (labels.glitch > 0)[:, None]] = False  # silent in all that has a class
    told = fit_trees(kind, *table([(sets, labels)], CHANNELS), **SIZES, **SMALL[kind])(sets)
    assert told.kind.isfinite().all()
    assert ((told.glitch > 0) == (labels.glitch > 0)).float().mean() > 0.9
