import pytest

from glitchflow_plugin.data.readers import continuous
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.preprocessing.quality import ADVICE, MISSING, Flaw, collect, read_quality, write_quality
from glitchflow_plugin.signal import conditioning

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


def test_channels_that_are_never_usable_come_first_together_with_what_to_do():
    flaws = [Flaw(name, channel, "too short", "1.00 s") for name in "abc" for channel in ("V1:X", "V1:Y")]
    report = collect([*flaws, Flaw("a", "V1:Z", "nan")], {"d": "file: unreadable"}, 3)
    assert report.never_usable == ("V1:X", "V1:Y")
    first, second = report.warnings()
    assert first.startswith("MASKED IN ALL 3 EVENTS: 2 channel(s), V1:X, V1:Y: too short (1.00 s). Give longer events")
    assert second == "V1:Z masked in 1 of 4 events (nan 1)"


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
    with pytest.raises(FormatError, match=r"quality\.csv does not match its checksum"):
        read_quality(tmp_path)


def test_every_reason_has_advice():
    reasons = {continuous.GAP, continuous.SAMPLE_RATE, continuous.UNIT, continuous.UNREADABLE, continuous.COPIES}
    reasons |= {continuous.OUTSIDE, MISSING, conditioning.NAN, conditioning.CONSTANT, conditioning.TOO_SHORT}
    assert set(ADVICE) == reasons | {conditioning.NYQUIST}
