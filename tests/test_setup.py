"""setup.sh: clear messages, nothing done twice, from any directory. A stand-in for uv writes down its calls."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [ROOT / "setup.sh", ROOT / ".ci" / "run", ROOT / "docker-entrypoint.sh"]


@pytest.fixture
def checkout(tmp_path):
    """A folder with all that setup.sh reads."""
    folder = tmp_path / "check out"  # a space: paths must be quoted
    folder.mkdir()
    for name in ("setup.sh", "pyproject.toml", "constraints.txt", "config.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "conf", folder / "conf")
    return folder


@pytest.fixture
def stand_in_uv(tmp_path):
    """A program that makes the environment from the running one instead of downloading."""
    packages, version = sysconfig.get_path("purelib"), sysconfig.get_python_version()
    path = tmp_path / "uv"
    path.write_text(
        f"""#!/usr/bin/env bash
set -eu
printf '%s\\n' "$*" >>"{tmp_path}/calls"
case "$1 ${{2:-}}" in
"--version "*) ;;
"venv "*)
    "{sys.executable}" -m venv --without-pip "${{@: -1}}"
    cd "${{@: -1}}/lib/python{version}/site-packages"
    printf '%s\\n' "{ROOT / "src"}" "{packages}" >there.pth
    ;;
"pip install")
    while [[ "$1" != --python ]]; do shift; done
    bin="$(dirname "$2")"
    printf '#!/bin/sh\\nexec "%s/python" -m glitchflow_plugin.cli "$@"\\n' "$bin" >"$bin/glitchflow"
    chmod +x "$bin/glitchflow"
    ;;
esac
""",
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


def run_setup(folder, cwd, **environment):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GLITCHFLOW_", "PYTHON", "UV"))}
    return subprocess.run(
        ["bash", str(folder / "setup.sh")],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_executable_and_parse(script):
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_a_wrong_python_is_named_with_what_to_do(checkout, tmp_path):
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\ncase "$*" in *platform*) echo 3.9.18 ;; *) exit 1 ;; esac\n', encoding="utf-8")
    old.chmod(0o755)
    answer = run_setup(checkout, tmp_path, PYTHON=str(old))
    assert answer.returncode == 1
    assert "3.11 or 3.12 is needed" in answer.stderr
    assert "3.9.18" in answer.stderr
    assert "Set PYTHON" in answer.stderr
    assert not (checkout / ".venv").exists()


def test_a_full_disk_is_named_before_anything_is_installed(checkout, tmp_path, stand_in_uv):
    answer = run_setup(
        checkout, tmp_path, PYTHON=sys.executable, UV=str(stand_in_uv), GLITCHFLOW_MIN_FREE_GB="100000000"
    )
    assert answer.returncode == 1
    assert "free disk space" in answer.stderr
    assert "GLITCHFLOW_VENV" in answer.stderr
    assert not (checkout / ".venv").exists()


def test_a_folder_in_the_way_is_not_removed(checkout, tmp_path, stand_in_uv):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "precious").touch()
    answer = run_setup(checkout, tmp_path, PYTHON=sys.executable, UV=str(stand_in_uv), GLITCHFLOW_MIN_FREE_GB="0")
    assert answer.returncode == 1
    assert "is no Python environment" in answer.stderr
    assert (checkout / ".venv" / "precious").exists()


def test_an_unknown_argument_is_refused(checkout):
    answer = subprocess.run(["bash", str(checkout / "setup.sh"), "--fast"], capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "usage" in answer.stderr


@pytest.mark.slow
def test_second_run_installs_nothing_until_the_pins_change(checkout, tmp_path, stand_in_uv):
    calls = tmp_path / "calls"
    settings = {"PYTHON": sys.executable, "UV": str(stand_in_uv), "GLITCHFLOW_MIN_FREE_GB": "0"}
    first = run_setup(checkout, tmp_path, **settings)
    assert first.returncode == 0, first.stderr
    installs = [line for line in calls.read_text(encoding="utf-8").splitlines() if line.startswith("pip install")]
    assert len(installs) == 1
    assert "--constraints constraints.txt" in installs[0]
    assert installs[0].endswith(".[dev,docs,frames,onnx,ui]")
    for name in ("annalisarun", "datasets", "QTdatasets", "temp"):
        assert (checkout / name).is_dir()
        assert not (tmp_path / name).exists()

    calls.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    second = run_setup(checkout, elsewhere, **settings)
    assert second.returncode == 0, second.stderr
    assert not calls.exists()
    assert "up to date" in second.stdout
    assert list(elsewhere.iterdir()) == []

    with (checkout / "constraints.txt").open("a", encoding="utf-8") as file:
        file.write("# another pin\n")
    third = run_setup(checkout, tmp_path, **settings)
    assert third.returncode == 0, third.stderr
    assert "pip install" in calls.read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_environment_that_lost_its_package_is_installed_again(checkout, tmp_path, stand_in_uv):
    settings = {"PYTHON": sys.executable, "UV": str(stand_in_uv), "GLITCHFLOW_MIN_FREE_GB": "0"}
    assert run_setup(checkout, tmp_path, **settings).returncode == 0
    (tmp_path / "calls").unlink()
    next((checkout / ".venv" / "lib").glob("python*/site-packages/there.pth")).unlink()
    run_setup(checkout, tmp_path, **settings)
    assert "pip install" in (tmp_path / "calls").read_text(encoding="utf-8")


def test_constraints_pin_everything_without_addresses():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 100
    for line in lines:
        assert "://" not in line
        assert not line.startswith(("-", "#"))
        assert "==" in line


@pytest.mark.parametrize("works", [True, False])
def test_the_second_python_is_one_that_works(tmp_path, works):
    """A command of that name may be a version manager's, which only complains."""
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = text[text.index("python312() {") : text.index("step make setup")]
    for name, code in (("bin/python3.12", 127), ("versions/3.12.9/bin/python3.12", 0 if works else 127)):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\nexit {code}\n", encoding="utf-8")
        path.chmod(0o755)
    known = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path)}
    script = f"set -euo pipefail\n{function}\nif other=$(python312); then echo $other; else echo none; fi"
    answer = subprocess.run(["bash", "-c", script], env=known, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == (str(tmp_path / "versions/3.12.9/bin/python3.12") if works else "none")
