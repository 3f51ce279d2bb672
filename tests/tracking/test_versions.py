import subprocess
import sys
from functools import partialmethod

import pytest
import torch
from mlflow import MlflowClient

from glitchflow_plugin.cli import main
from glitchflow_plugin.errors import DataError, FormatError, RegistryError
from glitchflow_plugin.tracking.connection import ensure_experiment
from glitchflow_plugin.tracking.outbox import (
    ENTRY_FILE,
    BusyError,
    Destination,
    keep,
    release,
    send,
    upload,
    waiting,
)
from glitchflow_plugin.tracking.registry import load, register
from glitchflow_plugin.tracking.versions import find, list_versions, model_names, promote, rollback


@pytest.fixture(scope="module")
def registry(make_registry, tmp_path_factory, make_bundle):
    folder = tmp_path_factory.mktemp("versions")
    uri = make_registry(folder)
    ensure_experiment(uri, "glitchflow", folder / "artifacts")
    for gain in (1.0, 2.0, 3.0):
        recipe = {"qtransform": {"q": 12.0 if gain < 3 else 8.0}}
        bundle = make_bundle(gain, recipe=recipe, metrics={"validation_loss": gain})
        register(bundle, "twin", uri, artifacts=folder / "artifacts", tags={"gate_loss": f"{gain}"})
    return uri, folder


def test_promotion_and_the_way_back(registry):
    uri, _ = registry
    with pytest.raises(RegistryError, match="no former champion"):
        rollback("twin", uri)
    for number in (1, 2, 3):
        promote("twin", number, uri, reason=f"trial {number}")
    with pytest.raises(RegistryError, match="is champion already"):
        promote("twin", 3, uri)
    assert rollback("twin", uri, reason="it added noise").version == 2
    assert rollback("twin", uri).version == 1
    with pytest.raises(RegistryError, match=r"no former champion.*Versions: 1, 2, 3"):
        rollback("twin", uri)
    assert find("twin", "champion", uri).version == 1
    lost = find("twin", 3, uri)
    assert (lost.promoted, lost.reason) == (False, "rolled back to version 2: it added noise")
    # forth and back again
    promote("twin", "3", uri)
    assert rollback("twin", uri).version == 1
    assert [version.aliases for version in list_versions("twin", uri)] == [("champion",), (), ()]


def test_the_command_line_lists_compares_promotes_and_rolls_back(registry, capsys, tmp_path, monkeypatch):
    uri, _ = registry
    monkeypatch.chdir(tmp_path)

    def say(*words):
        status = main(["models", *words, "--tracking-uri", uri])
        return status, *capsys.readouterr()

    assert say("promote", "twin", "2", "--reason", "looked better")[0] == 0
    status, shown, _ = say("list")
    assert status == 0
    lines = shown.splitlines()
    assert lines[0] == "twin"
    assert [line.split()[0] for line in lines[2:]] == ["3", "2", "1"]
    assert "champion" in lines[3]
    assert "yes: looked better" in lines[3]
    status, shown, _ = say("export", "twin", "--version", "1")
    assert (status, shown.split(":")[0]) == (0, "twin-1.pt2")
    assert "registered" in shown
    assert (tmp_path / "twin-1.pt2").stat().st_size > 1000
    status, _, told = say("export", "twin", "--format", "onnx")
    assert status == 1
    assert "is a twin" in told
    status, shown, _ = say("compare", "twin/1", "twin/3")
    assert status == 0
    assert ["gate_loss", "1.0", "3.0"] in [line.split() for line in shown.splitlines()]
    assert "recipe.qtransform.q: 12.0 | 8.0" in shown
    assert "The recipes are the same." in say("compare", "twin/1", "twin/2")[1]
    status, shown, _ = say("rollback", "twin", "--reason", "no")
    assert (status, shown) == (0, "twin version 1 is champion again.\n")
    status, _, trouble = say("promote", "twin", "9")
    assert status == 1
    assert "Versions: 1, 2, 3" in trouble
    status, _, trouble = say("compare", "1", "2")
    assert "expected NAME/VERSION" in trouble
    assert say("upload")[1] == "Nothing waits in outbox.\n"


def test_the_command_line_uploads(registry, make_bundle, capsys, tmp_path):
    uri, folder = registry
    there = Destination(uri, "late", "glitchflow", str(folder / "artifacts"))
    keep(tmp_path / "outbox", make_bundle(), there, first={"promoted": False, "reason": "the first one, but it harms"})
    assert main(["models", "upload", "--outbox", str(tmp_path / "outbox")]) == 0
    assert "late version 1" in capsys.readouterr().out
    assert find("late", 1, uri).reason == "the first one, but it harms"


def test_an_entry_that_cannot_be_sent_holds_up_no_other(registry, make_bundle, capsys, tmp_path):
    uri, folder = registry
    there = Destination(uri, "many", "glitchflow", str(folder / "artifacts"))
    client = MlflowClient(uri, uri)
    run = client.create_run(ensure_experiment(uri, "glitchflow", str(folder / "artifacts"))).info.run_id
    client.delete_run(run)
    changed, broken, busy, good = (keep(tmp_path, make_bundle(), there, hold=hold) for hold in (0, 0, 1, 0))
    keep(tmp_path, make_bundle(), there, run_id=run, unsent=[{"kind": "param", "name": "a", "value": "b"}])
    (changed.folder / "bundle.json").write_text("{}")
    (broken.folder / ENTRY_FILE).write_text("{")
    assert main(["models", "upload", "--outbox", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert good.id in shown.out
    for entry, reason in ((changed, "is not what was kept"), (broken, ENTRY_FILE), (busy, "another run is at work")):
        assert any(entry.id in line and reason in line for line in shown.err.splitlines())
    assert {version.run_id for version in list_versions("many", uri)}.isdisjoint({run})
    assert [entry.id for entry in waiting(tmp_path)] == sorted([changed.id, busy.id])
    release(busy)
    (again,) = (entry for entry in waiting(tmp_path) if entry.id == busy.id)
    assert upload(again).version == 3
    with pytest.raises(BusyError, match="another run has uploaded it"):
        upload(again)


def test_a_run_that_was_killed_after_registering_does_not_register_twice(registry, make_bundle, tmp_path):
    uri, folder = registry
    entry = keep(tmp_path, make_bundle(), Destination(uri, "once", "glitchflow", str(folder / "artifacts")))
    assert send(entry).version == 1  # and killed before the entry is removed
    assert upload(entry).version == 1
    assert len(list_versions("once", uri)) == 1


def test_the_outbox_holds_no_pickle_and_refuses_what_was_changed(registry, make_bundle, tmp_path):
    uri, folder = registry
    bundle = make_bundle(0.3)
    entry = keep(tmp_path, bundle, Destination(uri, "changed", "glitchflow", str(folder / "artifacts")))
    names = {path.name for path in entry.folder.iterdir()}
    assert names == {"twin.safetensors", "baseline.safetensors", "bundle.json", "entry.json"}
    (again,) = waiting(tmp_path)
    assert again == entry
    for name in sorted(names - {ENTRY_FILE}):
        path = entry.folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(FormatError, match=f"{name} is not what was kept"):
            upload(entry)
        path.write_bytes(whole)
    upload(entry)
    windows = torch.rand(3, 2, 16, 16) * 100
    torch.testing.assert_close(load("changed", 1, uri).twin(windows), bundle.twin(windows))


def test_half_an_entry_is_none(make_bundle, tmp_path, monkeypatch):
    import glitchflow_plugin.tracking.outbox as module

    def full(*_):
        raise DataError("No space left.")

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(DataError, match="No space"):
        keep(tmp_path, make_bundle(), Destination("sqlite:///x.db", "x", "x", "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_registry_whose_files_cannot_be_written_says_so(make_registry, make_bundle, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("no folder")
    uri = make_registry(tmp_path)
    with pytest.raises(RegistryError, match="cannot be written"):
        register(make_bundle(), "x", uri, artifacts=blocked)


def test_listing_models_needs_no_torch():
    code = "import sys, glitchflow_plugin.cli, glitchflow_plugin.tracking.versions; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_registry_would_not_take_is_renamed_or_dropped(registry, make_bundle, tmp_path, capsys):
    uri, folder = registry
    outbox = str(tmp_path / "outbox")
    there = Destination(uri, "a/b", "glitchflow", str(folder / "artifacts"))
    stuck, other = (keep(outbox, make_bundle(), there) for _ in range(2))
    assert main(["models", "upload", "--outbox", outbox]) == 1
    told = capsys.readouterr().err
    assert f"glitchflow models rename {stuck.id} NAME --outbox {outbox}" in told
    assert main(["models", "rename", stuck.id, "c:d", "--outbox", outbox]) == 1
    assert main(["models", "rename", stuck.id, "renamed", "--alias", "7", "--outbox", outbox]) == 1
    assert main(["models", "rename", "nothing", "renamed", "--outbox", outbox]) == 1
    assert other.id in capsys.readouterr().err
    assert main(["models", "rename", stuck.id, "renamed", "--outbox", outbox]) == 0
    (other.folder / ENTRY_FILE).write_text("{")
    assert main(["models", "drop", other.id, "--outbox", outbox]) == 0
    assert not other.folder.exists()
    assert main(["models", "upload", "--outbox", outbox]) == 0
    assert find("renamed", 1, uri).tags["outbox"] == stuck.id
    assert waiting(outbox) == []


def test_models_and_versions_on_later_pages_are_found(registry, make_bundle, monkeypatch, tmp_path):
    uri, folder = registry
    register(make_bundle(), "another", uri, artifacts=folder / "artifacts")
    entry = keep(tmp_path, make_bundle(), Destination(uri, "twin", "glitchflow", str(folder / "artifacts")))
    first = send(entry)
    register(make_bundle(), "twin", uri, artifacts=folder / "artifacts")
    for search in ("search_registered_models", "search_model_versions"):
        monkeypatch.setattr(MlflowClient, search, partialmethod(getattr(MlflowClient, search), max_results=1))
    assert {"another", "twin"} <= set(model_names(uri))
    assert send(entry).version == first.version
    assert len(list_versions("twin", uri)) > 3


def test_the_page_of_a_model_lists_its_versions(registry):
    uri, _ = registry
    client = MlflowClient(uri)
    model = client.get_registered_model("twin")
    # whatever other tests have registered
    known = sorted((int(each.version) for each in client.search_model_versions("name='twin'")), reverse=True)
    linked = [line.split("]")[0] for line in model.description.splitlines() if line.startswith("| [")]
    assert linked == [f"| [{number}" for number in known]
    assert find("twin", 2, uri).page.endswith("/#/models/twin/versions/2?workflowType=machine_learning")
