"""What a frame file says of where it comes from (FrHistory), which LALFrame writes and cannot read.

The layout is that of LIGO-T970130, version 8: each structure begins with its length and class, and a dictionary (FrSH,
class 1) tells which class a name has.
"""

import struct
from pathlib import Path

from glitchflow_plugin.data.apart import apart
from glitchflow_plugin.data.readers.frames import refuse_truncated
from glitchflow_plugin.errors import FormatError

_FILE_HEADER, _STRUCTURE_HEADER, _DICTIONARY = 40, 14, 1
"""Bytes before the first structure of a file and before the content of each, and the class of FrSH."""


@apart
def read_history(path: Path | str) -> dict[str, str]:
    """Records of where a frame file comes from, by name; of several with one name the last.

    Raises:
        FormatError: The file is truncated or no GWF.
    """
    path = Path(path)
    with path.open("rb") as file:
        refuse_truncated(path, file)
        file.seek(0)
        order = "<" if file.read(14)[12:] == b"\x34\x12" else ">"
        file.seek(_FILE_HEADER)
        histories, found = -1, {}
        while len(head := file.read(_STRUCTURE_HEADER)) == _STRUCTURE_HEADER:
            length, kind = struct.unpack_from(f"{order}Q", head)[0], head[9]
            if length < _STRUCTURE_HEADER:
                raise FormatError(f"{path} holds a structure of {length} bytes: it is damaged. Fetch it again.")
            if kind not in (_DICTIONARY, histories):
                file.seek(length - _STRUCTURE_HEADER, 1)
                continue
            body = file.read(length - _STRUCTURE_HEADER)
            name, place = _frame_text(body, 0, order)
            if kind == _DICTIONARY:
                histories = struct.unpack_from(f"{order}H", body, place)[0] if name == "FrHistory" else histories
            else:
                found[name] = _frame_text(body, place + 4, order)[0]  # behind the time at which it was written
    return found


def _frame_text(body: bytes, place: int, order: str) -> tuple[str, int]:
    """A text within a structure, and where it ends."""
    (length,) = struct.unpack_from(f"{order}H", body, place)
    return body[place + 2 : place + 1 + length].decode(errors="replace"), place + 2 + length
