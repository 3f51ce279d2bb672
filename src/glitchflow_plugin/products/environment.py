"""Where numbers come from: the code, the interpreter, the machine and every installed package."""

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from glitchflow_plugin import __version__

CHECKOUT = Path(__file__).resolve().parents[3]
"""The checkout, where this is one: src/glitchflow_plugin/products/environment.py."""


def git_commit(checkout: Path = CHECKOUT) -> str | None:
    """Commit of the checkout that the code runs from, with `+changes` where files differ from it.

    None for an installed package, also one that is installed somewhere inside another repository.
    """
    if not (checkout / ".git").exists() or not (checkout / "src" / "glitchflow_plugin").is_dir():
        return None
    commit = _git(checkout, "rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else "")


def program() -> dict[str, str | None]:
    """The code and what it runs on; JSON-like."""
    return {
        "glitchflow_plugin": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }


def environment() -> dict[str, object]:
    """Everything that decides numbers beside data and settings; JSON-like."""
    return {**program(), "packages": dict(_packages())}


@cache  # half a second for some hundred packages, which stay what they are while a process runs
def _packages() -> dict[str, str]:
    """Version by name of every installed package."""
    known = [(found["Name"], found["Version"]) for found in (each.metadata for each in metadata.distributions())]
    return dict(sorted((one for one in known if one[0]), key=lambda one: one[0].lower()))


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603  # fixed arguments
            ["git", "-C", str(checkout), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
