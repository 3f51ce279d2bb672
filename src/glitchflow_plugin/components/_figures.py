"""How steps keep their pictures."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from glitchflow_plugin.data.classes import event_classes
from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.settings import section

logger = logging.getLogger(__name__)


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


def save_figure(figure: Any, path: Path | str, dpi: int = 120) -> Path:
    """Write a matplotlib figure, whole or not at all, and return its path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return Path(path)
