import dataclasses
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tests._configuration import section
from torch import nn

from glitchflow_plugin.components.generate import GenerateGlitches
from glitchflow_plugin.components.load_infdata import LoadInfdata
from glitchflow_plugin.components.make_inference import MakeInference
from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, FormatError, RegistryError
from glitchflow_plugin.inference import report as inference_report
from glitchflow_plugin.inference.generate import GenerateSettings
from glitchflow_plugin.inference.model_data import make_maps
from glitchflow_plugin.inference.run import InferenceSettings
from glitchflow_plugin.inference.subject import check_model, load_model
from glitchflow_plugin.inference.trivial import TRIVIAL
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.linear import LinearFilter
from glitchflow_plugin.models.twins import EnergyTwin
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.ingest import ingest
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.products.veto_formats import read_flag
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.tracking import registry

TARGET, GUIDE, BYSTANDER = "V1:STRAIN", "V1:GUIDE", "V1:BYSTANDER"
PROCESSING = {"minf": 10.0, "maxf": 200.0, "sr": 512.0, "len": 4.0, "crop_jitter": 0.0, "batch": 4}
TRANSFORM = QTransformSettings(frequency_low=20.0, frequency_high=150.0, num_frequencies=64, num_times=129)


class Follow(nn.Module):
    """The strain does what the first witness does."""

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.9))

    def forward(self, windows):
        return self.share * windows[:, :1]


def write_events(folder, num_events=6, *, channels=(TARGET, GUIDE, BYSTANDER), seed=1, start=1_238_166_018.0, dead=()):
    """White noise of 12 s; in even events strain and guide hold the same burst within a second of the trigger."""
    generator = np.random.default_rng(seed)
    time = np.arange(12 * 512) / 512 - 6
    for index in range(num_events):
        gps = start + 50 * index
        offset, amplitude = generator.uniform(-0.8, 0.8), 1.5 + 0.2 * index
        burst = amplitude * np.exp(-(((time - offset) / 0.04) ** 2)) * np.sin(2 * np.pi * 60 * time)
        recorded = {}
        for name in channels:
            series = 0.3 * generator.standard_normal(time.size)
            if index % 2 == 0 and name in (TARGET, GUIDE):
                series += burst
            if (index, name) in dead:
                series[:] = 0
            recorded[name] = Channel(name, series, gps - 6, 512.0)
        write_event(folder / f"{index}.h5", RawEvent(f"ev-{index}", gps, recorded))
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A model whose recipe is that of a small training set."""
    folder = tmp_path_factory.mktemp("training")
    datasets = [{"path": str(write_events(folder / "raw")), "target": TARGET, "processing": PROCESSING}]
    events = ingest(datasets, None, folder / "events")
    maps = make_spectrograms(events, [GUIDE], TRANSFORM, folder / "maps")
    linear = EnergyTwin(LinearFilter(1, 64, [0]), clamp=1e4, witness_scale=[1.0], target_scale=1.0, transform="none")
    return ModelBundle(
        twin=Follow(),
        target=TARGET,
        witnesses=(GUIDE,),
        recipe=json.loads(json.dumps(maps.recipe)),  # as the registry gives it back
        window_size=64,
        frequencies=tuple(maps.frequencies),
        times=tuple(maps.times),
        baseline=linear,
    )


@pytest.fixture
def registered(bundle, monkeypatch):
    """The model as version 7 of a registry that is not there."""

    monkeypatch.setattr(registry, "find", lambda name, _, uri: registry.ModelVersion(name, 7, uri, "run"))
    monkeypatch.setattr(registry, "load", lambda *_: bundle)
    return {"name": "twin", "version": "champion"}


def loader(registered, tmp_path, **arguments):
    return LoadInfdata(
        registered,
        "sqlite:///unused.db",
        str(tmp_path / "inf" / "data"),
        engine={"workers": 1},
        device="cpu",
        **arguments,
    )


def settings(**changes):
    return {"batch_events": 4, "replicates": 50, "examples": 2, **changes}


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_fresh_data_go_through_the_models_recipe(bundle, registered, tmp_path):
    raw = write_events(tmp_path / "raw", seed=2, start=1_239_000_000.0)
    step = loader(registered, tmp_path, datasets=[{"path": str(raw)}])
    used, maps = step.execute()
    assert maps.channels == (TARGET, GUIDE)  # what the model knows, not the bystander
    assert (
        maps.recipe["qtransform"]
        == SpectrogramSet.open(maps.folder).recipe["qtransform"]
        == bundle.recipe["qtransform"]
    )
    np.testing.assert_allclose(maps.times, bundle.times)
    assert used.notes["registered"] == {"name": "twin", "version": 7}
    assert maps.folder.parent == tmp_path / "inf" / "data" / "raw"
    summary = read_summary(maps.folder.parent)
    assert summary["events"]["kept"] == 6
    assert (summary["inputs"]["model"], summary["inputs"]["model_version"]) == ("twin", 7)


def test_from_raw_data_to_tables_maps_and_pictures(registered, tmp_path):
    raw = write_events(tmp_path / "raw", 8, seed=2, dead={(3, GUIDE)})
    used, maps = loader(registered, tmp_path, datasets=[{"path": str(raw)}]).execute()
    step = MakeInference(settings(), str(tmp_path / "inf"), tensorboard=str(tmp_path / "tb"), device="cpu")
    summary = step.execute(used, maps)
    out = tmp_path / "inf" / "1238166016-1238166370-v7-t16"
    stored = read_summary(out)
    events = pd.read_csv(out / "events.csv")
    assert events["event_id"].tolist() == [f"ev-{index}" for index in range(8)]
    assert events["glitch"].tolist() == [True, False] * 4
    assert events["veto"].tolist() == [True, False] * 4
    assert events["witnesses_missing"].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert events["gps_event"].tolist() == [1_238_166_018.0 + 50 * index for index in range(8)]
    segments = pd.read_parquet(out / "segments.parquet")
    assert segments["event_id"].tolist() == [f"ev-{index}" for index in range(0, 8, 2)]
    loudest = maps.read().maps[::2, 0].max(axis=1).argmax(axis=1)
    burst = maps.gps_start[::2] + maps.times[loudest]
    assert (segments["gps_start"] < burst).all()
    assert (burst < segments["gps_end"]).all()
    assert (segments["gps_end"] - segments["gps_start"]).max() < 0.5
    assert stored["metrics"]["live_hours"]["value"] == pytest.approx(8 * 4 / 3600)
    assert stored["metrics"]["vetoed_hours"]["value"] == pytest.approx(events["vetoed_seconds"].sum() / 3600)
    name = "balanced_veto_accuracy_snr2_16"
    assert stored["metrics"][name]["value"] == summary.metrics[name].value
    assert set(stored["metrics"]["veto_roc_auc"]["baseline"]) == {"linear", "zero", *TRIVIAL}
    assert len(stored["details"]["scores"]["model"]["balanced_veto_accuracy"]["value"]) == 50
    assert any(GUIDE in text for text in stored["warnings"])
    images = {path.stem for path in (out / "images").glob("*.png")}
    assert images >= {"accuracy", "roc", "confusion", "loudest", "median", "worst", "uncleaned", "veto_efficiency"}
    assert stored["metrics"]["veto_efficiency_snr2_16"]["value"] == 1.0
    [flag] = (out / "vetoes").glob("V1-GLF_VETO_TWIN_7-*.h5")
    vetoed = np.diff(read_flag(flag, "hdf5").active).sum()
    assert vetoed == pytest.approx(events["vetoed_seconds"].sum(), abs=0.02)
    assert set(events["decision"]) <= {"pass", "subtract", "veto"}
    assert pd.read_csv(out / "veto_figures.csv")["veto"].unique().tolist() == ["model", "linear", "random"]
    assert any((tmp_path / "tb" / out.name).iterdir())
    made = SpectrogramSet.open(out / "maps")
    assert made.event_ids == maps.event_ids
    assert made.recipe["model"] == {"name": "twin", "version": 7}


def test_make_inference_runs_alone_from_disk(registered, tmp_path):
    raw = write_events(tmp_path / "raw", 4)
    _, maps = loader(registered, tmp_path, datasets=[{"path": str(raw)}]).execute()
    datasets, data = [{"path": str(raw)}], str(maps.folder.parents[1])
    step = MakeInference(
        settings(), str(tmp_path / "inf"), model=registered, data=data, datasets=datasets, device="cpu"
    )
    assert len(step.execute().metrics) > 3
    other = [{"path": str(raw), "channels": {"max": 1}}]
    with pytest.raises(FormatError, match="no finished spectrograms"):
        MakeInference(settings(), str(tmp_path / "inf"), model=registered, data=data, datasets=other).execute()
    # files of conf/ from before results lay side by side
    with pytest.raises(ConfigurationError, match=r"datasets: \$\{inference\.datasets\}"):
        MakeInference(settings(), str(tmp_path / "inf"), model=registered, data=data).execute()
    with pytest.raises(ConfigurationError, match="needs `model`"):
        MakeInference(settings(), str(tmp_path / "inf")).execute()


def test_results_of_several_days_and_settings_lie_side_by_side(registered, tmp_path, monkeypatch):
    for name in ("example_figures", "score_figures"):  # they take most of the time and are not of interest here
        monkeypatch.setattr(inference_report, name, lambda *_, **__: {})

    def contents(folder):
        return {path: path.read_bytes() for path in folder.rglob("*.csv")}

    def analyse(raw, version=7, **changes):
        monkeypatch.setattr(registry, "find", lambda name, _, uri: registry.ModelVersion(name, version, uri, "run"))
        used, maps = loader(registered, tmp_path, datasets=[{"path": str(raw)}]).execute()
        choice = {key: changes.pop(key) for key in ("result", "replace") if key in changes}
        step = MakeInference(
            settings(**changes), str(tmp_path / "inf"), tensorboard=str(tmp_path / "tb"), device="cpu", **choice
        )
        step.execute(used, maps)
        return step.place, maps

    days = [
        write_events(tmp_path / f"day-{number}", 2, seed=number, start=1_239_000_000.0 + 1000 * number)
        for number in (1, 2)
    ]
    first, maps = analyse(days[0])
    before = contents(first)
    assert before
    others = [
        analyse(days[1])[0],
        analyse(days[0], threshold=20.0)[0],
        analyse(days[0], replicates=0)[0],
        analyse(days[0], version=8)[0],
    ]
    assert len({first, *others}) == 5
    assert {path.name for path in (tmp_path / "tb").iterdir()} == {path.name for path in (first, *others)}
    assert analyse(days[0], examples=1)[0] == first  # the same, with fewer pictures
    assert contents(first) == before
    # two versions with one recipe look at the same maps
    made = SpectrogramSet.open(maps.folder)
    assert (made.folder, made.manifest.fingerprint) == (maps.folder, maps.manifest.fingerprint)
    # a name of one's own
    mine, _ = analyse(days[0], result="mine")
    assert mine.name == "mine"
    with pytest.raises(ConfigurationError, match=r"another result .*inference\.replace=true"):
        analyse(days[1], result="mine")
    assert contents(mine).keys() == {mine / path.name for path in before}
    assert analyse(days[1], result="mine", replace=True)[0] == mine
    assert pd.read_csv(mine / "events.csv")["gps_event"][0] == 1_239_002_000.0


def test_an_existing_spectrogram_set_can_be_used(registered, tmp_path):
    raw = write_events(tmp_path / "raw", 2)
    _, made = loader(registered, tmp_path, datasets=[{"path": str(raw)}]).execute()
    _, used = loader(registered, tmp_path / "again", spectrograms=str(made.folder)).execute()
    assert used.folder == made.folder
    assert not (tmp_path / "again" / "inf" / "data" / "events").exists()


def test_a_spectrogram_set_of_another_recipe_is_refused(registered, tmp_path):
    raw = write_events(tmp_path / "raw", 2)
    processing = {**PROCESSING, "minf": 15.0}
    datasets = [{"path": str(raw), "target": TARGET, "processing": processing}]
    events = ingest(datasets, None, tmp_path / "events")
    other = make_spectrograms(events, [GUIDE], TRANSFORM, tmp_path / "maps")
    with pytest.raises(FormatError, match=r"minf: expected 10.0, got 15.0"):
        loader(registered, tmp_path, spectrograms=str(other.folder)).execute()


def test_data_may_say_where_their_crops_lie(bundle, registered, tmp_path):
    raw = write_events(tmp_path / "raw", 2)
    assert bundle.recipe["events"]["crop_jitter"] == 0
    _, maps = loader(registered, tmp_path, datasets=[{"path": str(raw), "processing": {"crop_jitter": 0.5}}]).execute()
    assert maps.recipe["events"]["crop_jitter"] == 0.5


def test_a_model_of_an_earlier_version_takes_fresh_data(bundle, registered, tmp_path, monkeypatch):
    recipe = json.loads(json.dumps(dict(bundle.recipe)))
    for part, key in (("events", "crop_jitter"), ("events", "crop_seed"), ("qtransform", "norm")):
        del recipe[part][key]
    earlier = replace(bundle, recipe=recipe)
    monkeypatch.setattr(registry, "load", lambda *_: earlier)
    raw = write_events(tmp_path / "raw", 2)
    _, maps = loader(registered, tmp_path, datasets=[{"path": str(raw)}]).execute()
    assert (maps.recipe["events"]["crop_jitter"], maps.recipe["qtransform"]["norm"]) == (0.0, "median")


def test_an_event_set_of_another_recipe_is_refused_before_maps_are_made(bundle, tmp_path):
    raw = write_events(tmp_path / "raw", 2)
    places = {"engine": EngineSettings(), "device": "cpu"}

    def events(name, **processing):
        entry = {"path": str(raw), "target": TARGET, "processing": {**PROCESSING, **processing}}
        return ingest([entry], None, tmp_path / name)

    maps, counts, _ = make_maps(bundle, events("same"), tmp_path / "fits", **places)
    assert len(maps) == counts.kept == 2
    with pytest.raises(FormatError, match=r"narrow was made by another recipe .*maxf: expected 200.0, got 150.0"):
        make_maps(bundle, events("narrow", maxf=150.0), tmp_path / "other", **places)
    # a twin of these could not be compared with the model
    with pytest.raises(FormatError, match=r"crop_jitter: expected 0.0, got 0.5"):
        make_maps(bundle, events("moved", crop_jitter=0.5), tmp_path / "other", **places)
    assert not (tmp_path / "other").exists()


def test_channels_that_the_model_needs_and_the_data_lack_are_listed(registered, tmp_path):
    raw = write_events(tmp_path / "raw", 2, channels=(TARGET, BYSTANDER))
    with pytest.raises(ChannelMismatchError, match=GUIDE):
        loader(registered, tmp_path, datasets=[{"path": str(raw)}]).execute()


def test_data_without_strain_are_vetoed_without_scores(registered, tmp_path):
    raw = write_events(tmp_path / "raw", 4, channels=(GUIDE, BYSTANDER))
    used, maps = loader(registered, tmp_path, datasets=[{"path": str(raw)}]).execute()
    assert len(maps) == 4
    assert not maps.valid[:, 0].any()
    step = MakeInference(settings(), str(tmp_path / "inf"), device="cpu")
    step.execute(used, maps)
    stored = read_summary(step.place)
    assert set(stored["metrics"]) == {"live_hours", "vetoed_hours"}
    assert any("left out" in text for text in stored["warnings"])
    events = pd.read_csv(step.place / "events.csv")
    assert events["veto"].tolist() == [True, False, True, False]
    assert events["cleaned"].isna().all()
    assert {path.stem for path in (step.place / "images").glob("*.png")} == {"timeline", "vetoed"}


def test_an_event_with_dead_strain_is_kept_for_its_veto(registered, tmp_path):
    raw = write_events(tmp_path / "raw", 4, dead={(0, TARGET)})
    _, maps = loader(registered, tmp_path, datasets=[{"path": str(raw)}]).execute()
    assert maps.valid.tolist() == [[False, True]] + [[True, True]] * 3


def test_a_synthetic_set_names_the_model_it_came_from(registered, tmp_path):
    raw = write_events(tmp_path / "raw", 6)
    used, maps = loader(registered, tmp_path, datasets=[{"path": str(raw)}]).execute()
    step = GenerateGlitches(
        {"examples": 2, "threshold": 40.0}, str(tmp_path / "synthetic"), tensorboard=str(tmp_path / "tb"), device="cpu"
    )
    made = step.execute(used, maps)
    out = step.place
    assert out.parent == tmp_path / "synthetic"
    assert SpectrogramSet.open(out).recipe["generated"]["model"] == {"name": "twin", "version": 7}
    assert made.target == TARGET
    labels = pd.read_csv(out / "labels.csv")
    assert labels["label"].tolist() == ["glitch", "background"] * 3
    assert len(list((out / "images").glob("*.png"))) == 2
    assert read_summary(out)["metrics"]["generated_glitches"]["value"] == 3


def test_configuration_files_name_the_settings_and_their_defaults():
    conf = section("inference")
    for content, kind in ((conf["settings"], InferenceSettings), (conf["generate"], GenerateSettings)):
        defaults = dataclasses.asdict(kind())
        assert {name: list(v) if isinstance(v, tuple) else v for name, v in defaults.items()} == content
    assert set(conf["model"]) == {"name", "version"}


def test_wrong_settings_fail_when_the_step_is_built(tmp_path):
    with pytest.raises(ConfigurationError, match="neither"):
        LoadInfdata({"name": "a", "version": 1}, "sqlite:///x.db", str(tmp_path))
    for model in ({"name": "a"}, {"name": "a", "version": 1, "stage": 2}, {"name": "", "version": 1}):
        with pytest.raises(ConfigurationError, match="name and version"):
            check_model(model)
    with pytest.raises(ConfigurationError, match="Nearest: threshold"):
        MakeInference({"treshold": 16}, str(tmp_path))
    with pytest.raises(ConfigurationError, match="Nearest: threshold"):
        GenerateGlitches({"tresholds": 16}, str(tmp_path))


@pytest.mark.slow
def test_a_model_comes_from_a_real_registry(bundle, make_registry, tmp_path):
    with pytest.raises(RegistryError, match="Train a model first"):
        load_model({"name": "twin", "version": "champion"}, f"sqlite:///{tmp_path}/none.db")
    uri = make_registry(tmp_path)
    with pytest.raises(RegistryError, match="no registered model 'twin'"):
        load_model({"name": "twin", "version": "champion"}, uri)
    network = LinearFilter(1, 64, [0])
    with torch.no_grad():
        network.weight.fill_(1.0)
    twin = EnergyTwin(network, clamp=1e4, witness_scale=[1.0], target_scale=1.0, transform="none")
    stored = replace(bundle, twin=twin, model={"name": "linear", "lags": [0]})
    registry.register(stored, "twin", uri, artifacts=tmp_path / "artifacts")
    raw = write_events(tmp_path / "raw", 4)
    step = LoadInfdata(
        {"name": "twin", "version": 1},
        uri,
        str(tmp_path / "data"),
        datasets=[{"path": str(raw)}],
        engine={"workers": 1},
    )
    used, maps = step.execute()
    summary = MakeInference(settings(), str(tmp_path / "inf"), device="cpu").execute(used, maps)
    assert summary.metrics["veto_roc_auc"].value > 0.9
    with pytest.raises(RegistryError, match=r"no version or alias 'champion'.*inference\.model\.version"):
        load_model({"name": "twin", "version": "champion"}, uri)
