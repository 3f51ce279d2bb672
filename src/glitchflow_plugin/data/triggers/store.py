"""Triggers on disk: Parquet by channel group and day, sorted by time within a file, and a manifest.

A file is named as frames are (LIGO-T050017): `GROUP-START-DURATION.parquet` holds the triggers of one channel group
from the GPS second START on, for DURATION seconds: a day, or less where a day holds more rows than a file shall.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glitchflow_plugin.data.files import atomic_path, content_hash, read_record, sha256, write_json
from glitchflow_plugin.data.triggers.table import NANOSECONDS, SCHEMA, checked, checked_schema, in_order
from glitchflow_plugin.errors import ConfigurationError, FormatError

if TYPE_CHECKING:  # it loads pandas, which takes as long as all else that a command needs to start
    import pyarrow.dataset as ds

logger = logging.getLogger(__name__)

MANIFEST_NAME = "triggers.json"
LIVE_NAME = "live.json"
"""When the strain was looked at, where that is known."""
TRUTH_NAME = "truth.parquet"
"""Times and classes of the strain's glitches, where a simulation knows them."""
DAY = 86_400
"""s."""
ROW_GROUP = 131_072
"""Rows that are read at once."""
FORMAT_VERSION = 1


@dataclass(frozen=True)
class TriggerFile:
    """One file of a store.

    Attributes:
        file: Its name.
        rows: Triggers in it.
        start: Earliest time, GPS ns.
        end: Latest time, GPS ns.
        sha256: Checksum of its bytes.
    """

    file: str
    rows: int
    start: int
    end: int
    sha256: str

    def __post_init__(self) -> None:
        """Refuse what is no such file, and a path that leads out of the folder."""
        if not re.fullmatch(r"\w[\w.]*-\d+-\d+\.parquet", self.file) or self.rows < 1 or self.end < self.start:
            raise FormatError(f"expected GROUP-START-DURATION.parquet with rows, got {self.file!r}: {self.rows} rows")


@dataclass(frozen=True)
class TriggerManifest:
    """What a store holds and how it was made.

    Attributes:
        files: In order of their names.
        channels: Number of triggers by channel.
        recipe: How they were made, JSON-like.
        fingerprint: Checksum over the files: of the same triggers, the same.
        format_version: Version of this layout.
    """

    files: tuple[TriggerFile, ...]
    channels: dict[str, int]
    recipe: dict[str, object]
    fingerprint: str
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuse another version."""
        if self.format_version != FORMAT_VERSION:
            raise FormatError(f"the store has format version {self.format_version}, expected {FORMAT_VERSION}.")

    @property
    def rows(self) -> int:
        """Triggers in all files."""
        return sum(one.rows for one in self.files)


def channel_group(channel: str) -> str:
    """The detector and subsystem of a channel, which name its files.

    >>> channel_group("L1:SUS-ETMX_L2_WIT"), channel_group("V1:Hrec_hoft_16384Hz"), channel_group("strain")
    ('L1_SUS', 'V1_Hrec', 'strain')
    """
    detector, _, rest = channel.rpartition(":")
    subsystem = re.split(r"[-_]", rest.lstrip("-_"), maxsplit=1)[0]
    return re.sub(r"\W", "_", f"{detector}_{subsystem}" if detector else subsystem) or "_"


@dataclass
class TriggerWriter:
    """Writes a store, in memory that is bounded: what is too much waits in files, and is merged at the end.

    To be used with `with`; what ends with an error leaves the folder as it was.

    Attributes:
        folder: Where the store goes; another one there is replaced.
        recipe: How the triggers were made, JSON-like; kept in the manifest.
        group_of: Channel group by channel.
        held_rows: Rows (of about 100 bytes) that wait in memory.
        file_rows: Rows of the largest file.
    """

    folder: Path
    recipe: Mapping[str, object] = field(default_factory=dict)
    group_of: Callable[[str], str] = channel_group
    held_rows: int = 1_000_000
    file_rows: int = 4_000_000
    _waiting: list[pa.Table] = field(default_factory=list, init=False, repr=False)
    _spilled: int = field(default=0, init=False, repr=False)
    _aside: Path | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        """Make the folder in which rows wait, beside the files that they go to."""
        self.folder = Path(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".waiting-*"):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._aside = Path(mkdtemp(prefix=".waiting-", dir=self.folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the store, if all went well."""
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self._home, ignore_errors=True)

    @property
    def _home(self) -> Path:
        if self._aside is None:
            raise ConfigurationError("a TriggerWriter is to be used with `with`")
        return self._aside

    def write(self, table: pa.Table) -> None:
        """Take triggers, in any order.

        Args:
            table: As `SCHEMA`.

        Raises:
            FormatError: It is another table.
        """
        self._waiting.append(checked(table, "triggers"))
        if sum(map(len, self._waiting)) >= self.held_rows:
            self._spill()

    def _spill(self) -> None:
        """Put what waits into files, one a channel group and day."""
        held = pa.concat_tables(self._waiting).unify_dictionaries() if self._waiting else SCHEMA.empty_table()
        self._waiting.clear()
        for (group, day), rows in _parted(held, self.group_of):
            path = self._home / group / str(day) / f"{self._spilled}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(in_order(rows), path, row_group_size=ROW_GROUP, compression="lz4")
            self._spilled += 1

    def _finish(self) -> None:
        self._spill()
        old = _files_of(self.folder)
        for name in (MANIFEST_NAME, LIVE_NAME, TRUTH_NAME):  # they tell of triggers that are about to change
            (self.folder / name).unlink(missing_ok=True)
        files: list[TriggerFile] = []
        counts: dict[str, int] = {}
        for day in sorted(self._home.glob("*/*")):
            for start, end, rows in _pieces(day, self.file_rows):
                name = f"{day.parent.name}-{start}-{end - start}.parquet"
                files.append(_write_file(self.folder / name, rows))
                for one in rows["channel"].combine_chunks().value_counts().tolist():
                    counts[one["values"]] = counts.get(one["values"], 0) + one["counts"]
        for name in old - {one.file for one in files}:
            (self.folder / name).unlink(missing_ok=True)
        fingerprint = content_hash([asdict(one) for one in files])
        manifest = TriggerManifest(tuple(files), dict(sorted(counts.items())), dict(self.recipe), fingerprint)
        write_json(self.folder / MANIFEST_NAME, asdict(manifest))
        logger.info("%s: %d triggers of %d channels in %d files", self.folder, manifest.rows, len(counts), len(files))


def _files_of(folder: Path) -> set[str]:
    """The files of the store that is in a folder; none where there is no store, or a damaged one."""
    try:
        return {one.file for one in read_manifest(folder).files}
    except FormatError:
        return set()


def _parted(table: pa.Table, group_of: Callable[[str], str]) -> Iterator[tuple[tuple[str, int], pa.Table]]:
    """The rows by channel group and day (GPS s of its begin)."""
    channels = table["channel"].combine_chunks()
    names = channels.dictionary.to_pylist()
    groups = sorted({group_of(name) for name in names})
    wrong = [one for one in groups if not re.fullmatch(r"\w[\w.]*", one)]
    if wrong:
        raise ConfigurationError(f"expected channel groups of letters, digits, _ and ., got {wrong[0]!r}.")
    place = np.array([groups.index(group_of(name)) for name in names], dtype=np.int64)
    days = table["time"].to_numpy() // (DAY * NANOSECONDS)
    among = place[channels.indices.to_numpy()] if len(table) else days
    latest = int(days.max(initial=0)) + 1
    found, member = np.unique(among * latest + days, return_inverse=True)
    for index, key in enumerate(found.tolist()):
        group, day = divmod(key, latest)
        yield (groups[group], day * DAY), table.filter(pa.array(member == index))


def _pieces(folder: Path, most: int) -> Iterator[tuple[int, int, pa.Table]]:
    """The rows of one group and day in order, in pieces from and to a GPS second."""
    import pyarrow.dataset as ds

    runs = ds.dataset(folder, schema=SCHEMA)
    start = int(folder.name)
    pieces = -(-runs.count_rows() // most)
    edges = [start, start + DAY]
    if pieces > 1:
        seconds = np.sort(runs.to_table(columns=["time"])["time"].to_numpy()) // NANOSECONDS
        edges = sorted({*edges, *seconds[np.arange(1, pieces) * most].tolist()})
    for low, high in pairwise(edges):
        within = (pc.field("time") >= low * NANOSECONDS) & (pc.field("time") < high * NANOSECONDS)
        rows = runs.to_table(filter=within, use_threads=False)
        if len(rows):
            yield low, high, in_order(rows)


def _write_file(path: Path, rows: pa.Table) -> TriggerFile:
    with atomic_path(path) as temporary:
        pq.write_table(rows, temporary, row_group_size=ROW_GROUP, compression="zstd", store_schema=True)
    times = rows["time"]
    return TriggerFile(path.name, len(rows), times[0].as_py(), times[-1].as_py(), sha256(path))


def read_manifest(folder: Path | str) -> TriggerManifest:
    """What a store holds.

    Raises:
        FormatError: There is none, or it is damaged.
    """
    return read_record(Path(folder) / MANIFEST_NAME, TriggerManifest, "the step that writes the triggers")


def open_triggers(path: Path | str) -> "ds.Dataset":
    """Triggers as a data set of pyarrow, from which rows are taken by filters; nothing is read yet.

    Args:
        path: A store, or one Parquet file with the columns of `SCHEMA`.

    Raises:
        FormatError: There is none, a file of the store is missing or another one, or columns are.
    """
    import pyarrow.dataset as ds

    path = Path(path)
    files = [(path / one.file, one.rows) for one in read_manifest(path).files] if path.is_dir() else [(path, None)]
    if not files:
        return ds.dataset(SCHEMA.empty_table())
    for file, rows in files:
        held = _rows(file)
        if rows is not None and held != rows:
            raise FormatError(f"{file} holds {held} triggers, its manifest says {rows}. Make the store again.")
    return ds.dataset([str(file) for file, _ in files], schema=SCHEMA, format="parquet")


def _rows(path: Path) -> int:
    """Number of rows of a file, if it has the columns of triggers."""
    if not path.is_file():
        raise FormatError(f"{path} does not exist. Make the store again, or correct the path.").lacking(path)
    try:
        footer = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path} cannot be read as Parquet ({error}). Bring it or make it again.") from error
    checked_schema(footer.schema_arrow, path)
    return footer.metadata.num_rows
