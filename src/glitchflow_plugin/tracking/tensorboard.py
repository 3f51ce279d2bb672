"""TensorBoard as a tracker: the `Tracker` protocol plus bare images and histograms."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class TensorBoardTracker:
    """Writes to a TensorBoard folder; use it as a context manager so that everything is on disk at the end.

    What an earlier run left in the folder is removed: TensorBoard would mix the two in one curve.

    Attributes:
        folder: Where the event files go.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        for old in self.folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(log_dir=str(self.folder))

    def metric(self, name: str, value: float, step: int) -> None:
        """Record one point of a curve."""
        self._writer.add_scalar(name, float(value), global_step=step)

    def figure(self, name: str, figure: Any, step: int = 0) -> None:
        """Record a matplotlib figure, drawn now."""
        self._writer.add_figure(name, figure, global_step=step, close=False)

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings as a table; nested keys are joined by dots."""
        rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in sorted(_flat(values).items())]
        self._writer.add_text("params", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def text(self, name: str, text: str) -> None:
        """Record text; TensorBoard renders Markdown."""
        self._writer.add_text(name, text)

    def image(self, name: str, image: np.ndarray, step: int = 0) -> None:
        """Record a bare image, uint8, shape (height, width, 3)."""
        self._writer.add_image(name, image, global_step=step, dataformats="HWC")

    def histogram(self, name: str, values: np.ndarray, step: int = 0) -> None:
        """Record a histogram; TensorBoard refuses an empty one, so that is left out."""
        if np.size(values):
            self._writer.add_histogram(name, np.asarray(values), global_step=step)

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()

    def __enter__(self) -> "TensorBoardTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
