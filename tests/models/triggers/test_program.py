import io
import json

import pytest
import torch
from tests._triggers import random_sets
from tests.models.triggers.test_networks import made

from glitchflow_plugin.errors import DataError, MissingDependencyError
from glitchflow_plugin.models.triggers import program
from glitchflow_plugin.models.triggers.program import (
    DESCRIPTION,
    INPUTS,
    OUTPUTS,
    PARITY,
    Program,
    packed_onnx,
    packed_program,
)
from glitchflow_plugin.types.tensors import host

VARIANTS = ["hypertransformer", "pet"]
"""Between them they have all that the others are made of."""
COUNTS = [(0,), (1,), (2000,), (7, 0, 1), (1,) * 9]


def inputs(sets):
    return sets.points, sets.channels, sets.mask, sets.globals_, sets.globals_valid


def asked(network, sets):
    with torch.no_grad():
        return Program(network)(*inputs(sets))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_program_answers_for_any_number_of_triggers(variant):
    network = made(variant)[0].eval()
    described = {DESCRIPTION: ""}
    loaded = torch.export.load(io.BytesIO(packed_program(network, {"target": "L1:S"})), extra_files=described)
    assert json.loads(described[DESCRIPTION]) == {"target": "L1:S"}
    for counts in COUNTS:
        sets = random_sets(counts, seed=1)
        torch.testing.assert_close(loaded.module()(*inputs(sets)), asked(network, sets), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_onnx_answers_for_any_number_of_triggers(variant):
    runtime = pytest.importorskip("onnxruntime")
    network = made(variant)[0].eval()
    content, told = packed_onnx(network, {"target": "L1:S"})
    assert told < 3 * PARITY
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map[DESCRIPTION]) == {"target": "L1:S"}
    assert [one.name for one in session.get_outputs()] == list(OUTPUTS)
    taken = [one.name for one in session.get_inputs()]
    for counts in COUNTS:
        sets = random_sets(counts, seed=1)
        given = {name: host(one) for name, one in zip(INPUTS, inputs(sets), strict=True) if name in taken}
        found = [torch.from_numpy(one) for one in session.run(None, given)]
        torch.testing.assert_close(found, list(asked(network, sets)), atol=3 * PARITY, rtol=3 * PARITY)


class _Other:
    """A runtime of a network that answers a little differently."""

    def __init__(self, network, by):
        self.network, self.by = network, by

    def get_inputs(self):
        return [type("Input", (), {"name": name}) for name in INPUTS]

    def run(self, _, fed):
        with torch.no_grad():
            told = Program(self.network)(*(torch.from_numpy(fed[name]) for name in INPUTS))
        return [host(one) + self.by for one in told]


@pytest.mark.parametrize(("by", "taken"), [(5e-7, True), (5e-6, False), (float("nan"), False)])
def test_other_answers_than_the_networks_are_refused(by, taken):
    network = made("condonly")[0].eval()
    if taken:
        assert program._difference(_Other(network, by), network) == pytest.approx(by, abs=2e-7)
        return
    with pytest.raises(DataError, match="answer as the network does"):
        program._difference(_Other(network, by), network)


def test_what_onnx_needs_is_named_where_it_lacks(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"glitchflow_plugin\[onnx\]"):
        packed_onnx(made("condonly")[0].eval(), {})
