import numpy as np
import pytest

from glitchflow_plugin.data.groups import group_numbers, read_groups
from glitchflow_plugin.errors import ConfigurationError, FormatError


def test_labels_are_groups_and_the_unlabelled_go_by_their_block():
    gps = np.array([10.0, 250.0, 260.0, 20.0, 5000.0, 5100.0])
    found = group_numbers(["", "", "", "blip", "blip", ""], gps, 256.0)
    assert found.dtype == np.int64
    assert found.tolist() == [0, 0, 1, 2, 2, 3]
    assert group_numbers([], np.array([]), 256.0).tolist() == []


def test_a_label_that_looks_like_a_block_is_none():
    assert group_numbers(["0", ""], np.array([1.0, 1.0]), 256.0).tolist() == [0, 1]


@pytest.mark.parametrize("block", [0.0, -1.0, float("nan"), float("inf")])
def test_no_block_length_and_too_few_labels_are_refused(block):
    with pytest.raises(ConfigurationError, match="block_length"):
        group_numbers([""], np.zeros(1), block)
    with pytest.raises(ConfigurationError, match="one label an event, got 1 for 2"):
        group_numbers([""], np.zeros(2), 256.0)


def test_a_table_of_labels_is_read(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("group,event_id,remark\nblip 7,e1,x\n,e2,y\nblip 7,e3,\nblip 7,e1,again\n")
    assert read_groups(path) == {"e1": "blip 7", "e3": "blip 7"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("event_id,group\ne1,a\ne2,b\ne1,c\n", "two for 1 event.*e1 is of 'a' and of 'c'"),
        ("event_id,label\ne1,a\n", "no column 'group'"),
        ("event_id,group\n,a\n", "event_id is empty in 1 row"),
    ],
)
def test_a_wrong_table_is_refused_in_words(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_groups(path)
