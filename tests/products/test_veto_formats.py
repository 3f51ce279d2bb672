"""Vetoes in the formats of searches: through gwpy, igwn-ligolw and PyCBC's layout of gates, each with what it holds."""

import json

import numpy as np
import pytest
from gwpy.segments import DataQualityDict, DataQualityFlag, SegmentList
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from igwn_ligolw import lsctables
from igwn_ligolw.utils import load_filename

from glitchflow_plugin.data.readers.segments import read_segments
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.products.veto_flag import GRID, VetoFlag, flag_name, veto_flag
from glitchflow_plugin.products.veto_formats import FORMATS, dqsegdb_payload, dropped, read_flag, write_flag

NAME = "V1:GLF-VETO_TEST:2"
READABLE = [kind for kind, one in FORMATS.items() if one.read]
GPS = 1264625000.0


def times(draw, count):
    steps = draw(st.lists(st.floats(1e-6, 300.0), min_size=2 * count, max_size=2 * count))
    return (GPS + draw(st.floats(0, 1e8)) + np.cumsum(steps)).reshape(count, 2)


@st.composite
def flags(draw):
    """Any flag: fractional seconds, several or no active segments, all the fields."""
    active = times(draw, draw(st.integers(0, 4)))
    known = np.array([[GPS - 10.25, GPS + 2e8]])
    text = st.none() | st.text(st.characters(codec="ascii", exclude_categories=("C",)), min_size=1, max_size=30)
    pads = st.floats(-1, 1)
    return VetoFlag(
        NAME,
        active=active,
        known=known,
        isgood=draw(st.booleans()),
        padding=(draw(pads), draw(pads)),
        description=draw(text),
        label=draw(text),
        category=draw(st.none() | st.integers(1, 4)),
    )


def fields(flag, names):
    return {name: getattr(flag, name) for name in names}


@pytest.mark.parametrize("kind", READABLE)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flag=flags())
def test_every_field_that_a_format_can_hold_comes_back(kind, flag, tmp_path):
    path = write_flag(flag, tmp_path, "veto", kind)[0]
    found = read_flag(path, kind, name=NAME)
    lost = set(dropped(flag, kind))
    assert np.array_equal(found.active, flag.active)
    assert np.array_equal(found.known, flag.known) == ("known" not in lost)
    assert found.name == flag.name
    kept = {"isgood", "padding", "description", "label", "category"} - lost
    assert fields(found, kept) == fields(flag, kept)
    for name in lost - {"name", "known"}:
        assert getattr(found, name) != getattr(flag, name)


def test_the_grid_lets_gwpy_give_the_times_back_as_floats(tmp_path):
    flag = veto_flag(
        NAME, np.array([[GPS + 0.1234567, GPS + 1.7], [GPS + 1.69, GPS + 2.0]]), np.array([[GPS, GPS + 6]])
    )
    assert np.array_equal(flag.active * GRID, np.round(flag.active * GRID))
    assert flag.active[0, 0] <= GPS + 0.1234567 < flag.active[0, 0] + 1 / GRID
    for kind in READABLE:
        write_flag(flag, tmp_path, "veto", kind)
    text = SegmentList.read(tmp_path / "veto.txt", format="segwizard", gpstype=float)
    assert np.array_equal(np.array([[*one] for one in text]), flag.active)
    assert np.array_equal(
        np.array([[*one] for one in SegmentList.read(tmp_path / "veto-known.txt", format="segwizard")], float),
        flag.known,
    )
    for one in (
        DataQualityFlag.read(tmp_path / "veto.json", format="json"),
        DataQualityDict.read(tmp_path / "veto.h5", format="hdf5")[NAME],
        DataQualityDict.read(tmp_path / "veto.xml", format="ligolw")[NAME],
    ):
        assert np.array_equal(np.array([[*pair] for pair in one.active], float), flag.active)
        assert np.array_equal(np.array([[*pair] for pair in one.known], float), flag.known)


def test_gates_are_centre_half_width_and_taper(tmp_path):
    flag = VetoFlag(NAME, active=np.array([[GPS + 1, GPS + 2.5]]), known=np.array([[GPS, GPS + 6]]))
    [path] = write_flag(flag, tmp_path, "veto", "gates")
    assert np.loadtxt(path).tolist() == [GPS + 1.75, 0.75, 0.25]
    path.write_text("# gates\n1264625001 0.5\n")
    with pytest.raises(FormatError, match=r"line 2.*gps half_window taper"):
        read_flag(path, "gates")


def test_a_veto_definer_names_the_flag_and_when_it_holds(tmp_path):
    flag = veto_flag(NAME, np.array([[GPS + 1, GPS + 2]]), np.array([[GPS + 0.5, GPS + 6.5]]), description="a test")
    [path] = write_flag(flag, tmp_path, "veto", "veto_definer")
    [row] = lsctables.VetoDefTable.get_table(load_filename(str(path)))
    assert (row.ifo, row.name, row.version, row.category, row.comment) == ("V1", "GLF-VETO_TEST", 2, 3, "a test")
    assert (row.start_time, row.end_time, row.start_pad, row.end_pad) == (GPS, GPS + 7, 0, 0)
    assert dropped(flag, "veto_definer") == ("active", "known")
    with pytest.raises(ConfigurationError, match="hold no segments"):
        read_flag(path, "veto_definer")


def test_a_payload_for_the_segment_database_is_what_it_gives_back(tmp_path):
    flag = veto_flag(NAME, np.array([[GPS + 1.5, GPS + 1.75]]), np.array([[GPS + 0.5, GPS + 6.5]]))
    [path] = write_flag(flag, tmp_path, "veto", "dqsegdb")
    payload = json.loads(path.read_text())
    assert payload == json.loads(json.dumps(dqsegdb_payload(flag)))
    assert payload["active"] == [[GPS + 1.5, GPS + 1.75]]
    assert payload["known"] == [[GPS + 0.5, GPS + 6.5]]
    assert payload["metadata"]["active_indicates_ifo_badness"] is True
    assert DataQualityFlag.read(path, format="json").name == NAME


def test_an_empty_veto_says_what_was_looked_at(tmp_path):
    flag = veto_flag(NAME, np.empty((0, 2)), np.array([[GPS, GPS + 6]]))
    for kind in READABLE:
        [path, *_] = write_flag(flag, tmp_path, "veto", kind)
        found = read_flag(path, kind)
        assert not len(found.active)
        assert np.array_equal(found.known, flag.known) or "known" in dropped(flag, kind)


def test_known_segments_are_read_as_science_segments(tmp_path):
    flag = veto_flag(NAME, np.empty((0, 2)), np.array([[GPS, GPS + 6], [GPS + 20, GPS + 26]]))
    _, known = write_flag(flag, tmp_path, "veto", "segwizard")
    assert np.array_equal(read_segments(str(known)), flag.known)


@pytest.mark.parametrize(
    ("name", "active", "says"),
    [
        ("GLF-VETO", [[1, 2]], "IFO:NAME:VERSION"),
        (NAME, [[3, 4], [1, 2]], "disjoint, rising"),
        (NAME, [[1, 3], [2, 4]], "disjoint, rising"),
        (NAME, [[2, 2]], "not empty"),
        (NAME, [[1, 20]], "not known"),
    ],
)
def test_what_no_format_could_hold_is_refused(name, active, says):
    with pytest.raises(FormatError, match=says):
        VetoFlag(name, active=np.array(active, float), known=np.array([[0.0, 10.0]]))


def test_an_unknown_format_is_told_with_the_nearest(tmp_path):
    with pytest.raises(ConfigurationError, match="segwizard"):
        write_flag(VetoFlag(NAME), tmp_path, "veto", "segwizzard")


def test_names_of_flags():
    assert flag_name("H1:GDS-CALIB_STRAIN", "my model", "champion") == "H1:GLF-VETO_MY_MODEL:0"
    assert flag_name("strain", "m", 2) == "X1:GLF-VETO_M:2"
