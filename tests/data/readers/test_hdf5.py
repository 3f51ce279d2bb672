import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.errors import FormatError

T0 = 1_264_000_000.0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    series=arrays(np.float64, st.integers(1, 200), elements=st.floats(allow_nan=True)),
    rate=st.sampled_from([0.5, 16.0, 500.0, 4096.0, 16384.0, 20000.0]),
    t0=st.floats(1e9, 2e9),
    unit=st.sampled_from(["", "m", "strain", "V"]),
)
def test_what_is_written_is_read(tmp_path, series, rate, t0, unit):
    path = tmp_path / "data.h5"
    hdf5.write(path, {"V1:A": Channel("V1:A", series, t0, rate, unit)})
    stored = hdf5.describe(path)
    assert stored.channels["V1:A"].sample_rate == rate
    assert stored.channels["V1:A"].unit == unit
    found = hdf5.read(path, ["V1:A", "V1:ABSENT"], stored.start - 1, stored.stop + 1)
    assert list(found) == ["V1:A"]
    np.testing.assert_array_equal(found["V1:A"].series, series)
    assert (found["V1:A"].t0, found["V1:A"].sample_rate, found["V1:A"].unit) == (t0, rate, unit)


def test_gwpy_reads_our_files_and_we_read_gwpys(tmp_path):
    timeseries = pytest.importorskip("gwpy.timeseries")
    series = np.random.default_rng(0).normal(size=500)
    hdf5.write(tmp_path / "ours.h5", {"V1:A": Channel("V1:A", series, T0, 500.0, "m")})
    theirs = timeseries.TimeSeriesDict.read(tmp_path / "ours.h5", format="hdf5")["V1:A"]
    np.testing.assert_array_equal(theirs.value, series)
    assert (theirs.t0.value, theirs.sample_rate.value, str(theirs.unit)) == (T0, pytest.approx(500), "m")
    theirs.write(tmp_path / "theirs.h5", path="V1:A")
    back = hdf5.read(tmp_path / "theirs.h5", ["V1:A"], T0 + 0.2, T0 + 0.5)["V1:A"]
    np.testing.assert_array_equal(back.series, series[100:250])
    assert (back.t0, back.sample_rate) == (T0 + 0.2, 500.0)


def test_event_files_can_be_cut_too(tmp_path):
    event = RawEvent("e", T0 + 1, {"V1:A": Channel("V1:A", np.arange(32.0), T0, 16.0, "m")})
    write_event(tmp_path / "e.h5", event)
    found = hdf5.read(tmp_path / "e.h5", ["V1:A"], T0 + 1, T0 + 2)["V1:A"]
    np.testing.assert_array_equal(found.series, np.arange(16.0, 32.0))


def test_truncated_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "data.h5"
    hdf5.write(path, {"V1:A": Channel("V1:A", np.arange(1000.0), T0, 16.0)})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(FormatError, match="truncated"):
        hdf5.describe(path)
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(FormatError, match="no dataset"):
        hdf5.describe(tmp_path / "other.h5")


def stored(path, **datasets):
    """A file of series of 16 Hz, ten seconds each: key (or path) to the attributes that differ."""
    import h5py

    with h5py.File(path, "w") as file:
        for number, (key, attributes) in enumerate(datasets.items()):
            dataset = file.create_dataset(key, data=np.arange(160.0) + 1000 * number)
            dataset.attrs.update({"x0": T0, "dx": 1 / 16, "unit": "m"} | attributes)
    return path


def first_sample(path, name):
    return hdf5.read(path, [name], T0, T0 + 10)[name].series[0]


def test_the_key_names_a_channel_and_not_what_gwpy_calls_it(tmp_path):
    path = stored(tmp_path / "a.h5", **{"H1:STRAIN": {"name": "H1:STRAIN"}, "H1:STRAIN_CLEAN": {"name": "H1:STRAIN"}})
    assert {name: one.alias for name, one in hdf5.describe(path).channels.items()} == {
        "H1:STRAIN": None,
        "H1:STRAIN_CLEAN": None,
    }
    assert first_sample(path, "H1:STRAIN") == 0
    assert first_sample(path, "H1:STRAIN_CLEAN") == 1000


def test_a_name_that_several_have_is_nobodys(tmp_path):
    path = stored(tmp_path / "a.h5", H1={"name": "Strain"}, L1={"name": "Strain"})
    assert list(hdf5.describe(path).channels) == ["H1", "L1"]
    assert hdf5.read(path, ["Strain"], T0, T0 + 10) == {}
    assert first_sample(path, "L1") == 1000


def test_a_name_that_one_has_is_an_alias(tmp_path):
    path = stored(tmp_path / "a.h5", strain={"name": "H1:STRAIN"}, other={"name": "strain"})
    assert {name: one.alias for name, one in hdf5.describe(path).channels.items()} == {
        "strain": "H1:STRAIN",
        "other": None,  # `strain` is another's key
    }
    assert first_sample(path, "H1:STRAIN") == 0
    assert first_sample(path, "strain") == 0


def test_a_key_in_two_groups_is_told_with_its_group(tmp_path):
    path = stored(tmp_path / "a.h5", **{"H1/Strain": {}, "L1/Strain": {"name": "L1:Strain"}, "L1/Other": {}})
    assert set(hdf5.describe(path).channels) == {"H1/Strain", "L1/Strain", "Other"}
    assert first_sample(path, "L1/Strain") == first_sample(path, "L1:Strain") == 1000 * 1
    assert hdf5.read(path, ["Strain"], T0, T0 + 10) == {}


def test_a_frequency_series_is_no_channel(tmp_path):
    path = stored(tmp_path / "a.h5", A={}, PSD={"x0": 0.0, "dx": 0.5, "xunit": "Hz"}, MAP={"xunit": "m"})
    assert list(hdf5.describe(path).channels) == ["A"]


@pytest.mark.parametrize(
    ("unit", "seconds"), [("s", 1), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("min", 60.0), (b"ms", 1e-3)]
)
def test_times_are_counted_in_their_unit(tmp_path, unit, seconds):
    path = stored(tmp_path / "a.h5", A={"x0": T0 / seconds, "dx": 0.0625 / seconds, "xunit": unit})
    described = hdf5.describe(path)
    assert described.channels["A"].sample_rate == 16
    assert described.start == pytest.approx(T0, abs=1e-6)
    np.testing.assert_array_equal(hdf5.read(path, ["A"], T0 + 1, T0 + 2)["A"].series, np.arange(16.0, 32.0))


@pytest.mark.parametrize("time", [np.float32(T0), np.array([T0], np.float32), np.float16(3e4), np.nan, "soon"])
def test_a_time_that_is_not_known_is_refused(tmp_path, time):
    path = stored(tmp_path / "a.h5", A={}, B={"x0": time})
    described = hdf5.describe(path)
    assert (described.start, described.stop) == (T0, T0 + 10)
    assert described.channels["B"].sample_rate is None
    assert first_sample(path, "A") == 0
    with pytest.raises(FormatError, match=r"x0: (the time .* is stored as float|expected a number)"):
        first_sample(path, "B")


@pytest.mark.parametrize("time", [np.int32(T0), np.array([T0]), str(T0), np.longdouble(T0)])
def test_a_time_may_be_stored_in_any_type_that_holds_it(tmp_path, time):
    path = stored(tmp_path / "a.h5", A={"x0": time})
    assert hdf5.read(path, ["A"], T0, T0 + 1)["A"].t0 == T0


def test_links_are_followed_within_the_folder_and_told_beyond(tmp_path):
    import h5py

    path = stored(tmp_path / "a.h5", A={})
    stored(tmp_path / "near.h5", X={}, Y={})
    (tmp_path / "away").mkdir()
    stored(tmp_path / "away" / "far.h5", X={})
    with h5py.File(tmp_path / "near.h5", "r+") as file:
        file["onwards"] = h5py.ExternalLink("away/far.h5", "/X")
    with h5py.File(path, "r+") as file:
        file["soft"] = h5py.SoftLink("/A")
        file["near"] = h5py.ExternalLink("near.h5", "/Y")
        file["far"] = h5py.ExternalLink("away/far.h5", "/X")
        file["onwards"] = h5py.ExternalLink("near.h5", "/onwards")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["circle"] = h5py.SoftLink("/circle")
        file["root"] = h5py.SoftLink("/")
        file["storage"] = np.zeros(0)
        del file["storage"]
        passwd = file.create_dataset("storage", (160,), "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        passwd.attrs.update(x0=T0, dx=1 / 16)
    assert set(hdf5.describe(path).channels) == {
        "A", "soft", "near", "far", "onwards", "dangling", "circle", "storage"
    }  # fmt: skip
    assert first_sample(path, "soft") == 0
    assert first_sample(path, "near") == 1000
    for name, match in (
        ("far", "outside the folder"),
        ("onwards", "outside the folder"),
        ("dangling", "lead nowhere"),
        ("circle", "lead nowhere"),
        ("storage", "in other files"),
    ):
        with pytest.raises(FormatError, match=match):
            first_sample(path, name)


def test_a_spoilt_data_set_is_a_channel_that_cannot_be_read(tmp_path):
    import h5py

    path = stored(tmp_path / "a.h5", A={}, SLOW={"dx": 0.0}, BACK={"dx": -0.1}, NONE={"dx": np.nan})
    with h5py.File(path, "r+") as file:
        for name, data in (("IMAGINARY", np.ones(160) * 1j), ("TABLE", np.ones(160, [("a", "f8")]))):
            file.create_dataset(name, data=data).attrs.update(x0=T0, dx=1 / 16)
        file.create_dataset("BOMB", (4 * 10**9,), "f8").attrs.update(x0=T0, dx=1e-9)
    assert set(hdf5.describe(path).channels) == {"A", "SLOW", "BACK", "NONE", "IMAGINARY", "TABLE", "BOMB"}
    for name, match in (
        ("SLOW", "dx must be positive"),
        ("BACK", "dx must be positive"),
        ("NONE", "dx: expected a number, got nan"),
        ("IMAGINARY", "complex"),
        ("TABLE", "real numbers"),
        ("BOMB", "4000000000 samples are asked for"),
    ):
        with pytest.raises(FormatError, match=match):
            first_sample(path, name)
