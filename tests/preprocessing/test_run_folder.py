"""The files of a run folder after a proposal."""

import re

import numpy as np
import pytest
import yaml
from hydra.utils import instantiate

from glitchflow_plugin import cli
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.inspection import SeenChannel, SeenData
from glitchflow_plugin.preprocessing.proposal import propose
from glitchflow_plugin.preprocessing.run_folder import with_values, write_proposal
from glitchflow_plugin.preprocessing.survey import Survey


@pytest.mark.parametrize("name", ["whiten", "maps", "scan", "process", "split"])
def test_values_change_and_comments_stay(name):
    text = (cli.default_configuration() / "conf" / f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    for key, value in content.items():
        if isinstance(value, dict):
            continue
        new = ["V1:A, V1:B", "V1:C"] if isinstance(value, list) else 1234.5
        changed = with_values(text, {key: new})
        assert yaml.safe_load(changed) == content | {key: new}
        assert re.findall("#.*", changed) == re.findall("#.*", text)


@pytest.mark.parametrize(
    "name", ['V1:A "b" #c', "V1:${oc.env:HOME}", "V1:é✓\x7f\u2028\U0001f600", "V1:back\\slash", " : -"]
)
def test_any_channel_name_comes_back_from_datasets_yaml(name, tmp_path):
    lengths = np.full(5, 20.0)
    channels = {
        "V1:Hrec_hoft": SeenChannel(4096.0, "strain", lengths),
        name: SeenChannel(4096.0, "m", lengths),
        f"{name} slow": SeenChannel(1.0, "m", lengths),
    }
    events = {f"e{number}": 1e9 + 300 * number for number in range(5)}
    data = SeenData(f"/data/{name}", "events", (), channels, events=events, looked=5)
    cli.init(tmp_path / "run")
    write_proposal(tmp_path / "run", propose(Survey((data,))), "mine")
    settings = cli.compose(tmp_path / "run", ["+seen={_target_: builtins.dict, datasets: '${datasets}'}"])
    entry = instantiate(settings.seen, _convert_="all")["datasets"][0]  # as a pipeline reads it
    assert entry["ch_list"] == ["V1:Hrec_hoft", name]
    assert entry["path"] == f"/data/{name}"


def test_a_key_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match="has no key frange"):
        with_values("a: 1\n", {"frange": [8, 400]}, "scan.yaml")
