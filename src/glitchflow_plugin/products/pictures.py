"""What a user may choose about pictures, and how they are kept."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from glitchflow_plugin.data.classes import event_classes
from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.settings import section

logger = logging.getLogger(__name__)

IMAGES = "images"
"""Folder of the pictures below that of a result."""


class Figure(Protocol):
    """What matplotlib draws."""

    def savefig(self, path: Path, /, *, dpi: int) -> None:
        """Write to a file of the kind that its name ends with."""


@section
class PictureSettings:
    """What a user may choose about pictures; conf/pictures.yaml explains the keys."""

    frequency_axis: Literal["log", "linear"] = "log"
    labels: tuple[str, ...] = ()

    def classes(self) -> Mapping[str, str]:
        """Class by event id, in words; what cannot be read is said, and the pictures do without."""
        try:
            return {name: label.replace("_", " ") for name, label in event_classes(self.labels).items()}
        except FormatError as error:
            logger.warning("Pictures name no classes of glitches. %s", error)
            return {}


def save_figure(figure: Figure, path: Path | str, dpi: int = 120) -> Path:
    """Write a matplotlib figure, whole or not at all, and return its path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return Path(path)


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures under their names, in place of the pictures of a run before, and return their paths."""
    for old in folder.glob("*.png"):
        old.unlink()
    return [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]
