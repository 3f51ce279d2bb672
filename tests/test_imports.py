"""Every room is named by the import contracts, and data-only steps start without the heavy libraries."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "glitchflow_plugin"
#: What a data-only step imports; none of it may load torch, gwpy, mlflow or matplotlib.
LIGHT = (
    "cli",
    "errors",
    "types.arrays",
    "data.*",
    "signal.filters",
    "signal.psd",
    "signal.whitening",
    "signal.conditioning",
    "signal.trigger_clusters",
    "preprocessing.ingest",
    "preprocessing.triggers",
    "preprocessing.engine",
    "preprocessing.quality",
    "products.summary",
    "components.data_processor",
    "components.splitter",
    "components.simulator",
)
WITH_TORCH = {
    f"glitchflow_plugin.data.{name}"
    for name in ("series_dataset", "triggers.series", "triggers.sets", "triggers.stream", "window_dataset")
}
HEAVY = ("torch", "gwpy", "mlflow", "matplotlib", "ray")


def light_modules():
    """The modules of LIGHT that exist, by full name."""
    found = []
    for pattern in LIGHT:
        files = PACKAGE.glob("**/*.py") if pattern.endswith("*") else [PACKAGE / f"{pattern.replace('.', '/')}.py"]
        for file in sorted(files):
            name = ".".join(("glitchflow_plugin", *file.relative_to(PACKAGE).with_suffix("").parts))
            wanted = name.startswith(f"glitchflow_plugin.{pattern[:-1]}") if pattern.endswith("*") else file.is_file()
            if wanted and not name.endswith("__init__") and name not in WITH_TORCH:
                found.append(name)
    return found


def loaded_by(modules, heavy=HEAVY):
    """The heavy libraries that a fresh interpreter has loaded after importing some modules."""
    code = f"import importlib, sys\nfor m in {list(modules)!r}: importlib.import_module(m)\n"
    code += f"print([h for h in {heavy!r} if h in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip().splitlines()[-1]


def test_data_only_modules_start_without_heavy_libraries():
    modules = light_modules()
    assert len(modules) > 10
    if loaded_by(modules) == "[]":
        return
    culprits = {module: heavy for module in modules if (heavy := loaded_by([module])) != "[]"}
    pytest.fail(f"modules that load heavy libraries: {culprits}")


def test_a_command_starts_without_pandas():
    # it takes as long as all else that is imported before the command line is read
    assert loaded_by(["glitchflow_plugin.cli"], ("pandas",)) == "[]"


def test_every_room_stands_in_the_layers_contract():
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = contract.partition("layers = [")[2].partition("]")[0]
    for room in (path.parent.name for path in PACKAGE.glob("*/__init__.py")):
        assert room in layers, f"{room} stands in no layer of [tool.importlinter]"


def test_room_packages_import_nothing_by_themselves():
    # signal offers its torch modules by name and imports them when they are asked for; that it loads nothing heavy
    # before is part of the test above. Its package of the Q-transform is imported as one.
    fronts = {PACKAGE / "signal" / "__init__.py", PACKAGE / "signal" / "qtransform" / "__init__.py"}
    for file in set(PACKAGE.glob("*/**/__init__.py")) - fronts:
        statements = ast.parse(file.read_text(encoding="utf-8")).body
        assert all(isinstance(statement, ast.Expr) for statement in statements), f"{file}: no more than a docstring"


@pytest.mark.slow
@pytest.mark.parametrize(("options", "shown"), [((), False), (("-W", "default"), True)])
def test_torchs_word_about_pynvml_is_shown_only_to_who_asks(options, shown):
    code = "import warnings, glitchflow_plugin; warnings.warn('another word', FutureWarning); import torch"
    known = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    answer = subprocess.run(
        [sys.executable, *options, "-c", code], env=known, capture_output=True, text=True, check=True
    )
    assert "FutureWarning: another word" in answer.stderr
    assert ("The pynvml package is deprecated" in answer.stderr) is shown
