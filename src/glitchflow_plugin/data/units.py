"""Units as files spell them: frames keep `m2 kg / (A s3)` of what HDF5 calls `V`."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astropy.units import UnitBase


@cache
def same_unit(first: str, second: str) -> bool:
    """Whether two texts name one unit; text that is no known unit is compared as it stands.

    >>> same_unit("V", "m2 kg / (A s3)"), same_unit("V", "mV"), same_unit("counts", "Counts")
    (True, False, False)
    """
    if first == second:
        return True
    one, other = _parsed(first), _parsed(second)
    return one is not None and other is not None and bool(one == other)


def _parsed(text: str) -> "UnitBase | None":
    from astropy import units  # takes a second, and units are mostly spelt alike

    try:
        return units.Unit(text)
    except (ValueError, TypeError):
        return None
