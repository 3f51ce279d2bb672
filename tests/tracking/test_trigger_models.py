import json

import pytest
import torch
from tests._triggers import CHANNELS, GLOBALS, KINDS, coupled_sets, random_sets

from glitchflow_plugin.cli import main
from glitchflow_plugin.errors import FormatError, GlitchflowError
from glitchflow_plugin.models.triggers.build import build_network
from glitchflow_plugin.models.triggers.bundle import TriggerModel, trigger_model
from glitchflow_plugin.models.triggers.trees import fit_trees, table
from glitchflow_plugin.tracking.export import export
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
def test_a_registered_model_answers_as_before_and_is_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri, sets = f"sqlite:///{tmp_path}/mlflow.db", random_sets([4, 0])
    registered = models()
    for number, model in enumerate(registered, start=1):
        made = register_trigger_model(model, "triggers", uri, artifacts=tmp_path / "artifacts")
        assert made.version == number
        again, version = load_trigger_model("triggers", number, uri)
        assert version.version == number
        with torch.no_grad():
            assert torch.equal(again.model(sets).glitch, model.model(sets).glitch)
        assert again.to_dict() == model.to_dict()
        assert again.half_width == model.half_width
    network, out = registered[0], tmp_path / "network.pt2"
    assert main(["models", "export", "triggers", "--version", "1", "--out", str(out), "--tracking-uri", uri]) == 0
    with torch.no_grad():
        told = torch.export.load(out).module()(sets.points, sets.channels, sets.mask, sets.globals_, sets.globals_valid)
        torch.testing.assert_close(told[0], network.model(sets).glitch)
    for kind, why in (("pt2", "has no program"), ("onnx", "got trees")):
        with pytest.raises(GlitchflowError, match=why):
            export("triggers", 2, uri, kind)
    onnx = pytest.importorskip("onnx")
    assert main(["models", "export", "triggers", "--version", "1", "--format", "onnx", "--tracking-uri", uri]) == 0
    (file,) = tmp_path.glob("triggers-1.onnx")
    assert json.loads(onnx.load(file).metadata_props[0].value)["target"] == "L1:STRAIN"


def test_what_is_no_model_of_triggers_is_refused():
    network, _ = models()
    with pytest.raises(FormatError, match="no model of triggers"):
        trigger_model({"target": "L1:STRAIN"}, network.packed())
    described = network.to_dict()
    del described["kinds"]
    with pytest.raises(FormatError, match="damaged"):
        trigger_model(described, network.packed())
