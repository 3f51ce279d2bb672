"""What a user may choose about pictures."""

import logging
from collections.abc import Mapping
from typing import Literal

from glitchflow_plugin.data.classes import event_classes
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
