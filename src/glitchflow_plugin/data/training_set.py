"""What the Processor leaves for the Trainer: which windows, and how energies are scaled. No map is copied."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field

from glitchflow_plugin.data.files import atomic_path, check_file, parsed, read_json, read_record, sha256, write_json
from glitchflow_plugin.data.reference_file import REFERENCE_NAME
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.splits import PARTS, SPLIT_NAME, Split
from glitchflow_plugin.errors import ConfigurationError, FormatError, LeakageError, NoEventsError
from glitchflow_plugin.settings import Count, NotNegative, Number, Positive, section
from glitchflow_plugin.types.plain import JsonObject
from glitchflow_plugin.verdict import GLITCH_THRESHOLD, holds_glitch

FORMAT_VERSION = 1
INDEX_NAME = "windows.parquet"
SCALING_NAME = "scaling.json"
DESCRIPTION_NAME = "training_set.json"
_LISTED = (SPLIT_NAME, INDEX_NAME, SCALING_NAME)
_STEP = "the Processor"

COLUMNS: dict[str, str] = {
    "part": "str",
    "event_id": "str",
    "row": "int64",
    "start": "int64",
    "gps_start": "float64",
    "peak": "float32",
    "glitch": "bool",
}
"""Columns of the window index: the part of the split, the event and its row in the spectrogram set, the first column
of the window, the GPS time of that column, the largest strain energy in it (SNR²), and whether that is a glitch."""


@section
class WindowSettings:
    """Which windows are learnt from; conf/windows.yaml explains the keys."""

    size: Count = 64
    threshold: Annotated[Number, Field(ge=0)] = GLITCH_THRESHOLD
    background_ratio: NotNegative | None = None
    clamp: Positive = 1e4
    transform: Literal["sqrt", "log1p"] = "sqrt"
    scale_quantile: Annotated[float, Field(gt=0, le=1)] = 0.9999
    batch_events: Count = 32
    seed: int = 0


@dataclass(frozen=True)
class _Scaling:
    """Content of scaling.json, as `signal.scaling.Scaling.to_dict` gives it."""

    transform: Literal["sqrt", "log1p"]
    clamp: float
    scale: dict[str, float]

    def __post_init__(self) -> None:
        """Refuse what cannot scale."""
        if not self.clamp > 0 or not self.scale or not all(value > 0 for value in self.scale.values()):
            raise FormatError(f"expected a clamp > 0 and a scale > 0 for each channel, got {self.clamp}, {self.scale}")


@dataclass(frozen=True)
class _Description:
    """Content of training_set.json.

    Attributes:
        files: Checksum of each file of the set; empty in sets of earlier versions.
    """

    format_version: int
    spectrograms: str
    fingerprint: str
    settings: WindowSettings
    counts: dict[str, dict[str, int]]
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what this program does not read."""
        if self.format_version != FORMAT_VERSION:
            raise FormatError(f"format version {self.format_version}, this program reads {FORMAT_VERSION}")
        if self.files and self.files.keys() - {REFERENCE_NAME} != set(_LISTED):
            raise FormatError(f"expected checksums of {', '.join(_LISTED)}, got some of {', '.join(self.files)}")


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Split, window index and scaling over a spectrogram set on disk.

    Attributes:
        folder: Holds split.json, windows.parquet, scaling.json and training_set.json.
        spectrograms: Folder of the spectrogram set.
        fingerprint: Checksum of that set, so that a changed set is noticed.
        split: Events by part.
        windows: One row a window, columns as in `COLUMNS`.
        scaling: `transform`, `clamp` and `scale` by channel name.
        settings: With which the windows were made.
    """

    folder: Path
    spectrograms: Path
    fingerprint: str
    split: Split
    windows: pd.DataFrame
    scaling: JsonObject
    settings: WindowSettings = field(default_factory=WindowSettings)

    def __post_init__(self) -> None:
        """Refuse an index that contradicts the split."""
        _check_windows(self.windows, self.settings)
        part_of = self.split.part_of()
        expected = self.windows["event_id"].map(part_of.get)
        wrong = self.windows.loc[expected != self.windows["part"], "event_id"]
        if len(wrong):
            raise LeakageError(
                f"{len(wrong)} windows stand in another part than their event (the first is {wrong.iloc[0]}). "
                "Run the Processor again."
            )
        parsed(dict(self.scaling), _Scaling, self.folder / SCALING_NAME, _STEP)

    def unused_events(self) -> list[str]:
        """Why each event of the split that has no window has none."""
        maps = self.open_spectrograms()
        usable = dict(zip(maps.event_ids, maps.valid[:, 0], strict=True))
        used = set(self.windows["event_id"])
        unused = [event for name in PARTS for event in self.split.part(name).event_ids if event not in used]
        return ["no background window drawn" if usable[event] else f"{maps.target} not valid" for event in unused]

    def part(self, name: str) -> pd.DataFrame:
        """Windows of one part, in the order of the index.

        Raises:
            ConfigurationError: There is no such part.
        """
        if name not in PARTS:
            raise ConfigurationError(f"expected one of {PARTS}, got {name!r}.")
        return self.windows.loc[self.windows["part"] == name].reset_index(drop=True)

    def with_training_events(self, event_ids: Collection[str]) -> Self:
        """The same, not written, with these training events alone; scaling and the other parts stay as they are."""
        wanted = set(event_ids)
        kept = (self.windows["part"] != "train") | self.windows["event_id"].isin(wanted)
        split = replace(self.split, train=self.split.train.only(wanted))
        return replace(self, split=split, windows=self.windows.loc[kept].reset_index(drop=True))

    def counts(self) -> dict[str, dict[str, int]]:
        """Glitch and background windows by part."""
        return {
            name: {"glitch": int(np.sum(glitch)), "background": int(np.sum(~glitch))}
            for name, glitch in ((name, self.part(name)["glitch"].to_numpy()) for name in PARTS)
        }

    def open_spectrograms(self) -> SpectrogramSet:
        """The maps.

        Raises:
            FormatError: The set is gone, or is another one than when the windows were made.
        """
        spectrograms = SpectrogramSet.open(self.spectrograms)
        if spectrograms.manifest.fingerprint != self.fingerprint:
            raise FormatError(
                f"{self.spectrograms} has changed since the windows were made. Run Splitter and Processor again."
            )
        self._check_against(spectrograms)
        return spectrograms

    def _check_against(self, spectrograms: SpectrogramSet) -> None:
        """Refuse windows that lie outside the maps, and scales of other channels."""
        rows, starts = self.windows["row"].to_numpy(), self.windows["start"].to_numpy()
        inside = (rows < len(spectrograms)) & (starts <= len(spectrograms.times) - self.settings.size)
        if inside.all():
            here = np.array(spectrograms.event_ids, dtype=object)[rows]
            inside = here == self.windows["event_id"].to_numpy(dtype=object)
        if not inside.all():
            place = f"{int((~inside).sum())} of {len(inside)} windows of {self.folder}"
            raise FormatError(f"{place} lie outside the maps in {self.spectrograms}. Run the Processor again.")
        lacking = sorted(set(spectrograms.channels) ^ set(self.scaling["scale"]))
        if lacking:
            raise FormatError(
                f"{self.folder / SCALING_NAME} and the maps in {self.spectrograms} do not have the same channels: only "
                f"one has {lacking[:5]}. Run the Processor again."
            )

    def save(self) -> None:
        """Write everything into the folder, the description last."""
        self.split.save(self.folder)
        with atomic_path(self.folder / INDEX_NAME) as temporary:
            self.windows.to_parquet(temporary, index=False)
        write_json(self.folder / SCALING_NAME, dict(self.scaling))
        description = {
            "format_version": FORMAT_VERSION,
            "spectrograms": str(self.spectrograms),
            "fingerprint": self.fingerprint,
            "settings": vars(self.settings),
            "counts": self.counts(),
            "files": {
                name: sha256(self.folder / name)
                for name in (*_LISTED, REFERENCE_NAME)
                if name in _LISTED or (self.folder / name).exists()
            },
        }
        write_json(self.folder / DESCRIPTION_NAME, description)

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a training set.

        Raises:
            FormatError: Files are missing or no training set.
            LeakageError: The index contradicts the split.
        """
        folder = Path(folder)
        description = read_record(folder / DESCRIPTION_NAME, _Description, _STEP)
        for name, expected in description.files.items():
            check_file(folder / name, expected, "the Splitter and the Processor" if name == SPLIT_NAME else _STEP)
        try:
            windows = pd.read_parquet(folder / INDEX_NAME)
        except Exception as error:  # pyarrow raises whatever the damaged byte leads to
            raise FormatError(
                f"{folder / INDEX_NAME} cannot be read ({type(error).__name__}: {error}). Run {_STEP} again."
            ) from error
        found = cls(
            folder=folder,
            spectrograms=Path(description.spectrograms),
            fingerprint=description.fingerprint,
            split=Split.open(folder),
            windows=windows,
            scaling=read_json(folder / SCALING_NAME, _STEP),
            settings=description.settings,
        )
        if found.counts() != description.counts:
            raise FormatError(f"{folder / INDEX_NAME} has other windows than {DESCRIPTION_NAME}. Run {_STEP} again.")
        return found


def _check_windows(windows: pd.DataFrame, settings: WindowSettings) -> None:
    """Refuse an index that cannot be one.

    Raises:
        FormatError: A column is missing or of another type, or a value is out of range.
    """
    missing = [name for name in COLUMNS if name not in windows.columns]
    if missing:
        raise FormatError(f"the window index lacks the columns {missing}. Run {_STEP} again.")
    for name, kind in COLUMNS.items():
        found = windows[name].dtype
        fits = pd.api.types.is_string_dtype(windows[name]) if kind == "str" else found == kind
        if not fits:
            raise FormatError(f"the window index: expected {name} as {kind}, got {found}. Run {_STEP} again.")
    peak = windows["peak"].to_numpy()
    flaws = {
        "row": windows["row"] < 0,
        "start": windows["start"] < 0,
        "gps_start": ~np.isfinite(windows["gps_start"]),
        "peak": ~np.isfinite(peak) | (peak < 0),
        "glitch": windows["glitch"].to_numpy() != holds_glitch(peak, settings.threshold),
        "event_id": windows.duplicated(["event_id", "start"]),
    }
    wrong = [f"{name} in {int(np.sum(flaw))}" for name, flaw in flaws.items() if np.any(flaw)]
    if wrong:
        raise FormatError(f"the window index: out of range or doubled: {', '.join(wrong)} windows. Run {_STEP} again.")


def index_windows(
    spectrograms: SpectrogramSet, split: Split, starts: tuple[int, ...], settings: WindowSettings
) -> pd.DataFrame:
    """List the windows of all events of a split whose strain is valid.

    Args:
        spectrograms: The maps; only the strain is read, a few events at a time.
        split: Events by part.
        starts: First columns of the windows of a map.
        settings: Window size, threshold, share of background.

    Returns:
        One row a window, columns as in `COLUMNS`; events in the order of the set, windows in the order of `starts`.

    Raises:
        FormatError: The split names events that the set lacks.
        NoEventsError: No window is left for training or validation.
    """
    part_of = split.part_of()
    unknown = sorted(set(part_of) - set(spectrograms.event_ids))
    if unknown:
        raise FormatError(
            f"the split names {len(unknown)} events that the set lacks ({unknown[:5]}). Run the Splitter again."
        )
    rows: list[tuple[object, ...]] = []
    first = 0
    for batch in spectrograms.batches(settings.batch_events, channels=[spectrograms.target]):
        for offset, event_id in enumerate(batch.event_ids):
            part = part_of.get(event_id)
            if part is None or not batch.valid[offset, 0]:
                continue
            for start in starts:
                peak = batch.maps[offset, 0, :, start : start + settings.size].max()
                gps = float(batch.gps_start[offset] + spectrograms.times[start])
                rows.append((part, event_id, first + offset, start, gps, peak, holds_glitch(peak, settings.threshold)))
        first += len(batch)
    index = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    index = _thin_background(index, settings)
    for name in ("train", "validation"):
        if not (index["part"] == name).any():
            raise NoEventsError(f"no window is left for {name}: no event of it has a valid {spectrograms.target}.")
    return index


def _thin_background(index: pd.DataFrame, settings: WindowSettings) -> pd.DataFrame:
    if settings.background_ratio is None:
        return index
    train = index["part"] == "train"
    background = np.flatnonzero(train & ~index["glitch"])
    keep = min(len(background), round(settings.background_ratio * int((train & index["glitch"]).sum())))
    chosen = np.random.default_rng(settings.seed).choice(background, size=keep, replace=False)
    dropped = np.setdiff1d(background, chosen)
    return index.drop(index=index.index[dropped]).reset_index(drop=True)
