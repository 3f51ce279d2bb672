import random

import numpy as np
import pytest
import torch

from glitchflow_plugin.errors import DataError, FormatError
from glitchflow_plugin.training import checkpoints
from glitchflow_plugin.training.checkpoints import (
    forget_damaged,
    judged_weights,
    newest_usable,
    random_state,
    read_checkpoint,
    recover,
    restore_random_state,
    write_checkpoint,
)


def write(root, number, name="last"):
    tensors = {"state": {"number": number}, "model": {"weight": torch.full((100,), float(number))}}
    write_checkpoint(root / name, tensors, {"config": {"rate": 0.1}}, previous=root / "previous")


def test_the_last_two_are_kept(tmp_path):
    for number in range(3):
        write(tmp_path, number)
    assert read_checkpoint(tmp_path / "last")["state"] == {"number": 2}
    assert read_checkpoint(tmp_path / "previous")["state"] == {"number": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "previous"]
    assert newest_usable(tmp_path) == tmp_path / "last"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("harm", [flip, cut, lambda path: path.unlink()], ids=["flipped", "cut", "gone"])
@pytest.mark.parametrize("file", ["model.pt", "state.pt"])
def test_a_damaged_last_one_falls_back_to_the_one_before(tmp_path, caplog, harm, file):
    write(tmp_path, 1)
    write(tmp_path, 2)
    harm(tmp_path / "last" / file)
    with pytest.raises(FormatError, match="last is not a usable checkpoint"):
        read_checkpoint(tmp_path / "last")
    assert newest_usable(tmp_path) == tmp_path / "previous"
    assert "last is not a usable checkpoint" in caplog.text
    assert file in caplog.text
    assert f"Going on from {tmp_path / 'previous'}" in caplog.text


def test_a_damaged_one_never_takes_the_place_of_the_good_one(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2)
    forget_damaged(tmp_path, tmp_path / "last")
    assert (tmp_path / "last").exists()
    flip(tmp_path / "last" / "model.pt")
    forget_damaged(tmp_path, newest_usable(tmp_path))
    write(tmp_path, 3)
    # the new one is damaged as well
    flip(tmp_path / "last" / "model.pt")
    assert read_checkpoint(newest_usable(tmp_path))["state"] == {"number": 1}


def test_where_all_are_damaged_nothing_is_begun_anew_in_silence(tmp_path):
    assert newest_usable(tmp_path) is None
    write(tmp_path, 1)
    flip(tmp_path / "last" / "model.pt")
    with pytest.raises(FormatError, match="Delete the folder to start anew"):
        newest_usable(tmp_path)


@pytest.mark.parametrize("step", ["write_json", "torch.save", "shutil.rmtree", "rename"])
def test_a_write_that_fails_leaves_a_usable_one(tmp_path, monkeypatch, step):
    write(tmp_path, 1)
    write(tmp_path, 2)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "write_json":
            patch.setattr(checkpoints, "write_json", fail)
        elif step == "torch.save":
            patch.setattr(torch, "save", fail)
        elif step == "shutil.rmtree":
            patch.setattr(checkpoints.shutil, "rmtree", lambda path, **_: fail() if path.name == "previous" else None)
        else:
            patch.setattr(checkpoints.Path, "rename", fail)
        with pytest.raises(DataError, match="No space left"):
            write(tmp_path, 3)
    assert read_checkpoint(newest_usable(tmp_path))["state"]["number"] == 2


def test_a_replacement_cut_short_is_put_back(tmp_path):
    write_checkpoint(tmp_path / "best", {"state": 1, "model": {}}, {})
    (tmp_path / "best").rename(tmp_path / ".best.old")
    recover(tmp_path / "best")
    assert read_checkpoint(tmp_path / "best")["state"] == 1


def test_nothing_is_run_when_a_checkpoint_is_read(tmp_path):
    class Harm:
        def __reduce__(self):
            return (print, ("harm",))

    folder = tmp_path / "last"
    folder.mkdir()
    torch.save(Harm(), folder / "state.pt")
    torch.save({}, folder / "model.pt")
    with pytest.raises(FormatError, match="not a usable checkpoint"):
        read_checkpoint(folder)


def test_random_numbers_go_on_where_they_were(tmp_path):
    write_checkpoint(tmp_path / "last", {"state": {"random": random_state()}, "model": {}}, {})
    wanted = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002, S311
    restore_random_state(read_checkpoint(tmp_path / "last")["state"]["random"])
    found = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002, S311
    assert torch.equal(wanted[0], found[0])
    assert (wanted[1] == found[1]).all()
    assert wanted[2] == found[2]


def test_the_average_is_what_was_judged():
    assert judged_weights({"model": {"a": 1}}) == {"a": 1}
    assert judged_weights({"model": {"a": 1}, "average": {"a": 2}}) == {"a": 2}
