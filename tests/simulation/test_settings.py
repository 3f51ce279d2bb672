from dataclasses import replace

import pytest
import yaml

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation.families import FAMILIES
from glitchflow_plugin.simulation.noise import Line
from glitchflow_plugin.simulation.settings import SimulationSettings, default_families, known_families


def test_the_defaults_are_the_embedded_families():
    assert SimulationSettings().families == default_families()


def test_yaml_dictionaries_become_settings():
    settings = built(
        SimulationSettings,
        {
            "families": {"blip": {"snr": [5, 10]}, "tomte": None},
            "mergers": {"fraction": 0.5, "snr": [8, 9]},
            "background": {"files": ["a.hdf5"], "exclude": [[1, 2]]},
            "bank": {"path": "bank.h5", "indices": [0, 1]},
        },
        "simulate",
    )
    assert settings.families == {
        "blip": replace(default_families()["blip"], snr=(5.0, 10.0)),
        "tomte": default_families()["tomte"],
    }
    assert settings.mergers.snr == (8.0, 9.0)
    assert settings.background.exclude == ((1.0, 2.0),)
    assert settings.bank.indices == (0, 1)


def test_a_bank_replaces_the_families_unless_they_are_given():
    assert built(SimulationSettings, {"bank": {"path": "x"}}, "simulate").families == {}
    assert list(built(SimulationSettings, {"bank": {"path": "x"}, "families": {"blip": {}}}, "simulate").families) == [
        "blip"
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"families": {"koi_fish": {}}}, "blip"),
        ({"mergers": {"share": 0.1}}, "fraction"),
        ({"spacing": 8.0}, "overlap"),
        ({"sample_rate": 4000.0}, "2048"),
        ({"noise": "kagra"}, "advirgo"),
        ({"no_glitch_fraction": 1.2}, "no_glitch_fraction"),
        ({"mergers": {"fraction": 2.0}}, "mergers.fraction"),
        ({"transient_snr": [9, 3]}, "low <= high"),
        ({"transient_snr": 9}, "two numbers"),
        ({"time_jitter": 6.0}, "time_jitter"),
        ({"duration": 4.0}, "8 s"),
        ({"num_events": 0}, "num_events"),
        ({"background": {"files": []}}, "background.files"),
        ({"background": {"files": ["x"], "mode": "white"}}, "stretch"),
        ({"families": {"blip": {"weight": -1.0}}}, "weight"),
    ],
)
def test_wrong_settings_are_refused_with_a_hint(wrong, told):
    with pytest.raises(ConfigurationError, match=told):
        built(SimulationSettings, wrong, "simulate")


def test_a_misspelt_key_fails():
    with pytest.raises(ConfigurationError, match=r"'num_event'.*Nearest: num_events"):
        built(SimulationSettings, {"num_event": 3}, "simulate")


def test_whole_numbers_and_single_names_are_taken_as_meant():
    settings = built(
        SimulationSettings,
        {"duration": 16, "background": {"files": "a.hdf5"}, "lines": [{"frequency": 50, "height": 3}]},
        "simulate",
    )
    assert isinstance(settings.duration, float)
    assert isinstance(settings.num_events, int)
    assert settings.background.files == ("a.hdf5",)
    assert settings.lines == (Line(50.0, 3.0),)


def test_no_mergers():
    assert built(SimulationSettings, {"mergers": None}, "simulate").mergers.fraction == 0.0


def test_the_number_of_events_is_not_part_of_the_recipe():
    assert SimulationSettings(num_events=3).recipe() == SimulationSettings(num_events=5).recipe()
    assert SimulationSettings(seed=3).recipe() != SimulationSettings(seed=5).recipe()


def test_lists_of_files_stay_flat_whether_one_or_several():
    several = built(
        SimulationSettings, {"background": {"files": ["a.hdf5", "b.hdf5"], "exclude": [[1, 2]]}}, "simulate"
    )
    assert several.background.files == ("a.hdf5", "b.hdf5")
    assert several.background.exclude == ((1.0, 2.0),)
    assert built(SimulationSettings, {"background": {"files": "a.hdf5"}}, "simulate").background.files == ("a.hdf5",)


def test_families_outside_the_default_have_settings_too_and_are_off_unless_named():
    settings = built(SimulationSettings, {"families": {"hysteresis": {}, "blip": {}}}, "simulate")
    assert settings.families == {"hysteresis": known_families()["hysteresis"], "blip": default_families()["blip"]}
    assert set(SimulationSettings().families) == set(default_families()) < set(known_families()) == set(FAMILIES)


def test_the_profile_of_the_leaderboard_has_every_family_as_it_is_known_and_as_often(request):
    conf = request.config.rootpath / "conf"
    detector = yaml.safe_load((conf / "simulate.yaml").read_text())["detector"]
    profile = yaml.safe_load((conf / "profile" / "leaderboard.yaml").read_text())["simulate"]
    families = {**detector["families"]}
    for name, changed in profile["detector"]["families"].items():
        families[name] = {**families.get(name, {}), **changed}
    found = built(SimulationSettings, {"families": families}, "simulate").families
    assert found == {name: replace(one, weight=1.0) for name, one in known_families().items()}
    # the two sets lie on days of their own
    end = 1_400_000_000.0 + profile["sets"]["training"]["num_events"] * profile["detector"]["spacing"]
    assert end < profile["sets"]["inference"]["gps_start"]
    held_out = profile["sets"]["inference"]["num_events"] * (1 - detector["no_glitch_fraction"]) / len(found)
    assert held_out * (1 - detector["no_witness_fraction"]) > 10
