import json
import os

import h5py
import pytest

from glitchflow_plugin.data.files import (
    check_file,
    is_intact,
    new_hdf5,
    read_json,
    read_record,
    sealed_hdf5,
    sha256,
    write_json,
)
from glitchflow_plugin.data.splits import SplitSettings
from glitchflow_plugin.errors import FormatError

RECORD = {"name": "Ω", "values": [1.0, 2.5e-22, -0.0, None], "nested": {"1": True, "none": None}, "empty": []}


def test_a_record_comes_back_without_its_checksum(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {**RECORD, "nan": float("nan"), "tuple": (1, 2)})
    assert read_json(path) == {**RECORD, "nan": None, "tuple": [1, 2]}
    assert len(json.loads(path.read_text())["checksum"]) == 64


def test_what_a_file_name_says_outside_of_utf8_is_escaped(tmp_path):
    write_json(tmp_path / "record.json", {"name \udcff": "of \udc80"})
    assert read_json(tmp_path / "record.json") == {"name \\udcff": "of \\udc80"}


def test_a_changed_record_is_refused_and_an_edit_on_purpose_can_be_said(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, RECORD)
    path.write_text(path.read_text().replace("2.5e-22", "2.6e-22"))
    with pytest.raises(FormatError, match=r"Delete it and run the step X again.*remove its entry 'checksum'"):
        read_json(path, "the step X")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "checksum"}))
    assert read_json(path)["values"][1] == 2.6e-22  # so are records of versions before there was one


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "3", "null", '{"a": NaN}', '{"a": 1e999}', '{"a": ' + "[" * 100_000, '{"a": ' + "9" * 9999 + "}"],
    ids=["empty", "half", "list", "number", "null", "nan", "infinite", "nested", "digits"],
)
def test_what_is_no_record_is_refused_in_words(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(FormatError, match="run the step that writes it again"):
        read_json(path)


def test_a_folder_and_a_pipe_are_no_records(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path, tmp_path / "pipe.json"):
        with pytest.raises(FormatError, match="no file"):
            read_json(path)


def test_a_record_that_is_too_large_is_neither_read_nor_hashed(tmp_path):
    path = tmp_path / "split.json"
    path.touch()
    os.truncate(path, 1 << 42)  # takes no room, and would take an hour
    for look in (read_json, sha256, lambda path: check_file(path, "0" * 64, "the Splitter")):
        with pytest.raises(FormatError, match="larger than any record"):
            look(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"train": "0.7"}, "train: Input should be a valid number, got '0.7'"),
        ({"seed": 1.5}, "seed: Input should be a valid integer, got 1.5"),
        ({"seed": True}, "seed: Input should be a valid integer, got True"),
        ({"sede": 1}, "sede: Unexpected"),
        ({"block_length": -1.0}, "block_length: Input should be greater than 0, got -1.0"),
    ],
)
def test_a_record_of_other_types_names_what_was_expected_and_what_came(tmp_path, content, words):
    write_json(tmp_path / "split.json", content)
    with pytest.raises(FormatError) as refused:
        read_record(tmp_path / "split.json", SplitSettings, "the Splitter")
    assert words in str(refused.value)
    assert str(tmp_path / "split.json") in str(refused.value)


def test_an_hdf5_file_knows_whether_a_byte_of_it_has_changed(tmp_path):
    path = tmp_path / "file.h5"
    with new_hdf5(path) as file:
        file["data"] = list(range(100))
    with sealed_hdf5(path) as file, h5py.File(path, "r") as plain:
        assert list(file["data"]) == list(plain["data"]) == list(range(100))
    content = path.read_bytes()
    for place in (0, 30, 512, 1000, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert not is_intact(path)
        with pytest.raises(OSError, match="not those that were written"), sealed_hdf5(path):
            pass
    path.write_bytes(content[:-1])
    assert not is_intact(path)


def test_a_file_for_other_programs_begins_as_they_expect(tmp_path):
    with new_hdf5(tmp_path / "file.h5", seal=False) as file:
        file["data"] = [1]
    assert (tmp_path / "file.h5").read_bytes().startswith(b"\x89HDF")
    assert is_intact(tmp_path / "file.h5")
