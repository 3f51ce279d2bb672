import io
import os
import tempfile

import numpy as np
import pandas as pd
import pytest
from tests.ui.conftest import NAMES

from glitchflow_plugin.data.triggers.formats import store_triggers
from glitchflow_plugin.data.triggers.store import open_triggers
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.inference.classify_triggers import classified
from glitchflow_plugin.ui.answers import Dropped, answers, chosen


def test_dropped_files_get_the_answers_that_their_store_gets(model, theirs, tmp_path):
    found = answers(model, "triggers version 1", [Dropped("theirs.csv", theirs)])
    (tmp_path / "theirs.csv").write_bytes(theirs)
    store_triggers(tmp_path / "theirs.csv", tmp_path / "store")
    times = found.times["time"].to_numpy()
    # at the triggers of all channels that it knows: no two are near each other
    assert len(times) == 99
    assert not np.isin(1_400_000_150_123_456_789, times)
    [wanted] = [one.to_pandas() for one in classified(model, open_triggers(tmp_path / "store"), times)]
    pd.testing.assert_frame_equal(found.times[list(wanted)], wanted)
    assert found.unknown == {"V1:NEW": 1}
    assert sum(found.triggers.values()) == 100
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(found.files["parquet"])), wanted)
    assert found.times["gps"].tolist() == pd.read_csv(io.BytesIO(found.files["csv"]), dtype=str)["time"].tolist()


def test_several_files_are_one_and_none_leaves_its_folder(model, theirs):
    head, *rows = theirs.decode().splitlines()
    halves = ["\n".join([head, *part]).encode() for part in (rows[:40], rows[40:])]
    dropped = [Dropped("../../one.csv", halves[0]), Dropped("two.csv", halves[1])]
    whole = answers(model, "it", [Dropped("theirs.csv", theirs)])
    pd.testing.assert_frame_equal(answers(model, "it", dropped).times, whole.times)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("mine.h5", b"\x89HDF\r\n\x1a\nand nothing", "mine.h5"),
        ("mine.csv", b"time,frequency\n1400000000,10\n", r"mine\.csv: expected columns for \['snr'\]"),
        ("mine.csv", b"time,frequency,snr\n1400000000,10,8\n", "does not tell the channel"),
        ("mine.csv", b"time,frequency,snr,channel\n1400000000,10,8,V1:NEW\n", "mine.csv holds none of the 5 channels"),
        ("mine.csv", b"time,frequency,snr,channel\n", "no trigger"),
        ("..", b"", r"\.\.: expected files that end in \.csv"),
        ("mine.pdf", b"%PDF", r"mine\.pdf: expected files that end in \.csv"),
    ],
)
def test_what_cannot_be_asked_about_is_told_by_its_name(model, name, content, told):
    with pytest.raises(DataError, match=told) as error:
        answers(model, "triggers version 1", [Dropped(name, content)])
    assert tempfile.gettempdir() + os.sep not in str(error.value)
    with pytest.raises(DataError, match="Rename one"):
        answers(model, "triggers version 1", [Dropped(name, content)] * 2)


def test_a_channel_can_be_named_where_a_file_does_not_tell_it(model):
    found = answers(
        model, "it", [Dropped("mine.csv", b"time,frequency,snr\n1400000000,10,8\n1400000001,,8\n")], channel=NAMES[0]
    )
    assert found.times["channel"].tolist() == [NAMES[0]]
    assert sum(found.bad.values()) == 1


def test_times_are_chosen_by_all_that_is_asked():
    times = pd.DataFrame(
        {"glitch": [0.1, 0.6, 0.9], "channel": ["a", "b", "b"], "said": ["quiet", "blip", "tomte"]}, index=[3, 4, 5]
    )
    assert chosen(times).index.tolist() == [3, 4, 5]
    assert chosen(times, channels=["b"]).index.tolist() == [4, 5]
    assert chosen(times, channels=["b"], words=["tomte", "quiet"]).index.tolist() == [5]
    assert chosen(times, least=0.6).index.tolist() == [4, 5]
    assert chosen(times, channels=["c"]).empty
