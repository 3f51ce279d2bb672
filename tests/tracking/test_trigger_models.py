import pytest
import torch
from tests._triggers import CHANNELS, GLOBALS, KINDS, coupled_sets, random_sets

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.models.triggers.build import build_network
from glitchflow_plugin.models.triggers.bundle import TriggerModel, trigger_model
from glitchflow_plugin.models.triggers.trees import fit_trees, table
from glitchflow_plugin.tracking.trigger_models import load_trigger_model, register_trigger_model

SIZES = {"num_channels": CHANNELS, "num_kinds": KINDS}


def models():
    network = {**SIZES, "num_globals": GLOBALS, "dim": 8, "heads": 2, "layers": 1}
    trees = fit_trees("forest", *table([coupled_sets(60)], CHANNELS), **SIZES, n_estimators=3)
    given = {"target": "L1:STRAIN", "channels": tuple("ABCDE"), "kinds": ("x", "y", "z"), "sets": {"window": 0.5}}
    return [
        TriggerModel(
            build_network("pointvit", **network).eval(), {"model": "pointvit", **network}, half_width=0.4, **given
        ),
        TriggerModel(trees, {"model": "forest", "n_estimators": 3}, half_width=float("inf"), **given),
    ]


@pytest.mark.slow
def test_a_registered_model_answers_as_before(tmp_path):
    uri, sets = f"sqlite:///{tmp_path}/mlflow.db", random_sets([4, 0])
    for number, model in enumerate(models(), start=1):
        made = register_trigger_model(model, "triggers", uri, artifacts=tmp_path / "artifacts")
        assert made.version == number
        again, version = load_trigger_model("triggers", number, uri)
        assert version.version == number
        with torch.no_grad():
            assert torch.equal(again.model(sets).glitch, model.model(sets).glitch)
        assert again.to_dict() == model.to_dict()
        assert again.half_width == model.half_width


def test_what_is_no_model_of_triggers_is_refused():
    network, _ = models()
    with pytest.raises(FormatError, match="no model of triggers"):
        trigger_model({"target": "L1:STRAIN"}, network.packed())
    described = network.to_dict()
    del described["kinds"]
    with pytest.raises(FormatError, match="damaged"):
        trigger_model(described, network.packed())
