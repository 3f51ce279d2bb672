"""Event files with something wrong, and what an ingest makes of a folder of them."""

import os
import random
import re
import socket
from pathlib import Path

import h5py
import numpy as np

TARGET, WITNESS, OTHER = "V1:STRAIN", "V1:SEIS", "V1:MIC"
RATES = {TARGET: 1024.0, WITNESS: 256.0, OTHER: 512.0}
T0 = 1_264_000_000.0
DURATION = 10
#: So many files differ in their samples; later ones repeat them at other times, so that few sound ones tell of all, as
#: long as each event is cut at the same place (`crop_jitter`).
DISTINCT = 16

VALUES = {
    "nan": np.nan,
    "infinite": np.inf,
    "negative": -1.0,
    "zero": 0.0,
    "huge": 1e300,
    "tiny": 1e-300,
    "single": np.float32(T0),
    "singles": np.array([T0], dtype=np.float32),
    "half": np.float16(30000),
    "int32": np.int32(T0),
    "uint64": np.uint64(2**63),
    "bool": True,
    "complex": 1 + 2j,
    "digits": str(T0),
    "few digits": "1.264e9",
    "bytes": np.bytes_(str(T0)),
    "date": "2020-01-26T07:06:22",
    "text": "soon",
    "no utf-8": np.bytes_(b"\xb5\xff"),
    "none": h5py.Empty("f8"),
    "empty": np.zeros(0),
    "several": np.array([T0, T0]),
    "matrix": np.zeros((3, 3)),
    "texts": np.array(["a", "b"], dtype=h5py.string_dtype()),
    "compound": np.zeros((), dtype=[("a", "f8"), ("b", "i4")]),
    "bomb": np.zeros(8000),
}
ATTRIBUTES = ("gps_event", "t0", "sample_rate", "unit")

SHAPES = {
    "complex": lambda group, name, old: group.create_dataset(name, data=old.astype(complex) * 1j),
    "compound": lambda group, name, old: group.create_dataset(name, data=np.zeros(len(old), [("a", "f8")])),
    "strings": lambda group, name, old: group.create_dataset(name, data=[b"a"] * len(old)),
    "objects": lambda group, name, old: group.create_dataset(name, data=["a"] * len(old), dtype=h5py.string_dtype()),
    "references": lambda group, name, _old: group.create_dataset(name, (5,), dtype=h5py.ref_dtype),
    "ragged": lambda group, name, _old: group.create_dataset(name, (5,), dtype=h5py.vlen_dtype(np.float64)),
    "opaque": lambda group, name, _old: group.create_dataset(name, data=np.zeros(5, dtype="V8")),
    "arrays": lambda group, name, _old: group.create_dataset(name, (5,), dtype=np.dtype((np.float64, (3,)))),
    "bool": lambda group, name, old: group.create_dataset(name, data=old > 0),
    "half": lambda group, name, old: group.create_dataset(name, data=old.astype(np.float16)),
    "long": lambda group, name, old: group.create_dataset(name, data=old.astype(np.longdouble)),
    "scalar": lambda group, name, _old: group.create_dataset(name, data=3.0),
    "null": lambda group, name, _old: group.create_dataset(name, data=h5py.Empty("f8")),
    "no samples": lambda group, name, _old: group.create_dataset(name, (0,), dtype="f8"),
    "one sample": lambda group, name, _old: group.create_dataset(name, data=[1.0]),
    "two dimensions": lambda group, name, old: group.create_dataset(name, data=old.reshape(2, -1)),
    "nan": lambda group, name, old: group.create_dataset(name, data=np.full(len(old), np.nan)),
    "huge": lambda group, name, old: group.create_dataset(name, data=old * 1e305),
    "bomb": lambda group, name, _old: group.create_dataset(name, (6 * 10**8,), dtype="f8"),
    "larger bomb": lambda group, name, _old: group.create_dataset(name, (4 * 10**9,), dtype="f8"),
    "chunk bomb": lambda group, name, _old: group.create_dataset(
        name, (10**9,), chunks=(4 * 10**8,), dtype="f8", compression="gzip"
    ),
    "group": lambda group, name, _old: group.create_group(name),
    "type": lambda group, name, _old: group.__setitem__(name, np.dtype("f8")),
    "dangling": lambda group, name, _old: group.__setitem__(name, h5py.SoftLink("/nowhere")),
    "circle": lambda group, name, _old: group.__setitem__(name, h5py.SoftLink(f"{group.name}/{name}")),
    "to the group": lambda group, name, _old: group.__setitem__(name, h5py.SoftLink(group.name)),
    "external": lambda group, name, _old: group.__setitem__(name, h5py.ExternalLink("/etc/passwd", "/x")),
    "external dangling": lambda group, name, _old: group.__setitem__(name, h5py.ExternalLink("gone.h5", "/x")),
    "outside": lambda group, name, _old: group.__setitem__(name, h5py.ExternalLink("../outside.h5", f"/e/{name}")),
    "pipe": lambda group, name, _old: group.__setitem__(name, h5py.ExternalLink("pipe.h5", "/x")),
    "storage": lambda group, name, old: group.create_dataset(
        name, (len(old),), dtype="f8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    ),
    "virtual": lambda group, name, old: group.create_virtual_dataset(name, _layout(len(old), name)),
}
"""What may stand in place of a channel, which has been deleted."""

BYTES = ("flipped", "truncated", "zeroed", "no HDF5", "nothing")
FILES = ("folder", "fifo", "socket", "dangling file", "circular file", "two groups", "no group", "name", "group name")


def _layout(size, name):
    layout = h5py.VirtualLayout((size,), dtype="f8")
    layout[:] = h5py.VirtualSource("../outside.h5", f"/e/{name}", shape=(size,))
    return layout


def write_event(path, number, name=None):
    """Ten seconds of noise in three channels."""
    generator = np.random.default_rng(number % DISTINCT)
    with h5py.File(path, "w") as file:
        group = file.create_group(name or Path(path).stem)
        group.attrs["gps_event"] = T0 + 100 * number + DURATION / 2
        for channel, rate in RATES.items():
            dataset = group.create_dataset(channel, data=generator.normal(size=int(DURATION * rate)))
            dataset.attrs.update(t0=T0 + 100 * number, sample_rate=rate, unit="m")


def mutate(path, kind, what, channel, seed):
    """Do one thing to an event file; `kind` is attribute:NAME, shape, bytes or file."""
    path = Path(path)
    if kind == "bytes":
        _spoil(path, what, random.Random(seed))  # noqa: S311
    elif kind == "file":
        _replace(path, what, channel)
    else:
        with h5py.File(path, "r+") as file:
            group = file[path.stem]
            if kind == "shape":
                old, attributes = group[channel][()], dict(group[channel].attrs)
                del group[channel]
                SHAPES[what](group, channel, old)
                if isinstance(group.get(channel, getlink=True), h5py.HardLink):
                    group[channel].attrs.update(attributes)
                return
            attribute = kind.partition(":")[2]
            item = group if attribute == "gps_event" else group[channel]
            del item.attrs[attribute]
            if what != "missing":
                item.attrs[attribute] = VALUES[what]


def _spoil(path, what, rng):
    content = bytearray(path.read_bytes())
    if what == "flipped":
        # half of them where the structure is
        end = len(content) if rng.random() < 0.5 else 8192
        for _ in range(rng.choice([1, 8, 64])):
            content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif what == "truncated":
        content = content[: rng.randrange(len(content))]
    elif what == "zeroed":
        start = rng.randrange(len(content))
        content[start : start + 512] = bytes(len(content[start : start + 512]))
    else:
        content = b"not HDF5" if what == "no HDF5" else b""
    path.write_bytes(content)


def _replace(path, what, channel):
    if what in ("two groups", "no group", "name", "group name"):
        with h5py.File(path, "r+") as file:
            if what == "two groups":
                file.create_group("another")
            elif what == "no group":
                del file[path.stem]
            elif what == "name":
                file.move(f"{path.stem}/{channel}", path.stem.encode() + b"/V1:\xb5\xff")
            else:
                file.move(path.stem, b"\xb5\xff" + path.stem.encode())
        return
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has at most 107 bytes
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
        os.chdir(here)
    else:
        path.symlink_to("nowhere" if what == "dangling file" else path.name)


def write_continuous(path, number):
    """Thirty-two seconds of noise in three channels, as gwpy stores them."""
    generator = np.random.default_rng(number % DISTINCT)
    with h5py.File(path, "w") as file:
        for channel, rate in RATES.items():
            dataset = file.create_dataset(channel, data=generator.normal(size=int(32 * rate)))
            dataset.attrs.update(x0=T0 + 100 * number, dx=1 / rate, xunit="s", unit="m", name=channel)


def write_gwosc(path, number):
    """Thirty-two seconds of noise as strain of one detector."""
    with h5py.File(path, "w") as file:
        noise = np.random.default_rng(number % DISTINCT).normal(size=32 * 1024)
        strain = file.create_dataset("strain/Strain", data=noise)
        strain.attrs.update(Xstart=int(T0) + 100 * number, Xspacing=1 / 1024)
        file["meta/Detector"] = "H1"


LAYOUTS = {
    "hdf5": (write_continuous, TARGET, (TARGET, WITNESS), ("x0", "dx", "xunit", "unit", "name")),
    "gwosc": (write_gwosc, "H1:GWOSC-1KHZ_R1_STRAIN", ("strain/Strain", "meta/Detector"), ("Xstart", "Xspacing")),
}
"""How files of continuous data are written, their target, and the data sets and attributes to spoil."""


def spoil_continuous(path, kind, what, item, seed):
    """Do one thing to a file of continuous data, as `mutate` to an event file."""
    if kind in ("bytes", "file"):
        return mutate(path, kind, what, item, seed)
    with h5py.File(path, "r+") as file:
        dataset = file[item]
        group, name = dataset.parent, dataset.name.rpartition("/")[2]
        if kind == "shape":
            old, attributes = np.atleast_1d(dataset[()]), dict(dataset.attrs)
            old = old if old.dtype.kind == "f" else np.zeros(4)
            del group[name]
            SHAPES[what](group, name, old)
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                group[name].attrs.update(attributes)
            return None
        attribute = kind.partition(":")[2]
        if attribute in dataset.attrs:
            del dataset.attrs[attribute]
        if what != "missing":
            dataset.attrs[attribute] = VALUES[what]
    return None


def cut_mutants(folder, layout, mutations):
    """Make files of continuous data, two sound ones first, spoil them, cut an event out of each; what became of these.

    Returns:
        By event `made`, and `wanted` of sound files alone: which channels are valid, with a checksum of their samples;
        and what the report says of each event or file.
    """
    from glitchflow_plugin.data.files import content_hash
    from glitchflow_plugin.preprocessing.ingest import ingest
    from glitchflow_plugin.preprocessing.quality import read_quality

    write, target, _, _ = LAYOUTS[layout]
    folder, sizes = Path(folder), {"wanted": DISTINCT, "made": len(mutations) + 2}
    for place, size in sizes.items():
        (folder / place).mkdir()
        for number in range(1, size + 1):
            write(folder / place / f"X-{number:04d}.h5", number)
    write(folder / "outside.h5", 0)
    os.mkfifo(folder / "made" / "pipe.h5")
    for number, mutation in enumerate(mutations, 3):
        spoil_continuous(folder / "made" / f"X-{number:04d}.h5", *mutation)
    entry = {
        "format": layout,
        "target": target,
        "segment": 16.0,
        "processing": {"len": 2.0, "sr": 256.0, "maxf": 100.0, "batch": 64, "crop_jitter": 0.0},
    }
    whitening = {"fft_length": 1.0, "overlap": 0.5, "filter_length": 0.5, "exclude_length": 1.0}
    found = {}
    for place, size in sizes.items():
        triggers = [T0 + 100 * number + 16 for number in range(1, size + 1)]
        events = ingest(
            [entry | {"path": str(folder / place), "triggers": triggers}], whitening, folder / f"{place}-set"
        )
        batch = events.read()
        found[place] = {
            event_id: {
                name: content_hash(batch.series[row, column].tolist())
                for column, name in enumerate(events.channels)
                if batch.valid[row, column]
            }
            for row, event_id in enumerate(events.event_ids)
        }
    report = read_quality(folder / "made-set")
    return found | {"flaws": [[flaw.event_id, flaw.channel, flaw.reason, flaw.detail] for flaw in report.flaws]}


def ingest_mutants(folder, mutations):
    """Make event files, spoil them, ingest them; what became of each.

    Args:
        folder: An empty one.
        mutations: One (kind, what, channel, seed) a file; two good files are added.

    Returns:
        `events`: by id, which channels are `valid` and which of these are the `same` as without the mutation; and what
        the set and its report say of the others.
    """
    from glitchflow_plugin.preprocessing.ingest import ingest
    from glitchflow_plugin.preprocessing.quality import read_quality

    folder = Path(folder)
    data, clean = folder / "data", folder / "clean"
    for place, size in ((data, len(mutations) + 2), (clean, DISTINCT)):
        place.mkdir()
        for number in range(size):
            write_event(place / f"event-{number:04d}.h5", number)
    write_event(folder / "outside.h5", 0, "e")
    os.mkfifo(data / "pipe.h5")
    for number, mutation in enumerate(mutations):
        mutate(data / f"event-{number:04d}.h5", *mutation)
    entry = {"target": TARGET, "processing": {"len": 2.0, "sr": 256.0, "maxf": 100.0, "batch": 64, "crop_jitter": 0.0}}
    whitening = {"fft_length": 1.0, "overlap": 0.5, "filter_length": 0.5, "exclude_length": 1.0}
    wanted = ingest([entry | {"path": str(clean)}], whitening, folder / "wanted")
    made = ingest([entry | {"path": str(data)}], whitening, folder / "made")
    report = read_quality(made.folder)
    batch, expected = made.read(), wanted.read()
    events = {}
    for row, event_id in enumerate(made.event_ids):
        held = dict(zip(made.channels, (bool(one) for one in made.valid[row]), strict=True))
        number = re.search(r"event-(\d{4})$", event_id)
        other = wanted.row_of[f"event-{int(number[1]) % DISTINCT:04d}"] if number else None
        same = {
            name: other is not None
            and np.array_equal(
                batch.series[row, made.channels.index(name)], expected.series[other, wanted.channels.index(name)]
            )
            for name in RATES
            if held[name]
        }
        events[event_id] = {"valid": held, "same": same}
    return {
        "events": events,
        "rejected": dict(made.manifest.rejected),
        "flaws": [[flaw.event_id, flaw.channel, flaw.reason, flaw.detail] for flaw in report.flaws],
        "read": report.events_read,
    }
