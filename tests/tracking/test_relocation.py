"""Registries whose folder or files were moved or copied."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from glitchflow_plugin.cli import main
from glitchflow_plugin.errors import FormatError, RegistryError
from glitchflow_plugin.tracking.connection import ensure_experiment
from glitchflow_plugin.tracking.registry import load, register
from glitchflow_plugin.tracking.relocation import Move, moved, relocate
from glitchflow_plugin.tracking.versions import promote

WINDOWS = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(1)) * 100


@pytest.fixture(scope="module")
def original(make_registry, tmp_path_factory, make_bundle):
    folder = tmp_path_factory.mktemp("origin") / "run"
    folder.mkdir()
    uri = make_registry(folder)
    register(make_bundle(0.5), "twin", uri, artifacts=folder / "store" / "files")
    promote("twin", 1, uri)
    return folder


def uri_of(folder):
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture(params=["moved", "copied"])
def elsewhere(request, original, tmp_path):
    """The whole run folder under another name; where it was copied, the old one is still there."""
    if request.param == "copied":
        yield shutil.copytree(original, tmp_path / "new" / "place")
        return
    kept = shutil.copytree(original, tmp_path / "kept")
    (tmp_path / "new").mkdir()
    yield Path(shutil.move(original, tmp_path / "new" / "place"))
    shutil.move(kept, original)


def test_a_run_folder_elsewhere_is_noticed_and_goes_on(elsewhere, original, make_bundle, monkeypatch, capsys):
    uri = uri_of(elsewhere)
    told = rf"moved or copied.*{original}/store/files.*{elsewhere}/store/files.*models relocate"
    with pytest.raises(RegistryError, match=told):
        load("twin", "champion", uri)
    with pytest.raises(RegistryError, match=told):
        register(make_bundle(), "twin", uri)
    # an address that counts from the working directory
    monkeypatch.chdir(elsewhere)
    assert moved(Path("mlflow.db")) == [Move(original / "store" / "files", elsewhere / "store" / "files")]
    assert main(["models", "list", "--tracking-uri", uri]) == 1
    assert main(["models", "relocate", "--tracking-uri", uri]) == 0
    shown = capsys.readouterr().out
    assert f"{original}/store/files is now {elsewhere}/store/files" in shown
    assert "twin version 1: the files are those that were registered" in shown
    torch.testing.assert_close(load("twin", "champion", uri).twin(WINDOWS), make_bundle(0.5).twin(WINDOWS))
    before = set(original.rglob("*")) if original.exists() else set()
    assert register(make_bundle(), "twin", uri).version == 2
    assert set(original.rglob("*")) == before
    client = MlflowClient(uri, uri)
    for run in client.search_runs([client.get_experiment_by_name("glitchflow").experiment_id]):
        assert run.info.artifact_uri.startswith((elsewhere / "store" / "files").as_uri())
    # nothing is left to do
    assert moved(elsewhere / "mlflow.db") == relocate("sqlite:///mlflow.db") == []


def test_files_alone_that_are_elsewhere_are_no_tampering(original, tmp_path, capsys):
    folder = shutil.copytree(original, tmp_path / "run")
    uri = uri_of(folder)
    relocate(uri)
    shutil.move(folder / "store" / "files", tmp_path / "disk")
    with pytest.raises(RegistryError, match=rf"expected in file://{folder}/store/files/\S+, and nothing is there"):
        load("twin", 1, uri)
    with pytest.raises(RegistryError, match=r"neither there nor in.*--artifacts FOLDER"):
        relocate(uri)
    with pytest.raises(RegistryError, match=r"neither there nor in"):
        relocate(uri, tmp_path)
    assert relocate(uri, tmp_path / "disk") == [Move(folder / "store" / "files", tmp_path / "disk")]
    with pytest.raises(RegistryError, match="holds no files of"):
        relocate(uri, tmp_path / "mistyped")
    assert relocate(uri, tmp_path / "disk") == []
    assert load("twin", 1, uri).target == "STRAIN"
    # what was changed on the way is told, and is not loaded
    (weights,) = (tmp_path / "disk").rglob("twin.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert main(["models", "relocate", "--tracking-uri", uri]) == 1
    assert "twin.safetensors has been changed" in capsys.readouterr().err
    with pytest.raises(FormatError, match="has been changed"):
        load("twin", 1, uri)


def test_an_empty_registry_can_move_too(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    ensure_experiment(uri_of(old), "empty", old / "artifacts")
    old.rename(new)
    with pytest.raises(RegistryError, match="moved or copied"):
        ensure_experiment(uri_of(new), "empty", new / "artifacts")
    relocate(uri_of(new))
    number = ensure_experiment(uri_of(new), "empty", new / "artifacts")
    assert MlflowClient(uri_of(new)).get_experiment(number).artifact_location == (new / "artifacts").as_uri()


def test_files_that_are_kept_elsewhere_on_purpose_are_no_move(tmp_path, make_bundle):
    run = tmp_path / "run"
    (run / "artifacts").mkdir(parents=True)
    register(make_bundle(), "twin", uri_of(run), artifacts=tmp_path / "disk" / "artifacts")
    assert moved(run / "mlflow.db") == []
    assert load("twin", 1, uri_of(run)).target == "STRAIN"


def test_only_a_database_can_be_told(tmp_path):
    with pytest.raises(RegistryError, match="got the server"):
        relocate("http://127.0.0.1:1")
    with pytest.raises(RegistryError, match="does not exist"):
        relocate(uri_of(tmp_path))
    assert not (tmp_path / "mlflow.db").exists()


def test_another_name_of_the_same_folder_is_no_move(original, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(original)
    seen = shutil.copy(original / "mlflow.db", tmp_path / "mlflow.db")
    for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
        with sqlite3.connect(seen) as database:
            database.execute(f"update {table} set {column} = replace({column}, ?, ?)", (str(original), str(link)))  # noqa: S608
        database.close()
    shutil.move(seen, original / "linked.db")
    try:
        assert moved(original / "linked.db") == []
    finally:
        (original / "linked.db").unlink()


@pytest.mark.parametrize("content", [b"no database", b""])
def test_what_is_no_registry_is_told_in_one_message(content, tmp_path, capsys):
    path = tmp_path / "mine.db"
    path.write_bytes(content)
    for uri in (f"sqlite:///{path}", "no address at all"):
        with pytest.raises(RegistryError, match="cannot be used as the database of an MLflow registry"):
            relocate(uri)
    with pytest.raises(RegistryError) as told:
        relocate("nosuchdialect://me:secret@host/name")
    assert "secret" not in str(told.value)
    assert main(["models", "relocate", "--tracking-uri", f"sqlite:///{path}"]) == 1
    assert "Traceback" not in capsys.readouterr().err
