import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests._triggers import teaching

from glitchflow_plugin.data.triggers.labels import (
    LabelledTimes,
    LabelSettings,
    TriggerSplitSettings,
    label_times,
    loudest_times,
    split_times,
)
from glitchflow_plugin.data.triggers.sets import SetSettings, Vocabulary
from glitchflow_plugin.data.triggers.store import TRUTH_NAME, open_triggers
from glitchflow_plugin.data.triggers.stream import StreamSettings
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.inference.classify_triggers import known_labels, known_ranks
from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation.trigger_level import TriggerLevelSettings, simulate_triggers
from glitchflow_plugin.tracking.trigger_models import load_trigger_model
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.processes import OneProcess
from glitchflow_plugin.training.registration import RegistrySettings
from glitchflow_plugin.training.triggers.contest import ContestSettings
from glitchflow_plugin.training.triggers.learner import StoredSets, set_batches
from glitchflow_plugin.training.triggers.run import (
    glitch_losses,
    glitch_scores,
    labels_of,
    leaderboard,
    log_prior,
    register_champion,
    train_triggers,
)
from glitchflow_plugin.types.triggers import TriggerLabels

DETECTOR = TriggerLevelSettings(duration=60_000.0, num_distractors=2)
LABELS = LabelSettings(block_length=1024.0)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A store and times with labels and parts."""
    folder = tmp_path_factory.mktemp("store")
    simulate_triggers(DETECTOR, folder)
    truth = pq.read_table(folder / TRUTH_NAME).sort_by("time")
    live = np.array([[DETECTOR.gps_start, DETECTOR.gps_start + DETECTOR.duration]])
    time, snr, kind = (truth[name].to_numpy() for name in ("time", "snr", "kind"))
    asked = loudest_times(open_triggers(folder), DETECTOR.channels[1:], LABELS.separation)
    times = label_times(time, snr, kind.astype(np.str_), live, LABELS, asked=asked)
    return folder, split_times(times, LABELS.block_length, TriggerSplitSettings(reach=64.0))


def trained(simulated, entrants):
    folder, times = simulated
    settings = {"entrants": entrants, "replicates": 100}
    config = TrainingConfiguration(batch_size=128, optim_lr=5e-4, precision="float32")
    with tempfile.TemporaryDirectory() as checkpoints:
        made = train_triggers(
            folder, times, DETECTOR.strain, sets=SetSettings(), stream=StreamSettings(),
            settings=built(ContestSettings, settings, "contest"),
            teach=teaching(Path(checkpoints), config, epochs=1), labels=LABELS, fingerprint="of the times",
        )  # fmt: skip
    assert made is not None
    return made


@pytest.mark.slow
def test_the_best_model_is_registered_and_gives_way_only_to_a_better_one(simulated, tmp_path):
    forest = {"model": "forest", "n_estimators": 30, "min_samples_leaf": 3}
    good = trained(simulated, {"forest": forest, "floor": {"model": "condonly", "dim": 8}})
    told = leaderboard(good.result)
    assert told["champion"] == "forest"
    assert told["entrants"]["forest"]["figures"]["auc"]["low"] > 0.8
    assert DETECTOR.strain not in good.model.channels
    registry = RegistrySettings(f"sqlite:///{tmp_path}/mlflow.db", "triggers", artifacts=str(tmp_path / "artifacts"))
    assert register_champion(good, registry).promoted
    poor = trained(simulated, {"floor": {"model": "condonly", "dim": 8}})
    version = register_champion(poor, registry)
    assert (version.version, version.promoted) == (2, False)
    assert "against version 1: loss of glitch or not lower by -" in version.reason
    # the same again is no better with confidence
    assert not register_champion(good, registry).promoted
    champion, kept = load_trigger_model("triggers", "champion", registry.tracking_uri)
    assert kept.version == 1
    folder, times = simulated
    test = times.of("test")
    losses = [
        glitch_losses(glitch_scores(one, open_triggers(folder), test), test).mean()
        for one in (champion, good.model, poor.model)
    ]
    assert losses[0] == losses[1] < losses[2]
    # what is claimed of ranks holds on times that the model never saw
    ranks = known_ranks(champion)
    assert ranks is not None
    scores = glitch_scores(champion, open_triggers(folder), test)
    claimed = ranks.false_alarm(scores[~test.glitch])
    assert (claimed <= 0.1).mean() < 0.16
    assert np.median(ranks.efficiency(scores[test.glitch])) == pytest.approx(0.5, abs=0.15)
    # and as many glitches are expected as there are, of all times that those of the test stand for
    told = 1 / (1 + np.exp(-scores - champion.log_prior))
    assert test.weight @ told == pytest.approx(test.weight[test.glitch].sum(), rel=0.12)
    assert known_labels(champion) == LABELS
    assert ranks.rate == pytest.approx(times.of("validation").glitch.sum() / times.of("validation").weight.sum())


def test_sets_of_a_store_are_the_same_in_any_batch_and_share(simulated):
    folder, times = simulated
    own = times.of("test")[np.arange(200)]
    chances = torch.rand(len(own), generator=torch.Generator().manual_seed(3))
    channels = Vocabulary(DETECTOR.channels[1:])
    given = (folder, own.time, labels_of(own, ()), channels, DETECTOR.strain, SetSettings(), StreamSettings())
    stored = StoredSets(*given, chances)
    labels = TriggerLabels.joined([one for _, one in stored.in_order()])
    assert (labels.channel >= 0).sum() > 100
    told = [one for rank in range(3) for _, one in stored.in_order(7, rank=rank, world_size=3)]
    order = np.concatenate([np.arange(rank, 200, 3) for rank in range(3)])
    assert torch.equal(TriggerLabels.joined(told).channel, labels.channel[torch.from_numpy(order)])
    epochs = stored.shuffled(16, seed=1)
    later = [one.channel for _, one in epochs(2, 32)]
    assert torch.equal(torch.cat(later), labels.channel[torch.from_numpy(epochs.numbers(2)[32:].copy())])
    # both are ended in the middle, since workers would outlive them
    batches = set_batches(stored, stored, TrainingConfiguration(batch_size=16), seed=0, processes=OneProcess())
    under_way = [iter(batches.training), iter(StoredSets(*given).in_order(16)), iter(batches.validation)]
    for one in under_way:
        next(one)
    batches.end_workers()
    assert [next(one, None) is None for one in under_way] == [True, False, True]
    # in all of them: those that have some would wait for the one that has none
    few, many = StoredSets(*(one[:3] if position in (1, 2) else one for position, one in enumerate(given))), stored
    for pair in ((few, many), (many, few)):
        with pytest.raises(DataError, match="got 3 for 4"):
            set_batches(*pair, TrainingConfiguration(batch_size=16), seed=0, processes=SimpleNamespace(rank=0, size=4))


def test_the_prior_makes_as_many_expected_as_there_are():
    glitch = np.array([True, True, False, False])
    nothing = np.zeros(4)
    times = LabelledTimes(
        np.arange(4), glitch, np.full(4, ""), nothing, np.arange(4), np.where(glitch, 1.0, 9.0), np.full(4, "")
    )
    # what knows nothing says the rate, 2 in 20, whatever it claims
    for claimed in (0.0, 3.0, -200.0):
        assert claimed + log_prior(np.full(4, claimed), times) == pytest.approx(np.log(0.1 / 0.9))
    scores = np.array([5.0, 1.0, -1.0, 2.0])
    told = 1 / (1 + np.exp(-scores - log_prior(scores, times)))
    assert times.weight @ told == pytest.approx(2.0)


def test_how_many_quiet_times_a_model_was_shown_decides_nothing_against_another():
    glitch = np.array([True, True, False, False, False, False])
    nothing = np.zeros(6)
    times = LabelledTimes(np.arange(6), glitch, np.full(6, ""), nothing, np.arange(6), nothing + 5.0, np.full(6, ""))
    scores = np.array([5.0, 0.5, -1.0, 2.0, -2.0, -3.0])
    # of three times as many quiet times it learns log-odds that are lower by ln 3
    assert glitch_losses(scores - np.log(3.0), times) == pytest.approx(glitch_losses(scores, times))
    assert glitch_losses(-scores, times).mean() > glitch_losses(scores, times).mean()


def test_a_part_without_times_is_told(simulated):
    folder, times = simulated
    with pytest.raises(DataError, match="in the part training, got 0 times"):
        trained((folder, times.of("test")), {"forest": {"model": "forest"}})
