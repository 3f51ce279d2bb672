"""The outbox: trained twins that the registry has not taken yet. Nothing in it is a pickle.

Each is a folder with the networks as safetensors, `bundle.json`, and `entry.json`, which is written last: a folder
without it was never finished. What is registered is always made from here, so the way back is used every time.
"""

import logging
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from glitchflow_plugin.data.files import atomic_path, read_json, sha256, write_json
from glitchflow_plugin.data.lock import LOCK_NAME, Hold, take
from glitchflow_plugin.data.names import LONGEST_MODEL, check_alias, check_name
from glitchflow_plugin.errors import BusyError, ConfigurationError, FormatError, RegistryError
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.tracking.connection import registry
from glitchflow_plugin.tracking.registry import TWIN_FILE, packed, register, unpacked
from glitchflow_plugin.tracking.runs import Unsent, complete
from glitchflow_plugin.tracking.versions import (
    BUNDLE_FILE,
    CHAMPION,
    CHECKSUMS,
    Decision,
    ModelVersion,
    aliases_of,
    find,
    settle,
    versions_of,
    write_pages,
)

logger = logging.getLogger(__name__)

ENTRY_FILE = "entry.json"
_MARK = "outbox"


@dataclass(frozen=True)
class Destination:
    """Where a twin shall go.

    Attributes:
        tracking_uri: Address of the registry.
        name: Name of the registered model.
        experiment: MLflow experiment.
        artifacts: Where a database keeps its files.
        alias: Alias of the champion.
    """

    tracking_uri: str
    name: str
    experiment: str
    artifacts: str
    alias: str = CHAMPION


@dataclass(frozen=True)
class Entry:
    """One trained twin that waits.

    Attributes:
        folder: Where it is.
        destination: Where it shall go.
        run_id: Run that made it; None if there is none.
        unsent: What that run could not log: `kind`, `name`, `value` and `step` of each.
        tags: Tags of the version to be.
        first: What the gate decided.
        files: Checksum by file.
        lock: Held by this process for as long as it works on the entry; None: not held.
    """

    folder: Path
    destination: Destination
    run_id: str | None = None
    unsent: Sequence[Mapping[str, Any]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    first: Decision = field(default_factory=Decision)
    files: Mapping[str, str] = field(default_factory=dict)
    lock: Hold | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """Name of the folder."""
        return self.folder.name


def keep(
    outbox: Path | str,
    bundle: ModelBundle,
    destination: Destination,
    *,
    run_id: str | None = None,
    unsent: Sequence[Mapping[str, Any]] = (),
    tags: Mapping[str, str] | None = None,
    first: Decision | None = None,
    hold: bool = False,
) -> Entry:
    """Put a trained twin into the outbox, whole or not at all.

    Args:
        outbox: The folder.
        bundle: The twin, whose network is one of `models.build`.
        destination: Where it shall go.
        run_id: Run that made it.
        unsent: What that run could not log.
        tags: Tags of the version to be.
        first: See `Entry`.
        hold: Let no other process send it, until `discard` or `release`.

    Returns:
        The entry.

    Raises:
        DataError: The disk is full.
    """
    folder = Path(outbox) / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}"
    try:
        for name, content in packed(bundle).items():
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)
        write_json(folder / BUNDLE_FILE, bundle.to_dict())
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        entry = Entry(folder, destination, run_id, tuple(unsent), dict(tags or {}), Decision(**(first or {})), files)
        entry = replace(entry, lock=_lock(folder) if hold else None)
        _save(entry)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return entry


def waiting(outbox: Path | str) -> list[Entry]:
    """What waits, the oldest first. Entries that cannot be read are reported and left where they are."""
    entries, damaged = survey(outbox)
    for error in damaged:
        logger.warning("%s", error)
    return entries


def survey(outbox: Path | str) -> tuple[list[Entry], list[FormatError]]:
    """What waits, the oldest first, and what is wrong with entries that cannot be read."""
    entries, damaged = [], []
    for path in sorted(Path(outbox).glob(f"*/{ENTRY_FILE}")):
        try:
            entries.append(_open(path.parent))
        except FormatError as error:
            if path.exists():  # another process has not just finished it
                damaged.append(error)
    return entries, damaged


def judged(entry: Entry, first: Decision) -> Entry:
    """Write down what the gate has decided of an entry.

    Args:
        entry: The entry.
        first: What it has decided.

    Raises:
        DataError: The disk is full. What was kept stays.
    """
    entry = replace(entry, first=Decision(**first))
    _save(entry)
    return entry


def send(entry: Entry) -> ModelVersion:
    """Register a twin from the outbox, with what its run could not log. It stays in the outbox until `discard`.

    Raises:
        BusyError: Another process is at work on it.
        FormatError: The files are not those that were kept.
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    with _held(entry):
        _check(entry)
        there, uri = entry.destination, entry.destination.tracking_uri
        description = read_json(entry.folder / BUNDLE_FILE)
        with registry(uri):
            client = MlflowClient(uri, uri)
            run_id = _complete_run(client, entry)
            found = _sent_before(client, entry, run_id)
        if found is not None:
            version = find(there.name, found, uri)
            write_pages(version, description, there.alias)
            return version
        return register(
            unpacked(entry.folder, description),
            there.name,
            uri,
            experiment=there.experiment,
            artifacts=there.artifacts,
            run_id=run_id,
            tags={**entry.tags, _MARK: entry.id},
            alias=there.alias,
        )


def upload(entry: Entry) -> ModelVersion:
    """Register a twin that waited, and remove it from the outbox.

    What was decided of it holds as long as the champion is still the one that it was compared with, or there is none
    and it was judged as the first. Another comparison needs the validation data, which are not here: promote by hand.

    Raises:
        BusyError: Another process is at work on it.
        FormatError: The files are not those that were kept.
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    with _held(entry) as mine:
        version, there, decision = send(mine), mine.destination, mine.first
        with registry(there.tracking_uri):
            champion = aliases_of(MlflowClient(there.tracking_uri, there.tracking_uri), there.name).get(there.alias)
        if version.promoted is None:
            if champion not in (decision.get("against"), version.version):
                decision = Decision()
            by_hand = f"uploaded later and not compared: glitchflow models promote {there.name} {version.version}"
            decision = Decision(**{**decision, "reason": decision.get("reason") or by_hand})
            version = settle(version, decision, there.alias)
        discard(mine)
    return version


def rename(outbox: Path | str, entry_id: str, name: str, alias: str | None = None) -> Entry:
    """Give what waits another name in the registry; what is not taken under the present one would wait for ever.

    Args:
        outbox: The folder.
        entry_id: Which entry.
        name: Name of the registered model.
        alias: Alias of the champion; None: as it is.

    Returns:
        The entry as it is now.

    Raises:
        ConfigurationError: The registry would not take that either.
        RegistryError: There is no such entry.
        BusyError: Another process is at work on it.
        FormatError: It cannot be read.
    """
    entry = _open(_folder_of(outbox, entry_id))
    alias = alias or entry.destination.alias
    there = replace(entry.destination, name=check_name(name, "name", LONGEST_MODEL), alias=check_alias(alias, "alias"))
    with _held(entry):
        entry = replace(entry, destination=there)
        _save(entry)
    return entry


def drop(outbox: Path | str, entry_id: str) -> None:
    """Remove what waits, even if it cannot be read.

    Raises:
        RegistryError: There is no such entry.
        BusyError: Another process is at work on it.
    """
    folder = _folder_of(outbox, entry_id)
    with closing(_lock(folder)):
        discard(Entry(folder, Destination("", "", "", "")))


def discard(entry: Entry) -> None:
    """Remove an entry, `entry.json` first, so that half an entry is none."""
    (entry.folder / ENTRY_FILE).unlink(missing_ok=True)
    shutil.rmtree(entry.folder, ignore_errors=True)
    release(entry)


def release(entry: Entry) -> None:
    """Let other processes send an entry."""
    if entry.lock is not None:
        entry.lock.close()


def _folder_of(outbox: Path | str, entry_id: str) -> Path:
    """Folder of an entry."""
    there = sorted(path.parent.name for path in Path(outbox).glob(f"*/{ENTRY_FILE}"))
    if entry_id not in there:
        raise RegistryError(f"nothing called {entry_id!r} waits in {outbox}. There: {', '.join(there) or 'nothing'}.")
    return Path(outbox) / entry_id


def _lock(folder: Path) -> Hold:
    """Hold an entry."""
    if not folder.exists():
        raise BusyError(f"{folder} is gone: another run has uploaded it.")
    return take(folder / LOCK_NAME, "upload")


@contextmanager
def _held(entry: Entry) -> Iterator[Entry]:
    """An entry that still waits, held by this process; nothing is done where it is already."""
    if entry.lock is not None:
        yield entry
        return
    with closing(_lock(entry.folder)) as lock:
        if not (entry.folder / ENTRY_FILE).exists():
            raise BusyError(f"{entry.folder} is gone: another run has uploaded it.")
        yield replace(entry, lock=lock)


def _check(entry: Entry) -> None:
    """Refuse a name that no registry takes, and files that are not those that were kept."""
    there = entry.destination
    try:
        check_name(there.name, "name", LONGEST_MODEL)
        check_alias(there.alias, "alias")
    except ConfigurationError as error:
        advice = f"glitchflow models rename {entry.id} NAME --outbox {entry.folder.parent}"
        raise RegistryError(f"the registry does not take it: {error} To change it: {advice}") from error
    if not {TWIN_FILE, BUNDLE_FILE} <= set(entry.files):
        raise FormatError(f"{entry.folder / ENTRY_FILE} lacks checksums. It is not uploaded. Remove {entry.folder}.")
    for name, expected in entry.files.items():
        path = entry.folder / name
        if not path.exists() or sha256(path) != expected:
            raise FormatError(
                f"{path} is not what was kept. It is not uploaded. Remove {entry.folder}, or train again."
            )


def _complete_run(client: MlflowClient, entry: Entry) -> str | None:
    """Send to the run what it could not log, and end it; None if the registry has no such run, or has deleted it."""
    if entry.run_id is None:
        return None
    try:
        run = client.get_run(entry.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    if run.info.lifecycle_stage != "active":
        return None
    # an upload that failed half-way has sent some of them
    lost = complete(client, entry.run_id, [Unsent(**item) for item in entry.unsent])
    if lost:
        raise RegistryError(
            f"MLflow at {entry.destination.tracking_uri} does not keep what it is told ({lost[0].name}, and "
            f"{len(lost) - 1} more). Have a look at the server; the trained twin waits in {entry.folder}."
        )
    client.set_terminated(entry.run_id)
    return entry.run_id


def _sent_before(client: MlflowClient, entry: Entry, run_id: str | None) -> int | None:
    """The version that a run made of this entry before it was killed, or of the same weights before it was resumed."""
    weights = entry.files[TWIN_FILE]
    for version in versions_of(client, entry.destination.name):
        same_run = run_id is not None and version.run_id == run_id
        if version.tags.get(_MARK) == entry.id or (same_run and weights in version.tags.get(CHECKSUMS, "")):
            return int(str(version.version))
    return None


def _save(entry: Entry) -> None:
    content = {key: value for key, value in vars(entry).items() if key not in ("folder", "lock")}
    write_json(entry.folder / ENTRY_FILE, {**content, "destination": vars(entry.destination)})


def _open(folder: Path) -> Entry:
    content = read_json(folder / ENTRY_FILE)
    try:
        there, unsent = Destination(**content["destination"]), tuple(content["unsent"])
        return Entry(**{**content, "folder": folder, "destination": there, "unsent": unsent})
    except (KeyError, TypeError) as error:
        raise FormatError(f"{folder / ENTRY_FILE} is not one of an outbox ({error}). Remove {folder}.") from error


__all__ = [
    "BusyError",
    "Destination",
    "Entry",
    "discard",
    "drop",
    "judged",
    "keep",
    "release",
    "rename",
    "send",
    "survey",
    "upload",
    "waiting",
]
