import subprocess
import sys
import types

import numpy as np
import pytest

import glitchflow_plugin.components.trainer as trainer_module
from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.retrain import Retrain
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.data.event_files import Channel, RawEvent, list_event_files, write_event
from glitchflow_plugin.data.files import read_json
from glitchflow_plugin.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DataError,
    GlitchflowError,
    RegistryError,
)
from glitchflow_plugin.products.summary import EventCounts
from glitchflow_plugin.tracking.versions import list_versions, promote
from glitchflow_plugin.training import run as training_run
from glitchflow_plugin.training.interruption import Interrupted
from glitchflow_plugin.training.loop import Loop

SPLIT = {"block_length": 100.0, "train": 0.4, "validation": 0.2, "gate": 0.2, "test": 0.2}
TRAINER = {
    "model": {"name": "unet", "base": 4, "depth": 2, "attention_heads": 0},
    "config": {"optim_lr": 3e-3, "batch_size": 8},
    "epochs": 1,
    "device": "cpu",
    "disable_tqdm": True,
    "pictures_every": 0,
}


def fill(folder, first, count):
    for number in range(first, first + count):
        name = f"event-{number:03d}"
        channel = Channel("STRAIN", np.zeros(8), 1e9 + number, 8.0)
        write_event(folder / f"{name}.h5", RawEvent(name, 1e9 + number, {"STRAIN": channel}))


@pytest.fixture
def station(make_coupled_maps, make_registry, tmp_path, monkeypatch):
    """A champion, a buffer, and maps of what is in the buffer: like those of the training, or drifted."""

    class Station:
        drifted = False
        seen = []  # noqa: RUF012
        registry = {  # noqa: RUF012
            "tracking_uri": make_registry(tmp_path),
            "artifacts": str(tmp_path / "artifacts"),
            "name": "twin",
            "outbox": str(tmp_path / "outbox"),
            "gate": {"min_groups": 5, "min_quiet": 1, "injections": 0},
        }

        def run(self, **changes):
            settings = {"buffer": str(tmp_path / "buffer"), "min_events": 8, **changes}
            step = Retrain(
                settings,
                self.registry,
                str(tmp_path / "retrain"),
                split=SPLIT,
                windows={},
                trainer=TRAINER,
                device="cpu",
            )
            summary = step.execute()
            return summary, read_json(tmp_path / "retrain" / "status.json")

        def versions(self):
            return [version.version for version in list_versions("twin", self.registry["tracking_uri"])]

    here = Station()

    def maps_of(bundle, data, folder, **_):
        del bundle
        names = [path.stem for path in list_event_files(data[0]["path"])]
        here.seen.append(names)
        # another channel's gain is a drift that any seed shows
        made = make_coupled_maps(
            len(names), num_times=128, name=folder / f"maps-{here.drifted}", seed=7, gain=3.0 if here.drifted else 1.0
        )
        return made, EventCounts(len(names), len(names)), ()

    monkeypatch.setattr("glitchflow_plugin.inference.model_data.make_maps", maps_of)
    maps = make_coupled_maps(32, num_times=128)
    folder = str(tmp_path / "training")
    windows = Processor({}, str(maps.folder), folder).execute(Splitter(SPLIT, str(maps.folder), folder).execute(maps))
    Trainer(**TRAINER, folder=folder, checkpoints=str(tmp_path / "checkpoints"), registry=here.registry).execute(
        windows
    )
    assert here.versions() == [1]
    promote("twin", 1, here.registry["tracking_uri"])
    fill(tmp_path / "buffer", 0, 32)
    return here


def test_it_waits_keeps_trains_and_continues(station, tmp_path, monkeypatch):
    summary, status = station.run(min_events=100, max_events=100)
    assert status["decision"] == "wait"
    assert "at least 100" in status["reason"]

    summary, status = station.run()
    assert (status["decision"], status["reason"]) == ("keep", "no channel has drifted")
    assert summary.metrics["drifted_channels"].value == 0
    assert station.versions() == [1]
    assert station.run()[1]["reason"].startswith("no new event")

    # a failure before anything is begun leaves nothing to continue
    with monkeypatch.context() as patch:
        patch.setitem(station.registry, "name", "unknown")
        with pytest.raises(RegistryError, match="unknown"):
            station.run()
    assert read_json(tmp_path / "retrain" / "status.json")["state"] == "failed"

    # new events, and the detector has changed; the run is killed in the middle of training
    fill(tmp_path / "buffer", 32, 1)
    station.drifted = True

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "finish", killed)
        with pytest.raises(Interrupted, match="Ctrl-C"):
            station.run()
    status = read_json(tmp_path / "retrain" / "status.json")
    assert (status["state"], status["decision"]) == ("running", "train")
    assert "GUIDE" in status["reason"]
    assert station.versions() == [1]

    # more events have come: the killed run continues with those that it began with, and trains nothing twice
    fill(tmp_path / "buffer", 33, 1)
    monkeypatch.setattr(Loop, "train_epoch", lambda _: pytest.fail("trained again"))
    summary, status = station.run()
    assert station.seen[-1] == station.seen[-2]
    assert (status["state"], status["decision"], status["attempt"]) == ("done", "train", 2)
    assert status["trained"]["version"] == 2
    assert "against version 1" in status["trained"]["reason"]
    assert station.versions() == [1, 2]
    assert summary.metrics["trained"].value == 1
    assert any("GUIDE has drifted" in warning for warning in summary.warnings)


def test_it_says_before_training_that_the_gate_could_not_decide(station, monkeypatch):
    station.drifted = True
    station.registry["gate"] = {"min_groups": 7, "min_quiet": 1, "injections": 0}
    monkeypatch.setattr(trainer_module.Trainer, "execute", lambda *_: pytest.fail("trained"))
    # 7 groups in a fifth of the events take 35
    status = station.run()[1]
    assert status["decision"] == "wait"
    assert "32 events in the buffer are too few for the gate to decide" in status["reason"]
    assert "35 events or more" in status["reason"]
    # enough events, but many of a kind
    station.registry["gate"] = {"min_groups": 6, "min_quiet": 1, "injections": 0}
    few = types.SimpleNamespace(num_groups=lambda _: 3)
    monkeypatch.setattr(Splitter, "execute", lambda *_: types.SimpleNamespace(gate=few, block_length=100.0))
    status = station.run()[1]
    assert status["decision"] == "wait"
    assert "drifted: GUIDE; but with 3 groups in its part the gate could promote nothing" in status["reason"]
    with pytest.raises(ConfigurationError, match="the gate can never decide"):
        station.run(max_events=20)


def test_a_registry_that_is_away_costs_no_attempt(tmp_path, monkeypatch):
    champion = types.SimpleNamespace(name="twin", version=1)
    monkeypatch.setattr("glitchflow_plugin.tracking.versions.find", lambda *_: champion)
    monkeypatch.setattr("glitchflow_plugin.tracking.registry.load", lambda *_: None)
    maps = types.SimpleNamespace(folder=tmp_path / "maps")
    monkeypatch.setattr(
        "glitchflow_plugin.inference.model_data.make_maps", lambda *_, **__: (maps, EventCounts(8, 8), ())
    )
    monkeypatch.setattr(Processor, "execute", lambda *_: None)
    part = types.SimpleNamespace(num_groups=lambda _: 60)
    monkeypatch.setattr(Splitter, "execute", lambda *_: types.SimpleNamespace(gate=part, block_length=1.0))
    fill(tmp_path / "buffer", 0, 8)
    registry = {"tracking_uri": f"sqlite:///{tmp_path / 'none.db'}", "name": "twin"}
    settings = {"buffer": str(tmp_path / "buffer"), "min_events": 8, "force": True}
    step = Retrain(settings, registry, str(tmp_path / "retrain"), split=SPLIT, windows={}, trainer=TRAINER)
    twin = step.cycle / "checkpoints" / "twin"

    def fail(error):
        def train(*_):
            twin.parent.mkdir(exist_ok=True)
            twin.touch()
            raise error("no")

        monkeypatch.setattr(trainer_module.Trainer, "execute", train)
        with pytest.raises(error):
            step.execute()
        return read_json(step.cycle / "plan.json")["attempts"]

    assert [fail(error) for error in [ConnectionFailedError, RegistryError] * 3] == [0] * 6
    assert [fail(DataError) for _ in range(3)] == [1, 2, 3]
    # the next run begins anew
    monkeypatch.setattr(trainer_module.Trainer, "execute", lambda *_: None)
    step.execute()
    assert not twin.exists()


def test_two_at_once_are_refused(tmp_path):
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); file.write('4711'); file.flush()\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    registry = {"tracking_uri": f"sqlite:///{tmp_path / 'none.db'}", "name": "twin"}
    step = Retrain({"buffer": "x"}, registry, str(tmp_path), split=SPLIT, windows={}, trainer=TRAINER)
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(GlitchflowError, match="process 4711"):
            step.execute()
        other.kill()
    # killed, it holds nothing any more; what fails is written down
    with pytest.raises(RegistryError, match="does not exist"):
        step.execute()
    assert read_json(tmp_path / "status.json")["state"] == "failed"


def test_wrong_settings_are_refused(tmp_path):
    keywords = {"split": SPLIT, "windows": {}, "trainer": TRAINER}
    for wrong in ({"bufer": "x"}, {"buffer": "x", "drift": {"max": 1}}, {"buffer": "x", "force": "no"}):
        with pytest.raises(ConfigurationError, match="retrain"):
            Retrain(wrong, {"tracking_uri": "", "name": ""}, str(tmp_path), **keywords)


def test_it_starts_without_torch():
    code = "import sys, glitchflow_plugin.components.retrain; assert not {'torch', 'mlflow', 'gwpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
