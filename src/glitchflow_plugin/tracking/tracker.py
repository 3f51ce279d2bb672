"""What pure code may say about its progress. MLflow and TensorBoard are adapters to this, elsewhere in the room."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tracker(Protocol):
    """Receives numbers, pictures and texts during a run."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Record one number."""

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Record one matplotlib figure."""

    def params(self, values: dict[str, object]) -> None:
        """Record the settings of the run."""

    def text(self, name: str, text: str) -> None:
        """Record one text."""
