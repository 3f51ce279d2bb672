"""A look at files in several layouts; what is then written is what ingestion takes, with every channel usable."""

import os

import numpy as np
import pytest
import yaml

from glitchflow_plugin import cli
from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.errors import ConfigurationError, FormatError, NoEventsError
from glitchflow_plugin.preprocessing.ingest import ingest
from glitchflow_plugin.preprocessing.proposal import propose
from glitchflow_plugin.preprocessing.run_folder import channel_rows, data_lines, setting_lines, write_proposal
from glitchflow_plugin.preprocessing.survey import guess_unit, look
from glitchflow_plugin.signal.trigger_clusters import crowded

T0 = 1_264_000_000.0
STRAIN = "V1:Hrec_hoft_2048Hz"
RATES = {STRAIN: 2048.0, "V1:ENV_A": 512.0, "V1:SUS_B": 256.0, "V1:TEMP": 1.0}


def channels(start, duration, names=tuple(RATES)):
    generator = np.random.default_rng(round(start))
    units = {STRAIN: "strain"}
    return {
        name: Channel(
            name, generator.standard_normal(round(duration * RATES[name])), start, RATES[name], units.get(name, "m")
        )
        for name in names
    }


def event(path, number, names=tuple(RATES), length=12.0, gps=None):
    gps = T0 + 50.25 + 40 * number if gps is None else gps
    write_event(path, RawEvent(f"event-{number}", gps, channels(gps - length / 2, length, names)))


def continuous(folder, writer=hdf5, *, ending="h5", starts=(0, 100, 300), names=tuple(RATES), tag="TEST"):
    for start in starts:
        path = folder / f"V-{tag}-{T0 + start:.0f}-100.{ending}"
        writer.write(path, channels(T0 + start, 100, names))


def table(path, times, name="time", form="{:.6f}"):
    path.write_text(f"{name},snr\n" + "".join(form.format(time) + ",10\n" for time in times))
    return path


TIMES = [T0 + offset for offset in (30.3, 95.0, 150.0, 340.7)]


def events_folder(folder):
    for number in range(3):
        event(folder / f"event-{number}.h5", number)
    return [folder], None


def two_folders_of_one_event(folder):
    for number in range(3):
        event(folder / "strain" / f"s{number}.h5", number, (STRAIN,))
        event(folder / "witnesses" / f"w{number}.hdf5", number, ("V1:ENV_A", "V1:SUS_B", "V1:TEMP"))
    return [folder], None


def folder_a_day(folder):
    for number in range(4):
        event(folder / f"day{number % 2}" / f"event-{number}.h5", number)
    return [folder], None


def continuous_folder(folder):
    continuous(folder)
    return [folder], table(folder / "triggers.csv", TIMES)


def strain_and_witnesses_apart(folder):
    continuous(folder / "strain", names=(STRAIN,), tag="HREC")
    continuous(folder / "aux", names=("V1:ENV_A", "V1:SUS_B", "V1:TEMP"), tag="AUX")
    return [folder / "strain" / "*.h5", folder / "aux"], table(folder / "triggers.csv", TIMES)


def cache_file(folder):
    continuous(folder / "data")
    listing = folder / "files.cache"
    listing.write_text("".join(f"{path}\n" for path in (folder / "data").iterdir()))
    return [listing], table(folder / "triggers.csv", TIMES)


def events_and_continuous_in_one_folder(folder):
    for number in range(3):
        event(folder / f"event-{number}.h5", number, ("V1:ENV_A", "V1:SUS_B", "V1:TEMP"))
    continuous(folder, starts=(0, 100), names=(STRAIN,))
    (folder / "broken.h5").write_bytes(b"nothing")
    return [folder], None


def frames_with_a_gap(folder):
    pytest.importorskip("lalframe")
    continuous(folder, frames, ending="gwf", names=(STRAIN, "V1:TEMP"), tag="HREC")
    continuous(folder / "raw", frames, ending="gwf", names=("V1:ENV_A", "V1:SUS_B"), tag="raw")
    return [folder], table(folder / "triggers.csv", TIMES)


def files_of_eight_seconds(folder):
    for number in range(3):
        start = T0 + 100 * number
        hdf5.write(folder / f"V-SHORT-{start:.0f}-8.h5", channels(start, 8))
    return [folder], None


LAYOUTS = (
    files_of_eight_seconds,
    events_folder,
    two_folders_of_one_event,
    folder_a_day,
    continuous_folder,
    strain_and_witnesses_apart,
    cache_file,
    events_and_continuous_in_one_folder,
    pytest.param(frames_with_a_gap, marks=pytest.mark.slow),
)


def proposed(tmp_path, paths, triggers, target=None):
    survey = look(paths, triggers, progress=False)
    proposal = propose(survey, target)
    folder = tmp_path / "run"
    cli.init(folder)
    write_proposal(folder, proposal, "mine")
    return survey, proposal, folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_taken_by_ingestion_with_every_channel(layout, tmp_path, monkeypatch):
    survey, proposal, folder = proposed(tmp_path, *layout(tmp_path / "data"))
    assert proposal.target == STRAIN
    assert set(proposal.fit.bands) == {STRAIN, "V1:ENV_A", "V1:SUS_B"}
    assert "Nyquist" in proposal.fit.left_out["V1:TEMP"]
    monkeypatch.chdir(folder)
    config = cli.compose(folder, ["run_name=mine"])
    from omegaconf import OmegaConf

    datasets = OmegaConf.to_container(config.datasets, resolve=True)
    events = ingest(datasets, OmegaConf.to_container(config.whiten, resolve=True), tmp_path / "set")
    assert events.channels[0] == STRAIN
    assert set(events.channels) == set(proposal.fit.bands)
    assert events.read().valid.all()
    assert set(events.event_ids) == set(survey.events)
    assert survey.events[events.event_ids[0]] == events.read().gps_event[0]


def test_what_was_found_is_shown_with_ranges_gaps_and_figures(tmp_path):
    paths, triggers = continuous_folder(tmp_path / "data")
    survey, proposal, folder = proposed(tmp_path, paths, triggers)
    (line, counted) = data_lines(survey)
    assert "hdf5, 3 file(s), GPS 1264000000.000 to 1264000400.000 with 1 gap(s), 100 s in all" in line
    assert counted.startswith("4 event(s) of ")
    rows = {row[0]: row[1:] for row in channel_rows(survey, proposal)}
    assert rows[STRAIN][:3] == ["2048 Hz", "strain", "4/4"]
    assert rows[STRAIN][4].startswith("target, 8-400 Hz")
    assert rows["V1:SUS_B"][4] == "8-115.2 Hz"
    assert rows["V1:TEMP"][4].startswith("no: ")
    assert any("cut from 16 s" in line for line in setting_lines(proposal))
    text = (folder / "conf" / "datasets.yaml").read_text()
    assert "ingest:" in text
    assert '#   "V1:TEMP": ' in text
    assert yaml.safe_load((folder / "config.yaml").read_text())["run_name"] == "mine"


@pytest.mark.slow
def test_rates_and_units_of_frames_are_read(tmp_path):
    paths, triggers = frames_with_a_gap(tmp_path)
    (data,) = look(paths, triggers, progress=False).data
    assert {name: channel.sample_rate for name, channel in data.channels.items()} == RATES
    assert data.channels[STRAIN].unit == "strain"
    assert data.path == f"{tmp_path}/**/*.gwf"


def test_events_of_half_the_length_are_counted_by_the_shorter_side(tmp_path):
    event(tmp_path / "a.h5", 0)
    gps = T0 + 100
    write_event(tmp_path / "b.h5", RawEvent("b", gps, channels(gps - 3, 10)))
    survey = look([tmp_path], progress=False)
    np.testing.assert_allclose(survey.data[0].channels[STRAIN].lengths, [6.0, 12.0])  # b, event-0
    assert list(survey.events) == ["b", "event-0"]


def test_a_time_in_single_precision_is_a_reason(tmp_path):
    import h5py

    for number in range(2):
        event(tmp_path / f"{number}.h5", number)
        with h5py.File(tmp_path / f"{number}.h5", "r+") as file:
            file[f"event-{number}/V1:SUS_B"].attrs["t0"] = np.float32(T0)
    proposal = propose(look([tmp_path], progress=False))
    assert "known to" in proposal.fit.left_out["V1:SUS_B"]


def test_an_id_with_two_times_is_refused(tmp_path):
    event(tmp_path / "a" / "x.h5", 0)
    event(tmp_path / "b" / "x.h5", 0, gps=T0 + 90_000)
    with pytest.raises(FormatError, match=r"event-0 is in two folders.*1264090000\.000"):
        look([tmp_path], progress=False)


def test_triggers_outside_are_counted_and_their_table_is_no_data(tmp_path):
    paths, _ = continuous_folder(tmp_path)
    triggers = table(tmp_path / "many.csv", [*TIMES, T0 + 250, T0 + 1000, T0 - 5])
    survey, proposal, _ = proposed(tmp_path, paths, triggers)
    assert any("3 of 7 triggers lie outside" in remark for remark in proposal.remarks)
    assert survey.triggers == str(triggers)


def test_triggers_that_crowd_about_one_glitch_are_told(tmp_path):
    continuous(tmp_path)
    triggers = table(tmp_path / "omicron.csv", [time + late for time in TIMES for late in (0, 0.1, 0.3)])
    proposal = propose(look([tmp_path], triggers, progress=False))
    assert any("8 of 12 triggers follow another within 0.5 s, in 4 group(s)" in remark for remark in proposal.remarks)
    assert crowded(TIMES, 0.5) == (0, 0)


@pytest.mark.parametrize(
    ("scale", "offset", "form", "words"),
    [
        (1e3, 0, "{:.3f}", r"GPS time in ms, 4 of 4"),
        (1e9, 0, "{:.0f}", r"GPS time in ns, 4 of 4"),
        (1, 315964782, "{:.3f}", r"Unix time in s, 4 of 4.*to_gps"),
        (1e3, 315964782, "{:.0f}", r"Unix time in ms, 4 of 4"),
        (1, 1e6, "{:.3f}", r"Correct --triggers"),
    ],
)
def test_triggers_in_another_unit_are_recognised(tmp_path, scale, offset, form, words):
    continuous(tmp_path)
    triggers = table(tmp_path / "triggers.csv", [(time + offset) * scale for time in TIMES], form=form)
    with pytest.raises(NoEventsError, match=f"4 of 4 triggers lie outside.*{words}"):
        look([tmp_path], triggers, progress=False)


def test_dates_in_place_of_gps_times_are_recognised(tmp_path):
    continuous(tmp_path)
    triggers = tmp_path / "triggers.csv"
    for date in ("2020-01-26T15:06:22", "2020-01-26 15:06:22.5", "26/01/2020 15:06", "Jan 26 2020 15:06:22"):
        triggers.write_text(f"time\n{date}\n")
        with pytest.raises(FormatError, match=r"looks like a date.*GPS seconds"):
            look([tmp_path], triggers, progress=False)


def test_times_in_the_data_are_no_other_unit():
    assert guess_unit(np.array(TIMES) + 1e7, [(T0, T0 + 400)]) is None


def test_nothing_there_and_nothing_readable_say_so(tmp_path):
    with pytest.raises(ConfigurationError, match=r"--data .*nowhere names no file"):
        look([tmp_path / "nowhere"], progress=False)
    with pytest.raises(ConfigurationError, match="names no file"):
        look([tmp_path], progress=False)
    (tmp_path / "a.h5").write_bytes(b"nothing")
    with pytest.raises(NoEventsError, match=r"none of 1 file.*a\.h5"):
        look([tmp_path], progress=False)


def test_a_folder_that_may_not_be_listed_is_told(tmp_path, monkeypatch):
    event(tmp_path / "open" / "x.h5", 0)
    event(tmp_path / "closed" / "y.h5", 1)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert look([tmp_path], progress=False).ignored == {"closed": "cannot be listed: Permission denied"}
    with pytest.raises(ConfigurationError, match=r"closed cannot be listed: Permission denied"):
        look([tmp_path / "closed"], progress=False)


def test_a_truth_file_beside_the_events_is_left_out(tmp_path):
    events_folder(tmp_path)
    (tmp_path / "truth.h5").write_bytes(b"nothing")
    survey = look([tmp_path], progress=False)
    assert not survey.ignored
    assert survey.data[0].path == str(tmp_path)


def test_real_files_of_gwosc(real_data, tmp_path):
    with pytest.raises(ConfigurationError, match=r"3 channels.*H1:GWOSC.*V1:GWOSC"):
        propose(look([real_data / "gwosc"], progress=False))
    pattern = real_data / "gwosc" / "*-1126259447-32.hdf5"
    triggers = table(tmp_path / "t.csv", [1126259462.4])
    proposal = propose(look([pattern], triggers, progress=False), "H1:GWOSC-16KHZ_R1_STRAIN")
    assert set(proposal.fit.bands) == {"H1:GWOSC-16KHZ_R1_STRAIN", "L1:GWOSC-16KHZ_R1_STRAIN"}
    assert proposal.unsafe == ()
    assert proposal.data[0].path == str(pattern)
