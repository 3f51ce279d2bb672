"""Names of files with data of a stretch of time, as LIGO-T010150 has them, `S-D-G-T.suffix`, and the words in them."""

import math
import re

from glitchflow_plugin.errors import FormatError

_SOURCE, _DESCRIPTION = re.compile(r"[A-Z]\d?|[A-Z]{2,}"), re.compile(r"[A-Za-z0-9_+#]+")
_ANY_IFO = "X1"
"""Prefix where a channel has none."""


def file_name(source: str, description: str, start: float, end: float, suffix: str) -> str:
    """The name of a file: whole seconds about its time, so that a span never seems shorter than it is.

    Args:
        source: Observatory of the data: its letter for frames (`V`), several letters together, or the interferometer.
        description: What it holds: letters, digits, `_`, `+`, `#`.
        start: First GPS time, s.
        end: GPS time after the last, s.
        suffix: Ending, with its dot; may be empty.

    Raises:
        FormatError: A part would make the name ambiguous, or the span is empty.

    >>> file_name("V", "V1_GLF_CLEAN", 1264625000.0, 1264625064.5, ".gwf")
    'V-V1_GLF_CLEAN-1264625000-65.gwf'
    """
    if not _SOURCE.fullmatch(source) or not _DESCRIPTION.fullmatch(description) or not 0 <= start < end < math.inf:
        raise FormatError(
            f"expected a source such as V, a description of letters, digits and _, and a span of GPS times, got "
            f"{source!r}, {description!r}, {start}, {end}."
        )
    first = math.floor(start)
    return f"{source}-{description}-{first}-{math.ceil(end) - first}{suffix}"


def ifo_of(channel: str) -> str:
    """Prefix of a channel's interferometer; X1 where it has none."""
    prefix = channel.partition(":")[0]
    return prefix if re.fullmatch(r"[A-Z]\d", prefix) else _ANY_IFO


def channel_word(text: str) -> str:
    """A word as names of channels and flags have them: capitals, digits and underscores."""
    return re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_") or "MODEL"
