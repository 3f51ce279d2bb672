import pytest

from glitchflow_plugin.data.names import check_alias, check_name
from glitchflow_plugin.errors import ConfigurationError

GOOD = ("demo", "o4_scan.2-b", "2026 night", "_x", "ünïcode")
BAD = (
    "",
    " ",
    ".",
    "..",
    "../../evil",
    "/etc/evil",
    "a/b",
    "a\\b",
    "a:b",
    "-x",
    ".hidden",
    "a\n",
    "a\x00b",
    "a ",
    "a.",
)
ODD = ("a'b", "a*", "a%2F", "a@champion", "a#b", "x" * 161, "ü" * 81, None, 4)


@pytest.mark.parametrize("name", GOOD)
def test_names_that_folders_and_registry_take_pass(name):
    assert check_name(name, "run_name") == name


@pytest.mark.parametrize("name", [*BAD, *ODD])
def test_names_that_lead_elsewhere_or_are_not_taken_are_refused(name):
    with pytest.raises(ConfigurationError, match="run_name: expected letters"):
        check_name(name, "run_name")


@pytest.mark.parametrize("alias", ["champion", "night-2", "4a"])
def test_aliases_pass(alias):
    assert check_alias(alias, "alias") == alias


@pytest.mark.parametrize("alias", ["", "3", "v3", "V12", "latest", "Latest", "a b", "a.b", "-x", "a/b", None])
def test_aliases_that_are_numbers_or_reserved_are_refused(alias):
    with pytest.raises(ConfigurationError, match="alias: expected"):
        check_alias(alias, "alias")
