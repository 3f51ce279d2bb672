import numpy as np
import pytest

from glitchflow_plugin.data.triggers.times import read_times, write_times
from glitchflow_plugin.errors import FormatError


def test_what_is_written_is_read_by_rising_time_to_the_nanosecond(tmp_path):
    columns = {
        "time": [1_262_304_018_000_000_017, 5],
        "glitch": [True, None],
        "class": ["Whistle", None],
        "snr": [7.5, None],
        "group": ["a", None],
        "part": ["test", None],
    }
    write_times(tmp_path / "times.parquet", columns)
    times = read_times(tmp_path / "times.parquet")
    assert times.time.tolist() == [5, 1_262_304_018_000_000_017]
    assert times.kind.tolist() == ["", "Whistle"]
    np.testing.assert_array_equal(times.glitch, [np.nan, 1])
    np.testing.assert_array_equal(times.snr, [np.nan, 7.5])
    assert times.group.tolist() == ["time 5", "a"]
    assert times.weight.tolist() == [1, 1]


def test_csv_may_have_times_in_seconds(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("time,glitch,snr\n1262304018.000000017,1,7\n3,0,\n")
    times = read_times(path)
    assert times.time.tolist() == [3 * 10**9, 1_262_304_018_000_000_017]
    assert times.glitch.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("when\n3\n", "expected a GPS time"),
        ("time\nsoon\n", "no table of times"),
        ("time,part\n3,exam\n", "got 'exam'"),
        ("time,weight\n3,-1\n", "at least 0"),
        ("time,group,part\n3,a,test\n4,a,training\n", "more than one part"),
    ],
)
def test_what_are_no_times_is_refused(tmp_path, text, message):
    path = tmp_path / "times.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_times(path)
    with pytest.raises(FormatError, match="does not exist"):
        read_times(tmp_path / "none.csv")
    with pytest.raises(FormatError, match="expected a column time"):
        write_times(path, {"when": [3]})
