"""All pipelines as a user runs them: `glitchflow init`, then `itwinai exec-pipeline`; small, and real throughout."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from tests import _warm
from tests._configuration import section

from glitchflow_plugin.data.event_files import TRUTH_FILE_NAME, list_event_files, read_event, write_event
from glitchflow_plugin.data.readers.continuous import span_in_name
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.truth_file import read_truth
from glitchflow_plugin.inference.trivial import TRIVIAL
from glitchflow_plugin.inference.what_if import UNCHANGED
from glitchflow_plugin.products.folder import parts_of, read_manifest
from glitchflow_plugin.products.folder_check import flaws
from glitchflow_plugin.products.summary import read_summary
from glitchflow_plugin.signal.columns import Columns

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]

SMALL = (
    "conf/profile=demo",
    "run_name=small",
    "simulate.sets.training.num_events=72",
    "simulate.sets.inference.num_events=12",
    "simulate.streams.stream.num_events=3",
    "simulate.progress=false",
    "simulate.workers=1",
    "engine.workers=1",  # test_own_data starts several, as is usual
    "model.features=4",
    "training.epochs=2",
    "training.disable_tqdm=true",
    "training.pictures_every=2",
    "registry.gate.injections=2",
    "registry.gate.replicates=100",
    "inference.settings.replicates=50",
    "inference.settings.examples=2",
    "inference.settings.tensorboard_pictures=3",
    "inference.generate.examples=2",
    "vis.num_events=2",
    "benchmark.settings.replicates=50",
    "benchmark.settings.missing=[1]",
)


def execute(folder, *overrides, code=0):
    done = _warm.run(folder, "itwinai", "exec-pipeline", *overrides, *SMALL, code=code)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder, empty before, in which pipelines of the demo have run, each in a process of its own as there."""
    folder = tmp_path_factory.mktemp("run")
    _warm.run(folder, "glitchflow", "init", folder)
    for pipeline in ("simulate_pipeline", "preproc_pipeline"):
        execute(folder, f"+pipe_key={pipeline}")
    execute(folder)  # training_pipeline is the default
    # of so few events the gate promotes nothing
    _warm.run(folder, "glitchflow", "models", "promote", "glitchflow-small", "1")
    for pipeline in ("inference_pipeline", "stream_pipeline", "glitchflow_pipeline", "vis_dts"):
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
        ("inference/small/data/inference", 12),
        (only(run / "inference/small", "*-v1-t16"), 12),
        (only(run / "datasets/small-synthetic", "*-v1"), 12),
    ):
        summary = read_summary(run / folder)
        assert summary.events.kept == kept, folder
        assert summary.events.read == summary.events.kept + sum(summary.events.rejected.values())
    training = read_summary(run / "temp/small/training").events
    # of so few background windows as the demo draws, a quiet event may get none
    assert set(training.rejected) <= {"no background window drawn"}
    assert 60 < training.kept == training.read - sum(training.rejected.values()) <= training.read == 72


def test_gps_of_every_event_and_veto_is_that_of_the_truth(run):
    folder = only(run / "inference/small", "*-v1-t16")
    events, segments = (pd.read_parquet(folder / f"{name}.parquet") for name in ("events", "segments"))
    truth = read_truth(run / "datasets/small/inference" / TRUTH_FILE_NAME)
    assert set(events["event_id"]) == set(truth.events)
    for row in events.itertuples():
        event = truth.events[row.event_id]
        assert row.gps_event == event.gps_event
        assert event.gps_start <= row.gps_start < row.gps_end <= event.gps_start + event.duration
        own = segments[segments["event_id"] == row.event_id]
        assert row.veto == (len(own) > 0)
        assert ((row.gps_start <= own["gps_start"]) & (own["gps_start"] < own["gps_end"])).all()
        assert (own["gps_end"] <= row.gps_end).all()


def test_measured_maps_show_the_glitches_that_the_truth_names(run):
    truth = read_truth(run / "datasets/small/inference" / TRUTH_FILE_NAME)
    maps = SpectrogramSet.open(run / "inference/small/data/inference/spectrograms")
    batch = maps.read(channels=[maps.target])
    columns = Columns(maps.times)
    for row, event_id in enumerate(batch.event_ids):
        loudest = batch.maps[row, 0].max(axis=0)
        own = columns.gps(batch.gps_start[row])
        for glitch in truth.events[event_id].glitches:
            start, end = glitch.segment
            near = (own.left < end) & (own.right > start)
            assert loudest[near].max() > np.median(loudest)


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
    for name in ("cleaned_share_snr2_16", "balanced_veto_accuracy_snr2_16", "veto_roc_auc", "net_power_removed"):
        assert {"zero", "linear", *TRIVIAL} <= set(metrics[name]["baseline"])
    assert metrics["net_power_removed"]["baseline"]["zero"] == 0.0


def test_pictures_and_tensorboard_are_there(run):
    accuracy = only(run / "inference/small", "*-v1-t16") / "images/accuracy.png"
    for picture in ("annalisarun/small/corr.png", "annalisarun/small/iou.png", accuracy):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    assert len(list((run / "tensorboard/small").rglob("events.out.tfevents.*"))) >= 4


def test_steps_run_alone_with_changed_parameters(run):
    execute(run, "+pipe_key=preproc_pipeline", "+pipe_steps=[Annalisa-scan]", "scan.threshold=30", "run_name=small")
    assert yaml.safe_load((run / "annalisarun/small/results.yaml").read_text())["parameters"]["threshold"] == 30
    execute(run, "+pipe_key=inference_pipeline", "+pipe_steps=[Make-inference]", "inference.settings.threshold=20")
    assert "balanced_veto_accuracy_snr2_20" in read_summary(only(run / "inference/small", "*-v1-t20")).metrics
    assert "balanced_veto_accuracy_snr2_16" in read_summary(only(run / "inference/small", "*-v1-t16")).metrics


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


def test_signals_are_put_into_the_stream_before_and_after_cleaning(run):
    execute(run, "+pipe_key=harm_pipeline", "harm.settings.kinds=[sine_gaussian]", "harm.settings.replicates=100")
    folder = only(run / "harm/small", "1400200192-1400200240-v1*")
    table = pd.read_csv(folder / "injections.csv")
    assert len(table) > 2
    assert table["gps"].between(1400200192, 1400200240).all()
    # a network of two epochs or not: what it takes is what the strain agrees with
    assert (table["snr_after"] / table["snr_before"] - 1).abs().median() < 0.01
    assert read_summary(folder).metrics["lost_quiet"].value == 0
    assert (folder / "images/recovered.png").exists()


def test_a_twin_is_asked_about_silent_witnesses(run):
    few = {"sweep_events": 1, "gains": "[0, 1]", "delays": "[0]", "examples": 0, "attribution.permutations": 4}
    few |= {"attribution.replicates": 0, "transfer.frequencies": 2, "transfer.amplitudes": "[30]"}
    silent = 'what_if.settings.interventions=[{channels: "*", action: silence}]'
    asked = [f"what_if.settings.{key}={value}" for key, value in few.items()]
    execute(run, "+pipe_key=what_if_pipeline", "+pipe_steps=[What-if]", silent, *asked)
    folder = only(run / "what_if/small", "*-v1*")
    cases = pd.read_csv(folder / "cases.csv")
    assert set(cases["event_id"]) == set(read_truth(run / "datasets/small/inference" / TRUTH_FILE_NAME).events)
    assert cases["snr_unchanged"].max() > 0
    # a twin says nothing of its own
    (silenced,) = set(cases["case"]) - {UNCHANGED}
    assert (cases["snr"][cases["case"] == silenced] == 0).all()
    assert {"attribution.csv", "sweep.csv", "transfer.csv"} <= {path.name for path in folder.iterdir()}


def test_one_command_makes_the_leaderboard_and_keeps_what_is_there(run):
    before = (run / "QTdatasets/small/manifest.json").stat().st_mtime_ns
    others = set(section("benchmark.entrants")) - {"zero", "wiener", "unet"}
    few = [f"benchmark.entrants.{name}=null" for name in sorted(others)]
    execute(run, "+pipe_key=benchmark_pipeline", "benchmark.minutes=null", "benchmark.epochs=1", *few)
    assert (run / "QTdatasets/small/manifest.json").stat().st_mtime_ns == before
    table = pd.read_csv(run / "benchmark/small/entrants.csv").set_index("entrant")
    assert set(table.index) == {"zero", "wiener", "unet", *TRIVIAL}
    assert table.loc["zero", "median_net_removed"] == 0
    assert read_summary(run / "benchmark/small").events.kept == 12


def test_frames_are_cleaned_as_they_appear(run):
    frames = run / "datasets/small/stream/frames"
    start = min(span[0] for span in map(span_in_name, frames.iterdir()) if span)
    execute(
        run,
        "+pipe_key=online_pipeline",
        f"online.frames=[{frames}]",
        f"online.run.until={start + 24}",
        "stream.products.formats=[hdf5]",
    )
    folder = only(run / "online/small", "glitchflow-small-champion")
    assert json.loads((folder / "status.json").read_text())["gps"] == start + 24
    (part,) = parts_of(folder)
    blocks = read_manifest(part).blocks
    assert [one.start for one in blocks] == [start + second for second in range(24)]
    assert sum(one.seconds["ANALYSED"] for one in blocks) > 5
    assert read_summary(folder).metrics["strides"].value == 24
    assert list(flaws(part)) == []


def test_retraining_sees_what_has_changed_and_ends_in_a_version_that_was_judged(run):
    """The latest events: one witness has turned round, another one is loud where the strain is not."""
    turned, loud = "V1:ASC-ACT_DRIVE", "V1:PSL-POWER_MON"
    buffer, draw = run / "datasets/latest", np.random.default_rng(0)
    for path in list_event_files(run / "datasets/small/training"):
        event = read_event(path)
        seen, beside = event.channels[turned], event.channels[loud]
        bursts = np.where(draw.random(len(beside.series)) < 1e-3, 100 * beside.series.std(), 0.0)
        changed = {turned: replace(seen, series=-seen.series), loud: replace(beside, series=beside.series + bursts)}
        write_event(buffer / path.name, replace(event, channels={**event.channels, **changed}))
    few = ("retrain.min_events=48", "registry.gate.min_groups=5")
    execute(run, "+pipe_key=retrain_pipeline", f"retrain.buffer={buffer}", *few)
    status = json.loads((run / "temp/small/retrain/status.json").read_text())
    assert (status["state"], status["decision"]) == ("done", "train"), status["reason"]
    assert f"drifted: {loud}" in status["reason"]
    assert f"coupling changed: {turned}" in status["reason"]
    # what the champion kept of its validation is compared with what it says of these events
    assert status["coupling"][turned]["now"]["value"] < 0 < status["coupling"][turned]["training"]["value"]
    trained = status["trained"]
    assert trained["version"] == 2
    assert "version 1" in trained["reason"]
    assert status["champion"] == (2 if trained["promoted"] else 1)
    summary = read_summary(run / "temp/small/retrain")
    assert summary.metrics["trained"].value == 1
    assert summary.outputs["champion"] == f"{'yes' if trained['promoted'] else 'no'}: {trained['reason']}"
