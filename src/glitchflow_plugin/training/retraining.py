"""Whether and on what a champion is trained again: decisions about the latest events."""

from dataclasses import field

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Count, section
from glitchflow_plugin.signal.drift import DriftSettings


@section
class RetrainSettings:
    """The keys of retrain.yaml, which explains them."""

    buffer: str
    max_events: int = 2000
    min_events: Count = 400
    force: bool = False
    drift: DriftSettings = field(default_factory=DriftSettings)

    def __post_init__(self) -> None:
        """Refuse what is never looked at."""
        if not self.min_events <= self.max_events:
            message = f"retrain.yaml: expected 1 <= min_events <= max_events, got {self.min_events}, {self.max_events}."
            raise ConfigurationError(message)
