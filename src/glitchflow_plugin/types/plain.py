"""Values as JSON and YAML hold them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object; its values are of the types that whoever reads it has checked."""


def plain(content: Any, *, finite: bool = False) -> Any:
    """JSON types in place of tuples, sets, paths, NumPy scalars or arrays and the host framework's sequences.

    Args:
        content: JSON-like but for these.
        finite: Put null in place of NaN and infinities, which JSON does not know.

    >>> plain({"q": (8, 12.0), "limit": float("inf")}, finite=True)
    {'q': [8, 12.0], 'limit': None}
    """
    if isinstance(content, str | Path):
        return str(content).encode("utf-8", "backslashreplace").decode()  # names of files may be no text
    if hasattr(content, "tolist"):
        return plain(content.tolist(), finite=finite)
    if isinstance(content, Mapping):
        return {plain(str(key)): plain(value, finite=finite) for key, value in content.items()}
    if isinstance(content, set | frozenset):
        content = sorted(content)
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        return [plain(value, finite=finite) for value in content]
    if finite and isinstance(content, float) and not (float("-inf") < content < float("inf")):
        return None
    return content
