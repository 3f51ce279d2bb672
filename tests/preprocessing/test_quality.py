import pytest

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.preprocessing.quality import Flaw, collect, read_quality, write_quality

FLAWS = [
    Flaw("b", "V1:DEAD", "constant", "the same value for 6.00 s"),
    Flaw("a", "V1:DEAD", "constant"),
    Flaw("a", "V1:MIC", "nan", "3, or more"),
]


def test_counts_by_event_and_channel(tmp_path):
    report = collect(FLAWS, {"c": "target: nan", "d": "target: nan", "e": "file: unreadable"}, 2, ("V1:GONE",))
    assert (report.events_read, report.events_kept) == (5, 2)
    assert report.events_rejected == {"file: unreadable": 1, "target: nan": 2}
    assert report.channels == {"V1:DEAD": {"constant": 2}, "V1:MIC": {"nan": 1}}
    assert report.warnings() == (
        "asked for but in no data set: V1:GONE",
        "V1:DEAD masked in 2 of 5 events (constant 2)",
        "V1:MIC masked in 1 of 5 events (nan 1)",
    )
    write_quality(tmp_path, report)
    assert read_quality(tmp_path) == report


def test_nothing_wrong_is_nothing_said(tmp_path):
    report = collect([], {}, 3)
    assert report.warnings() == ()
    write_quality(tmp_path, report)
    assert read_quality(tmp_path) == report


def test_flaws_come_back_whatever_their_names(tmp_path):
    flaws = (Flaw("#1", 'V1:"A", x', "gap", "two\nlines; and, commas"), Flaw("2", "V1:B", "missing", ""))
    write_quality(tmp_path, collect(flaws, {}, 2, ()))
    assert read_quality(tmp_path).flaws == flaws
    (tmp_path / "quality.csv").write_text("event_id,channel\na,b\n")
    with pytest.raises(FormatError, match=r"quality\.csv is no list of flaws"):
        read_quality(tmp_path)
