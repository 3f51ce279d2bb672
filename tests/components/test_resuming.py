"""Training that is cut short, or ends early, and what it leaves."""

import multiprocessing
import os
import signal
import time
from functools import partial

import pytest
import torch
from tests import _warm

from glitchflow_plugin.components._twin_trainer import TwinTrainer
from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.training import loop
from glitchflow_plugin.training.checkpoints import read_checkpoint, run_of
from glitchflow_plugin.training.energy import EnergyLearner
from glitchflow_plugin.training.loop import Loop

#: Everything that a checkpoint must know of: average, warm-up, drawn order, plateau.
# by name: some processors multiply bfloat16 as well, whose rounding hides what is compared here
CONFIG = {
    "precision": "float32",
    "optim_lr": 3e-3,
    "batch_size": 2,
    "ema": 0.9,
    "warmup_epochs": 1.5,
    "balance": "event",
    "early_stopping": 5,
    "lr_scheduler_patience": 0,
}


@pytest.fixture
def training_set(make_training_set):
    return make_training_set(16)


@pytest.fixture
def arguments_of(training_set, tmp_path):
    def arguments(checkpoints="checkpoints", config=None, **changes):
        keywords = {
            "folder": str(training_set.folder),
            "model": {"name": "unet", "base": 2, "depth": 1, "attention_heads": 1},
            "config": {**CONFIG, **(config or {})},
            "epochs": 3,
            "random_seed": 1,
            "checkpoints": str(tmp_path / checkpoints),
            "device": "cpu",
            "disable_tqdm": True,
        }
        return {**keywords, **changes}

    return arguments


@pytest.fixture
def make_trainer(arguments_of):
    # the figures at the end take most of the time and are not of interest here: a TwinTrainer makes none
    def make(*which, **changes):
        return TwinTrainer(**arguments_of(*which, **changes))

    return make


def assert_same(first, second):
    """Two folders of checkpoints hold the same training, to the last bit."""
    for name in ("last", "best_model"):
        one, two = read_checkpoint(first / name), read_checkpoint(second / name)
        assert set(one) == set(two)
        for part in set(one) - {"state"}:
            assert all(torch.equal(value, two[part][key]) for key, value in one[part].items())
        for key in ("epoch", "visited", "step", "best_validation_metric", "without_gain", "lr_scheduler_state_dict"):
            assert one["state"][key] == two["state"][key]


def interrupt_after(monkeypatch, steps, number=signal.SIGTERM):
    """Send a signal to this process when some step has been taken."""
    after_step = Loop.after_step

    def watched(self):
        if self.state.step == steps:
            os.kill(os.getpid(), number)
        after_step(self)

    monkeypatch.setattr(Loop, "after_step", watched)


@pytest.fixture
def noisy(monkeypatch):
    """A loss that draws random numbers, as a network with dropout does."""
    losses = EnergyLearner.losses

    def noisy_losses(self, network, twin, witnesses, strain):
        return losses(self, network, twin, witnesses * (0.5 + torch.rand_like(witnesses)), strain)

    monkeypatch.setattr(EnergyLearner, "losses", noisy_losses)


@pytest.mark.usefixtures("noisy")
@pytest.mark.parametrize(("steps", "number"), [(3, signal.SIGINT), (9, signal.SIGUSR1), (12, signal.SIGTERM)])
def test_a_run_that_is_asked_to_end_goes_on_at_the_batch(make_trainer, tmp_path, caplog, steps, number):
    make_trainer("whole").execute()
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, steps, number)
        with pytest.raises(SystemExit) as caught:
            make_trainer("parts").execute()
    assert caught.value.code == 75
    assert f"{number.name} ends the training in epoch" in caplog.text
    state = read_checkpoint(tmp_path / "parts" / "last")["state"]
    assert state["step"] == steps
    assert state["visited"] > 0
    # the generators are elsewhere when the process starts again
    torch.rand(100)
    make_trainer("parts", resume=True).execute()
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("noisy")
def test_validation_can_be_cut_short_too(make_trainer, training_set, tmp_path, monkeypatch):
    make_trainer("whole").execute()
    with monkeypatch.context() as patch:
        judge = EnergyLearner.judge

        def judged(self, *arguments, **keywords):
            os.kill(os.getpid(), signal.SIGTERM)
            return judge(self, *arguments, **keywords)

        patch.setattr(EnergyLearner, "judge", judged)
        with pytest.raises(SystemExit):
            make_trainer("parts").execute()
    state = read_checkpoint(tmp_path / "parts" / "last")["state"]
    assert state["epoch"] == -1
    assert state["visited"] == training_set.counts()["train"]["glitch"] + training_set.counts()["train"]["background"]
    make_trainer("parts", resume=True).execute()
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("noisy")
def test_a_damaged_last_checkpoint_costs_only_time(make_trainer, tmp_path, monkeypatch, caplog):
    make_trainer("whole").execute()
    with monkeypatch.context() as patch:
        interrupt_after(patch, 9)
        with pytest.raises(SystemExit):
            make_trainer("parts", checkpoint_minutes=1e-6).execute()
    weights = tmp_path / "parts" / "last" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-50])
    make_trainer("parts", resume=True).execute()
    assert "last is not a usable checkpoint" in caplog.text
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_ray_restores_by_itself(make_trainer, monkeypatch):
    monkeypatch.setattr(TwinTrainer, "uses_ray", property(lambda _: True))
    with pytest.raises(ConfigurationError, match=r"Ray.*training\.resume=false"):
        make_trainer(resume=True)


def test_resuming_where_nothing_is_begins(make_trainer, tmp_path):
    make_trainer("one", epochs=1).execute()
    make_trainer("two", epochs=1, resume=True).execute()
    assert_same(tmp_path / "one", tmp_path / "two")


def test_a_new_training_leaves_nothing_of_an_old_one_to_resume(make_trainer, tmp_path, monkeypatch):
    make_trainer(epochs=2).execute()
    interrupt_after(monkeypatch, 1)
    with pytest.raises(SystemExit):
        make_trainer().execute()
    assert read_checkpoint(tmp_path / "checkpoints" / "last")["state"]["step"] == 1
    assert not (tmp_path / "checkpoints" / "previous").exists()


def test_the_earlier_best_stays_until_there_is_a_better(make_trainer, tmp_path, monkeypatch):
    root = tmp_path / "checkpoints"
    make_trainer(epochs=2).execute()
    old = {name: read_checkpoint(root / name) for name in ("best_model", "last")}
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1, signal.SIGINT)
        for _ in range(2):  # a third training does not take the second for the earlier one
            with pytest.raises(SystemExit):
                make_trainer(config={"optim_lr": 1e-3}).execute()
    for folder in (root / "best_model", root / "earlier" / "best_model", root / "earlier" / "last"):
        found, wanted = read_checkpoint(folder)["model"], old[folder.name]["model"]
        assert all(torch.equal(value, found[key]) for key, value in wanted.items())
    # the earlier one can be taken, and what came after it is gone
    back = make_trainer(epochs=2, from_checkpoint=str(root / "earlier" / "last"))
    back.execute()
    best = old["best_model"].get("average") or old["best_model"]["model"]
    assert torch.equal(back.twin.network.head.weight, best["head.weight"])
    assert read_checkpoint(root / "last")["state"]["epoch"] == 1
    assert not (root / "earlier").exists()


def test_a_training_without_a_best_of_its_own_does_not_take_the_earlier_ones(make_trainer, tmp_path, monkeypatch):
    root = tmp_path / "checkpoints"
    make_trainer(epochs=2).execute()
    earlier = run_of(root / "best_model")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(SystemExit):
            make_trainer().execute()
    # whatever its loss is, the first one counts
    monkeypatch.setattr(Loop, "validation_epoch", lambda _: (1e9, {}))
    make_trainer(resume=True, epochs=1).execute()
    assert run_of(root / "best_model") != earlier
    # but the earlier one was better
    assert run_of(root / "earlier" / "best_model") == earlier
    monkeypatch.setattr(Loop, "validation_epoch", lambda _: (-1.0, {}))
    make_trainer(epochs=1).execute()
    assert not (root / "earlier").exists()
    with pytest.raises(DataError, match="at least 1"):
        make_trainer(epochs=0).execute()


def test_training_ends_when_nothing_improves(make_trainer, tmp_path, monkeypatch):
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.3])
    monkeypatch.setattr(Loop, "validation_epoch", lambda _: (next(losses), {}))
    make_trainer(epochs=9, config={"early_stopping": 2}).execute()
    assert read_checkpoint(tmp_path / "checkpoints" / "last")["state"]["epoch"] == 3
    # and does not begin again
    make_trainer(epochs=9, config={"early_stopping": 2}, resume=True).execute()
    assert next(losses) == 0.3


def test_training_ends_when_the_time_is_up(make_trainer, tmp_path, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(loop, "perf_counter", lambda: float(next(clock)))
    trainer = make_trainer(epochs=50, max_minutes=1.0)
    trainer.execute()
    state = read_checkpoint(tmp_path / "checkpoints" / "last")["state"]
    assert 60 < state["seconds"] < 90
    # in good order: the epoch that was cut short was validated
    assert state["visited"] > 0
    assert state["epoch"] < 49
    assert (tmp_path / "checkpoints" / "best_model").exists()
    # the same limit allows no further step
    make_trainer(epochs=50, max_minutes=1.0, resume=True).execute()
    assert read_checkpoint(tmp_path / "checkpoints" / "last")["state"]["step"] == state["step"]
    with pytest.raises(ConfigurationError, match="max_minutes"):
        make_trainer(max_minutes=0)


@pytest.mark.usefixtures("noisy")
def test_an_epoch_that_the_limit_of_time_cut_short_goes_on(make_trainer, tmp_path, monkeypatch):
    make_trainer("whole").execute()
    with monkeypatch.context() as patch:
        after_step = Loop.after_step

        def watched(self):
            self.state.seconds += 61 * (self.state.step == 9)
            after_step(self)

        patch.setattr(Loop, "after_step", watched)
        make_trainer("parts", max_minutes=1.0).execute()
    state = read_checkpoint(tmp_path / "parts" / "last")["state"]
    assert (state["step"], state["visited"] > 0) == (9, True)
    make_trainer("parts", resume=True).execute()
    one, two = (read_checkpoint(tmp_path / name / "last") for name in ("whole", "parts"))
    assert all(torch.equal(value, two["model"][key]) for key, value in one["model"].items())
    for key in ("epoch", "visited", "step", "without_gain"):
        assert one["state"][key] == two["state"][key]


def test_an_epoch_in_another_order_begins_anew(make_trainer, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(SystemExit):
            make_trainer().execute()
    make_trainer(resume=True, epochs=1, config={"balance": "none"}).execute()
    assert "epoch 1 begins anew" in caplog.text
    steps = read_checkpoint(tmp_path / "checkpoints" / "last")["state"]["step"]
    make_trainer("other", epochs=1, config={"balance": "none"}).execute()
    assert steps == 2 + read_checkpoint(tmp_path / "other" / "last")["state"]["step"]


def test_the_average_is_judged_and_taken(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.execute()
    best = read_checkpoint(tmp_path / "checkpoints" / "best_model")
    assert not torch.equal(best["average"]["head.weight"], best["model"]["head.weight"])
    assert torch.equal(trainer.twin.network.head.weight, best["average"]["head.weight"])


def test_memory_that_runs_out_changes_nothing_but_the_pieces(make_trainer, tmp_path, monkeypatch):
    config = {"batch_size": 8}
    make_trainer("whole", config).execute()
    losses = EnergyLearner.losses

    def limited(self, network, twin, witnesses, strain):
        if len(strain) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return losses(self, network, twin, witnesses, strain)

    monkeypatch.setattr(EnergyLearner, "losses", limited)
    make_trainer("pieces", config).execute()
    one, two = (read_checkpoint(tmp_path / name / "last") for name in ("whole", "pieces"))
    assert two["state"]["piece_size"] == 2
    for key, value in one["model"].items():
        torch.testing.assert_close(value, two["model"][key], rtol=1e-3, atol=1e-5)


def test_loader_workers_change_nothing(make_trainer, tmp_path):
    make_trainer("none", epochs=2).execute()
    make_trainer("two", {"num_workers_dataloader": 2}, epochs=2).execute()
    assert_same(tmp_path / "none", tmp_path / "two")


def test_workers_of_a_loader_end_with_the_training(make_trainer, monkeypatch):
    interrupt_after(monkeypatch, 2, signal.SIGINT)
    trainer = make_trainer(config={"num_workers_dataloader": 2})
    with pytest.raises(SystemExit):
        trainer.execute()
    assert not multiprocessing.active_children()  # they are deaf: this process would wait for them for ever


def test_a_compiled_network_keeps_its_names(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    make_trainer("plain", epochs=1).execute()
    make_trainer("compiled", {"compile": True}, epochs=1).execute()
    one, two = (read_checkpoint(tmp_path / name / "last")["model"] for name in ("plain", "compiled"))
    assert set(one) == set(two)
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], rtol=1e-3, atol=1e-5)


def test_low_precision_learns_float32_weights(make_trainer, tmp_path):
    make_trainer("exact", {"precision": "float32"}, epochs=1).execute()
    make_trainer("mixed", {"precision": "bf16"}, epochs=1).execute()
    one, two = (read_checkpoint(tmp_path / name / "last")["model"] for name in ("exact", "mixed"))
    assert {value.dtype for value in two.values()} == {torch.float32}
    assert not all(torch.equal(value, two[key]) for key, value in one.items())


def test_rare_classes_come_as_often_as_others(make_trainer, training_set, tmp_path):
    dataset = EnergyLearner(training_set, {}).dataset("train")
    rare = dataset.event_ids[dataset.places.glitch][0]
    table = tmp_path / "labels.csv"
    rows = [f"{name},{'rare' if name == rare else 'common'}" for name in sorted(set(dataset.event_ids))]
    table.write_text("\n".join(["event_id,label", *rows]), encoding="utf-8")
    trainer = make_trainer(epochs=1, config={"balance": "class", "labels": str(table)})
    trainer.execute()
    drawn = dataset.event_ids[trainer.batches.order.order(0)]
    assert len(drawn) == len(dataset)
    assert abs((drawn == rare).sum() - len(drawn) / 3) <= 1


def train_slowly(arguments, threads):
    """For a process of its own, which is to be killed in the middle."""
    torch.set_num_threads(threads)
    after_step = Loop.after_step

    def slow(self):
        time.sleep(0.1)
        after_step(self)

    Loop.after_step = slow  # type: ignore[method-assign]
    TwinTrainer(**arguments).execute()


@pytest.mark.slow
def test_what_is_killed_and_started_again_ends_as_if_it_never_was(make_trainer, arguments_of, tmp_path):
    make_trainer("whole", epochs=4).execute()
    parts = tmp_path / "parts"
    arguments = arguments_of("parts", epochs=4, resume=True, checkpoint_minutes=1e-6)
    log = tmp_path / "said.txt"

    def steps():
        try:
            return read_checkpoint(parts / "last")["state"]["step"]
        except Exception:
            return 0

    for number, wanted, code in ((signal.SIGTERM, 4, 75), (signal.SIGKILL, 10, -9), (None, 0, 0)):
        process = _warm.start(train_slowly, arguments, torch.get_num_threads(), output=log)
        while number is not None and steps() < wanted and process.poll() is None:
            time.sleep(0.05)
        if number is not None:
            process.send_signal(number)
        assert process.wait(200) == code, log.read_text()[-2000:]
    assert_same(tmp_path / "whole", parts)
