"""What a developer relies on: shapes are checked while tests run, and `make` finds the tests of a room."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.conftest import CHECKED

ROOT = Path(__file__).parents[1]
ROOMS = {path.stem for path in (ROOT / "src" / "glitchflow_plugin").glob("[a-z]*")}


@pytest.mark.parametrize("name", CHECKED)
def test_a_module_is_loaded_with_its_checks(name):
    """One that has moved, or that was imported before, would be left out without a word."""
    found = find_spec(f"glitchflow_plugin.{name}")
    assert found is not None
    assert type(found.loader).__module__.startswith("jaxtyping")


def make(*words):
    # `make test` hands its own settings to a make below it, which then says where it is
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("target", ["fast", "test"])
def test_the_tests_of_rooms_run_alone(target):
    every, some = make(target), make(target, "ROOM=signal cli")
    assert (every.returncode, some.returncode) == (0, 0)
    assert "tests/" not in every.stdout.splitlines()[-1]
    assert some.stdout.splitlines()[-1].endswith(" tests/signal tests/test_cli.py")


@pytest.mark.parametrize("room", ["sginal", "conftest", "_limits"])
def test_a_room_without_tests_is_named_with_those_that_have(room):
    said = make("fast", f"ROOM={room}")
    assert said.returncode != 0
    assert f"ROOM={room} has no tests. Choose of: " in said.stderr
    assert {"signal", "cli"} <= set(re.findall(r"\w+", said.stderr))


def test_every_room_has_tests():
    offered = set(re.findall(r"\w+", make("fast", "ROOM=none").stderr))
    assert ROOMS - {"types", "errors", "__init__"} <= offered
