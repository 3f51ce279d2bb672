"""The loop on the smallest thing that can be learnt: a linear law of two numbers."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from glitchflow_plugin.data.window_dataset import CachedEvents
from glitchflow_plugin.data.window_order import WindowPlaces
from glitchflow_plugin.errors import ConfigurationError, DataError, GlitchflowError
from glitchflow_plugin.training import checkpoints
from glitchflow_plugin.training.batches import window_batches
from glitchflow_plugin.training.checkpoints import BEST, LAST, load_weights, read_checkpoint
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.loop import Loop, LoopSettings, LoopState
from glitchflow_plugin.training.processes import OneProcess
from glitchflow_plugin.training.progress import Progress

LAW = torch.tensor([[2.0, -1.0]])


class Points(CachedEvents):
    """Pairs of a witness and what the law makes of it, one an event."""

    def __init__(self, number, seed):
        # nothing is read from a file
        self.witnesses = torch.randn(number, 2, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.witnesses)

    def __getitem__(self, index):
        return self.witnesses[index].clone(), LAW @ self.witnesses[index]

    @property
    def event_ids(self):
        return np.arange(len(self)).astype(str)

    @property
    def places(self):
        return WindowPlaces(np.arange(len(self)), np.zeros(len(self), int), np.ones(len(self), bool), event_bytes=8)

    def _read(self, row):
        return self.witnesses[row].numpy()


@dataclass
class Losses:
    values: torch.Tensor

    @classmethod
    def concatenate(cls, parts):
        return cls(torch.cat([part.values for part in parts]))

    def figures(self):
        return {"loss": float(self.values.mean()), "largest": float(self.values.max())}


class Law:
    """A learner, as far as the loop asks it."""

    witnesses = ("A", "B")

    def network(self):
        return nn.Linear(2, 1, bias=False)

    def initialise(self, network):
        """All weights are random."""

    def twin(self, network):
        return network

    def losses(self, network, _, witnesses, strain):
        return (network(witnesses) - strain).square().mean(dim=1)

    def judge(self, predict, batches, twin, **_):
        with torch.no_grad():
            return Losses(torch.cat([self.losses(predict, twin, *batch) for batch in batches]))


class Told:
    """A tracker that remembers."""

    def __init__(self):
        self.numbers = {}

    def metric(self, name, value, step):
        self.numbers.setdefault(name, []).append((step, value))


@pytest.fixture
def make_loop(tmp_path):
    def make(epochs=3, folder="checkpoints", checkpoint=None, processes=None, **changes):
        torch.manual_seed(0)
        processes = processes or OneProcess()
        config = TrainingConfiguration(batch_size=4, optim_lr=0.05, channels_last=False, **changes)
        common = {"device": torch.device("cpu"), "processes": processes}
        return Loop(
            Law(),
            window_batches(Points(18, 1), Points(6, 2), config, seed=0, **common),
            LoopSettings(config=config, epochs=epochs, random_seed=0, checkpoints=tmp_path / folder, disable_tqdm=True),
            progress=Progress(Told(), epochs),
            checkpoint=checkpoint,
            **common,
        )

    return make


def test_it_learns_and_tells(make_loop):
    loop = make_loop(40)
    loop.run()
    torch.testing.assert_close(loop.model.network.weight, LAW, atol=0.05, rtol=0)
    told = loop.progress.tracker.numbers
    assert [epoch for epoch, _ in told["validation_loss"]] == list(range(40))
    assert told["validation_loss"] == told["global_validation_loss_epoch"]
    assert set(told) == {
        *("train_loss", "validation_loss", "validation_largest", "learning_rate"),
        *("global_validation_loss_epoch", "epoch_time_s"),
    }
    assert (loop.state.epoch, loop.state.visited, loop.state.step) == (40, 0, 40 * 5)


@pytest.mark.parametrize("step", [2, 5, 7])
def test_time_that_is_up_within_an_epoch_costs_nothing(make_loop, tmp_path, monkeypatch, step):
    make_loop(folder="whole").run()
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "after_step", lambda self: setattr(self, "time_is_up", self.state.step == step))
        make_loop(folder="parts").run()
    cut = read_checkpoint(tmp_path / "parts" / LAST)
    assert (cut["state"]["step"], cut["state"]["epoch"]) == (step, (step - 1) // 5 - 1)
    make_loop(folder="parts", checkpoint=cut).run()
    whole, parts = (read_checkpoint(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert torch.equal(whole["model"]["weight"], parts["model"]["weight"])


class Wrapper(nn.parallel.DistributedDataParallel):
    """Looks like the wrapper of distributed training, without a process group."""

    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module

    def forward(self, witnesses):
        return self.module(witnesses)

    def no_sync(self):
        return torch.no_grad()


class Wrapping(OneProcess):
    """One process that wraps as several do."""

    def wrap(self, network, optimizer, scheduler):
        return Wrapper(network), optimizer, scheduler


def test_checkpoints_of_distributed_training_load_without_it(make_loop):
    loop = make_loop(processes=Wrapping())
    assert isinstance(loop.model.wrapped, Wrapper)
    folder = loop.save_checkpoint(BEST)
    assert set(torch.load(folder / "model.pt", weights_only=True)) == {"weight"}
    # and one that itwinai itself has written
    (folder / "checksums.json").unlink()
    with torch.no_grad():
        torch.save({"module.weight": loop.model.network.weight + 1}, folder / "model.pt")
    alone = make_loop(checkpoint=read_checkpoint(folder))
    assert torch.equal(alone.model.network.weight, loop.model.network.weight + 1)


def test_weights_that_do_not_fit_are_refused():
    network = nn.Linear(2, 2)
    with pytest.raises(ConfigurationError, match="another network"):
        load_weights(nn.Linear(3, 2), network.state_dict())
    other = nn.Linear(2, 2)
    load_weights(other, {f"module.{key}": value for key, value in network.state_dict().items()})
    assert torch.equal(other.weight, network.weight)


def test_a_periodic_checkpoint_remembers_the_best(make_loop):
    loop = make_loop(1)
    loop.run()
    loop.state.best_loss = 0.25
    state = LoopState.from_checkpoint(read_checkpoint(loop.save_checkpoint(LAST))["state"])
    assert (state.best_loss, state.epoch) == (0.25, 1)


def test_a_checkpoint_is_whole_or_the_old_one(make_loop, monkeypatch):
    loop = make_loop()
    loop.state.best_loss = 0.5
    folder = loop.save_checkpoint(BEST)
    before = torch.load(folder / "model.pt", weights_only=True)["weight"]
    with torch.no_grad():
        loop.model.network.weight.add_(1)
    loop.state.best_loss = 0.4
    monkeypatch.setattr(checkpoints, "write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(DataError, match="disk full"):
        loop.save_checkpoint(BEST)
    assert torch.equal(torch.load(folder / "model.pt", weights_only=True)["weight"], before)
    assert torch.load(folder / "state.pt", weights_only=True)["best_validation_metric"] == 0.5


def test_the_scheduler_does_not_step_before_the_first_epoch(make_loop, monkeypatch):
    steps = []
    monkeypatch.setattr(torch.optim.lr_scheduler.ReduceLROnPlateau, "step", lambda _, loss: steps.append(loss))
    trained = Loop.train_epoch
    monkeypatch.setattr(Loop, "train_epoch", lambda self: (steps.append("epoch"), trained(self))[1])
    loop = make_loop(2)
    loop.run()
    losses = [loss for _, loss in loop.progress.tracker.numbers["validation_loss"]]
    assert steps == ["epoch", losses[0], "epoch", losses[1]]


def test_processes_with_different_checkpoints_do_not_begin(make_loop):
    class Apart(OneProcess):
        def gather(self, value):
            return [value, (2, 8)]

    with pytest.raises(GlitchflowError, match="different checkpoints"):
        make_loop(processes=Apart())


def test_sums_go_to_the_first_of_other_processes():
    ranks = [{"loss_sum": 1.5, "loss_count": 3}, {"loss_sum": 0.25, "loss_count": 2}]
    state = {"epoch": 0, "visited": 5, "best_validation_metric": None, "ranks": ranks}
    share = partial(LoopState.from_checkpoint, state)
    assert [(share(rank=rank, size=2).loss_sum, share(rank=rank, size=2).loss_count) for rank in (0, 1)] == [
        (1.5, 3),
        (0.25, 2),
    ]
    assert [share(rank=rank, size=3).loss_sum for rank in range(3)] == [1.75, 0.0, 0.0]
    # checkpoints of version 0.2 and before
    old = LoopState.from_checkpoint({"epoch": 4, "best_validation_metric": 0.5})
    assert (old.epoch, old.best_loss, old.visited) == (5, 0.5, 0)
