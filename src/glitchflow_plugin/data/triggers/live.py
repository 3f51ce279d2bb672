"""When the strain was looked at, beside a store of its triggers: only there, no trigger means that it was quiet."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.data.files import read_record, write_json
from glitchflow_plugin.data.triggers.store import LIVE_NAME
from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.types.intervals import union


@dataclass(frozen=True)
class LiveTime:
    """When one channel of a store was looked at.

    Attributes:
        target: The channel, that of the strain.
        live: Start and end, GPS s, disjoint and rising.
    """

    target: str
    live: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        """Refuse times that are none."""
        rising = all(start < stop for start, stop in self.live)
        if not (self.live and rising and np.array_equal(union(self.live), np.asarray(self.live))):
            raise FormatError(f"expected live times of {self.target}, disjoint and rising, got {self.live[:4]}.")

    @property
    def segments(self) -> Float[np.ndarray, "segment 2"]:
        """The same as an array."""
        return np.asarray(self.live, dtype=np.float64)

    def write(self, folder: Path | str) -> None:
        """Write it into the folder of the store."""
        write_json(Path(folder) / LIVE_NAME, asdict(self))

    @classmethod
    def read(cls, folder: Path | str) -> "LiveTime | None":
        """What `write` wrote; None where a store has none, as those of other programs."""
        path = Path(folder) / LIVE_NAME
        return read_record(path, cls, "the step that makes the triggers") if path.is_file() else None
