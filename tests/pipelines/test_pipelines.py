"""All pipelines as a user runs them: `glitchflow init`, then `itwinai exec-pipeline`; small, and real throughout."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from tests import _commands as commands

from glitchflow_plugin.data.event_files import TRUTH_FILE_NAME
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.truth_file import read_truth
from glitchflow_plugin.products.summary import read_summary

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]

SMALL = (
    "conf/profile=demo",
    "run_name=small",
    "simulate.sets.training.num_events=72",
    "simulate.sets.inference.num_events=12",
    "simulate.progress=false",
    "model.features=4",
    "training.epochs=2",
    "training.disable_tqdm=true",
    "training.pictures_every=2",
    "inference.settings.replicates=50",
    "inference.settings.examples=2",
)


def execute(folder, *overrides, code=0):
    done = commands.run(folder, "itwinai", "exec-pipeline", *overrides, *SMALL, code=code)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which every pipeline of the demo has run."""
    folder = tmp_path_factory.mktemp("run")
    commands.run(folder, "glitchflow", "init", folder)
    for pipeline in ("simulate_pipeline", "preproc_pipeline"):
        execute(folder, f"+pipe_key={pipeline}")
    execute(folder)  # training_pipeline is the default
    # of so few events the gate promotes nothing
    commands.run(folder, "glitchflow", "models", "promote", "glitchflow-small", "1")
    for pipeline in ("inference_pipeline", "glitchflow_pipeline", "vis_dts"):
        execute(folder, f"+pipe_key={pipeline}")
    return folder


def only(root, pattern):
    """The one folder of results that is named so."""
    (found,) = root.glob(pattern)
    return found


def test_scan_selects_true_witnesses_alone(run):
    truth = read_truth(run / "datasets/small/training" / TRUTH_FILE_NAME)
    results = yaml.safe_load((run / "annalisarun/small/results.yaml").read_text())
    selected = set((run / "annalisarun/small/selected.txt").read_text().split())
    assert selected
    assert selected <= set(truth.true_witnesses)
    assert selected == set(results["selected"])


def test_each_step_leaves_a_summary_with_counts(run):
    for folder, kept in (
        ("temp/small/events", 72),
        ("annalisarun/small", 72),
        ("QTdatasets/small", 72),
        ("temp/small/training", 72),
        ("inference/small/data/inference", 12),
        (only(run / "inference/small", "*-v1-t16"), 12),
        (only(run / "datasets/small-synthetic", "*-v1"), 12),
    ):
        summary = read_summary(run / folder)
        assert summary.events.kept == kept, folder
        assert summary.events.read == summary.events.kept + sum(summary.events.rejected.values())


def test_gps_of_every_window_lies_in_its_own_event(run):
    windows = pd.read_parquet(only(run / "inference/small", "*-v1-t16") / "windows.parquet")
    truth = read_truth(run / "datasets/small/inference" / TRUTH_FILE_NAME)
    assert set(windows["event_id"]) == set(truth.events)
    for row in windows.itertuples():
        event = truth.events[row.event_id]
        assert row.gps_event == event.gps_event
        assert event.gps_start <= row.gps_start < row.gps_end <= event.gps_start + event.duration


def test_measured_maps_show_the_glitches_that_the_truth_names(run):
    truth = read_truth(run / "datasets/small/inference" / TRUTH_FILE_NAME)
    windows = pd.read_parquet(only(run / "inference/small", "*-v1-t16") / "windows.parquet")
    for event in truth.events.values():
        rows = windows[windows["event_id"] == event.event_id]
        for glitch in event.glitches:
            start, end = glitch.segment
            near = rows[(rows["gps_start"] < end) & (rows["gps_end"] > start)]
            assert near["peak_snr2_measured"].max() > rows["peak_snr2_measured"].median() * 0.99


def test_model_is_in_the_registry_with_all_that_inference_needs(run):
    from glitchflow_plugin.tracking.registry import load

    bundle = load("glitchflow-small", "champion", f"sqlite:///{run}/mlflow.db")
    made = SpectrogramSet.open(run / "QTdatasets/small")
    assert bundle.target == made.target
    assert tuple(bundle.witnesses) == made.channels[1:]
    assert bundle.recipe["events"] == EventSet.open(run / "temp/small/events").recipe


def test_cleaned_maps_are_those_of_strain_minus_prediction(run):
    """What the registered model says of the event set, put together again from its parts."""
    import torch

    from glitchflow_plugin.signal.qtransform import QTransformSettings, q_transform_relative
    from glitchflow_plugin.tracking.registry import load

    maps = SpectrogramSet.open(only(run / "inference/small", "*-v1-t16") / "maps")
    batch = maps.read()
    by_name = dict(zip(maps.channels, np.moveaxis(batch.maps, 1, 0), strict=True))
    bundle = load("glitchflow-small", "champion", f"sqlite:///{run / 'mlflow.db'}")
    events = EventSet.open(run / "inference/small/data/inference/events").read(channels=list(bundle.channels))
    assert batch.event_ids == events.event_ids
    series = torch.from_numpy(events.series * events.valid[..., None])
    with torch.no_grad():
        predicted = bundle.twin(series[:, 1:])[:, 0]
    settings = QTransformSettings(**bundle.recipe["qtransform"])
    wanted = q_transform_relative(series[:, 0] - predicted, series[:, 0], 1024.0, settings)
    np.testing.assert_allclose(by_name["V1:Hrec_hoft_CLEANED"], wanted, rtol=1e-3, atol=1e-2)
    # a network of two epochs predicts something, and says how sure it is
    assert by_name["V1:Hrec_hoft_PREDICTED"].max() > 0
    assert by_name["V1:Hrec_hoft_EXPECTED_RESIDUAL"].min() > 0


def test_figures_stand_beside_their_baselines(run):
    metrics = json.loads((only(run / "inference/small", "*-v1-t16") / "summary.json").read_text())["metrics"]
    for name in ("denoising_accuracy_snr2_16", "veto_accuracy_snr2_16", "roc_auc", "residual_power_removed"):
        assert {"zero", "linear"} <= set(metrics[name]["baseline"])
    assert metrics["residual_power_removed"]["baseline"]["zero"] == 0.0


def test_pictures_and_tensorboard_are_there(run):
    accuracy = only(run / "inference/small", "*-v1-t16") / "images/accuracy.png"
    for picture in ("annalisarun/small/corr.png", "annalisarun/small/iou.png", accuracy):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    assert len(list((run / "tensorboard/small").rglob("events.out.tfevents.*"))) >= 4


def test_steps_run_alone_with_changed_parameters(run):
    execute(run, "+pipe_key=preproc_pipeline", "+pipe_steps=[Annalisa-scan]", "scan.threshold=30", "run_name=small")
    assert yaml.safe_load((run / "annalisarun/small/results.yaml").read_text())["parameters"]["threshold"] == 30
    execute(run, "+pipe_key=inference_pipeline", "+pipe_steps=[Make-inference]", "inference.settings.threshold=20")
    assert "veto_accuracy_snr2_20" in read_summary(only(run / "inference/small", "*-v1-t20")).metrics
    assert "veto_accuracy_snr2_16" in read_summary(only(run / "inference/small", "*-v1-t16")).metrics


def test_a_channel_that_the_model_needs_and_the_data_lack_is_named(run):
    selected = (run / "QTdatasets/small/manifest.json").read_text()
    witness = json.loads(selected)["channels"][1]
    said = execute(
        run,
        "+pipe_key=inference_pipeline",
        "+pipe_steps=[Load-infdata]",
        f"inference.datasets=[{{path: datasets/small/inference, channels: {{exclude: ['{witness}']}}}}]",
        "saveconf.inference=inference/lacking",
        code=1,
    )
    assert "that are needed" in said
    assert "Traceback" not in said
    assert witness in said


def test_misspelt_keys_and_missing_models_fail_before_any_work(run):
    assert "treshold" in execute(run, "+pipe_key=preproc_pipeline", "+scan.treshold=3", code=1)
    said = execute(run, "+pipe_key=inference_pipeline", "inference.model.name=nobody", code=1)
    assert "glitchflow-small" in said


def test_one_command_makes_the_leaderboard_and_keeps_what_is_there(run):
    before = (run / "QTdatasets/small/manifest.json").stat().st_mtime_ns
    few = [f"benchmark.entrants.{name}=null" for name in ("linear", "unet-original", "coupling")]
    execute(run, "+pipe_key=benchmark_pipeline", "benchmark.minutes=null", "benchmark.epochs=1", *few)
    assert (run / "QTdatasets/small/manifest.json").stat().st_mtime_ns == before
    table = pd.read_csv(run / "benchmark/small/entrants.csv").set_index("entrant")
    assert set(table.index) == {"zero", "wiener", "unet", "constant", "clock", "mean map"}
    assert table.loc["zero", "median_net_removed"] == 0
    assert read_summary(run / "benchmark/small").events.kept == 12
