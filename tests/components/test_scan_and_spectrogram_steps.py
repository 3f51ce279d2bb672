"""Annalisa-scan, QT-dataset and Data-Vis as a user runs them: one after the other, and each alone."""

import json

import numpy as np
import pytest
import yaml
from itwinai.pipeline import Pipeline
from tests._configuration import section

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components.annalisa_scan import AnnalisaScan
from glitchflow_plugin.components.data_vis import DataVis
from glitchflow_plugin.components.qt_dataset import QTDataset
from glitchflow_plugin.data.channels import read_channel_list
from glitchflow_plugin.data.ranking_file import read_ranking
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import ConfigurationError, FormatError

RATE, SAMPLES = 1024.0, 4096
TIME = np.arange(SAMPLES) / RATE


def settings_of(group, **changes):
    return section(group) | {"num_f_bins": 32, "num_t_bins": 129} | changes


@pytest.fixture
def events(make_event_set):
    rng = np.random.default_rng(0)
    series = rng.standard_normal((8, 4, SAMPLES))
    for event in series:
        centre = rng.uniform(1.5, 2.5)
        burst = 4 * np.exp(-((2 * np.pi * 60 * (TIME - centre) / 12) ** 2)) * np.sin(2 * np.pi * 60 * TIME)
        event[:2] += burst
    valid = np.ones((8, 4), dtype=bool)
    valid[:, 3] = False
    return make_event_set(series, valid)


@pytest.fixture
def steps(tmp_path, events):
    places = {"events": str(events.folder), "device": "cpu"}

    def make(scan=None, process=None, num_pictures=1, **options):
        return Pipeline(
            {
                "Annalisa-scan": AnnalisaScan(
                    settings_of("scan", **(scan or {})), folder=str(tmp_path / "scan"), **places
                ),
                "QT-dataset": QTDataset(
                    settings_of("process", **(process or {})),
                    scan=str(tmp_path / "scan"),
                    folder=str(tmp_path / "maps"),
                    num_pictures=num_pictures,
                    **places,
                    **options,
                ),
                "Data-Vis": DataVis(str(tmp_path / "maps"), str(tmp_path / "tb"), num_events=2),
            }
        )

    return make


def test_whole_chain_leaves_what_the_field_expects(steps, tmp_path):
    steps(num_pictures=3).execute()
    ranking = read_ranking(tmp_path / "scan")
    assert ranking.selected == ("WITNESS_1",)
    assert read_channel_list(tmp_path / "scan" / "selected.txt") == ("WITNESS_1",)
    pictures = ("corr.png", "iou.png", "ranking.png", "coincidences.png")
    for name in (*pictures, "ranking.csv", "ranking.parquet", "results.yaml"):
        assert (tmp_path / "scan" / name).stat().st_size > 100
    made = SpectrogramSet.open(tmp_path / "maps")
    assert made.channels == ("STRAIN", "WITNESS_1")
    assert len(made) == 8
    assert len(list((tmp_path / "maps" / "pictures").glob("*.png"))) == 3
    assert list((tmp_path / "tb").glob("*/events.out.tfevents.*"))
    warnings = json.loads((tmp_path / "scan" / "summary.json").read_text())["warnings"]
    assert any("WITNESS_1 share nearly all spikes of STRAIN" in warning for warning in warnings)
    shown = next((tmp_path / "tb").iterdir())
    for folder, pipeline in (("scan", "Annalisa-scan"), ("maps", "QT-dataset"), (shown, "Data-Vis")):
        summary = json.loads((tmp_path / folder / "summary.json").read_text())
        assert summary["pipeline"].endswith(pipeline)
        assert summary["events"]["kept"] == 8


def test_unsafe_and_overridden_channels_are_warned_of(steps, events, tmp_path):
    content = {"injections": events.gps_event.tolist(), "tolerance_distance": 0.6, "safety": 0.01}
    ranking = steps(scan=content).steps["Annalisa-scan"].execute()[1]
    assert ranking.selected == ()
    warnings = json.loads((tmp_path / "scan" / "summary.json").read_text())["warnings"]
    assert any("WITNESS_1 is left out: coincides with the injections" in warning for warning in warnings)
    steps(scan=content | {"safe_override": ["WITNESS_1"]}).steps["Annalisa-scan"].execute()
    warnings = json.loads((tmp_path / "scan" / "summary.json").read_text())["warnings"]
    assert any("WITNESS_1 may be selected by safe_override" in warning for warning in warnings)
    assert "WITNESS_1" in read_ranking(tmp_path / "scan").overridden


def test_each_step_runs_alone_on_what_is_on_disk(steps, tmp_path):
    scan, maps, vis = steps(scan={"hveto": True}).steps.values()
    scan.execute()
    (first, *_) = json.loads((tmp_path / "scan" / "hveto" / "summary-stats.json").read_text())["rounds"]
    assert first["name"] == "WITNESS_1"
    assert len(maps.execute()) == 8
    assert len(vis.execute()) == 8


def test_step_without_its_input_says_what_to_run(steps):
    _, maps, vis = steps().steps.values()
    with pytest.raises(FormatError, match="Annalisa-scan"):
        maps.execute()
    with pytest.raises(FormatError, match="Run the step that makes it"):
        vis.execute()


def test_strain_without_spikes_stops_the_maps_with_the_reason(steps, tmp_path):
    with pytest.raises(ConfigurationError, match=r"above 5000 SNR².*no channel gave any information.*limits"):
        steps(scan={"threshold": 5000}).execute()
    summary = json.loads((tmp_path / "scan" / "summary.json").read_text())
    assert any("no spike of STRAIN above 5000" in warning for warning in summary["warnings"])
    assert (tmp_path / "scan" / "selected.txt").read_text() == ""


def test_thresholds_and_best_values_are_named_when_nothing_is_selected(steps, tmp_path):
    scan, maps, _ = steps(scan={"threshold_corr": 0.1}).steps.values()
    scan.execute()
    content = yaml.safe_load((tmp_path / "scan" / "results.yaml").read_text())
    content["selected"] = []
    del content["checksum"]
    (tmp_path / "scan" / "results.yaml").write_text(yaml.safe_dump(content))
    said = r"false-discovery rate <= 0\.01 and .*correlation >= 0\.1,.* 20 .*best is WITNESS_1"
    with pytest.raises(ConfigurationError, match=said):
        maps.execute()


def test_scan_of_another_event_set_is_noticed(steps, tmp_path, caplog):
    scan, maps, _ = steps().steps.values()
    scan.execute()
    maps.execute()
    assert json.loads((tmp_path / "maps" / "summary.json").read_text())["warnings"] == []
    assert "another event set" not in caplog.text
    content = yaml.safe_load((tmp_path / "scan" / "results.yaml").read_text())
    content["event_set"] = "0" * 64
    del content["checksum"]
    (tmp_path / "scan" / "results.yaml").write_text(yaml.safe_dump(content))
    with caplog.at_level("WARNING"):
        maps.execute()
    expected = f"the scan in {tmp_path / 'scan'} was made on another event set; run Annalisa-scan again"
    assert expected in caplog.text
    assert json.loads((tmp_path / "maps" / "summary.json").read_text())["warnings"] == [expected]
    content["target"] = "OTHER_STRAIN"
    (tmp_path / "scan" / "results.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigurationError, match=r"with OTHER_STRAIN, expected STRAIN.*Annalisa-scan again"):
        maps.execute()


def test_channels_can_be_named_in_place_of_a_scan(steps, tmp_path):
    maps = steps(ch_list=["WITNESS_2"]).steps["QT-dataset"]
    assert maps.execute().channels == ("STRAIN", "WITNESS_2")
    path = tmp_path / "mine.txt"
    path.write_text("WITNESS_2\nWITNESS_1\n")
    assert steps(ch_list=str(path)).steps["QT-dataset"].execute().channels == ("STRAIN", "WITNESS_2", "WITNESS_1")


def test_rerun_with_other_parameters_replaces_the_results(steps, tmp_path):
    scan, maps, _ = steps(num_pictures=2).steps.values()
    maps.execute(*scan.execute())
    selected, again = (tmp_path / "scan" / "ranking.csv").read_bytes(), scan.execute
    again()
    assert not (tmp_path / "scan" / "former").exists()
    scan, maps, _ = steps(scan={"threshold": 30}, process={"logf": True}).steps.values()
    made = maps.execute(*scan.execute())
    assert read_ranking(tmp_path / "scan").parameters["threshold"] == 30
    (former,) = (tmp_path / "scan" / "former").iterdir()
    assert (former / "ranking.csv").read_bytes() == selected
    assert read_ranking(former).parameters["threshold"] == 20
    assert (tmp_path / "scan" / "spikes").is_dir()
    assert np.diff(made.frequencies)[-1] > np.diff(made.frequencies)[0]
    assert len(list((tmp_path / "maps" / "pictures").glob("*.png"))) == 1


def test_wrong_settings_fail_when_the_step_is_made(steps):
    with pytest.raises(ConfigurationError, match=r"treshold.*Nearest: threshold"):
        steps(scan={"treshold": 20})
    with pytest.raises(ConfigurationError, match="logf must be true or false"):
        steps(process={"logf": "False"})


@pytest.mark.parametrize(("units", "whiten"), [("whitened", False), ("as recorded", True)])
def test_event_set_that_is_not_whitened_as_asked_is_refused(make_event_set, tmp_path, units, whiten):
    events = make_event_set(np.ones((1, 2, SAMPLES)), units=units)
    step = AnnalisaScan(settings_of("scan", whiten=whiten), str(events.folder), str(tmp_path / "scan"))
    with pytest.raises(ConfigurationError, match="whiten: null"):
        step.execute()


def test_second_look_replaces_the_first_in_tensorboard(steps, tmp_path):
    scan, maps, vis = steps(num_pictures=0).steps.values()
    vis.execute(maps.execute(*scan.execute()))
    vis.execute()
    (shown,) = (tmp_path / "tb").iterdir()
    assert len(list(shown.glob("events.out.tfevents.*"))) == 1
    # another set lies beside it
    vis.execute(steps(process={"logf": True}).steps["QT-dataset"].execute())
    assert len(list((tmp_path / "tb").iterdir())) == 2


def test_tensorboard_shows_maps_statistics_and_the_table_of_events(steps, tmp_path, events):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps().execute()
    shown = EventAccumulator(str(next((tmp_path / "tb").iterdir())), size_guidance={"images": 0})
    shown.Reload()
    assert [image.step for image in shown.Images("maps/STRAIN")] == [0, 1]
    assert {"peak energy/STRAIN", "peak energy/WITNESS_1"} <= set(shown.Tags()["histograms"])
    table = shown.Tensors("events/text_summary")[0].tensor_proto.string_val[0].decode()
    for event_id, gps in zip(events.event_ids, events.gps_event, strict=True):
        assert f"| {gps:.3f} | {event_id} |" in table
    assert {"row/0000", "row/0001"} < set(shown.Tags()["images"])
    assert "| row/0001 |" in table


def test_data_vis_refuses_wrong_numbers(tmp_path):
    with pytest.raises(ConfigurationError, match="num_events"):
        DataVis("maps", str(tmp_path), num_events=0)


def test_device_is_chosen_or_refused_clearly():
    assert choose_device("auto") in {"cpu", "cuda"}
    assert choose_device("cpu") == "cpu"
    with pytest.raises(ConfigurationError, match="expected auto"):
        choose_device("toaster")
