"""Which process writes to a run, so that others can tell when it is gone. Nothing here imports MLflow."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """What tells this process from all others: of this machine, of others, and of containers on it."""
    return {
        "host": socket.gethostname(),
        "machine": _read("/etc/machine-id"),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "namespace": _namespace(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def is_gone(process: Any) -> bool:
    """Whether a process, described by `this_process`, has certainly ended; false where that cannot be seen from here.

    A number can be given to another process later, so the time of its start counts as well.
    """
    here = this_process()
    if not isinstance(process, Mapping) or set(process) != set(here):
        return False
    if (process["host"], process["machine"]) != (here["host"], here["machine"]):
        return False
    if process["boot"] != here["boot"]:
        # where the machine has no name of its own, as in containers, two may well have one host name
        return bool(here["machine"] and here["boot"])
    pid = process["pid"]
    if process["namespace"] != here["namespace"] or not isinstance(pid, int):
        return False
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
    return process["started"] != _started(pid)


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8").strip()
    return ""


def _namespace() -> str:
    """Of process numbers: those of a container are not those of its host."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _started(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty where the system does not tell, or for a zombie."""
    # the name in brackets may hold spaces and brackets itself
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else ""
