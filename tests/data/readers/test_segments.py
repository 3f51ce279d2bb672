import json

import numpy as np
import pytest

from glitchflow_plugin.data.readers.segments import read_segments
from glitchflow_plugin.errors import ConfigurationError, FormatError

T0 = 1_264_000_000
PAIRS = [[T0, T0 + 100.5], [T0 + 200, T0 + 260]]


def flag(name="H1:DMT-ANALYSIS_READY:1", pairs=PAIRS, **more):
    segments = pytest.importorskip("gwpy.segments")
    return segments.DataQualityFlag(name, active=pairs, known=[[T0 - 10, T0 + 1000]], **more)


def write(path, kind):
    segments = pytest.importorskip("gwpy.segments")
    if kind == "list":
        segments.SegmentList([segments.Segment(*pair) for pair in PAIRS]).write(str(path), path="science")
    elif kind == "segwizard":
        segments.SegmentList([segments.Segment(*pair) for pair in PAIRS]).write(str(path), format="segwizard")
    else:
        flag().write(str(path), **({"format": "ligolw"} if ".xml" in path.name else {}))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("s.txt", "segwizard"), ("s.h5", "list"), ("s.hdf5", "flag"), ("s.json", "flag"), ("s.xml.gz", "flag"),
     ("s.xml", "flag")],
)  # fmt: skip
def test_what_gwpy_writes_is_read(tmp_path, name, kind):
    write(tmp_path / name, kind)
    np.testing.assert_allclose(read_segments(str(tmp_path / name)), PAIRS)


@pytest.mark.parametrize(
    "text",
    [
        "1264000000 1264000100.5\n1264000200 1264000260\n",
        "# of mine\n1264000000 1264000100.5 100.5\n\n1264000200 1264000260 60\n",
        "start,end\n1264000000,1264000100.5\n1264000200,1264000260\n",
        "; seg start stop duration\n0\t1264000000\t1264000100.5\t100.5\n1\t1264000200\t1264000260\t60\n",
    ],
)
def test_text_in_all_its_columns(tmp_path, text):
    (tmp_path / "s.txt").write_text(text)
    np.testing.assert_allclose(read_segments(tmp_path / "s.txt"), PAIRS)


def test_several_files_and_pairs_are_joined(tmp_path):
    (tmp_path / "a.txt").write_text(f"{T0} {T0 + 50}\n")
    (tmp_path / "b.txt").write_text(f"{T0 + 40} {T0 + 80}\n{T0 + 200} {T0 + 210}\n")
    found = read_segments([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    assert found.tolist() == [[T0, T0 + 80], [T0 + 200, T0 + 210]]
    assert read_segments([[T0 + 5, T0 + 7], (T0, T0 + 5)]).tolist() == [[T0, T0 + 7]]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1264000000 4096\n", "start before end"),
        ("1264000000 1264000100 50\n", "is not the duration"),
        ("1264000000\n", "line 1: expected `start end`"),
        ("1264000000 soon\n", "line 1: expected `start end`"),
        ("1264000000000 1264000001000\n", "GPS seconds"),
        ("# nothing\n", "no active segment"),
    ],
)
def test_text_that_is_no_list_of_segments_is_refused(tmp_path, text, match):
    (tmp_path / "s.txt").write_text(text)
    with pytest.raises(FormatError, match=rf"s\.txt.*{match}"):
        read_segments(tmp_path / "s.txt")


@pytest.mark.parametrize(
    ("given", "match"),
    [([], "empty"), ([[1, 2, 3]], "pairs"), ([5.0], "pairs"), ({"a": 1}, "Expected a file"), (7, "Expected a file"),
     ([[T0 + 1, T0]], "start before end"), ([[True, 5]], "pairs"), (["a.txt", [1, 2]], "pairs")],
)  # fmt: skip
def test_what_is_neither_file_nor_pairs_is_refused(given, match):
    with pytest.raises(ConfigurationError, match=match):
        read_segments(given)


def test_files_that_are_none_are_refused_in_words(tmp_path):
    with pytest.raises(FormatError, match="no such file of segments"):
        read_segments(tmp_path / "none.txt")
    for name in ("s.xml", "s.json", "s.h5", "s.xml.gz"):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" if name == "s.h5" else b"<?xml{")
        with pytest.raises(FormatError, match=name):
            read_segments(tmp_path / name)


def test_vetoes_may_be_none_and_are_called_so(tmp_path):
    assert read_segments([], vetoes=True).shape == (0, 2)
    with pytest.raises(FormatError, match="correct `vetoes`"):
        read_segments(tmp_path / "none.txt", vetoes=True)
    with pytest.raises(ConfigurationError, match=r"^vetoes: "):
        read_segments([[T0 + 1, T0]], vetoes=True)


def test_of_several_flags_one_must_be_named(tmp_path):
    segments = pytest.importorskip("gwpy.segments")
    path = tmp_path / "s.xml.gz"
    other = flag("H1:DMT-CALIBRATED:1", [[T0, T0 + 500]])
    segments.DataQualityDict({one.name: one for one in (flag(), other)}).write(str(path), format="ligolw")
    with pytest.raises(FormatError, match=r"2 flags.*DMT-CALIBRATED.*segments_flag"):
        read_segments(path)
    np.testing.assert_allclose(read_segments(path, "H1:DMT-ANALYSIS_READY:1"), PAIRS)
    with pytest.raises(FormatError, match=r"no flag.*Nearest: H1:DMT-ANALYSIS_READY:1"):
        read_segments(path, "H1:DMT-ANALYSIS_REDY:1")


def test_a_flag_of_bad_times_is_refused(tmp_path):
    flag(isgood=False).write(str(tmp_path / "s.json"))
    assert json.loads((tmp_path / "s.json").read_text())["metadata"]["active_indicates_ifo_badness"]
    with pytest.raises(FormatError, match="active where the detector is bad"):
        read_segments(tmp_path / "s.json")
