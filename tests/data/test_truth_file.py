import numpy as np
import pytest

from glitchflow_plugin.data.truth_file import (
    EventTruth,
    TransientTruth,
    Truth,
    WaveformTruth,
    read_event_truths,
    read_truth,
    write_event_truth,
    write_truth,
)
from glitchflow_plugin.errors import DataError, FormatError

RATE = 64.0


def event(number=0, start=100.0):
    waveform = 1e-22 * np.sin(np.arange(32.0))
    glitch = WaveformTruth(
        label="blip",
        gps_time=start + 1.2,
        t0=start + 1.0,
        sample_rate=RATE,
        waveform=waveform,
        segment=(start + 1.1, start + 1.4),
        snr=12.5,
        witnesses=("V1:W",),
        witness_snr={"V1:W": 20.0},
        coupling={"form": "linear", "band": (10.0, 20.0)},
        parameters={"frequency": np.float64(100.0)},
    )
    merger = WaveformTruth("merger", start + 2.0, start + 1.5, RATE, waveform[:8], (start + 1.5, start + 1.6), 9.0)
    return EventTruth(
        event_id=f"V1-{number}",
        gps_start=start,
        gps_event=start + 2.0,
        duration=4.0,
        group="H1/Blip/0",
        background="file@3.0",
        glitches=(glitch,),
        signals=(merger,),
        transients=(TransientTruth("V1:D", start + 3.0, "distractor", 15.0),),
        gaps={"V1:W": (start, start + 0.5)},
    )


def truth():
    events = [event(1, 200.0), event(0, 100.0)]
    roles = {"V1:W": "witness", "V1:D": "distractor", "V1:A": "distractor", "V1:U": "unsafe"}
    return Truth("V1:H", RATE, roles, {"blip": ("V1:W",)}, {one.event_id: one for one in events}, {"seed": 1})


def test_what_is_written_is_read(tmp_path):
    write_truth(tmp_path / "truth.h5", truth())
    read = read_truth(tmp_path)
    assert list(read.events) == ["V1-0", "V1-1"]  # in order of time
    assert (read.target, read.sample_rate, read.recipe) == ("V1:H", RATE, {"seed": 1})
    assert read.families == {"blip": ("V1:W",)}
    one, wanted = read.events["V1-0"], event()
    for name in ("gps_start", "gps_event", "duration", "group", "background", "transients", "gaps"):
        assert getattr(one, name) == getattr(wanted, name)
    for part, other in ((one.glitches[0], wanted.glitches[0]), (one.signals[0], wanted.signals[0])):
        for name in ("label", "gps_time", "t0", "sample_rate", "segment", "snr", "witnesses", "witness_snr"):
            assert getattr(part, name) == getattr(other, name)
        # float32 holds seven digits, also of strain, whose square it could not hold
        np.testing.assert_allclose(part.waveform, other.waveform, rtol=1e-6, atol=1e-29)
    assert one.glitches[0].coupling == {"form": "linear", "band": [10.0, 20.0]}
    assert one.glitches[0].parameters == {"frequency": 100.0}


def test_channels_by_role_and_segments():
    assert truth().true_witnesses == ("V1:W",)
    assert truth().channels("distractor") == ("V1:A", "V1:D")
    assert truth().channels("dead") == ()
    assert truth().glitch_segments == {"V1-1": [(201.1, 201.4)], "V1-0": [(101.1, 101.4)]}


def test_the_glitch_over_the_whole_event():
    series = event().glitch_strain(RATE)
    assert series.shape == (256,)
    np.testing.assert_array_equal(series[64:96], event().glitches[0].waveform)
    assert np.count_nonzero(series) <= 32
    assert not EventTruth("x", 0.0, 2.0, 4.0).signal_strain(RATE).any()
    with pytest.raises(DataError, match="64 Hz"):
        event().glitch_strain(32.0)


def test_parts_are_collected_in_order_of_time(tmp_path):
    for number, start in ((0, 300.0), (1, 200.0)):
        write_event_truth(tmp_path / f"{number}.h5", event(number, start))
    collected = read_event_truths(sorted(tmp_path.glob("*.h5")))
    assert list(collected) == ["V1-1", "V1-0"]


def test_missing_broken_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FormatError, match="simulate_pipeline"):
        read_truth(tmp_path)
    broken = tmp_path / "truth.h5"
    broken.write_bytes(b"no HDF5")
    with pytest.raises(FormatError, match=r"truth\.h5"):
        read_truth(broken)
    with pytest.raises(FormatError, match="cannot be read"):
        read_event_truths([broken])


def test_a_later_format_is_refused(tmp_path):
    import h5py

    write_truth(tmp_path / "truth.h5", truth())
    with h5py.File(tmp_path / "truth.h5", "r") as written, h5py.File(tmp_path / "later.h5", "w") as file:
        written.copy("events", file)
        file.attrs.update({**written.attrs, "format_version": 99})
    (tmp_path / "later.h5").rename(tmp_path / "truth.h5")
    with pytest.raises(FormatError, match="99"):
        read_truth(tmp_path)
