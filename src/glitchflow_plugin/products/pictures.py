"""Pictures on disk."""

from pathlib import Path
from typing import Any, Protocol

from glitchflow_plugin.data.files import atomic_path


class Figure(Protocol):
    """What matplotlib draws."""

    def savefig(self, path: Path, /, *, dpi: int) -> Any:
        """Write to a file of the kind that its name ends with."""


def save_figure(figure: Figure, path: Path | str, dpi: int = 120) -> Path:
    """Write a figure, whole or not at all, and return its path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return Path(path)
