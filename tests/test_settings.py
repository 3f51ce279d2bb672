from dataclasses import dataclass

import pytest

from glitchflow_plugin.errors import ConfigurationError, nearest
from glitchflow_plugin.settings import FORMER, as_float, built, check_arguments


@dataclass(frozen=True)
class Sieve:
    threshold: float = 1.0
    bins: int = 4
    names: tuple[str, ...] = ()
    limit: float | None = None

    def __post_init__(self):
        if isinstance(self.names, str):
            object.__setattr__(self, "names", (self.names,))
        if self.threshold < 0:
            raise ConfigurationError(f"threshold must be at least 0, got {self.threshold}")


def test_what_yaml_gives_is_taken_as_it_is():
    assert built(Sieve, {"threshold": 3, "names": "a"}, "sieve") == Sieve(3, names=("a",))
    assert built(Sieve, {"names": ["a", "b"], "limit": None}, "sieve").names == ["a", "b"]
    assert built(Sieve, None, "sieve") == Sieve()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"treshold": 3}, r"sieve: unknown key 'treshold'\. Nearest: threshold\. It takes threshold, bins"),
        ({"threshold": "abc"}, r"sieve\.threshold: expected float .* got 'abc'"),
        ({"threshold": True}, r"sieve\.threshold: expected float"),
        ({"bins": "4"}, r"sieve\.bins: expected int"),
        ({"bins": 4.5}, r"sieve\.bins: expected int"),
        ({"limit": [1]}, r"sieve\.limit: expected float \| None"),
        ({"threshold": -1}, r"sieve: threshold must be at least 0"),
        ("abc", "sieve: expected keys with values, got 'abc'"),
    ],
)
def test_mistakes_are_explained(content, told):
    with pytest.raises(ConfigurationError, match=told):
        built(Sieve, content, "sieve")


def test_arguments_of_a_step_are_checked_for_text_in_place_of_numbers():
    def execute(epochs: int, device: str = "auto", seed: int | None = None): ...

    check_arguments(execute, {"epochs": 3, "device": "cpu", "seed": None, "unknown": "x"}, "Step")
    with pytest.raises(ConfigurationError, match=r"Step\.epochs: expected int .* got 'abc'"):
        check_arguments(execute, {"epochs": "abc"}, "Step")


def test_near_names_are_found_whatever_the_case():
    assert nearest("v1:env_mik", ["V1:ENV_MIC", "V1:SUS_X"]) == " Nearest: V1:ENV_MIC."
    assert nearest("zzz", ["V1:ENV_MIC"]) == ""


OF_BEFORE = {
    "process": {
        "num_batch": 4,
        "qtile": False,
        "psd": None,
        "energy_mode": True,
        "phase_mode": False,
        "window_param": None,
        "tau": None,
        "beta": None,
        "shuffle": False,
        "qslicemin": None,
        "qslicemax": None,
    },
    "scan": {"qtile": False},
}


@pytest.mark.parametrize("where", OF_BEFORE)
def test_files_of_before_are_taken_with_a_warning(where, caplog):
    @dataclass(frozen=True)
    class Now:
        num_batch: int = 8

    assert built(Now, OF_BEFORE[where], where) == Now(OF_BEFORE[where].get("num_batch", 8))
    (said,) = caplog.messages
    assert all(key in said for key in OF_BEFORE[where] if key != "num_batch")
    assert "num_batch" not in said


@pytest.mark.parametrize(("where", "key"), [(where, key) for where, keys in FORMER.items() for key in keys])
def test_a_key_that_there_was_is_answered_with_what_to_do(where, key):
    for value in (3, "False", [4, 8]):
        with pytest.raises(ConfigurationError, match=rf"^{where}\.{key} .*(?:Remove it|Write|move it)") as told:
            built(Sieve, {key: value}, where)
        assert repr(value) in str(told.value)
    with pytest.raises(ConfigurationError, match="unknown key"):
        built(Sieve, {key: 3}, "elsewhere")


def test_whole_numbers_are_stored_as_floats_and_nothing_else_changes():
    for value, stored in ((16, "16.0"), (16.5, "16.5"), (True, "True"), ("16", "'16'"), (None, "None")):
        made = Sieve(limit=value)
        as_float(made, "limit")
        assert repr(made.limit) == stored
