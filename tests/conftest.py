"""The device that tests run on, seeds for every test, and the folder of real detector data where there is one."""

import gc
import os
import random
import shutil
import signal
import threading
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

#: Whose annotated shapes and types are checked at every call while the tests of their rooms run. Named one by one:
#: numba compiles no function that is checked.
CHECKED = (
    *("models.coupling", "models.stft", "models.wiener"),
    *("signal.clusters", "signal.coincidence", "signal.windows", "simulation"),
    *(f"signal.qtransform.{name}" for name in ("frame", "planes", "settings", "significance", "spectrum", "transform")),
)
#: Where a system keeps files in memory, and how many bytes must be free there.
_MEMORY_DISK, _ENOUGH = Path("/dev/shm"), 10 * 2**30  # noqa: S108  # no name in it is foretold: pytest makes its own
# Not by the option of jaxtyping's plugin: that does not reach the processes of xdist.
jaxtyping.install_import_hook([f"glitchflow_plugin.{name}" for name in CHECKED], "beartype.beartype")
# Other rooms call as a user does, who may write 8 for 8.0.
jaxtyping.config.update("jaxtyping_disable", True)


def pytest_configure(config):
    """Choose the device: the CPU, whatever else there is, for this process and those that tests start.

    Without `-m gpu`, a test that leaves the device to the program gives the same with and without a GPU.
    """
    if not _wants_gpu(config):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if _memory_is_large():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY_DISK))
    # make tells setup.sh which environment to make; a batch script would take it for the one to run in
    os.environ.pop("GLITCHFLOW_VENV", None)
    # nohup, and a shell in the background, have signals ignored, and programs that tests start would inherit that
    if threading.current_thread() is threading.main_thread():
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, handler)


def _memory_is_large():
    """Whether folders of tests may lie in memory, where a file that is written whole is not waited for.

    Those of tests that passed are removed at once, the others and what a file's tests share stay. Tests start programs
    there as well.
    """
    try:
        disk = os.statvfs(_MEMORY_DISK)
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return False
    (available,) = (1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    usable = os.access(_MEMORY_DISK, os.W_OK | os.X_OK) and not disk.f_flag & os.ST_NOEXEC
    return usable and min(disk.f_bavail * disk.f_frsize, available) > _ENOUGH


def pytest_addoption(parser):
    """Add `--first`, for what does not depend on parameters, such as the version of Python."""
    parser.addoption(
        "--first", action="store_true", help="run each test function with the first of its parameters alone"
    )


def pytest_collection_modifyitems(config, items):
    """Begin with the files that take longest, and say why the tests of a GPU are skipped."""
    if config.getoption("first"):
        firsts = set({item.nodeid.partition("[")[0]: item for item in reversed(items)}.values())
        config.hook.pytest_deselected(items=[item for item in items if item not in firsts])
        items[:] = [item for item in items if item in firsts]
    # A process that takes a whole pipeline last would work alone at the end.
    long = {mark: {item.path for item in items if item.get_closest_marker(mark)} for mark in ("pipeline", "slow")}
    items.sort(key=lambda item: (item.path not in long["pipeline"], item.path not in long["slow"]))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = _why_no_gpu(config) if marked else None
    for item in marked if reason else ():
        item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish():
    """Let the collector of garbage pass over all that has been imported: a whole collection takes half a second."""
    gc.collect()
    gc.freeze()


def _wants_gpu(config):
    return "gpu" in config.getoption("markexpr").replace("not gpu", "").split()


def _why_no_gpu(config):
    if not _wants_gpu(config):
        return "the CPU was chosen for this run: `pytest -m gpu` runs the tests of a GPU"
    import torch

    return None if torch.cuda.is_available() else "there is no GPU here, or torch cannot use it"


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # libraries that use the global generator
    if "torch" in __import__("sys").modules:
        import torch

        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _checked(request, monkeypatch):
    rooms = {name.partition(".")[0] for name in CHECKED}
    room = request.path.relative_to(Path(__file__).parent).parts[0]
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", room not in rooms)


@pytest.fixture(scope="session", autouse=True)
def _parsed_once():
    from omegaconf import OmegaConf

    from glitchflow_plugin.commands.configuration import parse_once

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", OmegaConf.load)  # as it is now, afterwards
        parse_once()
        yield


@pytest.fixture
def unchecked(monkeypatch):
    """The package as a user has it, without the checks of CHECKED, for what it says itself of a wrong shape."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def real_data() -> Path:
    """Folder named by GLITCHFLOW_TEST_DATA; the test is skipped without it."""
    folder = os.environ.get("GLITCHFLOW_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GLITCHFLOW_TEST_DATA does not name a folder of real detector data")
    return Path(folder)


@pytest.fixture(scope="session")
def make_registry(tmp_path_factory):
    """Put the database of a registry with nothing in it into a folder; gives its URI.

    MLflow takes seconds to make one: it is made once, whichever of pytest's processes comes first, and copied.
    """
    from glitchflow_plugin.tracking.database import ensure_database

    session = tmp_path_factory.getbasetemp()
    session = session.parent if "PYTEST_XDIST_WORKER" in os.environ else session
    original = session / "registry" / "mlflow.db"
    original.parent.mkdir(exist_ok=True)
    ensure_database(original)

    def make(folder):
        return f"sqlite:///{shutil.copy(original, folder / original.name)}"

    return make


@pytest.fixture
def make_event_set(tmp_path):
    """Write an event set from series of shape (event, channel, time); the target is the channel STRAIN."""
    from glitchflow_plugin.data.records import EventBatch
    from glitchflow_plugin.data.sharded_writer import ShardedWriter

    def make(
        series,
        valid=None,
        *,
        name="events",
        sample_rate=1024.0,
        channels=None,
        units="whitened",
        shard_size=4,
        recipe=None,
        groups=(),
        starts=None,
    ):
        num_events, num_channels, num_samples = series.shape
        valid = np.ones((num_events, num_channels), dtype=bool) if valid is None else valid
        channels = channels or ("STRAIN", *(f"WITNESS_{row}" for row in range(1, num_channels)))
        ids = tuple(f"event-{row:03d}" for row in range(num_events))
        starts = 1_200_000_000.5 + 100.0 * np.arange(num_events) if starts is None else starts
        axes = {"sample_rate": sample_rate, "num_samples": num_samples}
        writer = ShardedWriter(
            folder=tmp_path / name,
            kind="events",
            target=channels[0],
            channels=tuple(channels),
            axes=axes,
            units=units,
            recipe=recipe or {"made": "for a test"},
            event_ids=ids,
            shard_size=shard_size,
        )
        for plan in writer.pending():
            rows = [ids.index(event_id) for event_id in plan.event_ids]
            batch = EventBatch(
                event_ids=plan.event_ids,
                gps_start=starts[rows],
                gps_event=starts[rows] + num_samples / sample_rate / 2,
                series=np.where(valid[rows][..., None], series[rows], 0).astype(np.float32),
                valid=valid[rows],
                groups=tuple(groups[row] for row in rows) if groups else (),
            )
            writer.write(plan, batch)
        return writer.finish()

    return make


@pytest.fixture
def make_coupled_maps(tmp_path):
    """Write a spectrogram set in which one witness foretells the strain's bursts and another knows nothing.

    The strain holds a burst wherever the witness GUIDE does, four columns later and at half the energy; a share of
    the events has none. Noise energies are exponential with median 1, as those of a normalised Q-transform.
    """
    from glitchflow_plugin.data.records import SpectrogramBatch
    from glitchflow_plugin.data.sharded_writer import ShardedWriter

    def make(
        num_events=24,
        *,
        num_times=257,
        size=64,
        name="maps",
        seed=0,
        spacing=100.0,
        valid=None,
        shard_size=8,
        gain=1.0,
        groups=(),
    ):
        generator = np.random.default_rng(seed)
        channels = ("STRAIN", "GUIDE", "BYSTANDER")
        noise = generator.exponential(1 / np.log(2), size=(num_events, len(channels), size, num_times))
        rows, columns = np.mgrid[0:size, 0:num_times]
        for event in range(num_events):
            if event % 4 == 3:
                continue
            centre = num_times / 2 + generator.uniform(-40, 40), generator.uniform(15, size - 15)
            energy = generator.uniform(100, 400)
            burst = energy * np.exp(-0.5 * (((columns - centre[0]) / 4) ** 2 + ((rows - centre[1]) / 5) ** 2))
            noise[event, 1] += burst
            noise[event, 0] += 0.5 * np.roll(burst, 4, axis=1)
            noise[event, 2] += np.roll(burst, generator.integers(40, 80), axis=1) * generator.integers(0, 2)
        noise[:, 1] *= gain
        maps = noise.astype(np.float32)
        valid = np.ones((num_events, len(channels)), dtype=bool) if valid is None else valid
        ids = tuple(f"event-{row:03d}" for row in range(num_events))
        starts = 1_200_000_000.25 + spacing * np.arange(num_events)
        times = np.arange(num_times) * 6.0 / (num_times - 1)
        writer = ShardedWriter(
            folder=tmp_path / name,
            kind="spectrograms",
            target=channels[0],
            channels=channels,
            axes={"frequencies": np.linspace(8, 400, size).tolist(), "times": times.tolist()},
            units="SNR²",
            recipe={"made": "for a test", "q": 12.0},
            event_ids=ids,
            shard_size=shard_size,
            inputs=f"{seed} {gain}",
        )
        for plan in writer.pending():
            chosen = [ids.index(event_id) for event_id in plan.event_ids]
            batch = SpectrogramBatch(
                event_ids=plan.event_ids,
                gps_start=starts[chosen],
                gps_event=starts[chosen] + 3.0,
                maps=np.where(valid[chosen][..., None, None], maps[chosen], 0),
                valid=valid[chosen],
                groups=tuple(groups[row] for row in chosen) if groups else (),
            )
            writer.write(plan, batch)
        return writer.finish()

    return make


@pytest.fixture
def make_training_set(make_coupled_maps, tmp_path):
    """Split the maps of so many coupled events, and index their windows."""
    from glitchflow_plugin.components.processor import Processor
    from glitchflow_plugin.components.splitter import Splitter

    def make(num_events):
        maps = make_coupled_maps(num_events, num_times=128)
        folder = str(tmp_path / "training")
        split = Splitter({"block_length": 100.0}, str(maps.folder), folder).execute(maps)
        return Processor({}, str(maps.folder), folder).execute(split)

    return make


@pytest.fixture
def make_coupled_events(make_event_set, tmp_path):
    """Training set and event set of a strain that follows one witness by 8 samples, at half its amplitude.

    Each event lasts 3 s; three in four have a burst in the witness, another witness is noise. The event set has a third
    channel, which no map was made of.
    """
    from glitchflow_plugin.components.processor import Processor
    from glitchflow_plugin.components.splitter import Splitter
    from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
    from glitchflow_plugin.signal.qtransform import QTransformSettings

    transform = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=128)

    def make(num_events=16, seed=0, **changes):
        generator = np.random.default_rng(seed)
        series = generator.standard_normal((num_events, 4, 3072)).astype(np.float32)
        for event in range(num_events):
            if event % 4 == 3:
                continue
            start = 1400 + int(generator.integers(0, 200))
            burst = 10 * generator.standard_normal(60)
            series[event, 1, start : start + 60] += burst
            series[event, 0, start + 8 : start + 68] += 0.5 * burst
        events = make_event_set(series, **changes)
        maps = make_spectrograms(events, ("WITNESS_1", "WITNESS_2"), transform, tmp_path / "maps", device="cpu")
        folder = str(tmp_path / "training")
        split = Splitter({"block_length": 100.0}, str(maps.folder), folder).execute(maps)
        return Processor({}, str(maps.folder), folder).execute(split), events

    return make


@pytest.fixture
def coupled(make_coupled_events):
    """A training set and its events, some of whose witnesses are missing."""
    valid = np.ones((16, 4), dtype=bool)
    valid[[2, 9], 2] = False
    return make_coupled_events(valid=valid, recipe={"sample_rate": 1024.0, "duration": 3.0})


@pytest.fixture
def make_coupled_trainer(coupled, tmp_path):
    """A Trainer of one of the smallest networks, by name, on a device."""
    import torch
    from tests._networks import NETWORKS

    from glitchflow_plugin.components.trainer import Trainer

    training_set, events = coupled

    def make(name, device, **changes):
        keywords = {
            "folder": str(training_set.folder),
            "events": str(events.folder),
            "model": {"name": name, **NETWORKS[name]},
            "epochs": 2,
            "random_seed": 1,
            "checkpoints": str(tmp_path / f"{name}-{torch.device(device).type}"),
            "device": str(device),
            "pictures_every": 1,
            "disable_tqdm": True,
            "run_name": "test",
        }
        config = {"batch_size": 4, "precision": "float32", **changes.pop("config", {})}
        return Trainer(**{**keywords, "config": config, **changes})

    return make


@pytest.fixture(scope="session")
def browser():
    """Chromium, once a process."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()
