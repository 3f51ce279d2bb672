"""A built wheel works in an environment that has nothing of the checkout, and so does the container's entry point."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def clean_environment():
    """The environment without anything that could lead a fresh interpreter back to the checkout."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}


def run(command, **options):
    answer = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, env=clean_environment(), **options
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT])
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An empty environment with the wheel; its dependencies are those of the running interpreter, not copies."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed")
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    python = folder / "bin" / "python"
    run([uv, "pip", "install", "--offline", "--no-deps", "--python", python, wheel])
    # A .pth file inside this folder is not followed, so the editable checkout stays out of reach.
    site_packages = next((folder / "lib").glob("python*/site-packages"))
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder


def test_wheel_holds_code_configuration_and_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        assert f"glitchflow_plugin/defaults/{file.relative_to(ROOT)}" in names
    assert "glitchflow_plugin/defaults/config.yaml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for file in sorted((ROOT / "src" / "glitchflow_plugin").rglob("*.py")):
        assert str(file.relative_to(ROOT / "src")) in names


def test_installed_package_is_imported_from_the_wheel(environment, tmp_path):
    code = "import glitchflow_plugin as g; print(g.__file__); print(g.__version__)"
    file, version = run([environment / "bin" / "python", "-c", code], cwd=tmp_path).split()
    assert Path(file).is_relative_to(environment)
    assert version.count(".") == 2


def test_installed_user_can_start_anywhere(environment, tmp_path):
    folder = tmp_path / "my run"
    run([environment / "bin" / "glitchflow", "init", folder], cwd=tmp_path)
    assert (folder / "config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    for file in [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "slurm").iterdir()]:
        assert (folder / file.relative_to(ROOT)).read_bytes() == file.read_bytes()
    for name in ("annalisarun", "datasets", "QTdatasets", "temp"):
        assert (folder / name).is_dir()
    # The way `itwinai exec-pipeline` composes it: from the run folder.
    code = """
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
with initialize_config_dir(config_dir=__import__("os").getcwd(), version_base=None):
    config = compose("config")
for name in ("preproc_pipeline", "training_pipeline", "inference_pipeline", "vis_dts", "glitchflow_pipeline"):
    OmegaConf.to_container(config[name], resolve=True)
print(config.run_name)
"""
    assert run([environment / "bin" / "python", "-c", code], cwd=folder).strip() == "demo"


# ------------------------------------------------------------------------------------------------------- container


def test_the_image_is_built_from_files_that_docker_is_sent():
    """What the Dockerfile copies is neither missing nor left out by .dockerignore, which begins by leaving out all."""
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names == sent
    assert all((ROOT / name).exists() for name in names)


def enter(folder, *words, user=None):
    """What the image does with the words after its name: the container's user is number 10001, or any other."""
    environment = clean_environment() | {"PYTHONPATH": str(ROOT / "src")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [ROOT / "docker-entrypoint.sh", *words]
    return subprocess.run(command, cwd=folder, env=environment, user=user, capture_output=True, text=True, check=False)


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
        answer = enter(folder, "+pipe_key=simulate_pipeline", user=54321)
    assert answer.returncode == 1
    assert "user 54321 cannot write" in answer.stderr
    assert "--user" in answer.stderr


def test_other_words_are_commands(tmp_path):
    assert enter(tmp_path, "glitchflow", "--version").stdout.startswith("glitchflow_plugin ")
    assert enter(tmp_path, "bash", "-c", "exit 3").returncode == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("option", "shown"), [(None, False), ("default", True)])
def test_torchs_word_about_pynvml_is_shown_only_to_who_asks(tmp_path, option, shown):
    (tmp_path / "say.py").write_text(
        "import warnings\nimport glitchflow_plugin\nwarnings.warn('another word', FutureWarning)\nimport torch\n"
    )
    environment = clean_environment() | {"PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": ""}
    options = ["-W", option] if option else []
    command = [sys.executable, *options, tmp_path / "say.py"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "another word" in answer.stderr
    assert ("The pynvml package is deprecated" in answer.stderr) is shown
