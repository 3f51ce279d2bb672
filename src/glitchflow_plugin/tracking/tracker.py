"""What pure code may say about its progress. MLflow and TensorBoard are adapters to this, elsewhere in the room."""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tracker(Protocol):
    """Receives numbers, pictures and texts during a run."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Record one number."""

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Record one matplotlib figure."""

    def params(self, values: dict[str, Any]) -> None:
        """Record the settings of the run."""

    def text(self, name: str, text: str) -> None:
        """Record one text."""


@dataclass
class MemoryTracker:
    """Keeps everything it is told, for tests and for steps without a tracking server.

    Attributes:
        metrics: (step, value) pairs in the order in which they came, by name.
        figures: (step, figure) pairs, by name.
        settings: What `params` was given, the latest value for each name.
        texts: Texts by name.
    """

    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    figures: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def metric(self, name: str, value: float, step: int) -> None:
        """Record one number."""
        self.metrics.setdefault(name, []).append((step, float(value)))

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Record one matplotlib figure."""
        self.figures.setdefault(name, []).append((step, figure))

    def params(self, values: dict[str, Any]) -> None:
        """Record the settings of the run."""
        self.settings.update(values)

    def text(self, name: str, text: str) -> None:
        """Record one text."""
        self.texts[name] = text
