"""A veto as a data-quality flag: when the data were looked at (known), and when they shall not be used (active)."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.file_names import channel_word, ifo_of
from glitchflow_plugin.types.intervals import common, union

GRID = 512
"""Edges of vetoes lie on multiples of 1/GRID s, which are whole nanoseconds and exact in float64 alike: every format
gives such times back bit by bit, and so do their differences."""

_NAME = re.compile(r"[A-Z]\d:[^:\s/]+:\d+")


def _none() -> NDArray[np.float64]:
    return np.empty((0, 2))


@dataclass(frozen=True, eq=False)
class VetoFlag:
    """A data-quality flag, with the fields of gwpy's `DataQualityFlag`.

    Attributes:
        name: `IFO:NAME:VERSION`.
        active: When it is raised, GPS s, disjoint and rising, within `known`, (segment, 2).
        known: When it is known whether it is raised, GPS s, disjoint and rising, (segment, 2).
        isgood: Whether raised means that the data are good; not so for a veto.
        padding: Seconds that were put before and behind each active segment; `active` has them already. As with gwpy,
            the first one is negative where a segment begins earlier.
        description: In words.
        label: A short name for pictures.
        category: 1 to 4, as veto definers count: 1 data that must not be analysed, 2 a known coupling, 3 a
            statistical one; None for none.

    Raises:
        FormatError: The name or the segments are not of that kind.
    """

    name: str
    active: Float[np.ndarray, "segment 2"] = field(default_factory=_none)
    known: Float[np.ndarray, "segment 2"] = field(default_factory=_none)
    isgood: bool = False
    padding: tuple[float, float] = (0.0, 0.0)
    description: str | None = None
    label: str | None = None
    category: int | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be written and read as it is."""
        if not _NAME.fullmatch(self.name):
            raise FormatError(
                f"expected a flag named IFO:NAME:VERSION such as V1:GLF-VETO:1, got {self.name!r}. Rename it."
            )
        for name in ("active", "known"):
            given = np.asarray(getattr(self, name), dtype=np.float64).reshape(-1, 2)
            if not np.array_equal(union(given), given) or not (given[:, 1] > given[:, 0]).all():
                raise FormatError(f"{self.name}: {name} segments must be disjoint, rising and not empty; join them.")
            object.__setattr__(self, name, given)
        if not np.array_equal(common(self.active, self.known), self.active):
            raise FormatError(
                f"{self.name} is active at times at which it is not known. Give the times that were looked at as known."
            )

    @property
    def ifo(self) -> str:
        """Prefix of the interferometer."""
        return self.name.split(":")[0]

    @property
    def tag(self) -> str:
        """Name without interferometer and version."""
        return self.name.split(":")[1]

    @property
    def version(self) -> int:
        """Version."""
        return int(self.name.split(":")[2])

    def to_gwpy(self) -> Any:
        """The same as gwpy's `DataQualityFlag`, its times as floats."""
        from gwpy.segments import DataQualityFlag  # noqa: PLC0415  # takes seconds

        return DataQualityFlag(
            self.name,
            active=self.active.tolist(),
            known=self.known.tolist(),
            isgood=self.isgood,
            padding=self.padding,
            description=self.description,
            label=self.label,
            category=self.category,
        )

    @classmethod
    def from_gwpy(cls, flag: Any) -> "VetoFlag":
        """From gwpy's `DataQualityFlag`; segments that touch become one.

        Raises:
            FormatError: The name or the segments are not of the kind that is kept.
        """
        before, behind = flag.padding or (0, 0)
        return cls(
            str(flag.name),
            active=_joined(flag.active),
            known=_joined(flag.known),
            isgood=bool(flag.isgood),
            padding=(float(before), float(behind)),
            description=_text(flag.description),
            label=_text(flag.label),
            category=None if flag.category is None else int(flag.category),
        )


def veto_flag(
    name: str,
    vetoed: Float[np.ndarray, "interval 2"],
    looked_at: Float[np.ndarray, "interval 2"],
    *,
    padding: float = 0.0,
    description: str | None = None,
) -> VetoFlag:
    """The flag of times to veto, of category 3: what only statistics of the witnesses say.

    Edges move outward to the grid of vetoes, less than 2 ms, and those of known time inward.

    Args:
        name: `IFO:NAME:VERSION`.
        vetoed: When to veto, GPS s, in any order and of any overlap.
        looked_at: When vetoes were looked for, GPS s, likewise.
        padding: Seconds that `vetoed` reaches beyond what was found, on both sides.
        description: In words.
    """
    inward, outward = union(looked_at) * GRID, union(vetoed) * GRID
    known = np.stack([np.ceil(inward[:, 0]), np.floor(inward[:, 1])], axis=1) / GRID
    known = union(known[known[:, 1] > known[:, 0]])
    active = union(np.stack([np.floor(outward[:, 0]), np.ceil(outward[:, 1])], axis=1) / GRID)
    return VetoFlag(
        name,
        active=common(active, known),
        known=known,
        padding=(-padding, padding),
        description=description,
        category=3,
    )


def flag_name(target: str, model: str, version: object) -> str:
    """What the flag of a model is called.

    Args:
        target: The strain channel, whose prefix names the interferometer.
        model: Name of the registered model.
        version: Its version; anything that is no number counts as 0.

    >>> flag_name("V1:Hrec_hoft_16384Hz", "glitchflow-demo", 3)
    'V1:GLF-VETO_GLITCHFLOW_DEMO:3'
    """
    number = str(version)
    return f"{ifo_of(target)}:GLF-VETO_{channel_word(model)}:{number if number.isdecimal() else 0}"


def _joined(segments: Any) -> NDArray[np.float64]:
    return union([(float(start), float(end)) for start, end in segments])


def _text(value: object) -> str | None:
    return None if value is None or str(value) == "" else str(value)
