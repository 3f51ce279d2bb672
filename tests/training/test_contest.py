import pytest
from tests._configuration import section as configured

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.build import full_settings
from glitchflow_plugin.training.contest import Entrant, entrants_of


def test_entrants_are_named_checked_and_left_out_where_they_have_no_content():
    found = entrants_of({"zero": {"model": {"name": "zero"}}, "ours": None, "wiener": {"model": {"name": "wiener"}}})
    assert list(found) == ["zero", "wiener"]
    assert [one.closed_form for one in found.values()] == [False, True]
    assert not Entrant({"name": "coupling"}).closed_form
    for wrong, said in (
        ({}, "at least one entrant"),
        ({"mean map": {"model": {"name": "zero"}}}, "of every leaderboard already"),
        ({"a/b": {"model": {"name": "zero"}}}, "name of an entrant"),
        ({"a": {"model": {"name": "unnet"}}}, "unnet"),
        ({"a": {"model": {"name": "unet", "bse": 4}}}, "bse"),
        ({"a": {"model": {"name": "zero"}, "confg": {}}}, "confg"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            entrants_of(wrong)


def test_the_leaderboard_enters_the_default_network_as_its_own_file_has_it():
    chosen = "conf/model=coupling"
    entrant, rate = configured("benchmark.entrants.coupling", chosen), configured("training.config.optim_lr", chosen)

    def complete(model):
        return full_settings(model.pop("name"), in_channels=7, **model)

    assert complete(entrant["model"]) == complete(configured("model", chosen))
    assert entrant["config"] == {"optim_lr": rate}
