"""The container's files and its entry point, as far as they can be tried without a container."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_image_is_built_from_files_that_docker_is_sent():
    """What the Dockerfile copies is neither missing nor left out by .dockerignore, which begins by leaving out all."""
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names == sent
    assert all((ROOT / name).exists() for name in names)


def enter(folder, *words, script=ROOT / "docker-entrypoint.sh", user=None):
    """What the image does with the words after its name: the container's user is number 10001, or any other."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [script, *words], cwd=folder, env=environment, user=user, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_an_empty_folder_is_filled_and_the_words_are_overrides(tmp_path):
    answer = enter(tmp_path, "run_name=inside", "--cfg", "job")
    assert answer.returncode == 0, answer.stderr
    assert "was empty" in answer.stderr
    assert "run_name: inside" in answer.stdout
    assert (tmp_path / "config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert (tmp_path / "slurm" / "train.sbatch").exists()
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text() + "mine: kept\n")
    answer = enter(tmp_path, "+pipe_key=simulate_pipeline", "--cfg=job")
    assert "mine: kept" in answer.stdout, answer.stderr
    assert "was empty" not in answer.stderr


@pytest.mark.parametrize("words", [("+pipe_key=simulate_pipeline",), ("itwinai", "exec-pipeline", "a=b")])
def test_a_folder_with_other_things_is_left_as_it_is(tmp_path, words):
    (tmp_path / "run").mkdir()
    answer = enter(tmp_path, *words)
    assert answer.returncode == 1
    assert "no config.yaml" in answer.stderr
    assert "glitchflow init ." in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_another_user_is_named():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        script = shutil.copy(ROOT / "docker-entrypoint.sh", folder)  # the checkout may be out of that user's reach
        answer = enter(folder, "+pipe_key=simulate_pipeline", script=script, user=54321)
    assert answer.returncode == 1
    assert "user 54321 cannot write" in answer.stderr
    assert "--user" in answer.stderr


def test_other_words_are_commands(tmp_path):
    assert enter(tmp_path, "glitchflow", "--version").stdout.startswith("glitchflow_plugin ")
    assert enter(tmp_path, "bash", "-c", "exit 3").returncode == 3
    assert not list(tmp_path.iterdir())
