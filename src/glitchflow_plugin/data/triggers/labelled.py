"""Labelled times on disk, with what they are of: the record that goes from Label and Split to Train."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from glitchflow_plugin.data.files import read_record, sha256, write_json
from glitchflow_plugin.data.triggers.labels import LabelledTimes, LabelSettings
from glitchflow_plugin.data.triggers.store import read_manifest
from glitchflow_plugin.errors import ConfigurationError, FormatError

RECORD_NAME, TIMES_NAME = "labelled.json", "times.parquet"
_STEPS = "the step Label or Split of triggers_pipeline"


@dataclass(frozen=True)
class Labelled:
    """What labelled times are of. The times are in `TIMES_NAME` beside it.

    Attributes:
        store: Folder of the triggers.
        fingerprint: Of that store.
        target: Channel of the strain.
        block_length: Of the blocks of GPS time that are divided, s.
        times_sha256: Checksum of the times.
        settings: How they were labelled and, once they are divided, how that was done; by step.
    """

    store: str
    fingerprint: str
    target: str
    block_length: float
    times_sha256: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> LabelSettings:
        """How they were labelled; records of before there was a choice are of times of the strain."""
        return LabelSettings(**{"times": "strain", **self.settings["label"]})

    def write(self, folder: Path | str, times: LabelledTimes) -> "LabelledSet":
        """Write both into a folder, the record last."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD_NAME).unlink(missing_ok=True)  # it tells of times that are about to change
        times.write(folder / TIMES_NAME)
        record = replace(self, times_sha256=sha256(folder / TIMES_NAME))
        write_json(folder / RECORD_NAME, asdict(record))
        return LabelledSet(folder, record)


@dataclass(frozen=True)
class LabelledSet:
    """A handle on labelled times.

    Attributes:
        folder: Where they are.
        record: What they are of.
    """

    folder: Path
    record: Labelled

    @classmethod
    def open(cls, folder: Path | str) -> "LabelledSet":
        """Open what `Labelled.write` wrote.

        Raises:
            FormatError: There is none, or the times are not those that were written.
        """
        folder = Path(folder)
        found = cls(folder, read_record(folder / RECORD_NAME, Labelled, _STEPS))
        path = folder / TIMES_NAME
        if not path.is_file() or sha256(path) != found.record.times_sha256:
            raise FormatError(f"{path} is missing or not what was written. Run {_STEPS} again.").lacking(path)
        return found

    def times(self) -> LabelledTimes:
        """All times."""
        return LabelledTimes.read(self.folder / TIMES_NAME)

    def check_store(self) -> Path:
        """Folder of the triggers, which must still be those that were labelled.

        Raises:
            FormatError: They are others, or gone.
        """
        if read_manifest(self.record.store).fingerprint != self.record.fingerprint:
            raise FormatError(
                f"{self.record.store} holds other triggers than those that {self.folder} has labels of. Label them "
                "again."
            )
        return Path(self.record.store)


def chosen_target(given: str | None, live: str | None, channels: Mapping[str, int], store: Path) -> str:
    """The channel of the strain: the one that is given, or whose live time lies beside the store.

    Raises:
        ConfigurationError: Nothing tells it, or the store has none of its triggers.
    """
    target = given or live
    if target is None:
        raise ConfigurationError(
            f"{store} does not tell which channel is the strain. Name it: triggers.target=CHANNEL."
        )
    if target not in channels:
        raise ConfigurationError(
            f"triggers.target: {store} holds no trigger of {target}, but of {', '.join(sorted(channels)[:8])}. "
            "Correct it."
        )
    return target
