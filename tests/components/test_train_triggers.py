"""Train and Classify of triggers: what was killed goes on, the champion is registered, and answers for any files."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from gwpy.segments import DataQualityFlag
from mlflow import MlflowClient
from scipy import stats
from tests import _warm

from glitchflow_plugin.components.classify_triggers import ClassifyTriggers
from glitchflow_plugin.components.label_triggers import LabelTriggers
from glitchflow_plugin.components.simulate_triggers import SimulateTriggers
from glitchflow_plugin.components.split_triggers import SplitTriggers
from glitchflow_plugin.components.train_triggers import TrainTriggers
from glitchflow_plugin.data.triggers.formats import read_triggers, write_triggers
from glitchflow_plugin.data.triggers.labelled import LabelledSet
from glitchflow_plugin.data.triggers.store import read_manifest
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, FormatError
from glitchflow_plugin.products.summary import read_summary
from glitchflow_plugin.training.triggers.learner import TriggerLearner

STRAIN = "V1:Hrec_hoft"
CONFIG = {"batch_size": 32, "optim_lr": 1e-3, "warmup_epochs": 1, "precision": "float32", "channels_last": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, times in parts, and what Train needs."""
    folder = tmp_path_factory.mktemp("run")
    SimulateTriggers({"duration": 24_000.0, "num_distractors": 1}, str(folder / "store")).execute()
    labels = LabelTriggers({"block_length": 500.0}, str(folder / "store"), str(folder / "labels")).execute()
    SplitTriggers({}, "unused", str(folder / "split")).execute(labels)
    registry = {
        "tracking_uri": f"sqlite:///{folder}/mlflow.db", "name": "twin", "artifacts": str(folder / "artifacts"),
        "system_metrics": False, "gate": {"replicates": 200},
    }  # fmt: skip
    return folder, registry


def train(made, entrants, **others):
    folder, registry = made
    given = {
        "contest": {"entrants": entrants, "replicates": 100}, "sets": {}, "times": str(folder / "split"),
        "folder": str(folder / "training"), "registered_model": "triggers", "registry": registry, "epochs": 1,
        "config": {**CONFIG, "batch_size": 128}, "device": "cpu", "disable_tqdm": True, "run_name": "mine",
        "tensorboard": str(folder / "board"), **others,
    }  # fmt: skip
    return TrainTriggers(**given)


def alone(made, folder, **others):
    """One small network, tracked nowhere, with a checkpoint after each step."""
    net = {"net": {"model": "pointvit", "dim": 8, "heads": 2, "layers": 1}}
    given = {"registry": None, "epochs": 2, "checkpoint_minutes": 1e-9, "tensorboard": None, **others}
    config = {**CONFIG, "batch_size": 200}
    return train(made, net, folder=str(folder), config=config, stream={"memory": 0.01, "stretch_rows": 1000}, **given)


def counted_steps(monkeypatch, most=None):
    """Count the steps of networks, and be killed in the middle of one."""
    steps, losses = [], TriggerLearner.losses

    def counted(*given):
        steps.append(len(given[-1]))
        if len(steps) == most:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses(*given)

    monkeypatch.setattr(TriggerLearner, "losses", counted)
    return steps


def killed(made, folder, most):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        counted_steps(patch, most)
        alone(made, folder).execute()


def test_what_was_killed_goes_on_at_the_same_batch_to_the_last_bit(made, tmp_path, monkeypatch):
    run = _warm.start(killed, made, tmp_path / "cut", 8, output=tmp_path / "log")
    assert run.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    steps = counted_steps(monkeypatch)
    alone(made, tmp_path / "whole").execute()
    whole = steps.copy()
    steps.clear()
    alone(made, tmp_path / "cut").execute()
    assert steps == whole[7:], "seven steps were taken, the eighth was not"
    assert len(whole) == 10
    told = [json.loads((tmp_path / one / "leaderboard.json").read_text()) for one in ("whole", "cut")]
    for one in told:
        del one["checksum"], one["entrants"]["net"]["sets_per_second"]
    assert told[0] == told[1]
    # what is finished is not learnt again
    steps.clear()
    alone(made, tmp_path / "cut").execute()
    assert steps == []


def test_what_was_learnt_of_other_triggers_is_not_gone_on_with(made, tmp_path, monkeypatch):
    """The same times, as where only a witness has other triggers than before."""
    split, store = LabelledSet.open(made[0] / "split"), tmp_path / "store"
    SimulateTriggers({"duration": 24_000.0, "num_distractors": 1, "seed": 5}, str(store)).execute()
    other = replace(split.record, store=str(store), fingerprint=read_manifest(store).fingerprint)
    other.write(tmp_path / "split", split.times())
    steps = counted_steps(monkeypatch)
    alone(made, tmp_path / "training", epochs=1).execute()
    taken = len(steps)
    assert taken > 0
    alone(made, tmp_path / "training", epochs=1, times=str(tmp_path / "split")).execute()
    assert len(steps) == 2 * taken


@pytest.fixture(scope="module")
def champion(made):
    """A registered model, the better one of two."""
    forest = {"model": "forest", "n_estimators": 20, "min_samples_leaf": 3, "n_jobs": 1}
    return train(made, {"trees": forest, "net": {"model": "pointvit", "dim": 8, "heads": 2, "layers": 1}}).execute()


def test_entrants_are_judged_tracked_and_the_champion_is_registered(made, champion):
    folder, registry = made
    assert (champion.name, champion.version, champion.promoted) == ("triggers", 1, True)
    board = json.loads((folder / "training" / "leaderboard.json").read_text())
    assert board["champion"] == "trees"
    assert set(board["entrants"]) == {"trees", "net"}
    assert board["entrants"]["net"]["lead_over_trees"]["auc"]["high"] is not None
    summary = read_summary(folder / "training")
    assert summary.metrics["auc"].baseline.keys() == {"net", "loudest", "logistic"}
    assert summary.metrics["auc"].low > 0.8
    # both pages tell the same of how far it can be trusted
    trust = summary.details["trust"]
    assert sum(map(sum, trust["confusion"]["counts"])) == sum(trust["reliability"]["times"])
    assert read_summary(classify(made)).details["trust"] == trust
    client = MlflowClient(registry["tracking_uri"], registry["tracking_uri"])
    (experiment,) = [one.experiment_id for one in client.search_experiments() if one.name == "glitchflow"]
    runs = {one.info.run_name: one for one in client.search_runs([experiment])}
    net = runs["mine-net"]
    assert net.info.status == "FINISHED"
    assert net.data.params["model"] == "pointvit"
    assert net.data.metrics["test_auc"] == pytest.approx(board["entrants"]["net"]["figures"]["auc"]["value"])
    assert {"train_loss", "validation_loss", "validation_auc"} <= set(net.data.metrics)
    assert list((folder / "board" / "net").glob("events.out.*"))


def test_a_misspelt_key_is_told_before_anything_is_read(made):
    with pytest.raises(ConfigurationError, match="optim_lrr"):
        train(made, {"net": {"model": "condonly", "config": {"optim_lrr": 1.0}}})
    with pytest.raises(ConfigurationError, match="cannot be built"):
        train(made, {"net": {"model": "condonly", "hheads": 2}})


def classify(made, **others):
    folder, registry = made
    given = {
        "settings": {}, "model": {"name": "triggers", "version": "champion"}, "tracking_uri": registry["tracking_uri"],
        "triggers": str(folder / "store"), "folder": str(folder / "classified"), "device": "cpu", **others,
    }  # fmt: skip
    return ClassifyTriggers(**given).execute()


def assert_loudest(table, store):
    """See that the channel of some times is that of the loudest trigger within half a second."""
    triggers = read_triggers(store).to_pandas().query("channel != @STRAIN")
    for one in table.iloc[::500].itertuples():
        near = triggers[(triggers["time"] - one.time).abs() <= NANOSECONDS // 2]
        assert one.channel == near.loc[near["snr"].idxmax(), "channel"]


def strain_of(store):
    """Times of the strain's glitches, ns, rising."""
    table = read_triggers(store).to_pandas()
    return np.sort(table[(table["channel"] == STRAIN) & (table["snr"] >= 8)]["time"].to_numpy())


def near(times, others, seconds):
    """Which of the times have one of the others so near."""
    times, within = np.asarray(times), int(seconds * NANOSECONDS)
    return np.searchsorted(others, times - within, "left") < np.searchsorted(others, times + within, "right")


@pytest.mark.usefixtures("champion")
def test_a_store_is_classified_and_vetoed_when_it_ranks_high(made):
    folder, _ = made
    place = classify(made, settings={"false_alarm": 0.2})
    table = pq.read_table(place / "classified.parquet").to_pandas()
    truth = pq.read_table(folder / "store" / "truth.parquet").to_pandas().query("snr > 8 and witnessed")
    assert (np.diff(table["time"]) > 0).all()
    assert table["glitch"].between(0, 1).all()
    shares = table.filter(regex="^kind_")
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert (table["kind"] == shares.idxmax(axis=1).str.removeprefix("kind_")).all()
    assert (table["snr_low"] <= table["snr"]).all()
    # of quiet or one of the classes, all told
    answers = np.column_stack([1 - table["glitch"], shares.mul(table["glitch"], axis=0)])
    np.testing.assert_allclose(table["entropy"], stats.entropy(answers, axis=1, base=2), atol=1e-9)
    assert_loudest(table, folder / "store")
    # the text has the same times, to the nanosecond
    text = pd.read_csv(place / "classified.csv", dtype={"time": str})["time"].str.replace(".", "").astype(np.int64)
    assert (text == table["time"]).all()
    # the times are those of the labels' kind: as many glitches are expected at them as there are, and ranks hold
    glitch = near(table["time"], strain_of(folder / "store"), 0.1)
    assert set(pq.read_table(folder / "split" / "times.parquet")["time"].to_pylist()) <= set(table["time"])
    assert table["glitch"].sum() == pytest.approx(glitch.sum(), rel=0.1)
    assert (table["false_alarm"][~glitch] <= 0.1).mean() < 0.12
    flag = DataQualityFlag.read(place / "vetoes" / "vetoes.h5", format="hdf5")
    assert abs(flag.known) == pytest.approx(24_000, abs=0.01)
    within = np.array([any(float(time) / NANOSECONDS in segment for segment in flag.active) for time in truth["time"]])
    assert within.mean() > 0.5 > 5 * abs(flag.active) / abs(flag.known)
    # of so few blocks nobody knows of one in a thousand
    told = read_summary(classify(made, settings={"false_alarm": 1e-3})).warnings
    assert any("nothing is vetoed" in one for one in told)
    assert not any("times" in one for one in told if "vetoed" not in one)


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize("kind", ["csv", "omicron"])
def test_files_of_others_get_the_same_answers_at_times_that_are_asked(made, kind, tmp_path):
    folder, _ = made
    table = read_triggers(folder / "store")
    early = table.filter(table["time"].to_numpy() < (1_400_000_000 + 3000) * NANOSECONDS)
    write_triggers(early, tmp_path / ("theirs.csv" if kind == "csv" else "theirs"), kind)
    times = np.array([1_400_000_100_000_000_001, 1_400_002_000_500_000_003])
    pd.DataFrame({"time": [f"{one // NANOSECONDS}.{one % NANOSECONDS:09d}" for one in times]}).to_csv(
        tmp_path / "times.csv", index=False
    )
    sources = (folder / "store", tmp_path / ("theirs.csv" if kind == "csv" else "theirs"))
    places = [
        classify(made, triggers=str(one), times=str(tmp_path / "times.csv"), folder=str(tmp_path / f"from{number}"))
        for number, one in enumerate(sources)
    ]
    answers = [pq.read_table(one / "classified.parquet").to_pandas() for one in places]
    np.testing.assert_array_equal(answers[0]["time"], times)
    # Omicron's times are known to 0.1 us, which may move a trigger over an edge of the trees
    pd.testing.assert_frame_equal(*answers, rtol=1e-9 if kind == "csv" else 0.05)
    told = read_summary(places[1]).warnings
    assert any("no veto flag" in one for one in told)
    assert any("times come from a table" in one for one in told)


@pytest.mark.usefixtures("champion")
def test_channels_that_the_model_does_not_know_are_told_and_counted(made, tmp_path):
    folder, _ = made
    table = read_triggers(folder / "store").slice(0, 3000).to_pandas()
    known = table["channel"].astype(str)
    table["channel"] = np.where(known == "V1:AUX-000", "V1:NEW", known)
    table["time"] = [f"{one // NANOSECONDS}.{one % NANOSECONDS:09d}" for one in table["time"]]
    table.to_csv(tmp_path / "some.csv", index=False)
    place = classify(made, triggers=str(tmp_path / "some.csv"), folder=str(tmp_path / "classified"))
    summary = read_summary(place)
    number = int((table["channel"] == "V1:NEW").sum())
    assert summary.metrics["triggers_unknown"].value == number > 0
    assert summary.details["unknown_channels"] == {"V1:NEW": number}
    assert any("UNKNOWN: V1:NEW" in one for one in summary.warnings)
    told = pq.read_table(place / "classified.parquet").to_pandas()
    assert 0 < told["unknown_triggers"].sum() < told["triggers"].sum()
    assert "UNKNOWN" in set(told["channel"])
    table.assign(channel="V1:NEW").to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(ChannelMismatchError, match=r"none of the \d+ channels that triggers version 1 knows"):
        classify(made, triggers=str(tmp_path / "none.csv"), folder=str(tmp_path / "classified"))
    with pytest.raises(FormatError, match="no such table"):
        classify(made, triggers=str(tmp_path / "nowhere.csv"), folder=str(tmp_path / "classified"))
