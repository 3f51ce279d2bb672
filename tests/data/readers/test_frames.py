import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import frames
from glitchflow_plugin.errors import FormatError, MissingDependencyError

T0 = 1_264_000_000.0


@pytest.fixture
def backend():
    pytest.importorskip("gwpy")
    try:
        frames.require_backend()
    except MissingDependencyError:
        pytest.skip('no frame library: pip install "glitchflow_plugin[frames]"')


@pytest.mark.usefixtures("backend")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.sampled_from([16, 500, 4096]),
    dtype=st.sampled_from([np.float64, np.float32, np.int32]),
    data=st.data(),
)
def test_frames_round_trip_exactly(tmp_path, rate, dtype, data):
    elements = st.integers(-1000, 1000) if dtype is np.int32 else st.floats(-1e6, 1e6, width=32)
    series = data.draw(arrays(dtype, 4 * rate, elements=elements, fill=elements))
    path = tmp_path / "V-TEST-1264000000-4.gwf"
    other = Channel("V1:OTHER", np.arange(4.0 * 16), T0, 16.0, "V")
    frames.write(path, {"V1:A": Channel("V1:A", series, T0, float(rate), "m"), "V1:OTHER": other})
    stored = frames.describe(path)
    assert (stored.start, stored.stop) == (T0, T0 + 4)
    assert set(stored.channels) == {"V1:A", "V1:OTHER"}
    found = frames.read(path, ["V1:A", "V1:ABSENT"], T0, T0 + 4)
    assert list(found) == ["V1:A"]
    np.testing.assert_array_equal(found["V1:A"].series, series)
    assert found["V1:A"].series.dtype == dtype
    assert (found["V1:A"].t0, found["V1:A"].sample_rate, found["V1:A"].unit) == (T0, rate, "m")


@pytest.mark.usefixtures("backend")
def test_a_cut_and_a_file_without_a_span_in_its_name(tmp_path):
    series = np.arange(10 * 16.0)
    frames.write(tmp_path / "data.gwf", {"V1:A": Channel("V1:A", series, T0, 16.0)})
    stored = frames.describe(tmp_path / "data.gwf")
    assert (stored.start, stored.stop) == (T0, T0 + 10)
    found = frames.read(tmp_path / "data.gwf", ["V1:A"], T0 + 2.25, T0 + 7.5)["V1:A"]
    np.testing.assert_array_equal(found.series, series[36:120])
    assert found.t0 == T0 + 2.25


@pytest.mark.usefixtures("backend")
def test_a_truncated_frame_file_is_refused_before_it_can_crash_the_library(tmp_path):
    path = tmp_path / "V-TEST-1264000000-10.gwf"
    noise = np.random.default_rng(0).normal(size=160)
    frames.write(path, {"V1:A": Channel("V1:A", noise, T0, 16.0)})
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 1, 20, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"truncated|no frame file"):
            frames.read(path, ["V1:A"], T0, T0 + 10)
        with pytest.raises(FormatError, match=r"truncated|no frame file"):
            frames.describe(path)


def test_without_a_frame_library_the_message_says_what_to_install(tmp_path, monkeypatch):
    pytest.importorskip("gwpy")
    backends = [f"gwpy.io.gwf.{name}" for name in ("lalframe", "framecpp", "framel")]
    for name in ("lalframe", "LDAStools", "LDAStools.frameCPP", "framel", *backends):
        monkeypatch.setitem(sys.modules, name, None)  # import then fails as if it were not installed
    with pytest.raises(MissingDependencyError, match=r'pip install "glitchflow_plugin\[frames\]"'):
        frames.describe(tmp_path / "V-TEST-1264000000-10.gwf")
    with pytest.raises(MissingDependencyError, match="frames"):
        frames.write(tmp_path / "x.gwf", {"V1:A": Channel("V1:A", np.arange(16.0), T0, 16.0)})
    assert not (tmp_path / "x.gwf").exists()
