import hashlib
import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests import _warm
from tests.preprocessing import _runs

from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.ingest import ingest, ingest_with_recipe
from glitchflow_plugin.preprocessing.quality import read_quality
from glitchflow_plugin.signal.conditioning import (
    ChannelRejectedError,
    ConditioningSettings,
    condition,
    needed_length,
)
from glitchflow_plugin.signal.slow import SHARE, low_passed
from glitchflow_plugin.signal.whitening import WhiteningSettings

T0 = 1_264_000_000.0
TARGET = "V1:STRAIN"
RATES = {TARGET: 2048.0, "V1:SLOW": 256.0, "V1:FAST": 1024.0}


def event(number, rates=RATES, **changed):
    """Sixteen seconds of noise about a trigger; `changed` replaces channels by name, with None to leave one out."""
    generator = np.random.default_rng(number)
    gps = T0 + 100.0 * number + 0.3
    channels = {
        name: Channel(name, generator.normal(size=int(16 * rate)), T0 + 100 * number - 8, rate, "m")
        for name, rate in rates.items()
    }
    for name, replaced in changed.items():
        channels[name] = replaced(channels[name]) if replaced else None
    return RawEvent(f"event-{number:02d}", gps, {name: held for name, held in channels.items() if held is not None})


def write(folder, *events):
    for one in events:
        write_event(folder / f"{one.event_id}.h5", one)
    return [{"path": str(folder), "target": TARGET, "processing": {"batch": 2}}]


def altered(**fields):
    def change(channel):
        return Channel(
            **{**{key: getattr(channel, key) for key in ("name", "series", "t0", "sample_rate", "unit")}, **fields}
        )

    return change


def with_nan(channel):
    series = channel.series.copy()
    series[len(series) // 2] = np.nan
    return altered(series=series)(channel)


def test_groups_reach_the_event_set_and_new_ones_make_it_anew(tmp_path):
    constant = event(3, **{TARGET: altered(series=np.zeros(16 * 2048))})
    given = [replace(event(number), group=f"wave {number % 2}") for number in range(3)]
    datasets = write(tmp_path / "in", *given, replace(constant, group="wave 1"))
    assert ingest(datasets, None, tmp_path / "out").groups == ("wave 0", "wave 1", "wave 0")
    write(tmp_path / "other", *(event(number) for number in range(4)))
    labels = tmp_path / "labels.csv"
    for wave in ("one", "two"):
        labels.write_text("event_id,group\n" + "".join(f"event-0{number},{wave}\n" for number in range(4)))
        entry = {**datasets[0], "path": str(tmp_path / "other"), "groups": str(labels)}
        assert ingest([entry], None, tmp_path / "labelled").groups == (wave,) * 4


def test_what_is_stored_is_what_conditioning_gives(tmp_path):
    datasets = write(tmp_path / "in", *(event(number) for number in range(3)))
    events = ingest([datasets[0] | {"processing": {"crop_jitter": 0.0}}], None, tmp_path / "out")
    assert events.channels == (TARGET, "V1:FAST", "V1:SLOW")
    assert events.event_ids == ("event-00", "event-01", "event-02")
    assert (events.sample_rate, events.num_samples) == (1024.0, 6144)
    assert events.valid.all()
    batch = events.read([2])
    raw = event(2).channels["V1:SLOW"]
    expected, start = condition(raw.series, raw.sample_rate, raw.t0, T0 + 200.3, ConditioningSettings())
    np.testing.assert_array_equal(batch.series[0, 2], expected)
    assert batch.gps_start[0] == start
    assert batch.gps_event[0] == T0 + 200.3
    assert batch.series.dtype == np.float32
    events.verify()


def test_the_crop_lies_beside_the_trigger_by_the_event_alone(tmp_path):
    datasets = write(tmp_path / "in", *(event(number) for number in range(6)))
    every = ingest(datasets, None, tmp_path / "out")
    away = every.gps_event - every.gps_start - 3.0
    assert np.abs(away).max() <= 0.5 + 1e-3
    assert np.ptp(away) > 0.2
    # other workers, another order, other neighbours, and a model that repeats the recipe
    few = ingest([datasets[0] | {"events": {"min": 4}}], None, tmp_path / "few", shard_size=1)
    np.testing.assert_array_equal(few.gps_start, every.gps_start[4:])
    again = ingest_with_recipe(datasets, json.loads(json.dumps(every.recipe)), None, tmp_path / "again")
    np.testing.assert_array_equal(again.read().series, every.read().series)
    # data in which the crop has to be somewhere say so
    fixed = [datasets[0] | {"processing": {"crop_jitter": 0.0}}]
    middle = ingest_with_recipe(fixed, every.recipe, None, tmp_path / "middle")
    np.testing.assert_allclose(middle.gps_event - middle.gps_start, 3.0, atol=1e-3)
    other = ingest([datasets[0] | {"processing": {"crop_seed": 1}}], None, tmp_path / "other")
    assert (other.gps_start != every.gps_start).all()
    # a recipe of former versions says nothing of it
    former = {key: value for key, value in every.recipe.items() if not key.startswith("crop_")}
    still = ingest_with_recipe(datasets, former, None, tmp_path / "still")
    np.testing.assert_allclose(still.gps_event - still.gps_start, 3.0, atol=1e-3)


def test_data_sets_that_are_merged_agree_on_the_jitter(tmp_path):
    datasets = write(tmp_path / "in", event(0))
    with pytest.raises(ConfigurationError, match=r"jitter of the crop: processing\.crop_jitter is 0\.1 and null"):
        ingest([datasets[0], datasets[0] | {"processing": {"crop_jitter": 0.1}}], None, tmp_path / "out")


def test_every_kind_of_damage_is_masked_counted_and_survived(tmp_path):
    folder = tmp_path / "in"
    datasets = write(
        folder,
        event(0),
        event(1, **{"V1:SLOW": with_nan}),
        event(2, **{"V1:SLOW": None}),
        event(3, **{"V1:SLOW": altered(series=np.zeros(4096))}),
        event(4, **{"V1:FAST": altered(unit="V")}),
        event(5, **{"V1:FAST": altered(sample_rate=512.0)}),
        event(6, **{"V1:FAST": altered(series=np.ones(100))}),
        event(7, **{TARGET: with_nan}),
        event(8, **{TARGET: None}),
        event(9),
        event(10),
    )
    (folder / "event-09.h5").write_bytes((folder / "event-09.h5").read_bytes()[:5000])
    events = ingest(datasets, None, tmp_path / "out")
    assert len(events) == 8
    report = read_quality(events.folder)
    assert report.events_read == 11
    assert report.events_rejected == {"file: unreadable": 1, "target: missing": 1, "target: nan": 1}
    assert report.channels["V1:SLOW"] == {"constant": 1, "missing": 1, "nan": 1}
    assert report.channels["V1:FAST"] == {"sample rate": 1, "too short": 1, "unit": 1}
    masks = dict(zip(events.event_ids, events.valid.tolist(), strict=True))
    assert masks["event-00"] == [True, True, True]
    assert masks["event-01"] == [True, True, False]
    assert masks["event-04"] == [True, False, True]
    assert not events.read([1]).series[0, 2].any()  # invalid means zero


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    datasets = write(tmp_path / "in", event(0, **{TARGET: with_nan}), event(1, **{TARGET: altered(series=np.ones(9))}))
    with pytest.raises(NoEventsError, match=r"target: nan.*quality\.csv"):
        ingest(datasets, None, tmp_path / "out")
    assert read_quality(tmp_path / "out").events_rejected == {"target: nan": 1, "target: too short": 1}


def shortened(seconds):
    def change(channel):
        size = round(seconds * channel.sample_rate)
        first = (len(channel.series) - size) // 2
        t0 = channel.t0 + first / channel.sample_rate
        return replace(channel, series=channel.series[first : first + size], t0=t0)

    return change


def test_events_that_are_all_too_short_name_the_lengths_and_the_keys(tmp_path):
    cut = {name: shortened(8) for name in RATES}
    datasets = write(tmp_path / "in", event(0, **cut), event(1, **cut))
    with pytest.raises(NoEventsError) as caught:
        ingest(datasets, None, tmp_path / "out")
    message = str(caught.value)
    assert "MASKED IN ALL 2 EVENTS" in message
    assert re.search(r"crop of 6 s, the filters need 1\.\d\d s at each side: 9\.\d\d s in all", message)
    for key in ("segment", "processing.len", "processing.minf", "filter_length"):
        assert key in message


def test_a_segment_that_is_too_short_for_all_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    for offset in (0, 32):
        held = {name: Channel(name, np.ones(int(32 * rate)), T0 + offset, rate, "m") for name, rate in RATES.items()}
        hdf5.write(tmp_path / "in" / f"V-TEST-{T0 + offset:.0f}-32.h5", held)
    monkeypatch.setattr("glitchflow_plugin.preprocessing.ingest.map_shards", None)
    entry = {"path": str(tmp_path / "in"), "target": TARGET, "triggers": [T0 + 16]}
    with pytest.raises(ConfigurationError, match=r"segment \(8 s.*takes 9\.\d\d s.*processing\.len"):
        ingest([entry | {"segment": 8.0}], None, tmp_path / "out")
    with pytest.raises(ConfigurationError, match=r"segment \(16 s.*exclude_length"):
        ingest([entry], {"exclude_length": 15.0}, tmp_path / "out")
    with pytest.raises(ConfigurationError, match=r"twentieth.*widen the band, or raise sr"):
        ingest([entry | {"processing": {"minf": 390.0}}], None, tmp_path / "out")


@pytest.mark.parametrize("rate", [500.0, 1024.0, 4096.0])
@pytest.mark.parametrize("whitening", [None, {"filter_length": 1.0}, {"exclude_length": 8.0}, {"fft_length": 3.0}])
def test_the_needed_length_is_the_least_that_will_do(rate, whitening):
    settings = ConditioningSettings(whitening=WhiteningSettings(**whitening or {}))
    needed = needed_length(settings, rate)
    noise = np.random.default_rng(1).normal(size=round(40 * rate))
    for length, enough in ((needed + 0.1, True), (needed - 0.1, False)):
        size = 2 * round(length * rate / 2)
        t0 = T0 - size / 2 / rate
        if enough:
            condition(noise[:size], rate, t0, T0, settings)
        else:
            with pytest.raises(ChannelRejectedError, match="too short"):
                condition(noise[:size], rate, t0, T0, settings)


def test_a_channel_that_no_event_can_use_is_said_first_with_what_to_do(tmp_path):
    datasets = write(tmp_path / "in", *(event(number, **{"V1:SLOW": altered(sample_rate=16.0)}) for number in range(3)))
    events = ingest(datasets, None, tmp_path / "out")
    report = read_quality(events.folder)
    assert report.never_usable == ("V1:SLOW",)
    assert re.match(r"MASKED IN ALL 3 EVENTS: 1 channel.*V1:SLOW: .*processing\.minf", report.warnings()[0])


def test_inference_repeats_the_recipe(tmp_path):
    datasets = write(tmp_path / "in", event(0), event(1))
    whitening = {"fft_length": 2.0, "overlap": 1.0, "exclude_length": 3.0}
    made = ingest([datasets[0] | {"processing": {"minf": 12.0, "len": 4.0}}], whitening, tmp_path / "out")
    recipe = json.loads(json.dumps(made.recipe))  # as a model registry keeps it
    again = ingest_with_recipe(datasets, recipe, None, tmp_path / "again")
    np.testing.assert_array_equal(again.read().series, made.read().series)
    some = ingest_with_recipe(datasets, recipe, ["V1:SLOW"], tmp_path / "some")
    assert some.channels == (TARGET, "V1:SLOW")
    np.testing.assert_array_equal(some.read().series[:, 1], made.read().series[:, 2])


def test_channels_that_a_model_needs_and_the_data_lack_are_listed(tmp_path):
    recipe = ingest(write(tmp_path / "in", event(0)), None, tmp_path / "out").recipe
    poor = write(tmp_path / "poor", event(0, rates={TARGET: 2048.0}))
    with pytest.raises(ChannelMismatchError, match=r"\['V1:FAST', 'V1:SLOW'\]"):
        ingest_with_recipe(poor, recipe, None, tmp_path / "x")
    with pytest.raises(ChannelMismatchError, match="V1:NEW"):
        ingest_with_recipe(poor, recipe, ["V1:NEW"], tmp_path / "x")


def test_a_unit_other_than_in_training_is_noticed(tmp_path):
    recipe = ingest(write(tmp_path / "in", event(0)), None, tmp_path / "out").recipe
    datasets = write(tmp_path / "new", event(0, **{"V1:FAST": altered(unit="V")}))
    found = ingest_with_recipe(datasets, recipe, None, tmp_path / "x")
    assert found.valid.tolist() == [[True, False, True]]
    assert read_quality(found.folder).flaws[0].detail == "expected m, got V"


def test_a_recipe_that_cannot_be_followed_is_refused(tmp_path):
    datasets = write(tmp_path / "in", event(0))
    recipe = ingest(datasets, None, tmp_path / "out").recipe
    later = {**recipe, "whitening": {**recipe["whitening"], "later": 1}}
    without = {key: value for key, value in recipe.items() if key != "duration"}
    for other, told in ((later, "'later'"), (without, "'duration'"), ({"made": "by hand"}, "'made'")):
        with pytest.raises(FormatError, match=f"{told}.* (Make it again|train a model)"):
            ingest_with_recipe(datasets, other, None, tmp_path / "x")


def test_a_spectrum_of_the_users_is_taken_and_travels_with_the_recipe(tmp_path):
    datasets = write(tmp_path / "in", event(0))
    frequencies = np.linspace(0, 1024, 2049)
    asd = tmp_path / "noise.txt"
    np.savetxt(asd, np.column_stack([frequencies, np.full(2049, np.sqrt(2 / 2048.0))]))
    made = ingest(datasets, {"psd": {TARGET: str(asd)}, "psd_quantity": "asd"}, tmp_path / "out")
    # white noise at 2048 Hz has density 2 / 2048
    assert made.read().series[0, 0].std() == pytest.approx(np.sqrt(392 / 512), rel=0.04)
    asd.unlink()
    recipe = json.loads(json.dumps(made.recipe))
    again = ingest_with_recipe(datasets, recipe, None, tmp_path / "again")
    np.testing.assert_array_equal(again.read().series, made.read().series)
    flat = tmp_path / "flat.txt"
    np.savetxt(flat, np.array([[0.0, 1.0], [1024.0, 1.0]]))
    with pytest.raises(ConfigurationError, match="V1:NOT"):
        ingest(datasets, {"psd": {"V1:NOT": str(flat)}}, tmp_path / "x")


@pytest.mark.parametrize(
    ("first", "last", "fits"), [(0, 1024, True), (8, 400, True), (10, 1024, False), (0, 390, False)]
)
def test_a_spectrum_that_does_not_span_the_band_is_refused(tmp_path, first, last, fits):
    datasets = write(tmp_path / "in", event(0))
    given = tmp_path / "noise.txt"
    np.savetxt(given, np.array([[first, 1e-3], [last, 1e-3]]))
    if fits:
        assert len(ingest(datasets, {"psd": {TARGET: str(given)}}, tmp_path / "out")) == 1
        return
    with pytest.raises(ConfigurationError, match=rf"{TARGET}.*from {first} to {last} Hz.*8 to 400 Hz.*noise\.txt"):
        ingest(datasets, {"psd": {TARGET: str(given)}}, tmp_path / "out")


def test_the_spectrum_of_a_slow_channel_may_end_where_the_channel_does(tmp_path):
    datasets = write(tmp_path / "in", event(0))
    slow = min(RATES, key=lambda name: RATES[name])
    given = tmp_path / "noise.txt"
    np.savetxt(given, np.array([[0, 1e-3], [RATES[slow] / 2, 1e-3]]))
    assert len(ingest(datasets, {"psd": {slow: str(given)}}, tmp_path / "out")) == 1


def test_misspelt_whitening_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="fftlength"):
        ingest(write(tmp_path / "in", event(0)), {"fftlength": 2.0}, tmp_path / "out")


def test_without_whitening_float64_in_the_recorded_unit(tmp_path):
    datasets = write(tmp_path / "in", event(0))
    plain = datasets[0] | {"processing": {"whiten": False}}
    events = ingest([plain], None, tmp_path / "out")
    assert events.read().series.dtype == np.float64
    assert events.manifest.units == "as recorded"


def test_triggers_cut_out_of_continuous_files(tmp_path):
    generator = np.random.default_rng(5)
    for offset in (0, 32):
        held = {
            name: Channel(name, generator.normal(size=int(32 * rate)), T0 + offset, rate, "m")
            for name, rate in RATES.items()
        }
        hdf5.write(tmp_path / "in" / f"V-TEST-{T0 + offset:.0f}-32.h5", held)
    entry = {"path": str(tmp_path / "in"), "target": TARGET, "triggers": [T0 + 16, T0 + 33.0, T0 + 62.0]}
    events = ingest([entry], None, tmp_path / "out")
    assert events.event_ids == (f"{T0 + 16:.6f}", f"{T0 + 33:.6f}")
    assert events.manifest.rejected == {f"{T0 + 62:.6f}": "target: gap"}
    np.testing.assert_allclose(events.read().series.std(axis=-1), np.sqrt(392 / 512), rtol=0.1)


def test_a_hole_in_a_frame_file_masks_what_it_masks_between_two(tmp_path):
    lal, lalframe = pytest.importorskip("lal"), pytest.importorskip("lalframe")
    noise = np.random.default_rng(5).normal(size=(2, 96 * 1024))

    def frame(start, stop):
        made = lalframe.FrameNew(lal.LIGOTimeGPS(T0 + start), stop - start, "TEST", 0, 0, 0)
        for name, values in zip((TARGET, "V1:FAST"), noise, strict=True):
            if name == TARGET and start == 64:
                continue
            size = (stop - start) * 1024
            series = lal.CreateREAL8TimeSeries(name, lal.LIGOTimeGPS(T0 + start), 0, 1 / 1024, lal.Unit("m"), size)
            series.data.data = values[start * 1024 : stop * 1024]
            lalframe.FrameAddREAL8TimeSeriesProcData(made, series)
        return made

    spans = ((0, 30), (34, 64), (64, 80), (80, 96))
    for folder, share in (("one", [spans]), ("many", [[span] for span in spans])):
        (tmp_path / folder).mkdir()
        for number, part in enumerate(share):
            file = lalframe.FrameUFrFileOpen(str(tmp_path / folder / f"{number}.gwf"), "w")
            for span in part:
                lalframe.FrameUFrameHWrite(file, frame(*span))
            del file  # closes it
    triggers = [T0 + 16, T0 + 31, T0 + 40, T0 + 72, T0 + 82]
    made = {}
    for folder in ("one", "many"):
        entry = {"path": str(tmp_path / folder), "target": TARGET, "triggers": triggers}
        made[folder] = ingest([entry], None, tmp_path / f"{folder}-out")
    for folder, events in made.items():
        # of several files, one lacks the target altogether; at the last trigger the hole ends within the segment
        reasons = {T0 + 31: "gap", T0 + 72: "gap" if folder == "one" else "missing", T0 + 82: "gap"}
        assert events.manifest.rejected == {f"{gps:.6f}": f"target: {reason}" for gps, reason in reasons.items()}
        assert events.valid.all()
    np.testing.assert_array_equal(made["one"].read().series, made["many"].read().series)


def checksums(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(folder).glob("*"))}


def test_more_workers_give_the_same_bytes_and_a_rerun_does_nothing(tmp_path):
    datasets = write(tmp_path / "in", *(event(number) for number in range(5)))
    alone = ingest(datasets, None, tmp_path / "alone")
    together = ingest(datasets, None, tmp_path / "together", engine=EngineSettings(workers=2))
    assert checksums(alone.folder) == checksums(together.folder)
    before = {path.name: path.stat().st_mtime_ns for path in alone.folder.glob("shard-*")}
    ingest(datasets, None, tmp_path / "alone")
    assert before == {path.name: path.stat().st_mtime_ns for path in alone.folder.glob("shard-*")}
    ingest(datasets, {"fft_length": 2.0}, tmp_path / "alone")
    assert checksums(alone.folder) != checksums(together.folder)  # another recipe replaces the set


def _children(pid):
    """Process ids below a process, from /proc."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers through /proc")
def test_a_killed_worker_and_a_killed_run_resume_to_the_same_bytes(tmp_path):
    write(tmp_path / "in", *(event(number) for number in range(24)))
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "said.txt"

    def start(folder):
        return _warm.start(_runs.main, "events", str(tmp_path / "in"), str(folder), '{"workers": 2}', output=log)

    assert start(whole).wait() == 0, log.read_text()

    def until_some(process):
        while process.poll() is None and len(list(broken.glob("shard-*.h5"))) < 3:
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"

    # a worker is killed: the run ends with a clear error and keeps what is finished
    process = start(broken)
    until_some(process)
    companions = {pid for pid in _children(process.pid) if b"apart" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    workers = set(_children(process.pid)) - companions
    os.kill(max(workers), signal.SIGKILL)
    assert process.wait(120) != 0
    assert "a worker process was killed" in log.read_text()
    # what the killed worker was writing is left under its temporary name, until the set is finished
    first = {name: checksum for name, checksum in checksums(broken).items() if not name.startswith(".")}
    assert 3 <= len(first) < 24
    assert "manifest.json" not in first

    # the whole run is killed
    process = start(broken)
    while process.poll() is None and len(list(broken.glob("shard-*.h5"))) < len(first) + 2:
        time.sleep(0.01)
    below = _children(process.pid)
    for pid in (process.pid, *below):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert process.wait() == -signal.SIGKILL

    assert start(broken).wait() == 0, log.read_text()
    resumed = checksums(broken)
    assert {name: resumed[name] for name in first} == first  # finished shards were kept
    assert resumed == checksums(whole)  # and nothing half-written is left


def test_real_strain_is_white_away_from_the_event(real_data, tmp_path):
    entry = {
        "path": str(real_data / "gwosc" / "*1126259447*"),
        "target": "H1:GWOSC-16KHZ_R1_STRAIN",
        "triggers": [1126259462.4],
        "segment": 32.0,
        "processing": {"minf": 20.0},
    }
    events = ingest([entry], {"fft_length": 2.0, "overlap": 1.5}, tmp_path / "out")
    assert events.channels == ("H1:GWOSC-16KHZ_R1_STRAIN", "L1:GWOSC-16KHZ_R1_STRAIN")
    assert events.valid.all()
    series = events.read().series[0].astype(np.float64)
    merger = round((1126259462.42 - events.gps_start[0]) * 1024)
    quiet = series[:, : merger - 1024]
    expected = np.sqrt(380 / 512)
    np.testing.assert_allclose(quiet.std(axis=-1), expected, rtol=0.12)
    # the chirp stands out within 0.2 s about the merger in both detectors once they are limited to its band
    from scipy.signal import butter, sosfiltfilt

    chirp = sosfiltfilt(butter(4, [35, 300], "bandpass", fs=1024, output="sos"), series, axis=-1)
    near, far = chirp[:, merger - 150 : merger + 50], chirp[:, : merger - 1024]
    assert np.all(np.abs(near).max(axis=-1) > 1.1 * np.abs(far).max(axis=-1))


def test_all_real_files_are_read(real_data, tmp_path):
    entry = {
        "path": str(real_data / "gwosc"),
        "target": "V1:GWOSC-16KHZ_R1_STRAIN",
        "segment": 32.0,
        "processing": {"minf": 20.0},
    }
    events = ingest([entry], None, tmp_path / "out")
    assert len(events) == 2  # Virgo was not on at GW150914
    assert dict(events.manifest.rejected) == {"1126259463.000000": "target: missing"}
    values = events.read().series[events.valid]
    # half a second at a time: Virgo around GPS 1185389808 has bursts near 25 Hz
    quiet = np.median(values.reshape(len(values), 12, 512).std(axis=-1), axis=-1)
    np.testing.assert_allclose(quiet, np.sqrt(380 / 512), rtol=0.2)


def copies(tmp_path, **second):
    """Two data sets with the same three events; in the second something differs."""
    good = write(tmp_path / "good", event(0), event(1), event(2))
    other = write(tmp_path / "other", event(0, **second), event(1), event(2))
    return good, other


@pytest.mark.parametrize(
    "change", [with_nan, altered(unit=""), altered(unit="V"), altered(series=np.zeros(16 * 1024)), altered(t0=0.0)]
)
@pytest.mark.parametrize("name", ["V1:FAST", TARGET])
def test_a_bad_copy_of_a_channel_masks_nothing(tmp_path, change, name):
    good, other = copies(tmp_path, **{name: change})
    wanted = ingest(good, None, tmp_path / "wanted").read().series
    for number, datasets in enumerate(([*good, *other], [*other, *good])):
        made = ingest(datasets, None, tmp_path / f"made-{number}")
        assert made.valid.all()
        np.testing.assert_array_equal(made.read().series, wanted)


def test_data_sets_that_follow_each_other_complete_each_other_in_silence(tmp_path, caplog):
    datasets = []
    for number, unit in enumerate(("V", "m2 kg / (A s3)")):  # the same, as HDF5 and as frames have it
        held = {name: altered(unit=unit)(channel) for name, channel in event(number).channels.items()}
        hdf5.write(tmp_path / f"day-{number}.h5", held)
        entry = {"path": str(tmp_path / f"day-{number}.h5"), "triggers": [T0 + 0.3, T0 + 100.3]}
        datasets.append({**entry, "format": "hdf5", **({} if number else {"target": TARGET})})
    events = ingest(datasets, None, tmp_path / "out")
    assert events.valid.all()
    assert len(events) == 2
    assert "a copy in another data set" not in caplog.text


def test_of_two_refused_copies_the_one_that_is_there_is_told(tmp_path):
    held = event(0).channels
    hdf5.write(tmp_path / "a.h5", held)
    hdf5.write(tmp_path / "b.h5", event(1).channels | {"V1:FAST": altered(unit="mV")(event(1).channels["V1:FAST"])})
    entries = [
        {"path": str(tmp_path / name), "format": "hdf5", "segment": 12, "triggers": [T0 + 0.3, T0 + 100.3]}
        for name in ("a.h5", "b.h5")
    ]
    ingest([entries[0] | {"target": TARGET}, entries[1]], None, tmp_path / "out")
    flaws = [(flaw.channel, flaw.reason, flaw.detail) for flaw in read_quality(tmp_path / "out").flaws]
    assert flaws == [("V1:FAST", "unit", "expected m, got mV")]


def test_a_damaged_copy_of_a_file_masks_nothing_and_is_told(tmp_path):
    good, other = copies(tmp_path)
    path = tmp_path / "other" / "event-00.h5"
    path.write_bytes(path.read_bytes()[:-1000])
    for number, datasets in enumerate(([*good, *other], [*other, *good])):
        made = ingest(datasets, None, tmp_path / f"made-{number}")
        assert made.valid.all()
        report = read_quality(made.folder)
        assert (report.events_read, report.events_kept, dict(report.events_rejected)) == (3, 3, {})
        assert [(flaw.event_id, flaw.channel, flaw.reason) for flaw in report.flaws] == [("event-00", "", "unreadable")]
        assert "1 file(s) cannot be read" in report.warnings()[0]


def test_what_cannot_be_read_stands_in_the_table_with_file_and_reason(tmp_path):
    datasets = write(tmp_path / "in", *(event(number) for number in range(3)))
    import h5py

    with h5py.File(tmp_path / "in" / "event-00.h5", "r+") as file:
        file["event-00"].attrs["gps_event"] = np.float32(T0)
    with h5py.File(tmp_path / "in" / "event-01.h5", "r+") as file:
        imaginary = file["event-01/V1:FAST"][()] * 1j
        attributes = dict(file["event-01/V1:FAST"].attrs)
        del file["event-01/V1:FAST"]
        file.create_dataset("event-01/V1:FAST", data=imaginary).attrs.update(attributes)
        file["event-01/V1:SLOW"].attrs["unit"] = np.bytes_(b"\xb5m")
    made = ingest(datasets, None, tmp_path / "out")
    assert made.event_ids == ("event-01", "event-02")
    report = read_quality(made.folder)
    assert dict(report.events_rejected) == {"file: unreadable": 1}
    file, fast, slow = report.flaws
    assert (file.event_id, file.channel) == ("event-00", "")
    assert "event-00.h5: gps_event: the time 1264000000 is stored as float32 and known to 128 s only" in file.detail
    assert (fast.channel, fast.reason) == ("V1:FAST", "unreadable")
    assert "complex" in fast.detail
    assert (slow.channel, slow.reason, slow.detail) == ("V1:SLOW", "unit", "expected m, got \\xb5m")


@pytest.mark.parametrize("inside", [False, True], ids=["between files", "as NaN within one"])
@pytest.mark.parametrize(
    ("trigger", "hole", "edge"),
    [(38, True, False), (30, True, False), (46, True, False), (3, False, True), (58, False, True), (52, False, False)],
    ids=["in the hole", "before it", "after it", "at the start", "at the end", "where all is there"],
)
def test_what_is_not_there_is_a_gap_wherever_it_is_in_the_stretch(tmp_path, inside, trigger, hole, edge):
    """Data from 0 to 60 s with a hole of 32 to 44 s; 16 s are cut about the trigger."""
    series = np.random.default_rng(5).normal(size=60 * 1024)
    series[32 * 1024 : 44 * 1024] = np.nan
    for start, stop in [(0, 60)] if inside else [(0, 32), (44, 60)]:
        held = {TARGET: Channel(TARGET, series[start * 1024 : stop * 1024], T0 + start, 1024.0, "m")}
        hdf5.write(tmp_path / "in" / f"V-TEST-{T0 + start:.0f}-{stop - start}.h5", held)
    entry = {"path": str(tmp_path / "in"), "target": TARGET, "triggers": [T0 + 8.5, T0 + trigger]}
    events = ingest([entry], None, tmp_path / "out")
    reason = "nan" if hole and inside else "gap"
    assert events.manifest.rejected == ({f"{T0 + trigger:.6f}": f"target: {reason}"} if hole or edge else {})
    if edge:
        assert "the files hold" in read_quality(events.folder).flaws[0].detail


def slow_events(number):
    """Noise about triggers, and a channel of 16 Hz that swings, about another place in each event."""
    for index in range(number):
        gps = T0 + 100.0 * index
        time = np.arange(16 * 16) / 16
        swing = Channel("V1:BEAM", 2.0 + 0.1 * index + np.sin(2 * np.pi * 0.5 * time), gps - 8, 16.0, "m")
        made = event(index)
        yield replace(made, channels={**made.channels, "V1:BEAM": swing})


def test_slow_motion_is_kept_in_one_unit_for_all_events_and_for_fresh_ones(tmp_path):
    datasets = write(tmp_path / "in", *slow_events(3))
    plain = ingest(datasets, None, tmp_path / "plain")
    assert not plain.valid[:, plain.channels.index("V1:BEAM")].any()
    wanted = [datasets[0] | {"channels": {"slow": ["V1:B*"]}}]
    events = ingest(wanted, None, tmp_path / "out")
    assert events.valid.all()
    recipe = json.loads(json.dumps(events.recipe))
    scale = recipe["channels"]["V1:BEAM"]["slow"]
    assert scale == {"location": 2.0, "scale": 1.0, "highest": 4.0}
    assert [name for name, entry in recipe["channels"].items() if "slow" in entry] == ["V1:BEAM"]
    batch = events.read(channels=["V1:BEAM"])
    motion = low_passed(batch.series[0, 0], 1024.0, 4.0)[1024:-1024] / SHARE
    times = (batch.gps_start[0] - T0 + 8 + np.arange(6144) / 1024)[1024:-1024]
    np.testing.assert_allclose(motion, np.sin(2 * np.pi * 0.5 * times), atol=0.2)
    # a model's recipe decides, whatever the data set says and whatever others move
    again = ingest_with_recipe(datasets, recipe, ["V1:BEAM"], tmp_path / "again")
    np.testing.assert_array_equal(again.read().series[:, 1], batch.series[:, 0])
    # the other channels are as they were
    names = [TARGET, "V1:FAST", "V1:SLOW"]
    np.testing.assert_array_equal(events.read(channels=names).series, plain.read(channels=names).series)


def test_slow_motion_that_cannot_be_kept_is_refused(tmp_path):
    datasets = write(tmp_path / "in", *slow_events(2))
    for processing, patterns in (({"whiten": False}, ["V1:BEAM"]), ({}, [TARGET])):
        with pytest.raises(ConfigurationError, match=r"channels\.slow: expected witnesses"):
            ingest([datasets[0] | {"processing": processing, "channels": {"slow": patterns}}], None, tmp_path / "x")
    with pytest.raises(ConfigurationError, match=r"V1:BEEM\. .*V1:BEAM"):
        ingest([datasets[0] | {"channels": {"slow": ["V1:BEEM"]}}], None, tmp_path / "x")
