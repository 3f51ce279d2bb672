import json
import re
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from gwpy.segments import DataQualityFlag, SegmentList
from gwpy.timeseries import StateVector, TimeSeries
from scipy import signal
from tests.data.readers.test_gwosc import write_like_gwosc
from tests.streaming import _streams as data
from tests.streaming._streams import write_files

from glitchflow_plugin.cli import main
from glitchflow_plugin.components.stream import Stream
from glitchflow_plugin.data.files import sha256
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.data.readers.frame_history import read_history
from glitchflow_plugin.data.readers.tables import read_csv
from glitchflow_plugin.errors import ConfigurationError, GlitchflowError, NoEventsError
from glitchflow_plugin.preprocessing.engine import ShareDone
from glitchflow_plugin.products.clean_strain import STATE_BITS
from glitchflow_plugin.products.folder import ProductFile, read_manifest, record_path, write_manifest
from glitchflow_plugin.products.rank_channels import QUANTITIES
from glitchflow_plugin.settings import built
from glitchflow_plugin.streaming.blocks import check_band, plan_blocks
from glitchflow_plugin.streaming.run import ProductSettings, stream_ranks
from glitchflow_plugin.tracking import registry

SEGMENTS = [[data.GPS + 2.5, data.GPS + 60], [data.GPS + 62, data.GPS + 96]]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("frames"))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """A model as version 7 of a registry that is not there."""
    return register(monkeypatch)


def register(monkeypatch):
    held = {"bundle": data.bundle()}
    monkeypatch.setattr(registry, "find", lambda name, _, uri: registry.ModelVersion(name, 7, uri, "run"))
    monkeypatch.setattr(registry, "load", lambda *_: held["bundle"])
    return held


def stream(folder, files, **changed):
    arguments = {
        "datasets": [{"path": str(files)}],
        "segments": SEGMENTS,
        "settings": {"block_length": 25, "stride": 1.0, "spectrum": {"length": 48.0, "stride": 16.0}},
        "engine": {"workers": 1},
        **changed,
    }
    model = {"name": "twin", "version": "champion"}
    return Stream(model, "sqlite:///unused.db", str(folder), **arguments).execute()


@pytest.fixture(scope="module")
def made(tmp_path_factory, files):
    with pytest.MonkeyPatch.context() as monkeypatch:
        register(monkeypatch)
        return stream(tmp_path_factory.mktemp("out"), files)


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out" / made.name)


def test_the_strain_comes_back_bit_by_bit_with_what_was_taken_from_it(made):
    strain = data.recordings()[data.STRAIN]
    names = sorted(path.name for path in made.glob("*.h5"))
    assert all(re.fullmatch(r"V-V1_GLF_STRAIN_CLEAN-\d{10}-\d+\.h5", name) for name in names)
    assert [name[-16:-3] for name in names][:2] == ["1400000003-22", "1400000025-25"]
    for path in made.glob("*.h5"):
        names = (data.STRAIN, f"{data.STRAIN}_glitch", f"{data.STRAIN}_clean")
        read = {
            name: TimeSeries.read(path, name) for name in (data.STRAIN, f"{data.STRAIN}_glitch", f"{data.STRAIN}_clean")
        }
        recorded, glitch, clean = (one.value for one in read.values())
        start = float(read[data.STRAIN].t0.value)
        first = round((start - data.GPS) * 2048)
        assert start == int(start)
        assert {str(one.unit) for one in read.values()} == {"strain"}
        assert np.array_equal(recorded, strain.series[first : first + len(recorded)])
        assert np.array_equal(clean, recorded - glitch)
        assert len(recorded) == int(path.stem.rsplit("-", 1)[1]) * 2048


def test_gwpy_reads_the_bits_of_the_state_by_name(made):
    name = "V1:GLF-STATE_VECTOR"
    path = made / "V-V1_GLF_STRAIN_CLEAN-1400000050-10.h5"
    state = StateVector.read(path, name)
    flags = state.to_dqflags()
    assert state.dtype == np.int32
    assert list(flags) == list(STATE_BITS)
    glitch = TimeSeries.read(path, f"{data.STRAIN}_glitch")
    touched = glitch.times.value[glitch.value != 0]
    ((low, high),) = (~flags["NOTHING_SUBTRACTED"]).active
    assert low <= touched.min() < low + 1 / 16
    assert high - 1 / 16 <= touched.max() < high
    # a segment ends: its last seconds have no window
    ((start, stop),) = flags["ANALYSED"].active
    assert (start, 55 < stop - data.GPS < 60) == (data.GPS + 50, True)
    assert not flags["IN_DISTRIBUTION"].active  # a Wiener filter cannot tell


def test_each_file_says_which_model_made_it(made):
    with h5py.File(next(made.glob("*.h5"))) as file:
        told = dict(file.attrs)
    assert (told["glitchflow_model"], told["glitchflow_model_version"]) == ("twin", "7")
    assert len(told["glitchflow_model_sha256"]) == 64
    assert json.loads(told["glitchflow_recipe"])["events"]["target"] == data.STRAIN
    ranks = json.loads(told["glitchflow_ranks"])
    assert (ranks["glitch_snr_lowest"], ranks["glitch_snr_exponent"], ranks["validation_glitches"]) == (5.0, 3.0, 100)
    assert 1 < ranks["effective_glitches"] < 100
    inputs = json.loads((made / "summary.json").read_text())["inputs"]
    assert inputs["efficiency_of"] == "dN/dSNR ~ SNR^-3 from 5 on"


def test_ranks_are_of_the_glitches_that_are_named():
    usual, as_they_are, louder = (
        stream_ranks(data.bundle(), built(ProductSettings, {"glitch_snr": one}, "stream.products"))
        for one in ({}, {"exponent": None}, {"lowest": 1000.0})
    )
    energy = np.array([30.0, 300.0])
    assert (usual.efficiency(energy) < 0.6 * as_they_are.efficiency(energy)).all()
    assert louder is None


def test_vetoes_are_a_bit_of_the_state(tmp_path, files):
    made = stream(tmp_path / "out", files, vetoes=[[data.GPS + 52.0, data.GPS + 53.5]], segments=[SEGMENTS[0]])
    state = StateVector.read(made / "V-V1_GLF_STRAIN_CLEAN-1400000050-10.h5", "V1:GLF-STATE_VECTOR")
    ((low, high),) = (~state.to_dqflags()["NOT_VETOED"]).active
    assert (low, high) == (data.GPS + 52.0, data.GPS + 53.5)


RANKS = {name: f"V1:GLF-{name}_TWIN_20_150" for name in QUANTITIES}


def test_rank_channels_are_read_by_gwpy_and_rise_at_the_glitches(made):
    path = made / "V-V1_GLF_STRAIN_CLEAN-1400000025-25.h5"
    read = {name: TimeSeries.read(path, channel) for name, channel in RANKS.items()}
    assert {(one.sample_rate.value, one.t0.value, len(one)) for one in read.values()} == {
        (128, data.GPS + 25, 25 * 128)
    }
    assert read["OK"].dtype == np.int32
    assert read["OK"].value.all()
    seam = {name: one.value[-8:].max() for name, one in read.items()}  # the second glitch is at GPS 50
    assert (seam["RANK"] > 0.5, seam["LOGLIKE"] > 3, seam["PGLITCH"] > 0.4) == (True, True, True)
    assert read["FAP"].value[-8:].min() < 0.01
    quiet = {name: np.median(one.value) for name, one in read.items()}
    assert quiet["RANK"] < 0.3
    assert quiet["EFF"] == 1.0
    assert quiet["PGLITCH"] < 0.01
    end = TimeSeries.read(made / "V-V1_GLF_STRAIN_CLEAN-1400000050-10.h5", RANKS["RANK"])
    assert np.isnan(end.value[-1])  # a segment ends: its last seconds have no window


def test_vetoes_of_all_blocks_are_one_flag_that_gwpy_reads(made):
    (path,) = (made / "vetoes").glob("*.h5")
    assert re.fullmatch(r"V1-GLF_VETO_TWIN_7-\d{10}-\d+\.h5", path.name)
    flag = DataQualityFlag.read(path, "V1:GLF-VETO_TWIN:7")
    middles = [float(start - data.GPS + end - data.GPS) / 2 for start, end in flag.active]
    np.testing.assert_allclose(middles, data.GLITCHES, atol=0.1)  # one over a seam is one
    assert flag.padding == (-0.05, 0.05)
    assert len(flag.known) == 2
    assert abs(flag.known) < 91
    text = SegmentList.read(path.with_suffix(".txt"), format="segwizard", gpstype=float)
    assert text == flag.active
    table = pd.read_csv(made / "vetoes" / "segments.csv")
    assert [(one.gps_start, one.gps_end) for one in table.itertuples()] == [
        tuple(map(float, one)) for one in flag.active
    ]
    assert ((table["frequency_low"] < 60) & (table["frequency_high"] > 60)).all()  # the glitches are of 60 Hz
    assert (table["frequency_high"] - table["frequency_low"] < 60).all()
    assert (table["peak_snr2_predicted"] > 100).all()
    assert (table["false_alarm_probability"] < 0.01).all()
    # a Wiener filter cannot tell whether it has seen the like
    assert set(table["decision"]) == {"veto"}
    assert table["reasons"].str.startswith("subtracted; new to the model").all()


def test_triggers_and_candidates_are_told_what_the_folder_says(made, tmp_path, capsys):
    triggers, out = tmp_path / "triggers.csv", tmp_path / "vetoed.csv"
    # a glitch, quiet, between two segments, a glitch at a seam
    times = [data.GPS + one for one in (71.7, 40.0, 61.0, 50.02)]
    triggers.write_text("time,snr\n" + "".join(f"{one},8.5\n" for one in times))
    assert main(["vetoes", "apply", str(triggers), str(made), str(out)]) == 0
    assert "4 triggers" in capsys.readouterr().out
    # what is there is not written over
    before = out.read_bytes()
    assert main(["vetoes", "apply", str(triggers), str(made), str(out)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert out.read_bytes() == before
    found = read_csv(out)
    assert found["snr"] == ["8.5"] * 4
    assert found["vetoed"] == ["1", "0", "0", "1"]
    # a Wiener filter cannot tell whether it has seen the like: what it takes away is in doubt
    assert found["decision"] == ["veto", "pass", "unknown", "veto"]
    rank, probability = (np.array(found[name], dtype=float) for name in ("veto_rank", "veto_fap"))
    assert np.array_equal(rank > 0.5, [True, False, False, True])
    assert np.isnan(rank[2])
    assert (probability[[0, 3]] < 0.01).all()
    flag = next((made / "vetoes").glob("*.h5"))
    assert main(["vetoes", "apply", str(triggers), str(flag), str(tmp_path / "by_flag.csv")]) == 0
    assert read_csv(tmp_path / "by_flag.csv")["decision"] == found["decision"]
    report = tmp_path / "data.json"
    for gps, state in ((times[0], "done"), (times[1], "done"), (times[2], "missing")):
        assert main(["vetoes", "event", str(gps), str(made), str(report), "--replace"]) == 0
        record = json.loads(report.read_text())
        assert record["state"] == state
        required = ("date", "hostname", "process_name", "process_version", "state", "summary", "username")
        assert all(isinstance(record[name], str) for name in required)
        assert ("p_value" in record) == (state == "done")
        if gps == times[0]:
            ranks = TimeSeries.read(made / "V-V1_GLF_STRAIN_CLEAN-1400000062-13.h5", RANKS["FAP"])
            assert record["p_value"] == ranks.crop(gps - 0.5, gps + 0.5).value.min()
    assert main(["vetoes", "event", str(times[0]), str(made), str(report)]) == 1
    for gps, window in (("nan", "1"), ("1400000020", "0"), ("1400000020", "-1"), ("1400000020", "1e9")):
        asked = ["vetoes", "event", gps, str(made), str(tmp_path / "none.json"), "--window", window]
        assert main(asked) == 1
        assert "expected a GPS time and a window" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def test_the_models_own_vetoes_unset_the_bit_where_that_is_asked_for(tmp_path, files, registered):
    registered["bundle"] = data.bundle(notes={"registered": {"name": "twin", "version": 7}})
    products = {"own_vetoes": True, "veto_formats": ["gates"]}
    made = stream(tmp_path / "out", files, segments=[[data.GPS + 30, data.GPS + 60]], products=products)
    state = [
        StateVector.read(path, "V1:GLF-STATE_VECTOR").to_dqflags()["NOT_VETOED"] for path in sorted(made.glob("*.h5"))
    ]
    vetoed = (~(state[0] | state[1])).active
    ((centre, half, _),) = np.loadtxt(next((made / "vetoes").glob("*.gates.txt")), ndmin=2)
    assert abs(centre - data.GPS - 50) < 0.1
    assert vetoed[0][0] <= centre - half < centre + half <= vetoed[0][1]
    # a model of an earlier version has no ranks, which is told
    assert read_manifest(made).ranks == ()
    assert "carries no calibration of its ranks" in json.loads((made / "summary.json").read_text())["warnings"][0]
    assert main(["products", str(made)]) == 0


def test_ranks_and_vetoes_that_disagree_are_found(copied, capsys):
    ends = {"1400000025-25": ("RANK", 1000, 0.9), "1400000075-21": ("OK", 5, 0)}
    for end, (name, sample, value) in ends.items():
        path = copied / f"V-V1_GLF_STRAIN_CLEAN-{end}.h5"
        with h5py.File(path, "r+") as file:
            file[RANKS[name]][sample] = value
        _seal_again(copied, path)
    text = next((copied / "vetoes").glob("*[0-9].txt"))
    text.write_text(text.read_text().replace("1400000", "1400001"))
    flag = next((copied / "vetoes").glob("*.h5"))
    other = DataQualityFlag.read(flag, "V1:GLF-VETO_TWIN:7")
    other.active = []
    other.write(flag, path="V1:GLF-VETO_TWIN:7", overwrite=True)
    manifest = read_manifest(copied)
    flags = [ProductFile.of(flag) if one.name == flag.name else one for one in manifest.flags]
    write_manifest(copied, replace(manifest, flags=tuple(flags)))
    assert main(["products", str(copied)]) == 1
    said = capsys.readouterr().out
    assert f"{RANKS['RANK']} is not a number exactly where {RANKS['OK']} is 0" in said
    assert f"{RANKS['FAP']} does not fall with {RANKS['RANK']}" in said
    assert f"vetoes/{text.name}: it is not there, or its checksum is another" in said
    assert f"{flag.name}: its active times are not those of the blocks" in said


def test_a_run_that_was_killed_goes_on_and_gives_the_same_bytes(copied, tmp_path, files):
    before = {path.name: (sha256(path), path.stat().st_mtime_ns) for path in copied.glob("*.h5")}
    lost = copied / "V-V1_GLF_STRAIN_CLEAN-1400000025-25.h5"
    lost.unlink()
    record_path(copied, data.GPS + 62, data.GPS + 75).unlink()  # killed between file and record
    (copied / "products.json").unlink()
    assert stream(tmp_path / "out", files) == copied
    after = {path.name: (sha256(path), path.stat().st_mtime_ns) for path in copied.glob("*.h5")}
    assert {name: one[0] for name, one in after.items()} == {name: one[0] for name, one in before.items()}
    assert sum(after[name][1] != before[name][1] for name in after) == 2
    assert len(read_manifest(copied).blocks) == len(after)


def test_another_models_files_are_not_overwritten(copied, tmp_path, files, registered):
    before = {path.name: sha256(path) for path in copied.glob("*.h5")}
    other = data.twin()
    other.network.filters.data *= 0.5
    registered["bundle"] = data.bundle(twin=other)
    with pytest.raises(ConfigurationError, match=r"holds another result.*stream\.result"):
        stream(tmp_path / "out", files, result=copied.name)
    assert {path.name: sha256(path) for path in copied.glob("*.h5")} == before
    assert stream(tmp_path / "out", files) != copied


def test_what_is_wrong_with_the_data_is_told(tmp_path, files, registered):
    recorded = data.recordings()
    strain = recorded[data.STRAIN]
    counts = write_files(tmp_path / "counts", **{data.STRAIN: replace(strain, unit="ct")})
    with pytest.raises(GlitchflowError, match="unit: expected strain, got ct"):
        stream(tmp_path / "out", counts)
    twice = write_files(tmp_path / "twice")
    part = replace(strain, series=2 * strain.series[20 * 2048 : 40 * 2048], t0=data.GPS + 20)
    hdf5.write(twice / f"V-OTHER-{data.GPS + 20:.0f}-20.h5", {data.STRAIN: part})
    with pytest.raises(GlitchflowError, match="copies differ"):
        stream(tmp_path / "out", twice)
    with pytest.raises(NoEventsError, match="none of the 2 witnesses"):
        stream(tmp_path / "out", write_files(tmp_path / "alone", {data.STRAIN: strain}))
    with pytest.raises(NoEventsError, match="nothing of it in the 1 segment"):
        stream(tmp_path / "out", files, segments=[[1.0, 99.0]])
    registered["bundle"] = data.bundle(model={"name": "unet"})
    with pytest.raises(ConfigurationError, match="has no phase"):
        stream(tmp_path / "out", files)
    with pytest.raises(ConfigurationError, match=r"predicts strain up to 200 Hz.*at 256 Hz"):
        check_band(data.model(), 256.0)


def test_times_that_were_asked_for_and_are_in_no_file_are_told(tmp_path):
    """A file that is damaged is one that is not there: what it held is not made, and nobody would notice."""
    recorded = data.recordings()
    guide = recorded[data.GUIDE]
    slow = replace(guide, series=guide.series[::64].copy(), sample_rate=guide.sample_rate / 64)
    folder = write_files(tmp_path / "half", **{data.GUIDE: slow})
    damaged = folder / f"V-SIM-{data.GPS + 32:.0f}-32.h5"
    damaged.write_bytes(damaged.read_bytes()[:20_000])
    made = stream(tmp_path / "out", folder, segments=[[data.GPS + 20, data.GPS + 60]])
    warnings = json.loads((made / "summary.json").read_text())["warnings"]
    assert warnings[0].startswith("no file gives strain for 28 of 40 s that are asked for, first from GPS 1400000032")
    assert warnings[1].startswith(f"{damaged} is not used") or damaged.name in warnings[1]
    assert any(one.startswith(f"{data.GUIDE}: sample rate: a band of 10-200 Hz") for one in warnings)
    with pytest.raises(ConfigurationError, match=r"got \[1400000045, 1400000003\]"):
        stream(tmp_path / "out", folder, segments=[[data.GPS + 45, data.GPS + 3]])


def test_the_same_stretch_twice_is_the_same_as_once(made, tmp_path):
    twice = write_files(tmp_path / "twice")
    part = {
        name: replace(one, series=one.series[: 20 * round(one.sample_rate)]) for name, one in data.recordings().items()
    }
    hdf5.write(twice / f"V-COPY-{data.GPS:.0f}-20.h5", part)
    again = stream(tmp_path / "again", twice)
    for path in made.glob("*.h5"):
        with h5py.File(path) as one, h5py.File(again / path.name) as other:
            assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)


def test_a_witness_that_is_nowhere_is_masked_and_told(tmp_path):
    recorded = data.recordings()
    folder = write_files(tmp_path / "few", {name: recorded[name] for name in (data.STRAIN, data.GUIDE)})
    made = stream(tmp_path / "out", folder)
    summary = json.loads((made / "summary.json").read_text())
    assert any(data.OTHER in one for one in summary["warnings"])
    assert summary["metrics"]["witnesses_complete_share"]["value"] == 0
    assert summary["metrics"]["subtracted_share"]["value"] > 0


@pytest.mark.parametrize(
    ("products", "told"),
    [
        ({"suffix": "a/b"}, "suffix.*letters, digits and underscores"),
        ({"suffix": ""}, "suffix.*letters, digits and underscores"),
        ({"suffix": "glitch"}, "which names the prediction"),
        ({"formats": []}, "formats"),
        ({"veto_formats": ["root"]}, "veto_formats"),
        ({"veto_padding": 1.5}, "veto_padding"),
        ({"ranks": "ovl"}, "ranks"),
        ({"glitch_snr": {"exponent": 0.5}}, "glitch_snr.exponent"),
    ],
)
def test_names_that_no_file_can_hold_are_refused_before_anything_is_read(products, told, tmp_path):
    with pytest.raises(ConfigurationError, match=f"stream.products.{told}" if "names" not in told else told):
        Stream({"name": "twin", "version": 1}, "sqlite:///unused.db", str(tmp_path), [], products=products)


def test_a_strain_that_is_nowhere_is_told_with_the_key_that_names_it(files, tmp_path):
    with pytest.raises(NoEventsError, match=r"V1:OTHER_STRAIN. Correct stream.datasets, or stream.products.target"):
        stream(tmp_path, files, products={"target": "V1:OTHER_STRAIN"})


def test_a_second_subtraction_repeats_the_suffix(made, tmp_path):
    clean = f"{data.STRAIN}_clean"
    both = tmp_path / "both"
    write_files(both)
    for path in made.glob("*.h5"):
        hdf5.write(both / path.name, hdf5.read(path, [clean], data.GPS, data.GPS + 100))
    again = stream(tmp_path / "second", both, products={"target": clean}, segments=[[data.GPS + 50, data.GPS + 62]])
    with h5py.File(next(again.glob("*.h5"))) as file:
        assert set(file) - set(RANKS.values()) == {"V1:GLF-STATE_VECTOR", clean, f"{clean}_clean", f"{clean}_glitch"}


@pytest.mark.parametrize(("value", "files"), [(np.nan, 0), (0.0, 1)])
def test_strain_of_which_nothing_comes_is_told(tmp_path, value, files):
    strain = data.recordings()[data.STRAIN]
    folder = write_files(
        tmp_path / "frames", **{data.STRAIN: replace(strain, series=np.full(len(strain.series), value))}
    )
    made = stream(tmp_path / "out", folder, segments=[[data.GPS + 30, data.GPS + 40]])
    said = json.loads((made / "summary.json").read_text())["warnings"]
    assert len(list(made.glob("*.h5"))) == files
    assert any(one.startswith("10 of 10 s are in blocks without any strain") for one in said) == (not files)
    assert any(one.startswith("nothing was analysed") for one in said)


def test_segments_without_a_whole_second_are_told(files, tmp_path):
    with pytest.raises(NoEventsError, match=r"no segment holds a second.*stream\.segments"):
        stream(tmp_path, files, segments=[[data.GPS + 10.2, data.GPS + 10.9], [data.GPS + 20.5, data.GPS + 21.4]])
    assert not any(tmp_path.iterdir())


def test_blocks_begin_at_multiples_of_their_length_in_every_segment():
    blocks = plan_blocks([(10.2, 120.9), (200.0, 201.0), (300.5, 301.2)], 50)
    assert [one.span for one in blocks] == [(11, 50), (50, 100), (100, 120), (200, 201)]
    assert [one.segment for one in blocks] == [(11, 120)] * 3 + [(200, 201)]
    assert [one.index for one in blocks] == [0, 1, 2, 3]


def test_frames_hold_the_same_and_say_who_made_them(made, tmp_path, files):
    both = stream(tmp_path / "out", files, segments=[SEGMENTS[0]], products={"formats": ["hdf5", "gwf"]})
    name = "V-V1_GLF_STRAIN_CLEAN-1400000050-10"
    frame, plain = both / f"{name}.gwf", both / f"{name}.h5"
    assert sha256(plain) == sha256(made / plain.name)
    for channel in (data.STRAIN, f"{data.STRAIN}_glitch", f"{data.STRAIN}_clean", *RANKS.values()):
        one, other = TimeSeries.read(frame, channel), TimeSeries.read(plain, channel)
        assert (one.t0, one.unit, one.dtype, one.sample_rate) == (other.t0, other.unit, other.dtype, other.sample_rate)
        assert np.array_equal(one.value, other.value, equal_nan=True)
    state = StateVector.read(frame, "V1:GLF-STATE_VECTOR", bits=list(STATE_BITS))
    assert state.dtype == np.int32
    assert state.to_dqflags()["ANALYSED"].active == StateVector.read(plain, state.name).to_dqflags()["ANALYSED"].active
    told = read_history(frame)
    with h5py.File(plain) as file:
        assert {key: told[key] for key in file.attrs} == dict(file.attrs)
    assert main(["products", str(both)]) == 0


def test_a_folder_of_products_is_described_and_checked(copied, capsys):
    assert main(["products", str(copied)]) == 0
    said = capsys.readouterr().out
    assert "model     twin version 7" in said
    assert "coverage  91 s in 2 stretch(es)" in said
    assert "GPS 1400000003 to 1400000060" in said
    damaged, edited, lost = sorted(copied.glob("*.h5"))[:3]
    with damaged.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\1\2\3")
    with h5py.File(edited, "r+") as file:
        file[f"{data.STRAIN}_clean"][7] += 1
        file["V1:GLF-STATE_VECTOR"][5] ^= 1 << 2
    _seal_again(copied, edited)
    lost.unlink()
    shutil.copy(edited, copied / "V-V1_GLF_STRAIN_CLEAN-1500000000-25.h5")
    assert main(["products", str(copied)]) == 1
    said = capsys.readouterr().out
    assert f"{damaged.name}: its checksum is another" in said
    assert f"{edited.name}: {data.STRAIN}_clean is not {data.STRAIN} minus" in said
    assert f"{edited.name}: the bit NOTHING_SUBTRACTED" in said
    assert f"{lost.name}: it is not there" in said
    assert "1500000000-25.h5: no record lists it" in said


def _seal_again(folder, path):
    """Give the manifest the checksum of a file that was edited, as if it had been written so."""
    manifest = read_manifest(folder)
    blocks = [
        replace(block, files=[ProductFile.of(path) if one.name == path.name else one for one in block.files])
        for block in manifest.blocks
    ]
    write_manifest(folder, replace(manifest, blocks=tuple(blocks)))


def test_frames_of_a_faster_strain_give_the_same_glitches_between_the_samples(made, tmp_path):
    """Strain that scipy has brought to 4096 Hz, in frames: every other sample of what is taken is that of 2048 Hz."""
    recorded = data.recordings()
    strain = recorded[data.STRAIN]
    faster = replace(strain, series=signal.resample_poly(strain.series, 2, 1), sample_rate=4096.0)
    folder = write_files(tmp_path / "frames", {**recorded, data.STRAIN: faster}, write=frames.write)
    assert [path.suffix for path in folder.iterdir()] == [".gwf"] * 3
    again = stream(tmp_path / "out", folder, segments=[SEGMENTS[0]])
    slower, finer = (_glitches(one, rate) for one, rate in ((made, 2048), (again, 4096)))
    end = 60 * 2048
    assert np.abs(slower[:end]).max() > 3 * data.LEVEL
    assert np.abs(finer[::2][:end] - slower[:end]).max() < 0.02 * data.LEVEL
    assert main(["products", str(again)]) == 0


def test_a_file_that_is_missing_parts_the_segments_and_what_is_missing_inside_one_stays_so(tmp_path):
    recorded = data.recordings()
    strain = recorded[data.STRAIN]
    holey = strain.series.copy()
    holey[70 * 2048 : 72 * 2048] = np.nan
    guide = recorded[data.GUIDE].series.copy()
    guide[10 * 1024 : 15 * 1024] = np.nan
    holes = {data.STRAIN: replace(strain, series=holey), data.GUIDE: replace(recorded[data.GUIDE], series=guide)}
    folder = write_files(tmp_path / "frames", **holes)
    next(folder.glob("*-1400000032-32.h5")).unlink()
    made = stream(tmp_path / "out", folder, segments=None)
    blocks = read_manifest(made).blocks
    assert [(one.start - data.GPS, one.stop - data.GPS) for one in blocks] == [(0, 25), (25, 32), (64, 75), (75, 96)]
    assert blocks[0].missing[data.GUIDE] > 5
    path = made / "V-V1_GLF_STRAIN_CLEAN-1400000064-11.h5"
    clean = TimeSeries.read(path, f"{data.STRAIN}_clean").value
    assert np.array_equal(np.flatnonzero(np.isnan(clean)), np.arange(6 * 2048, 8 * 2048))
    analysed = StateVector.read(path, "V1:GLF-STATE_VECTOR").to_dqflags()["ANALYSED"]
    assert not any(low < data.GPS + 72 and high > data.GPS + 70 for low, high in analysed.active)
    assert main(["products", str(made)]) == 0


def test_strain_as_gwosc_gives_it_and_witnesses_of_other_files_are_one_stream(made, tmp_path):
    recorded = data.recordings()
    strain = recorded[data.STRAIN]
    write_like_gwosc(tmp_path / "V-V1_GWOSC_2KHZ_R1-1400000000-96.hdf5", strain.series, 2048, data.GPS, "V1")
    witnesses = write_files(tmp_path / "witnesses", {name: recorded[name] for name in (data.GUIDE, data.OTHER)})
    again = stream(
        tmp_path / "out",
        tmp_path,
        segments=[SEGMENTS[0]],
        datasets=[{"path": str(next(tmp_path.glob("*.hdf5"))), "format": "gwosc"}, {"path": str(witnesses)}],
        products={"target": "V1:GWOSC-2KHZ_R1_STRAIN"},
    )
    assert np.array_equal(
        _glitches(again, name="V1:GWOSC-2KHZ_R1_STRAIN"),
        np.where(np.arange(96 * 2048) < 60 * 2048, _glitches(made), 0.0),
    )


def _glitches(made, rate=2048, name=data.STRAIN):
    """The whole prediction that was taken, from GPS on."""
    found = np.zeros(round(data.LENGTH * rate))
    for path in made.glob("*.h5"):
        part = TimeSeries.read(path, f"{name}_glitch")
        first = round((part.t0.value - data.GPS) * rate)
        found[first : first + len(part)] = part.value
    return found


TIMES = tuple(4.3 + 5.5 * number for number in range(16))
"""Glitches closer than a window and half of one apart; the guide is reversed from the sixth on."""
HALF = 30.0


WHOLE = [[data.GPS, data.GPS + data.LENGTH]]


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    recorded = data.recordings(times=TIMES)
    turned = -2 * recorded[data.GUIDE].series
    return write_files(tmp_path_factory.mktemp("turning"), data.changed(recorded, turned, HALF))


@pytest.fixture(scope="module")
def turned(tmp_path_factory, turning):
    with pytest.MonkeyPatch.context() as monkeypatch:
        register(monkeypatch)
        return stream(tmp_path_factory.mktemp("out"), turning, segments=WHOLE)


def test_a_witness_that_turns_round_is_stopped_and_what_follows_is_made_without_it(turned, turning, tmp_path):
    made = shutil.copytree(turned, tmp_path / "out" / turned.name)
    manifest = read_manifest(made)
    (stop,) = manifest.stopped
    assert (stop.part, stop.reason) == (data.GUIDE, "gain_low")
    # the sixth glitch is the first one that is turned; least_events: four of them at the earliest
    assert data.GPS + TIMES[8] < stop.since < data.GPS + TIMES[14]
    taken = _glitches(made)
    near = [taken[round((one - 0.3) * 2048) : round((one + 0.3) * 2048)].any() for one in TIMES]
    assert near == [True] * 5 + [False] * 11
    reasons = {round(one.peak - data.GPS, 1): one.reason for block in manifest.blocks for one in block.believed}
    assert reasons[round(TIMES[6], 1)] == "refused"
    assert max(reasons) < stop.since - data.GPS + data.CONDITIONING.duration  # then nothing is foretold any more
    last = made / "V-V1_GLF_STRAIN_CLEAN-1400000075-21.h5"
    flags = StateVector.read(last, "V1:GLF-STATE_VECTOR").to_dqflags()
    assert not flags["WITNESSES_COMPLETE"].active
    first = made / "V-V1_GLF_STRAIN_CLEAN-1400000000-25.h5"
    assert StateVector.read(first, "V1:GLF-STATE_VECTOR").to_dqflags()["WITNESSES_COMPLETE"].active
    with h5py.File(last) as file, h5py.File(first) as other:
        assert json.loads(file.attrs["glitchflow_stopped"])[0]["part"] == data.GUIDE
        assert "glitchflow_stopped" not in other.attrs
    summary = json.loads((made / "summary.json").read_text())
    assert any(one.startswith(f"{data.GUIDE} was stopped from GPS") for one in summary["warnings"])
    assert main(["products", str(made)]) == 0
    # a lost file and a lost record come back with the same bytes, and what was seen is not lost with them
    before = {path.name: sha256(path) for path in made.glob("*.h5")}
    last.unlink()
    record_path(made, data.GPS + 50, data.GPS + 75).unlink()
    assert stream(tmp_path / "out", turning, segments=WHOLE) == made
    assert {path.name: sha256(path) for path in made.glob("*.h5")} == before
    assert read_manifest(made) == manifest


@pytest.mark.slow
def test_tasks_of_an_array_give_the_bytes_of_one_process(turned, turning, tmp_path):
    for task in (1, 0, 1, 0):  # all blocks, and those after the stop again
        share = {"name": "slurm-array", "share_index": task, "share_count": 2, "workers": 1}
        try:
            shared = stream(tmp_path / "shared", turning, segments=WHOLE, engine=share)
        except ShareDone:
            continue
    expected = {path.name: sha256(path) for path in turned.glob("*.h5")}
    assert len(expected) == 4
    assert {path.name: sha256(path) for path in shared.glob("*.h5")} == expected
    assert read_manifest(shared).blocks == read_manifest(turned).blocks
