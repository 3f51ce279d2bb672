"""Who is at work in a folder: locks that the system lets go when their process ends, however it ends.

They are advisory locks of the kind `flock`: between the processes of a machine, and on NFS, GPFS and CephFS between
machines too. Lustre needs the mount option `flock`, BeeGFS `tuneUseGlobalFileLocks`; with less they hold on one machine
alone. Where a file system has no locks that is said, and the work goes on without.
"""

import errno
import fcntl
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from glitchflow_plugin.data.files import explained
from glitchflow_plugin.errors import BusyError, DataError

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
#: Seconds in which those who share a lock settle who came first.
_SETTLE = 5.0
_PAUSE = 0.05
#: What `atomic_path` leaves behind when its process is killed.
_LEFT_BEHIND = re.compile(r"\..+-[a-z0-9_]{8}\.tmp(\..+)?")

_held: set[IO[str]] = set()


def _forget() -> None:
    """A forked worker must not keep what its parent holds once that is gone."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_forget)


class Hold:
    """A lock that this process has until `close`.

    Args:
        file: The lock's file, open.
        alone: Whether nobody shares it.
    """

    def __init__(self, file: IO[str], *, alone: bool) -> None:
        self.file, self.alone = file, alone
        _held.add(file)

    def close(self) -> None:
        """Let it go."""
        if self.file.closed:
            return
        if self.alone:
            with suppress(OSError):
                self.file.truncate(0)
        _held.discard(self.file)
        self.file.close()


def take(path: Path | str, work: str, *, shared: str | None = None, patience: float | None = None) -> Hold:
    """Take a lock.

    Args:
        path: File of the lock, which is made, with its folders, and stays.
        work: What is done under it, for the messages that others get: the name of a step.
        shared: Others who give the same text may have the lock at the same time; None: nobody else may.
        patience: Seconds to wait for others; None: not at all, or, for those who share, until it is settled who came
            first.

    Raises:
        BusyError: Somebody else has it; the message says who, and since when.
        DataError: The folder cannot be written.
    """
    path, end = Path(path), time.monotonic() + (patience if patience is not None else _SETTLE if shared else 0.0)
    try:
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8", errors="replace")
            try:
                # whoever has removed the folder meanwhile has removed the lock with it
                if _locked(file, work, shared) and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return Hold(file, alone=shared is None)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    file.close()
                    raise
                logger.warning("%s cannot be locked (%s): let no two runs work there at once.", path.parent, error)
                return Hold(file, alone=shared is None)
            holders = _holders(file)
            file.close()
            if time.monotonic() >= end:
                raise _busy(path, holders)
            time.sleep(_PAUSE)
    except OSError as error:
        raise explained(error, path.parent) from error


@contextmanager
def at_work(folder: Path | str, work: str, *, shared: str | None = None, several: bool = False) -> Iterator[None]:
    """Hold a folder while something is written there; what a killed run left half-written in it is removed.

    Args:
        folder: Where `work` writes. Folders below it that have a lock of their own are others'.
        work: As for `take`.
        shared: As for `take`; nothing is removed then.
        several: Whether this process holds it for others too, who write there; nothing is removed then.

    Raises:
        BusyError: Somebody else is at work there.
        DataError: The folder cannot be written.
    """
    hold = take(Path(folder) / LOCK_NAME, work, shared=shared)
    try:
        if shared is None and not several:
            tidy(Path(folder))
        yield
    finally:
        hold.close()


@contextmanager
def in_use(folder: Path | str, work: str) -> Iterator[None]:
    """Let nobody write to a folder while it is read; others may read it too.

    Args:
        folder: What is read. One that is not there, or in which we cannot write, is read without.
        work: As for `take`.

    Raises:
        BusyError: Somebody is at work there.
    """
    path = Path(folder) / LOCK_NAME
    if not (path.parent.is_dir() and os.access(path if path.exists() else path.parent, os.W_OK)):
        yield
        return
    hold = None
    try:
        hold = take(path, work, shared="reading")
    except BusyError:
        raise
    except DataError as error:  # a full disk hinders nobody who reads
        logger.warning("%s is read without a lock: %s", folder, error)
    try:
        yield
    finally:
        if hold is not None:
            hold.close()


def tidy(folder: Path) -> None:
    """Remove half-written files from a folder that this process holds."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not Path(place, name, LOCK_NAME).exists()]
        for name in filter(_LEFT_BEHIND.fullmatch, files):
            Path(place, name).unlink(missing_ok=True)


def _locked(file: IO[str], work: str, shared: str | None) -> bool:
    """Whether the lock is ours now."""
    mine = json.dumps(
        {
            "work": work,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "shared": shared,
        }
    )
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if shared is None:
            return False
    else:
        if os.fstat(file.fileno()).st_size:
            file.truncate(0)
        _add(file, mine)
        if shared is None:
            return True
    try:
        # from alone to shared the system lets the lock go for a moment, in which somebody else may come
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    holders = _holders(file)
    if not holders or any(holder.get("shared") != shared for holder in holders):
        return False
    if json.loads(mine) not in holders:
        _add(file, mine)
    return True


def _add(file: IO[str], line: str) -> None:
    file.write(line + "\n")
    file.flush()


def _holders(file: IO[str]) -> list[Mapping[str, Any]]:
    """Who has written into the lock's file."""
    file.seek(0)
    found = []
    for line in file.read().splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            content = line
        found.append(content if isinstance(content, dict) else {"pid": content})
    return found


def _busy(path: Path, holders: list[Mapping[str, Any]]) -> BusyError:
    told = "; ".join(_described(holder) for holder in holders if _may_live(holder)) or "who does not say"
    return BusyError(
        f"another run is at work in {path.parent}: {told}. Wait for it, end it, or give this run a run_name (a folder) "
        "of its own."
    )


def _described(holder: Mapping[str, Any]) -> str:
    text = f"{holder.get('work', 'a step')}, process {holder.get('pid', 'unknown')}"
    text += f" on {holder['host']}" if "host" in holder else ""
    return text + (f", since {holder['since']}" if "since" in holder else "")


def _may_live(holder: Mapping[str, Any]) -> bool:
    """Whether a holder may still be there; of those who share, some may have left."""
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except (ProcessLookupError, KeyError, TypeError, ValueError, OverflowError):  # the last ones: no process has that
        return False
    except PermissionError:
        pass
    return True
