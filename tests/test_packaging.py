"""A built wheel works in an environment that has nothing of the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
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
    for file in sorted((ROOT / "src").rglob("*.py")):
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
    assert run([environment / "bin" / "python", "-c", code], cwd=folder).strip() == "my_run"
