import math

import pytest
import torch
from tests._series import CHANNELS, labelled_series, random_series
from tests._triggers import Quiet

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.models.triggers.seriesae import SeriesAutoencoder, SeriesEncoder
from glitchflow_plugin.training.alone import teach_alone
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.processes import OneProcess
from glitchflow_plugin.training.triggers.held import HeldRows
from glitchflow_plugin.training.triggers.learner import set_batches
from glitchflow_plugin.training.triggers.losses import TaskWeights
from glitchflow_plugin.training.triggers.series import (
    ClassifierLearner,
    SeriesLearner,
    SeriesLearning,
    classifier,
)
from glitchflow_plugin.training.triggers.series_losses import LOSSES, SeriesLoss, series_loss, sparsity_divergence

TOLD, TRUE = [0.5, -1.0, 3.0, 9.0], [0.0, 1.0, 3.5, -9.0]
WEIGHTS, HIDDEN = [1.0, 2.0, 0.5, 7.0], [True, True, True, False]


def signed_log(value):
    return math.copysign(math.log(1 + abs(value)), value)


def by_hand(each):
    """Weighted mean over the first three; the fourth is not hidden."""
    kept = [(w, each(p, t)) for p, t, w, hidden in zip(TOLD, TRUE, WEIGHTS, HIDDEN, strict=True) if hidden]
    return sum(w * one for w, one in kept) / sum(w for w, _ in kept)


def divergence_by_hand():
    total = 0.0
    for column in ([0.0, 1.0], [-1.0, 2.0]):
        active = sum(1 / (1 + math.exp(-one)) for one in column) / 2
        total += 0.05 * math.log(0.05 / active) + 0.95 * math.log(0.95 / (1 - active))
    return total


MSE = by_hand(lambda p, t: (p - t) ** 2)
EXPECTED = {
    "mse": MSE,
    "msle": by_hand(lambda p, t: (signed_log(p) - signed_log(t)) ** 2),
    "huber": by_hand(lambda p, t: 0.5 * (p - t) ** 2 if abs(p - t) <= 1 else abs(p - t) - 0.5),
    "mae": by_hand(lambda p, t: abs(p - t)),
    "log_cosh": by_hand(lambda p, t: math.log(math.cosh(p - t))),
    "rmse": math.sqrt(MSE),
    "rmse_sparse": math.sqrt(MSE) + 0.3 * divergence_by_hand(),
}


def loss(kind, told=TOLD, true=TRUE, weights=WEIGHTS, hidden=HIDDEN):
    return series_loss(
        torch.as_tensor(told).double()[None],
        torch.as_tensor(true).double()[None],
        weights=torch.tensor([weights]).double(),
        hidden=torch.tensor([hidden]),
        summary=torch.tensor([[0.0, -1.0], [1.0, 2.0]]).double(),
        settings=SeriesLoss(kind, sparsity=0.05, sparsity_weight=0.3),
    )


@pytest.mark.parametrize("kind", LOSSES)
def test_each_loss_is_the_one_worked_out_by_hand(kind):
    assert float(loss(kind)) == pytest.approx(EXPECTED[kind], rel=1e-9)
    # what was not hidden may hold anything
    assert float(loss(kind, told=[*TOLD[:3], math.nan], true=[*TRUE[:3], math.inf])) == float(loss(kind))


@pytest.mark.parametrize("kind", LOSSES)
def test_where_nothing_counts_a_loss_and_its_gradient_are_finite(kind):
    told = torch.tensor(TOLD, requires_grad=True)
    for weights, hidden, true in ((WEIGHTS, [False] * 4, TRUE), ([0.0] * 4, HIDDEN, TRUE), (WEIGHTS, HIDDEN, TOLD)):
        value = loss(kind, told=told, true=true, weights=weights, hidden=hidden)
        value.backward()
        assert value.isfinite()
        assert told.grad.isfinite().all()


def test_large_differences_do_not_overflow():
    far = float(loss("log_cosh", told=[1e4, 0.0, 0.0, 0.0], true=[0.0] * 4, hidden=[True, False, False, False]))
    assert far == pytest.approx(1e4 - math.log(2))


def test_sparsity_is_least_where_features_are_as_active_as_wanted():
    wanted = 0.2
    at = [float(sparsity_divergence(torch.full((3, 2), math.log(one / (1 - one))), wanted)) for one in (0.1, 0.2, 0.4)]
    assert at[1] == pytest.approx(0, abs=1e-6)
    assert min(at[0], at[2]) > 0.01


def test_a_loss_that_is_not_there_is_refused():
    with pytest.raises(ConfigurationError, match="Nearest: huber"):
        SeriesLoss("hubr")


def encoder(kind="attention"):
    torch.manual_seed(0)
    return SeriesEncoder(CHANNELS, dim=16, heads=2, layers=1, kind=kind)


def taught(folder, learner, validation, epochs, **config):
    given = {"batch_size": 32, "optim_lr": 5e-3, "precision": "float32", "channels_last": False, **config}
    made = TrainingConfiguration(**given)
    batches = set_batches(learner.training, validation, made, seed=0, processes=OneProcess())
    network, _ = teach_alone(learner, batches, made, epochs=epochs, checkpoints=folder, tracker=(kept := Quiet()))
    return network, kept.numbers["train_loss"]


def held(number, seed=0):
    series = random_series([40] * number, seed=seed)
    return HeldRows(series, series)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attention", "gru"])
def test_what_is_hidden_is_told_after_teaching_better_than_by_the_mean(kind, tmp_path):
    learner = SeriesLearner(
        SeriesAutoencoder(encoder(kind), CHANNELS, dim=16, heads=2),
        held(128),
        SeriesLearning(loss=SeriesLoss("mse")),
    )
    network, losses = taught(tmp_path, learner, held(32, seed=5), 20, warmup_epochs=2)
    assert losses[-1] < losses[0]
    others = random_series([40] * 64, seed=99)
    with torch.no_grad():
        left = learner.hidden_loss(network, others, others, torch.Generator().manual_seed(1))
    assert left < 0.5  # of a spread squared of 1: what the mean of each channel leaves


@pytest.mark.parametrize("start", ["frozen", "fine_tuned", "scratch"])
def test_a_classifier_learns_from_each_start_what_that_allows(start, tmp_path):
    before_all = encoder()
    before_all.scaling.fit([random_series([40] * 8)])
    before = {name: one.clone() for name, one in before_all.state_dict().items()}
    made = classifier(before_all, start, 2, dim=16, fresh=lambda: SeriesEncoder(CHANNELS, dim=16, heads=2, layers=1))
    begun = {name: one.clone() for name, one in made.encoder.state_dict().items()}
    assert all(torch.equal(begun[name], one) for name, one in before.items()) is (start != "scratch")
    training = HeldRows(*labelled_series(64))
    learner = ClassifierLearner("series", {}, TaskWeights(kind=0.0, log1p_snr=0.0), training, given=made)
    network, losses = taught(tmp_path, learner, training, 20, batch_size=64)
    assert losses[-1] < losses[0]
    changed = [name for name, one in network.encoder.state_dict().items() if not torch.equal(one, begun[name])]
    assert (changed == []) is (start == "frozen")
    assert not any(name.startswith("scaling") for name in changed)
    assert all(torch.equal(one, before[name]) for name, one in before_all.state_dict().items())


def test_nothing_to_learn_from_is_told(tmp_path):
    network = SeriesAutoencoder(encoder(), CHANNELS, dim=16, heads=2)
    with pytest.raises(DataError, match="learn from, got none"):
        taught(tmp_path, SeriesLearner(network, HeldRows(*held(1)[:0])), held(1), 1)
    with pytest.raises(ConfigurationError, match="start out of"):
        classifier(network.encoder, "thawed", 2, dim=16, fresh=encoder)
