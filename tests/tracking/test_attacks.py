"""Whoever can write to the files of a registry, and even to its database, cannot make the loader run code."""

import json
import os
import pickle
import shutil
import sqlite3
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from glitchflow_plugin.errors import FormatError, RegistryError
from glitchflow_plugin.tracking.connection import ensure_experiment
from glitchflow_plugin.tracking.registry import load, register
from glitchflow_plugin.tracking.versions import checksums, fetch, find, read_description

BUNDLE, TWIN, BASELINE = (f"extra_files/{name}" for name in ("bundle.json", "twin.safetensors", "baseline.safetensors"))
PROGRAM = "data/model.pt2"
#: Links are refused by MLflow itself.
REFUSED = "not what was registered|outside the artifact directory"
WINDOWS = torch.linspace(0, 100, 3 * 2 * 16 * 16).reshape(3, 2, 16, 16)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


class Victim:
    """A registered version, its files and its database."""

    def __init__(self, folder, uri, files, canary):
        self.root, self.uri, self.folder, self.canary = folder, uri, files, canary

    def pickled(self):
        return pickle.dumps(Evil(self.canary))

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def describe(self, **changes):
        content = json.loads((self.folder / BUNDLE).read_text())
        self.write(BUNDLE, json.dumps({**content, **changes}))

    def head(self, name=None, settings=None, tensors=None, place=TWIN, **metadata):
        """Another header on the weights, or other weights."""
        whole = (self.folder / place).read_bytes()
        size = int.from_bytes(whole[:8], "little")
        described = json.loads(json.loads(whole[8 : 8 + size])["__metadata__"]["model"])
        described["name"] = name or described["name"]
        described["settings"] = {**described["settings"], **(settings or {})}
        held = load_tensors(whole) if tensors is None else tensors
        self.write(place, save_tensors(held, metadata={"model": json.dumps({**described, **metadata})}))

    def shapes(self, **shapes):
        """A header that promises tensors which are not there."""
        whole = (self.folder / TWIN).read_bytes()
        size = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + size])
        for key, shape in shapes.items():
            header[key] = {**header.get(key, header["clamp"]), "shape": shape}
        text = json.dumps(header).encode()
        self.write(TWIN, struct.pack("<Q", len(text)) + text + whole[8 + size :])

    def sql(self, statement, *values):
        with sqlite3.connect(self.root / "mlflow.db") as database:
            database.execute(statement, values)

    def seal(self, content):
        text = content if isinstance(content, str) else json.dumps(content)
        self.sql("UPDATE model_version_tags SET value = ? WHERE key = 'sha256'", text)


def replace_in_program(victim, old, new):
    path = victim.folder / PROGRAM
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert any(old in part for part in parts.values())
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part.replace(old, new) if old in part else part)


def evil_program(victim):
    code = f"__import__('os').makedirs('{victim.canary}', exist_ok=True) or Symbol('"
    replace_in_program(victim, b'"expr_str": "Symbol(\'', b'"expr_str": "' + code.encode())


def zip_slip(victim):
    path = victim.folder / PROGRAM
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../../../../../../../" + str(victim.canary), "x")


def loader_module(victim):
    victim.write("code/evil.py", f"import os\nos.mkdir({str(victim.canary)!r})\n")
    victim.write("MLmodel", "flavors:\n  python_function:\n    loader_module: evil\n    code: code\n")


def other_link(target):
    def link(victim):
        (victim.folder / BUNDLE).unlink()
        (victim.folder / BUNDLE).symlink_to(target)

    return link


def pipe(victim):
    (victim.folder / BUNDLE).unlink()
    os.mkfifo(victim.folder / BUNDLE)


def enormous(victim):
    with (victim.folder / TWIN).open("r+b") as file:
        file.truncate(1 << 40)


def many_files(victim):
    for number in range(150):
        victim.write(f"code/{number}", "x")


def folder_for_file(victim):
    (victim.folder / TWIN).unlink()
    victim.write(f"{TWIN}/evil", "x")


def pickled_weights(victim):
    torch.save({"weight": Evil(victim.canary)}, victim.folder / TWIN)


def source_elsewhere(uri):
    def redirect(victim):
        # files without the right checksums, and a place that is not ours
        victim.sql("UPDATE logged_models SET artifact_location = ?", uri)
        victim.sql("UPDATE model_versions SET source = ?, storage_location = ?", uri, uri)

    return redirect


ON_FILES = {
    "pickle for the description": lambda v: v.write(BUNDLE, v.pickled()),
    "pickle for the weights": lambda v: v.write(TWIN, v.pickled()),
    "torch's pickle for the weights": pickled_weights,
    "pickle for the linear filter": lambda v: v.write(BASELINE, v.pickled()),
    "pickle for the program": lambda v: v.write(PROGRAM, v.pickled()),
    "pickle beside the program": lambda v: v.write("data/model.pth", v.pickled()),
    "a symbolic size that is code": evil_program,
    "names that leave the archive": zip_slip,
    "loader_module": loader_module,
    "YAML that makes objects": lambda v: v.write("MLmodel", f"!!python/object/apply:os.mkdir ['{v.canary}']"),
    "YAML in the note of the download": lambda v: v.write(
        "registered_model_meta", f"!!python/object/apply:os.mkdir ['{v.canary}']"
    ),
    "code beside the model": lambda v: v.write("code/sitecustomize.py", f"import os; os.mkdir('{v.canary}')"),
    "requirements": lambda v: v.write("requirements.txt", "--index-url http://127.0.0.1:9/ evil"),
    "link to a foreign file": other_link("/etc/passwd"),
    "link to a device without end": other_link("/dev/zero"),
    "a pipe": pipe,
    "a file of 1 TiB": enormous,
    "many files": many_files,
    "a folder in place of a file": folder_for_file,
    "no weights": lambda v: (v.folder / TWIN).unlink(),
    "empty weights": lambda v: v.write(TWIN, b""),
    "a header without end": lambda v: v.write(TWIN, b"\xff" * 8 + b"{}"),
    "no header": lambda v: v.write(TWIN, bytes(64)),
    "a deep header": lambda v: v.write(TWIN, struct.pack("<Q", 200_000) + b"[" * 200_000),
    "tensors that are not there": lambda v: v.shapes(**{"network.weight": [1 << 40, 1 << 20]}),
    "a tensor too many": lambda v: v.shapes(surprise=[]),
    "scales of another size": lambda v: v.shapes(witness_scale=[1 << 40, 1, 1]),
    "a class by its path": lambda v: v.head(name="os.system"),
    "a module as name": lambda v: v.head(name="torch.nn.Linear"),
    "another network": lambda v: v.head(name="unet"),
    "name among the settings": lambda v: v.head(settings={"name": "unet"}),
    "1e12 rows": lambda v: v.head(settings={"window_size": 10**12}),
    "1e18 rows": lambda v: v.head(settings={"window_size": 10**18}),
    "1e9 layers": lambda v: v.head(name="resnet", settings={"depth": 10**9, "lags": None}),
    "a frame of 1e11": lambda v: v.head(
        name="coupling", settings={"lags": None, "frame_size": 10**11, "features": 2, "heads": 1}
    ),
    "1e12 references": lambda v: v.head(
        name="wiener",
        settings={"lags": None},
        tensors={"summary_references": torch.zeros(1, 1), "levels": torch.zeros(1)},
    ),
    "a transform of others": lambda v: v.head(transform="__import__('os')"),
    "filter of other channels": lambda v: v.head(place=BASELINE, settings={"in_channels": 3}),
    "a deep description": lambda v: v.write(BUNDLE, "[" * 200_000),
    "a list for a description": lambda v: v.write(BUNDLE, "[]"),
    "another format": lambda v: v.describe(format_version=99),
    "unknown parts": lambda v: v.describe(loader_module="evil"),
    "1e12 as window": lambda v: v.describe(window_size=10**12),
    "text as window": lambda v: v.describe(window_size="16"),
    "NaN as axis": lambda v: v.describe(frequencies=[float("nan")] * 16),
    "text as axis": lambda v: v.describe(times=["__import__('os')"] * 40),
    "a number as target": lambda v: v.describe(target=1),
    "other witnesses": lambda v: v.describe(witnesses=["GUIDE", "BYSTANDER", "THIRD"]),
    "text as recipe": lambda v: v.describe(recipe="evil"),
    "a description of another network": lambda v: v.describe(model={"name": "unet"}),
}

ON_DATABASE = {
    "checksums of a foreign file": lambda v: v.seal({"../../../../../../etc/passwd": "0"}),
    "checksums of an absolute path": lambda v: v.seal({"/etc/passwd": "0"}),
    "checksums within checksums": lambda v: v.seal({BUNDLE: {"a": 1}}),
    "a list of checksums": lambda v: v.seal([1]),
    "deep checksums": lambda v: v.seal("[" * 200_000),
    "checksums that are code": lambda v: v.seal(f"__import__('os').mkdir('{v.canary}')"),
    "no checksums": lambda v: v.seal({}),
    "files of the system": source_elsewhere("file:///etc"),
    "all files": source_elsewhere("file:///"),
    "endless files": source_elsewhere("file:///dev"),
    "files that leave their folder": source_elsewhere("../../../../etc"),
    "files of an unknown kind": source_elsewhere("evil://somewhere"),
    "files of nobody": source_elsewhere("http://127.0.0.1:9/files"),
}


@pytest.fixture(scope="module")
def stored(make_registry, tmp_path_factory, make_bundle):
    """A registered version, to be copied."""
    folder = tmp_path_factory.mktemp("stored")
    uri = make_registry(folder)
    ensure_experiment(uri, "glitchflow", folder / "artifacts")
    version = register(make_bundle(), "victim", uri, artifacts=folder / "artifacts")
    (files,) = (path.parent for path in (folder / "artifacts").rglob("MLmodel"))
    shutil.copytree(files, folder / "kept")
    shutil.copy(folder / "mlflow.db", folder / "kept.db")
    return folder, uri, files, version.tags["sha256"], make_bundle().twin(WINDOWS).detach()


@pytest.fixture
def victim(stored, tmp_path):
    folder, uri, files, *_ = stored
    yield Victim(folder, uri, files, tmp_path / "canary")
    shutil.rmtree(files)
    shutil.copytree(folder / "kept", files)
    with sqlite3.connect(folder / "kept.db") as whole, sqlite3.connect(folder / "mlflow.db") as database:
        whole.backup(database)


def nothing_ran(victim):
    assert not victim.canary.exists()


@pytest.mark.parametrize("attack", ON_FILES)
def test_changed_files_are_refused_before_anything_is_parsed(victim, attack, tmp_path, monkeypatch):
    ON_FILES[attack](victim)
    monkeypatch.setattr("glitchflow_plugin.tracking.registry.unpack", lambda *_: pytest.fail("parsed"))
    with pytest.raises((FormatError, RegistryError), match=REFUSED):
        load("victim", 1, victim.uri)
    # the command that is shown for MLflow's own loaders
    with pytest.raises((FormatError, RegistryError), match=REFUSED):
        fetch("victim", 1, tmp_path / "copy", victim.uri)
    nothing_ran(victim)


@pytest.mark.parametrize("attack", ON_FILES)
def test_changed_files_with_changed_checksums_run_nothing(victim, stored, attack):
    expected = stored[-1]
    ON_FILES[attack](victim)
    # of a device or a pipe there is no checksum; of a terabyte nobody waits for one
    plain = attack not in ("link to a device without end", "a pipe", "a file of 1 TiB")
    victim.seal(checksums(victim.folder) if plain else stored[3])
    bundle, refusal = None, None
    try:
        bundle = load("victim", 1, victim.uri)
    except (FormatError, RegistryError) as error:
        refusal = str(error)
    if bundle is not None:
        # what is not read may be changed
        torch.testing.assert_close(bundle.twin(WINDOWS), expected)
    else:
        assert 20 < len(refusal) < 2000
    nothing_ran(victim)


@pytest.mark.parametrize("attack", ON_DATABASE)
def test_a_changed_database_runs_nothing(victim, attack, tmp_path):
    ON_DATABASE[attack](victim)
    with pytest.raises((FormatError, RegistryError)) as met:
        load("victim", 1, victim.uri)
    assert len(str(met.value)) < 2000
    with pytest.raises((FormatError, RegistryError)):
        read_description(find("victim", 1, victim.uri))
    with pytest.raises((FormatError, RegistryError)):
        fetch("victim", 1, tmp_path / "copy", victim.uri)
    nothing_ran(victim)


@pytest.mark.parametrize("attack", ["a symbolic size that is code", "loader_module"])
def test_the_attacks_are_real(victim, attack):
    # MLflow's own loaders, on the files as they lie there: what the documentation warns of
    ON_FILES[attack](victim)
    kind = mlflow.pyfunc if attack == "loader_module" else mlflow.pytorch
    with suppress(Exception):
        kind.load_model(str(victim.folder))
    assert victim.canary.exists()


def test_a_version_of_an_older_release_is_refused_in_words(victim):
    # energies were kept as a program only
    (victim.folder / TWIN).unlink()
    victim.seal(checksums(victim.folder))
    with pytest.raises(FormatError, match=r"older release.*from_checkpoint"):
        load("victim", 1, victim.uri)


def test_other_tools_get_the_files_that_were_registered(victim, stored, tmp_path):
    folder = fetch("victim", 1, tmp_path / "copy", victim.uri)
    assert Path(folder) == tmp_path / "copy"
    torch.testing.assert_close(mlflow.pytorch.load_model(str(folder))(WINDOWS), stored[-1])
    with pytest.raises(RegistryError, match="not empty"):
        fetch("victim", 1, folder, victim.uri)
