from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import numpy as np
import pytest
from omegaconf import OmegaConf
from pydantic import Field

import glitchflow_plugin
from glitchflow_plugin.errors import ConfigurationError, nearest
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.settings import (
    FORMER,
    CountOrAll,
    Number,
    Positive,
    PositiveNumber,
    Range,
    Texts,
    built,
    check_arguments,
    section,
)
from glitchflow_plugin.signal.qtransform import QTransformSettings


@section
class Sieve:
    threshold: float = 1.0
    bins: int = 4
    names: Texts = ()
    limit: float | None = None

    def __post_init__(self):
        if self.threshold < 0:
            raise ConfigurationError(f"threshold must be at least 0, got {self.threshold}")


@section
class Works:
    place: str
    sieve: Sieve = field(default_factory=Sieve)
    others: Mapping[str, Sieve] = field(default_factory=dict)
    rows: tuple[Sieve, ...] = ()
    method: Literal["median", "mean"] = "median"
    quick: bool = False
    band: Range = (8.0, 400.0)
    width: Positive | None = None
    near: Annotated[float | None, Field(gt=0, description="how near two are, in s")] = None
    length: PositiveNumber = 256.0
    either: Number | tuple[Number, ...] = 12.0
    workers: CountOrAll = None


def test_what_yaml_gives_is_taken_as_it_is():
    assert built(Sieve, {"threshold": 3, "names": "a"}, "sieve") == Sieve(3, names=("a",))
    assert built(Sieve, {"names": ["a", "b"], "limit": None}, "sieve").names == ("a", "b")
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
    @section
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
    for value, stored in ((16, "16.0"), (16.5, "16.5"), (None, "None")):
        assert repr(Sieve(limit=value).limit) == stored
    assert repr(Sieve(bins=4.0).bins) == "4"


def test_what_is_kept_as_it_is_written():
    for written in (256, 256.0):
        assert repr(Works("a", length=written).length) == repr(written)
    assert repr(Works("a", either=(8, 12.0)).either) == "(8, 12.0)"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, r"^works: place is missing\. It takes place, sieve, "),
        ({"plaze": "here"}, r"^works: unknown key 'plaze'\. Nearest: place\."),
        ({"place": 3}, r"^works\.place: expected str .* got 3\."),
        ({"sieve": {"bims": 3}}, r"^works\.sieve: unknown key 'bims'\. Nearest: bins\. It takes threshold, bins,"),
        ({"sieve": {"bins": "3"}}, r"^works\.sieve\.bins: expected int .* got '3'"),
        ({"sieve": {"threshold": -1}}, r"^works\.sieve: threshold must be at least 0"),
        ({"sieve": 3}, r"^works\.sieve: expected keys with values, got 3"),
        ({"others": {"fine": {"bims": 3}}}, r"^works\.others\.fine: unknown key 'bims'"),
        ({"others": {"fine": {"bins": True}}}, r"^works\.others\.fine\.bins: expected int .* got True"),
        ({"rows": [{}, {"limit": "a"}]}, r"^works\.rows\[1\]\.limit: expected float \| None .* got 'a'"),
        ({"method": "meen"}, r"^works\.method must be one of median, mean, got 'meen'\. Nearest: mean"),
        ({"quick": "False"}, r"^works\.quick must be true or false without quotes, got 'False'"),
        ({"quick": 1}, r"^works\.quick must be true or false without quotes, got 1"),
        ({"band": [8]}, r"^works\.band\[1\]: expected two numbers \[low, high\] .* got \[8\]"),
        ({"band": [400, 8]}, r"^works\.band: expected \[low, high\] with low <= high, got \[400\.0, 8\.0\]"),
        ({"band": ["8", 9]}, r"^works\.band\[0\]: expected two numbers \[low, high\] .* got '8'"),
        ({"width": 0}, r"^works\.width: expected float \| None \(above 0\), got 0"),
        ({"width": float("nan")}, r"^works\.width: expected float \| None \(above 0\), got nan"),
        ({"near": 0}, r"^works\.near: expected how near two are, in s \(above 0\), got 0"),
        ({"length": float("inf")}, r"^works\.length: expected float \| int .* got inf"),
        ({"either": "12"}, r"^works\.either: expected float \| int \| tuple\[.* got '12'"),
        ({"either": [12, "8"]}, r"^works\.either.* got '8'|^works\.either: .* got \[12, '8'\]"),
        ({"workers": -1}, r"^works\.workers: expected int \| None \(at least 1\), got -1"),
    ],
)
def test_the_place_of_a_mistake_is_told_however_deep_it_is(content, told):
    given = content if {"place", "plaze"} & {*content} or not content else {"place": "here", **content}
    with pytest.raises(ConfigurationError, match=told):
        built(Works, given, "works")
    with pytest.raises(ConfigurationError, match=told):
        built(Works, OmegaConf.create(given), "works")


def test_a_class_called_by_itself_says_the_same_without_a_section():
    with pytest.raises(ConfigurationError, match=r"^width: expected float \| None \(above 0\), got -1\.$"):
        Works("here", width=-1)
    with pytest.raises(ConfigurationError, match=r"^place: expected str .* got 3"):
        Works(3)
    with pytest.raises(TypeError, match=r"^unknown key 'widht'\. Nearest: width"):
        Works("here", widht=3)
    with pytest.raises(ConfigurationError, match=r"^quick must be true"):
        replace(Works("here"), quick="no")


def test_zero_for_all_is_still_taken_with_a_word(caplog):
    assert built(Works, {"place": "a", "workers": 0}, "works").workers is None
    assert "workers: 0 is taken as null" in caplog.text


def _sections():
    source = Path(glitchflow_plugin.__file__).parent
    for path in source.rglob("*.py"):
        # what is in components/ waits for itwinai
        if path.parent.name != "components" and "\n@section\n" in path.read_text():
            module = import_module(".".join(path.relative_to(source.parent).with_suffix("").parts))
            yield from (
                kind
                for kind in vars(module).values()
                if isinstance(kind, type) and is_dataclass(kind) and hasattr(kind, "__pydantic_fields__")
            )


def test_no_class_of_settings_takes_text_for_a_number_or_a_number_for_a_text():
    kinds = set(_sections())
    assert len(kinds) > 25
    wrong = {float: ("1", True), int: ("1", True, 1.5), bool: ("true", 1), str: (1,)}
    for kind in kinds:
        hints = get_type_hints(kind)
        for each in fields(kind):
            for value in wrong.get(hints[each.name], ()):
                with pytest.raises(ConfigurationError, match=rf"\b{each.name}\b"):
                    built(kind, {each.name: value}, "section")


def test_scalars_of_numpy_are_numbers():
    made = QTransformSettings(q=np.float32(12), num_times=np.int64(64))
    assert (made.q, type(made.q), made.num_times, type(made.num_times)) == (12.0, float, 64, int)
    with pytest.raises(ConfigurationError, match="num_times: expected int"):
        QTransformSettings(num_times=np.bool_(True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"q": [12, "x"]}, r"scan\.q\[1\]: expected a number, or a list of numbers .*, got 'x'\."),
        ({"tolerance_distance": [1, 2, 3]}, r"expected seconds, or a pair \[seconds, octaves\], got \[1, 2, 3\]\."),
        ({"injections": ["a"]}, r"scan\.injections\[0\]: expected a list of GPS times .*, got 'a'\."),
        ({"frange": "8-400"}, r"expected a pair \[lowest, highest\] in Hz \(a list\), got '8-400'\."),
    ],
)
def test_what_may_be_one_of_several_is_described_in_words(given, message):
    with pytest.raises(ConfigurationError, match=message):
        built(ScanSettings, given, "scan")
