"""What the documentation says can be done: commands, links, pipelines, steps and keys exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONF_FILES = sorted((ROOT / "conf").glob("*.yaml"))


def text(path):
    return path.read_text(encoding="utf-8")


def pipelines():
    """Steps by name of the pipeline."""
    files = sorted((ROOT / "conf" / "pipelines").glob("*.yaml"))
    return {file.stem: list(yaml.safe_load(text(file))["steps"]) for file in files}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z]+):", text(ROOT / "Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text(page), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if "://" in target or target.startswith("#"):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target} does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pipelines_and_steps_exist(page):
    known = pipelines()
    for line in text(page).splitlines():
        keys = re.findall(r"\+pipe_key=(\w+)", line)
        assert set(keys) <= set(known), line
        # Without a key exec-pipeline runs the training pipeline; `[...]` in an explanation stands for any list.
        for steps in re.findall(r"\+pipe_steps=\[([\w,-]+)\]", line):
            held = known[keys[0]] if keys else [step for names in known.values() for step in names]
            assert set(steps.split(",")) <= set(held), line


def test_every_pipeline_and_step_is_in_the_guide():
    guide = text(ROOT / "docs" / "pipelines.md")
    for name, steps in pipelines().items():
        assert f"`{name}`" in guide
        for step in steps:
            assert step in guide, f"{step} of {name}"


def overrides(page):
    """Overrides in the commands of a page, as (key, value)."""
    found = []
    for line in text(page).splitlines():
        if "itwinai exec-pipeline" in line:
            found += re.findall(r"(?<![\w+/.-])([a-z_]+(?:\.[a-z_]+)+)=(\S+)", line.replace("`", " "))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_overrides_name_keys_that_exist(page):
    for key, _ in overrides(page):
        group, _, rest = key.partition(".")
        file = ROOT / "conf" / f"{group}.yaml"
        if group == "hydra":
            continue
        assert file.exists(), f"{page.name}: {key}"
        value = yaml.safe_load(text(file))
        for part in rest.split("."):
            assert part in value, f"{page.name}: {key}"
            value = value[part]


@pytest.mark.parametrize("file", CONF_FILES, ids=lambda file: file.name)
def test_every_key_of_the_configuration_is_explained(file):
    """A key has a comment on its line or on the line above; the first line tells what the file is for."""
    lines = text(file).splitlines()
    assert lines[0].startswith("#"), f"{file.name} does not begin with what it is for"
    for number, line in enumerate(lines):
        if re.match(r"[A-Za-z_][\w-]*:", line):
            above = lines[number - 1].lstrip() if number else ""
            assert "#" in line or above.startswith("#"), f"{file.name}:{number + 1}: {line}"


def test_every_configuration_file_is_in_the_guide():
    guides = text(ROOT / "docs" / "pipelines.md") + text(ROOT / "docs" / "own-data.md") + text(ROOT / "README.md")
    for file in CONF_FILES:
        assert file.name in guides, f"{file.name} is explained nowhere"
    for file in (ROOT / "conf" / "profile").glob("*.yaml"):
        assert f"`{file.stem}`" in guides, f"the profile {file.stem} is explained nowhere"


def test_readme_has_the_two_commands():
    readme = text(ROOT / "README.md")
    assert "make demo" in readme
    assert "make test" in readme
    run = text(ROOT / ".ci" / "run")
    assert "make demo" in run
    assert "make test" in run


def test_servers_are_bound_to_this_machine():
    """MLflow and TensorBoard ask for no password."""
    for file in (ROOT / "Makefile", *PAGES):
        for line in text(file).replace("\\\n", " ").splitlines():
            if re.search(r"\b(mlflow server|tensorboard) .*--(backend|logdir)", line):
                assert "--host 127.0.0.1" in line, f"{file.name}: {line}"


@pytest.mark.slow
def test_documentation_builds(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert (tmp_path / "site" / "index.html").exists()
