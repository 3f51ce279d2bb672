import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import glitchflow_plugin.products.environment as module
from glitchflow_plugin import __version__
from glitchflow_plugin.products.environment import environment, git_commit, program
from glitchflow_plugin.training.registration import provenance

ROOT = Path(__file__).parents[2]


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    answer = subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True)
    return answer.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "src" / "glitchflow_plugin").mkdir(parents=True)
    (tmp_path / "file").write_text("one")
    git(tmp_path, "init")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_the_commit_of_a_checkout_is_known_and_its_changes(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert git_commit(checkout) == head
    (checkout / "file").write_text("two")
    assert git_commit(checkout) == f"{head}+changes"


def test_an_installed_package_has_no_commit(checkout):
    # somebody's own repository, in which the package happens to be installed
    (checkout / "src" / "glitchflow_plugin").rmdir()
    assert git_commit(checkout) is None
    assert git_commit(checkout / "nowhere") is None


def test_all_packages_are_listed():
    found = environment()
    assert found["glitchflow_plugin"] == __version__
    assert found["packages"] == {name: metadata.version(name) for name in found["packages"]}
    assert {"torch", "numpy", "mlflow"} <= set(found["packages"])
    assert found["platform"]


def test_who_asks_for_the_code_alone_does_not_wait_for_the_packages(monkeypatch):
    monkeypatch.setattr(module.metadata, "distributions", lambda: pytest.fail("the packages were read"))
    assert provenance("abc")["code_version"] == program()["glitchflow_plugin"] == __version__
