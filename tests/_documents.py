"""Pages of the documentation taken apart: their blocks, and the commands that bash would start."""

import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`((?:itwinai|glitchflow|make) [^`]*)`(?!`)")

#: Programs that pages call; what they are called with is noted, and nothing is done.
_PROGRAMS = (
    *("itwinai", "glitchflow", "make", "torchrun", "srun", "sbatch", "bash", "docker", "ray"),
    *("python", "python3.11", "pip", "pytest", "mlflow", "tensorboard", "apptainer", "mkdir", "chmod", "id"),
)
_NOTE = """#!/bin/sh
for word in "${0##*/}" "$@"; do printf '%s\\0' "$word"; done >> "$CALLS"
printf '\\n' >> "$CALLS"
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, and its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        """Its place, as a terminal takes it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page, language):
    """The fenced blocks of a page in one language, in order."""
    content = page.read_text(encoding="utf-8")
    return [
        Block(page, content[: found.start()].count("\n") + 1, found[2], found[3])
        for found in _BLOCK.finditer(content)
        if found[2] == language
    ]


def inline_commands(page):
    """Commands of this package within the sentences and tables of a page; those with `...` are patterns."""
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return sorted({" ".join(found.split()) for found in _INLINE.findall(prose) if "..." not in found})


def commands(script, folder):
    """What bash would start: the words of each command, with loops and variables as bash sees them.

    Args:
        script: Text for bash.
        folder: An empty one.

    Raises:
        AssertionError: bash cannot read it, or it starts a program that no page has started so far.
    """
    programs = folder / "programs"
    if not programs.exists():
        programs.mkdir()
        for name in _PROGRAMS:
            (programs / name).write_text(_NOTE)
            (programs / name).chmod(stat.S_IRWXU)
    calls = folder / "calls"
    calls.write_bytes(b"")
    begin = "shopt -s expand_aliases\nset -u\nsource() { :; }\ncd() { :; }\n"
    environment = {"PATH": str(programs), "CALLS": str(calls), "HOME": str(folder), "USER": "someone"}
    ran = subprocess.run(
        ["/bin/bash", "-c", begin + script],
        cwd=folder,
        env=environment | {"PWD": str(folder)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert not ran.stderr, f"{ran.stderr}\n{script}"
    return [call.decode().split("\0") for call in calls.read_bytes().split(b"\0\n") if call]
