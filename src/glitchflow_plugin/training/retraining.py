"""Whether and on what a champion is trained again: decisions about the latest events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glitchflow_plugin.errors import ConfigurationError


@dataclass(frozen=True)
class RetrainSettings:
    """The keys of retrain.yaml.

    Attributes:
        buffer: Folder of event files, or of an event set, to which somebody else adds the latest events.
        max_events: Only that many of the latest are used.
        min_events: Fewer are not looked at.
        force: Train whether they have drifted or not.
        drift: When they have; see `DriftSettings`.
    """

    buffer: str
    max_events: int = 2000
    min_events: int = 400
    force: bool = False
    drift: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 1 <= self.min_events <= self.max_events:
            message = f"retrain.yaml: expected 1 <= min_events <= max_events, got {self.min_events}, {self.max_events}."
            raise ConfigurationError(message)
        if not isinstance(self.force, bool):
            raise ConfigurationError(f"retrain.yaml: force must be true or false, got {self.force!r}.")
