from dataclasses import replace

import numpy as np
import pytest
import torch
from tests._triggers import CHANNELS, GLOBALS, KINDS, coupled, teaching

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import built
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.triggers.contest import ContestSettings, Parts, Sizes, contest
from glitchflow_plugin.training.triggers.held import HeldRows
from glitchflow_plugin.training.triggers.hold_out import hold_out
from glitchflow_plugin.types.triggers import UNKNOWN

SIZES = Sizes(CHANNELS, GLOBALS, KINDS)


CONFIG = TrainingConfiguration(batch_size=100, optim_lr=5e-4, lr_scheduler=None, precision="float32")


def parts(test=300):
    return Parts(coupled(300), coupled(200, 1), coupled(test, 2), np.arange(test) // 5)


def test_the_best_on_validation_is_champion_and_what_knows_nothing_is_not(tmp_path):
    settings = built(
        ContestSettings,
        {
            "entrants": {
                "trees": {"model": "boosting", "max_iter": [1, 15], "min_samples_leaf": 10},
                "floor": {"model": "condonly", "dim": 8, "layers": 1},
                "left out": None,
            },
            "replicates": 100,
        },
        "contest",
    )
    result = contest(parts(), SIZES, settings, teaching(tmp_path, CONFIG))
    assert result is not None
    trees, floor = result.entrants["trees"], result.entrants["floor"]
    assert result.champion == "trees"
    assert trees.settings["max_iter"] == 15  # one round knows less
    assert trees.figures["auc"].low > 0.9
    assert floor.figures["auc"].value < 0.65
    assert floor.lead["auc"].high < 0
    assert trees.lead == {}
    assert trees.figures["snr_coverage"].value == pytest.approx(0.9, abs=0.08)
    assert {*result.rivals} == {"loudest", "logistic"}
    assert result.rivals["logistic"]["auc"].low > 0.8


def test_an_entrant_without_a_model_and_one_that_cannot_be_built_are_told_at_once():
    with pytest.raises(ConfigurationError, match="expected a model"):
        ContestSettings(entrants={"mine": {"dim": 3}})
    with pytest.raises(ConfigurationError, match=r"'pointvit' cannot be built .*'dimm'"):
        ContestSettings(entrants={"mine": {"model": "pointvit", "dimm": 3}})
    with pytest.raises(ConfigurationError, match=r"entrants\.mine\.config: unknown key|entrants\.mine\.config"):
        ContestSettings(entrants={"mine": {"model": "pointvit", "config": {"optim_lr": -1}}})
    with pytest.raises(ConfigurationError, match="one at least"):
        ContestSettings(entrants={"mine": None})


def test_where_another_process_goes_on_nothing_is_fitted_or_judged(monkeypatch):
    entrants = {"trees": {"model": "forest"}, "a": {"model": "condonly", "dim": 8}}
    settings = built(ContestSettings, {"entrants": entrants}, "contest")
    monkeypatch.setattr("glitchflow_plugin.training.triggers.contest.fit_trees", lambda *_, **__: pytest.fail("fitted"))
    assert contest(parts(20), SIZES, settings, lambda *_: None) is None


def counted(number, seed, channels=None):
    """Sets whose globals are the rates of the channels, as those of a store are."""
    held = coupled(number, seed)
    channels = held.inputs.channels if channels is None else channels
    counts = torch.stack([(held.inputs.mask & (channels == one)).sum(1) for one in range(1, CHANNELS)], dim=1)
    known = torch.ones_like(counts, dtype=torch.bool)
    sets = replace(held.inputs, channels=channels, globals_=counts.float().log1p(), globals_valid=known)
    return HeldRows(sets, held.labels)


def taken(held, seed):
    """The same with a trigger of each set held out."""
    return HeldRows(*hold_out(*held[:], torch.rand(len(held), generator=torch.Generator().manual_seed(seed))))


def test_the_channel_of_a_trigger_held_out_leaves_no_trace():
    held = counted(400, 0)
    without = taken(held, 3)
    able = (held.inputs.mask & (held.inputs.channels != UNKNOWN)).any(1)
    gone = held.inputs.mask & ~without.inputs.mask
    assert torch.equal(gone.sum(1), able.long())
    assert torch.equal(without.labels.channel[able], held.inputs.channels[gone])
    assert (without.labels.channel[~able] == -1).all()
    # whatever the channel of the one that was drawn: the inputs are the same to the last bit
    renamed = torch.where(gone, held.inputs.channels % (CHANNELS - 1) + 1, held.inputs.channels)
    other = taken(counted(400, 0, renamed), 3)
    assert (other.labels.channel[able] != without.labels.channel[able]).all()
    for name in ("points", "channels", "mask", "globals_"):
        assert torch.equal(getattr(without.inputs, name), getattr(other.inputs, name)), name


def test_the_channel_of_a_trigger_held_out_is_hardly_told(tmp_path):
    three = (taken(counted(number, seed), seed) for number, seed in ((600, 1), (100, 2), (400, 3)))
    entrants = {"trees": {"model": "boosting", "max_iter": 20}}
    settings = built(ContestSettings, {"entrants": entrants, "tasks": {"channel": 1.0}, "replicates": 100}, "contest")
    sizes = Sizes(CHANNELS, CHANNELS - 1, KINDS)
    result = contest(Parts(*three, np.arange(400)), sizes, settings, teaching(tmp_path, CONFIG))
    assert result is not None
    told, trivial = result.entrants["trees"].figures["channel_accuracy"], result.rivals["commonest"]["channel_accuracy"]
    assert told.value < trivial.high + 0.1 < 0.6
