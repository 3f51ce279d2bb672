"""Whatever happens to a file that the package wrote, it reads the same, is made again, or is refused in words."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests._forked import Limited, RefusedError
from tests.data.test_sharded import make_batch, make_writer

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.files import CHECKSUM, content_hash, read_json
from glitchflow_plugin.data.manifest import MANIFEST_NAME, ROWS_NAME
from glitchflow_plugin.data.ranking_file import ChannelRanking, RankingRound, read_ranking, write_ranking
from glitchflow_plugin.data.reference_file import read_reference
from glitchflow_plugin.data.sharded import EventSet, SpectrogramSet
from glitchflow_plugin.data.spike_store import COLUMNS, SpikeStore
from glitchflow_plugin.data.splits import Split
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.truth_file import EventTruth, Truth, WaveformTruth, read_truth, write_truth
from glitchflow_plugin.models.linear import LinearFilter
from glitchflow_plugin.models.twins import EnergyTwin
from glitchflow_plugin.models.weights import load_twin, save_twin
from glitchflow_plugin.preprocessing.quality import Flaw, collect, read_quality, write_quality
from glitchflow_plugin.products.summary import Metric, RunSummary, read_summary, write_summary
from glitchflow_plugin.signal.drift import Reference
from glitchflow_plugin.training.checkpoints import read_checkpoint, write_checkpoint

MADE_AGAIN = "made again"
#: What reading may take, MiB: a damaged file can be larger, and small ones are quickly read.
MEMORY = 192


# --------------------------------------------------------------------------- what is written, and all that can be read


def write_events(folder, seed):
    writer = make_writer(folder, recipe={"seed": seed})
    for plan in writer.pending():
        writer.write(plan, make_batch(plan.event_ids, seed), {})
    writer.finish()


def read_set(kind, folder):
    found = kind.open(folder)
    whole = [found.manifest, found.gps_start, found.gps_event, found.valid]
    return [*whole, *(vars(batch) for batch in found.batches(2))]


def write_unfinished(folder, seed):
    write_events(folder, seed)
    (folder / MANIFEST_NAME).unlink()
    (folder / ROWS_NAME).unlink()


def resume_set(seed, folder):
    writer = make_writer(folder, recipe={"seed": seed})
    if writer.pending():
        return MADE_AGAIN
    writer.finish()
    return read_set(EventSet, folder)


def write_maps(folder, seed):
    from glitchflow_plugin.data.records import SpectrogramBatch
    from glitchflow_plugin.data.sharded_writer import ShardedWriter

    generator = np.random.default_rng(seed)
    ids = tuple(f"event-{row:02d}" for row in range(12))
    axes = {"frequencies": [10.0 + row for row in range(8)], "times": [0.5 * column for column in range(24)]}
    writer = ShardedWriter(folder, "spectrograms", "STRAIN", ("STRAIN", "A"), axes, "SNR²", {"seed": seed}, ids, 4)
    for plan in writer.pending():
        rows = np.array([ids.index(event_id) for event_id in plan.event_ids])
        starts = 1.2e9 + 1000.0 * rows
        energy = (40 * generator.random((len(rows), 2, 8, 24))).astype(np.float32)
        valid = np.ones((len(rows), 2), dtype=bool)
        writer.write(plan, SpectrogramBatch(plan.event_ids, starts, starts + 6.0, energy, valid))
    return writer.finish()


def write_training(folder, seed):
    maps = write_maps(folder.with_name(f"{folder.name}-maps"), seed)
    split = Splitter({"block_length": 100.0, "seed": seed}, str(maps.folder), str(folder)).execute(maps)
    Processor({"size": 8, "threshold": 39.0 + seed / 10}, str(maps.folder), str(folder)).execute(split)
    shutil.rmtree(folder / "processor", ignore_errors=True)
    shutil.rmtree(folder / "splitter", ignore_errors=True)
    (folder / "summary.json").unlink(missing_ok=True)


def read_training(folder):
    found = TrainingSet.open(folder)
    maps = found.open_spectrograms()
    reference = read_reference(folder)
    return [
        *(getattr(found, item.name) for item in fields(found) if item.name != "folder"),
        maps.manifest.fingerprint,
        None if reference is None else Reference.from_dict(reference),
    ]


def write_split(folder, seed):
    write_training(folder, seed)
    for path in folder.iterdir():
        if path.name != "split.json":
            path.unlink()


def write_report(folder, seed):
    flaws = [Flaw(f"e{row}", "V1:A", "gap", f"{seed} samples") for row in range(5)]
    write_quality(folder, collect(flaws, {"e9": "target missing"}, 8, ("V1:X",)))


def write_run(folder, seed):
    metrics = {"roc_auc": Metric(0.5 + seed / 10, 0.1, None, {"zero": 0.5}), "none": Metric(None)}
    write_summary(folder, RunSummary("a/b", "2026-01-01", {"in": 1}, metrics=metrics, warnings=("w",)))


def write_scan(folder, seed):
    generator = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for item in fields(ChannelRanking):
        if item.type in (np.ndarray, "np.ndarray"):
            columns[item.name] = generator.random(3)
    for name in ("events", "strain_spikes", "witness_spikes", "shared_spikes", "round", "family"):
        columns[name] = generator.integers(0, 9, 3)
    columns["representative"] = np.array([True, False, False])
    columns["lag"][2] = np.nan
    rounds = (RankingRound(1, "B", 9, 10, 12.5, 1e-9, 1e-8, 0.9, 0.9, 0.1, 53.0),)
    write_ranking(folder, ChannelRanking("A", ("B", "C", "D"), **columns, selected=("B",), rounds=rounds))


def write_simulated(folder, seed):
    waveform = np.sin(np.arange(32.0) + seed)
    glitch = WaveformTruth("blip", 101.2, 101.0, 64.0, waveform, (101.1, 101.4), 12.5, ("W",), {"W": 20.0})
    event = EventTruth("V1-0", 100.0, 102.0, 4.0, glitches=(glitch,), gaps={"W": (100.0, 100.5)})
    write_truth(folder / "truth.h5", Truth("H", 64.0, {"W": "witness"}, {"blip": ("W",)}, {"V1-0": event}, {"s": seed}))


def spikes_of(folder, seed):
    return SpikeStore(folder, {"seed": seed}, "abc", tuple(f"e{row}" for row in range(7)), shard_size=3)


def write_spikes(folder, seed):
    generator, store = np.random.default_rng(seed), spikes_of(folder, seed)
    for plan in store.pending():
        store.write(plan, {name: (100 * generator.random(5)).astype(kind) for name, kind in COLUMNS.items()})


def read_spikes(seed, folder):
    store = spikes_of(folder, seed)
    return MADE_AGAIN if store.pending() else store.read()


def write_weights(folder, seed):
    tensors = {"state": {"epoch": seed}, "model": {"weight": torch.full((64,), float(seed))}}
    write_checkpoint(folder, tensors, {"origin": {"data": "abc"}})


def read_weights(folder):
    return [read_checkpoint(folder), read_json(folder / "origin.json")]


@dataclass(frozen=True)
class Subject:
    """Something on disk: how it is written with a seed, and all that can be read of it."""

    write: Callable[[Path, int], Any]
    read: Callable[[Path], Any]


SUBJECTS = {
    "event set": Subject(write_events, partial(read_set, EventSet)),
    "unfinished set": Subject(write_unfinished, partial(resume_set, 0)),
    "spectrogram set": Subject(write_maps, partial(read_set, SpectrogramSet)),
    "training set": Subject(write_training, read_training),
    "split": Subject(write_split, Split.open),
    "quality": Subject(write_report, read_quality),
    "summary": Subject(write_run, read_summary),
    "ranking": Subject(write_scan, read_ranking),
    "truth": Subject(write_simulated, read_truth),
    "spikes": Subject(write_spikes, partial(read_spikes, 0)),
    "checkpoint": Subject(write_weights, read_weights),
}
SETS = ("event set", "spectrogram set", "training set", "quality", "checkpoint")
#: Tables beside the file that is read back: for people.
FOR_PEOPLE = {"ranking.csv", "ranking.parquet", "selected.txt"}


# ------------------------------------------------------------------------------------------------ the model's own file


def write_model(folder, seed):
    network = LinearFilter(2, 8, (-1, 0))
    torch.nn.init.constant_(network.weight, 0.5 + seed)
    twin = EnergyTwin(network, clamp=1e4, witness_scale=[5.0, 7.0], target_scale=4.0)
    (folder / "twin.safetensors").write_bytes(save_twin(twin, "linear", network.settings))


def read_model(folder):
    path = folder / "twin.safetensors"
    twin = load_twin(path.read_bytes())
    return [dict(twin.state_dict()), twin.transform]


def content(value: Any) -> str:
    """Checksum of anything that was read, whatever its type."""
    return content_hash(plain(value))


def plain(value: Any) -> Any:
    match value:
        case pd.DataFrame():
            found: Any = [list(value.columns), *(plain(value[name].to_numpy()) for name in value.columns)]
        case torch.Tensor():
            found = plain(value.numpy())
        case np.ndarray():
            found = [str(value.dtype), value.shape, [repr(item) for item in value.ravel().tolist()]]
        case dict():
            found = {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            found = [plain(item) for item in value]
        case _ if is_dataclass(value):
            found = {item.name: plain(getattr(value, item.name)) for item in fields(value)}
        case _:
            found = repr(value)
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Each subject twice: its folder, a folder of the same with another seed, and the checksum of what is read."""
    root, found = tmp_path_factory.mktemp("written"), {}
    for name, subject in SUBJECTS.items():
        folder, other = root / name / "one", root / name / "other"
        for seed, path in enumerate((folder, other)):
            path.mkdir(parents=True)
            subject.write(path, seed)
        trial = root / name / "trial"
        shutil.copytree(folder, trial)
        found[name] = folder, other, content(subject.read(trial))
    return found


# ------------------------------------------------------------------------------------------------------------- damages


def flip(path, data):
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)


def cut(path, data):
    path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size - 1))])


def extend(path, data):
    path.write_bytes(path.read_bytes() + data.draw(st.binary(min_size=1, max_size=40)))


def blank(path, data):
    raw = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(raw) - 1))
    raw[start : start + 512] = bytes(len(raw[start : start + 512]))
    path.write_bytes(raw)


def swap_blocks(path, data):
    raw, half = path.read_bytes(), data.draw(st.integers(1, path.stat().st_size - 1))
    path.write_bytes(raw[half:] + raw[:half])


def remove(path, data):
    del data
    path.unlink()


def become_folder(path, data):
    del data
    path.unlink()
    path.mkdir()


def become_pipe(path, data):
    del data
    path.unlink()
    os.mkfifo(path)


def grow(path, data):
    """A file of more than `told` lets a process hold, and that takes no room on the disk."""
    del data  # a record is refused by its size
    os.truncate(path, (1 << 30) + 1 if path.suffix in (".json", ".yaml") else (MEMORY + 32) << 20)


DAMAGES = [flip, cut, extend, blank, swap_blocks, remove, become_folder, become_pipe, grow]


def harm(folder, other, data, *, may_swap):
    """Damage one file of a folder and say how."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in FOR_PEOPLE and path.name[0] != ".")
    name = data.draw(st.sampled_from(names))
    swappable = may_swap and (other / name).exists()
    damage = data.draw(st.sampled_from([*DAMAGES, *(["swapped"] * 2 if swappable else [])]))
    if damage == "swapped":
        shutil.copy(other / name, folder / name)
    else:
        damage(folder / name, data)
    return f"{getattr(damage, '__name__', damage)} of {name}"


WRONG = st.one_of(
    st.sampled_from(
        [None, True, "", "x", "../../etc/passwd", [], {}, -1, 0, 1e308, -1e308, 10**30, float("nan"), float("inf")]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.builds(lambda depth: json.loads("[" * depth + "]" * depth), st.integers(1, 200)),
)


def places(value, here=()):
    """Paths to everything within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*here, key)
        yield from places(item, (*here, key))


def edit(path, data, *, keep_checksum):
    """Change one thing within a record, with its old checksum or none."""
    record = json.loads(path.read_text())
    if not keep_checksum:
        record.pop(CHECKSUM)
    *way, last = data.draw(st.sampled_from(list(places({k: v for k, v in record.items() if k != CHECKSUM}))))
    parent = record
    for key in way:
        parent = parent[key]
    how = data.draw(st.sampled_from(["replace", "remove", "add", "double", "empty"]))
    if how == "replace":
        parent[last] = data.draw(WRONG)
    elif how == "remove":
        del parent[last]
    elif how == "empty":
        parent.clear()
    elif isinstance(parent, list):
        parent.append(data.draw(WRONG) if how == "add" else parent[last])
    else:
        parent[data.draw(st.text(max_size=6))] = data.draw(WRONG) if how == "add" else parent[last]
    path.write_text(json.dumps(record))
    return f"{how} {last!r} of {path.name}"


def outcome(subject, folder):
    """Checksum of all that is read."""
    found = subject.read(folder)
    return MADE_AGAIN if isinstance(found, str) else content(found)


@pytest.fixture(scope="module")
def told():
    """Reads a subject under limits: the checksum of what is read, or None and in which words it is refused."""
    with Limited(mib=MEMORY) as process:

        def read(subject, folder):
            try:
                return process.run(outcome, subject, folder), ""
            except RefusedError as error:
                return None, str(error)

        yield read


def examples(fast):
    """Of each of the tests below: the slow ones together see more than a thousand cases."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=5 if fast else 40, deadline=None, derandomize=True, suppress_health_check=checks)


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("name", SUBJECTS)
def test_damaged_bytes_are_the_same_made_again_or_refused(name, fast, written, told, tmp_path):
    folder, other, right = written[name]

    @examples(fast)
    @given(data=st.data())
    def damaged(data):
        trial = tmp_path / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(folder, trial)
        what = harm(trial, other, data, may_swap=name in SETS)
        found, words = told(SUBJECTS[name], trial)
        assert found in (right, MADE_AGAIN) or (found is None and str(trial) in words), (what, words)

    damaged()


RECORDS = {
    "event set": [MANIFEST_NAME],
    "spectrogram set": [MANIFEST_NAME],
    "training set": ["split.json", "scaling.json", "training_set.json", "reference.json"],
    "split": ["split.json"],
    "quality": ["quality.json"],
    "summary": ["summary.json"],
    "checkpoint": ["checksums.json", "origin.json"],
}


def edit_header(path, data):
    """Change one thing within the header of a model's file: shapes, offsets, types, name or settings."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"]["model"] = json.loads(header["__metadata__"]["model"])
    *way, last = data.draw(st.sampled_from(list(places(header))))
    parent = header
    for key in way:
        parent = parent[key]
    parent[last] = data.draw(WRONG)
    described = header.get("__metadata__")
    if isinstance(described, dict) and "model" in described:
        described["model"] = json.dumps(described["model"])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    return f"{way} {last}"


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["few", "many"])
def test_a_damaged_model_is_the_same_or_refused(fast, told, tmp_path):
    write_model(tmp_path, 0)
    raw, right = (tmp_path / "twin.safetensors").read_bytes(), content(read_model(tmp_path))

    @examples(fast)
    @given(data=st.data())
    def damaged(data):
        path = tmp_path / "twin.safetensors"
        path.write_bytes(raw)
        how = data.draw(st.sampled_from([flip, cut, extend, blank, swap_blocks, edit_header, edit_header]))
        what = how.__name__, how(path, data)
        found, words = told(Subject(write_model, read_model), tmp_path)
        assert found == right or "not the weights of a twin" in words, (what, words)

    damaged()


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("keep_checksum", [True, False], ids=["sealed", "open"])
@pytest.mark.parametrize("name", RECORDS)
def test_an_edited_record_is_refused_in_words_and_without_checksum_never_a_traceback(
    name, keep_checksum, fast, *, written, told, tmp_path
):
    folder, _, right = written[name]

    @examples(fast)
    @given(data=st.data())
    def edited(data):
        trial = tmp_path / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(folder, trial)
        what = edit(trial / data.draw(st.sampled_from(RECORDS[name])), data, keep_checksum=keep_checksum)
        found, words = told(SUBJECTS[name], trial)
        # what has no checksum may say something else that can be
        assert not keep_checksum or found == right or (found is None and str(trial) in words), (what, words)

    edited()
