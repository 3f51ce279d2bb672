"""TensorBoard as a tracker: the `Tracker` protocol plus tables, bare images and histograms.

TensorBoard has three horizontal axes: a whole number (STEP), the clock of whoever writes (WALL), and the time since the
first point (RELATIVE). What belongs to a GPS time is given that time, so that the latter two are the detector's.
"""

import html
import io
import logging
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

_GPS_EPOCH = 315964800  # 6 January 1980 as Unix time, s
#: GPS times after the leap seconds since then (IERS Bulletin C). Unix time leaves leap seconds out.
_LEAPS = (
    46828801, 78364802, 109900803, 173059204, 252028805, 315187206, 346723207, 393984008, 425520009, 457056010,
    504489611, 551750412, 599184013, 820108814, 914803215, 1025136016, 1119744017, 1167264018,
)  # fmt: skip
#: What Markdown would read as markup within a cell; HTML is escaped by its own rule.
_MARKUP = re.compile(r"([\\`*_\[\]{}!|])")


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

    def metric(self, name: str, value: float, step: int, *, gps: float | None = None) -> None:
        """Record one point of a curve; `gps` is its GPS time, s, if it has one."""
        self._writer.add_scalar(name, float(value), global_step=step, walltime=_unix(gps))

    def figure(self, name: str, figure: Any, step: int = 0, *, gps: float | None = None) -> None:
        """Record a matplotlib figure, or the PNG file that it was drawn to; `gps` as above."""
        if isinstance(figure, Path):
            png = figure.read_bytes()
        else:
            figure.savefig(drawn := io.BytesIO(), format="png")
            png = drawn.getvalue()
        add_png(self._writer, name, png, step, walltime=_unix(gps))

    def params(self, values: Mapping[str, object]) -> None:
        """Record settings as a table; nested keys are joined by dots."""
        self.table("params", ("setting", "value"), sorted(_flat(values).items()))

    def text(self, name: str, text: str) -> None:
        """Record text; TensorBoard renders Markdown."""
        self._writer.add_text(name, text)

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> None:
        """Record a table; what the cells hold is shown as it is.

        Args:
            name: Name of the text.
            columns: Headings.
            rows: Cells of each row, in the order of the columns.
            note: Markdown above the table.
        """
        lines = [_row(columns), f"|{' --- |' * len(columns)}", *map(_row, rows)]
        self.text(name, "\n".join([*([note, ""] if note else []), *lines]))

    def image(self, name: str, image: np.ndarray, step: int = 0, *, gps: float | None = None) -> None:
        """Record a bare image, uint8, shape (height, width, 3); `gps` as above."""
        self._writer.add_image(name, image, global_step=step, dataformats="HWC", walltime=_unix(gps))

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


def add_png(writer: SummaryWriter, name: str, png: bytes, step: int, *, walltime: float | None = None) -> None:
    """Record a picture as it was drawn, without drawing it once more.

    Args:
        writer: Of a TensorBoard folder.
        name: Name of the picture.
        png: Bytes of a PNG file; ISO/IEC 15948 has its width and height behind 16 of them.
        step: Whole number that it stands at.
        walltime: Unix time, s; now if None.
    """
    width, height = struct.unpack(">II", png[16:24])
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step, walltime)


def picture_name(row: int) -> str:
    """Under which the picture of an event is found, from its row in a table."""
    return f"row/{row:04d}"


def unix_time(gps: float) -> float:
    """Unix time of a GPS time, s.

    >>> unix_time(1126259462.4)  # 14 September 2015, 09:50:45.4 UTC
    1442224245.4
    """
    return gps + _GPS_EPOCH - bisect_right(_LEAPS, gps)


def _unix(gps: float | None) -> float | None:
    return None if gps is None else unix_time(gps)


def _flat(params: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: object) -> str:
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(str(value).split()), quote=False))
