"""How steps keep their pictures."""

from pathlib import Path
from typing import Any

from glitchflow_plugin.data.files import atomic_path


def save_figure(figure: Any, path: Path | str, dpi: int = 120) -> Path:
    """Write a matplotlib figure, whole or not at all, and return its path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return Path(path)
