"""The files of a run folder after a proposal."""

import re

import pytest
import yaml

from glitchflow_plugin import cli
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.run_folder import with_values


@pytest.mark.parametrize("name", ["whiten", "scan", "process", "split"])
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


def test_a_key_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match="has no key frange"):
        with_values("a: 1\n", {"frange": [8, 400]}, "scan.yaml")
