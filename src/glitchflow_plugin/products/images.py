"""Pictures on disk. They are drawn in `plots`; here they are only written, whole or not at all."""

from pathlib import Path
from typing import Any

from glitchflow_plugin.data.files import atomic_path


def write_figure(figure: Any, path: Path | str, dpi: int = 110) -> Path:
    """Write a matplotlib figure, in the format of the path's suffix.

    Args:
        figure: Anything with matplotlib's `savefig`.
        path: For instance `images/loudest.png`; missing folders are made.
        dpi: Dots per inch.

    Returns:
        The path.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return path
