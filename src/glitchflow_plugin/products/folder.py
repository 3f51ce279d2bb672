"""A folder of products: a record for each block that is finished, and of the whole what it is and what it covers."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from glitchflow_plugin.data.files import read_record, sha256, write_json
from glitchflow_plugin.errors import FormatError

MANIFEST_NAME = "products.json"
RECORDS = "records"
"""Folder of the records, below that of the files."""

VETOES = "vetoes"
"""Folder of the vetoes as a flag, likewise."""

_STEP = "stream_pipeline"


@dataclass(frozen=True)
class ProductFile:
    """A file that was written."""

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "ProductFile":
        """The entry of a file that is there."""
        return cls(path.name, path.stat().st_size, sha256(path))


@dataclass(frozen=True)
class BelievedStretch:
    """A stretch in which a prediction was believed, and what the strain said of it.

    Attributes:
        start: GPS s.
        stop: GPS s.
        peak: Middle of the energy that is predicted, GPS s.
        snr: Of what is predicted.
        share: What share of its power was taken away.
        reason: Why not all of it: `weak`, too little is predicted for the strain to tell; `refused`, its power would
            rise; `partly`, that of some octaves would, or it is hard to say; empty where all was taken.
    """

    start: float
    stop: float
    peak: float
    snr: float
    share: float
    reason: str = ""


@dataclass(frozen=True)
class SeenGain:
    """How strongly the strain followed a witness in a window, as `signal.witness_gain` measures it.

    Attributes:
        part: Witness, or the whole prediction where it is no sum over them.
        start: Start of the window, GPS s.
        stop: Its end, GPS s.
        gain: 1 where the strain holds just what is predicted.
        variance: Of the gain.
        power: What tells it, SNR^2.
        lag: By how much the strain follows later than predicted, s.
    """

    part: str
    start: float
    stop: float
    gain: float
    variance: float
    power: float
    lag: float


@dataclass(frozen=True)
class Stop:
    """A witness that the closed loop has stopped.

    Attributes:
        part: Witness, or the whole prediction where it is no sum over them.
        since: GPS time from which on it is left out, s.
        reason: `gain_low` or `gain_high`.
    """

    part: str
    since: float
    reason: str


@dataclass(frozen=True)
class VetoBox:
    """A stretch in which the model predicts more than the threshold, without padding.

    Attributes:
        start: GPS s.
        stop: GPS s.
        frequency_low: Hz.
        frequency_high: Hz.
        peak: Largest predicted energy, SNR².
        subtracted: Whether anything is taken away in it.
        doubts: Why what is taken away is no reason to keep the time; words as in the tables of inference.
    """

    start: float
    stop: float
    frequency_low: float
    frequency_high: float
    peak: float
    subtracted: bool
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlockRecord:
    """What came of a block.

    Attributes:
        start: GPS s.
        stop: GPS s.
        fingerprint: Checksum of all that decides about it, what was stopped included.
        seen: The same without any stop: that of `gains`.
        files: The files of the block; empty where there was no strain.
        seconds: By name of a bit of the state for how long it is set, s.
        missing: By witness for how long it was missing, s.
        problems: By channel what was wrong with it.
        believed: Where a prediction was believed.
        gains: What the strain says of the witnesses where none is stopped.
        known: When the model has looked, GPS s.
        vetoed: When it vetoes, of these.
        boxes: What is vetoed, in time and frequency.
    """

    start: float
    stop: float
    fingerprint: str
    seen: str = ""
    files: tuple[ProductFile, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    believed: tuple[BelievedStretch, ...] = ()
    gains: tuple[SeenGain, ...] = ()
    known: tuple[tuple[float, float], ...] = ()
    vetoed: tuple[tuple[float, float], ...] = ()
    boxes: tuple[VetoBox, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a folder of products holds.

    Attributes:
        what: Model, settings and times that decide about it.
        strain: Name of the recorded channel.
        suffix: Ends the name of the clean one.
        blocks: In order of time.
        stopped: Witnesses that the closed loop has stopped.
        ranks: Names of the rank channels, in the order of `rank_channels.QUANTITIES`; empty where there are none.
        flags: Files of the vetoes, in their folder.
    """

    what: Mapping[str, object]
    strain: str
    suffix: str
    blocks: tuple[BlockRecord, ...]
    stopped: tuple[Stop, ...] = ()
    ranks: tuple[str, ...] = ()
    flags: tuple[ProductFile, ...] = ()


def parts_of(folder: Path) -> list[Path]:
    """The folders of products below that of a run that goes on and on, in order of time; none of any other run."""
    return sorted(one for one in folder.glob("*-*") if (one / RECORDS).is_dir())


def record_path(folder: Path, start: float, stop: float) -> Path:
    """Where the record of a block is."""
    return folder / RECORDS / f"{start:.0f}-{stop - start:.0f}.json"


def write_block_record(folder: Path, record: BlockRecord) -> None:
    """Write a record, after the files that it lists."""
    write_json(record_path(folder, record.start, record.stop), asdict(record))


def read_block_record(folder: Path, start: float, stop: float) -> BlockRecord:
    """The record of a block.

    Raises:
        FormatError: There is none, or it is damaged.
    """
    return read_record(record_path(folder, start, stop), BlockRecord, _STEP)


def is_seen(folder: Path, start: float, stop: float, fingerprint: str) -> bool:
    """Whether it is known what a block says of its witnesses."""
    try:
        return read_block_record(folder, start, stop).seen == fingerprint
    except FormatError:
        return False


def is_finished(folder: Path, start: float, stop: float, fingerprint: str) -> bool:
    """Whether a block is there as it would be made now; its files are known by their sizes, and not read."""
    try:
        record = read_block_record(folder, start, stop)
    except FormatError:
        return False
    paths = [(folder / one.name, one.size) for one in record.files]
    return record.fingerprint == fingerprint and all(
        path.is_file() and path.stat().st_size == size for path, size in paths
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write down what the folder holds, once all blocks are there."""
    write_json(folder / MANIFEST_NAME, asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """What a folder of products holds.

    Raises:
        FormatError: It says nothing, or is damaged.
    """
    return read_record(folder / MANIFEST_NAME, Manifest, _STEP)


def total(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sums by name, in order of the names.

    >>> total([{"A": 1.0}, {"A": 2.0, "B": 1.0}])
    {'A': 3.0, 'B': 1.0}
    """
    sums: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return dict(sorted(sums.items()))
