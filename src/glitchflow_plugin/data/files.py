"""Files written whole or not at all; text read with a clear error; files of ours that know when they have been damaged.

A record is a JSON object with its own checksum under the key `checksum`; an HDF5 file of ours begins with a user block
that holds the checksum of all that follows it. Neither keeps anybody out: a record without the key, from an earlier
version or edited on purpose, is taken for what its content says.
"""

import errno
import gzip
import hashlib
import io
import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import h5py

from glitchflow_plugin.errors import DataError, FormatError, GlitchflowError
from glitchflow_plugin.types.plain import plain

if TYPE_CHECKING:
    from pydantic import TypeAdapter

CHECKSUM = "checksum"
_CHUNK = 1 << 20
_RECORDS = (".json", ".yaml")
_LARGEST_RECORD = 1 << 30  # bytes; that of a million events has some 100 MB
_SEAL_SIZE = 512  # the smallest user block that HDF5 allows
_SEAL = b"glitchflow sha256 "
T = TypeVar("T")

HDF5_DAMAGE = (OSError, KeyError, RuntimeError, TypeError, ValueError)
"""What h5py raises at a damaged file, depending on where the damage is."""


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed to disk and renamed, on failure removed.

    A reader therefore sees the old file or the whole new one, and a killed run leaves only a `.tmp` file.

    Args:
        path: Where the finished file shall be. Missing parent folders are made.

    Yields:
        The path to write to, with the same suffix as `path`.

    Raises:
        DataError: The disk is full or the folder cannot be written; the message names the folder.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=f".tmp{path.suffix}", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise explained(error, path) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_hdf5(path: Path | str, *, seal: bool = True) -> Iterator[h5py.File]:
    """Give an HDF5 file to fill, which is written to `path` at the end, whole or not at all.

    It is filled in memory. HDF5 itself does not survive a disk that is full: it leaves holes of zeros without telling,
    when a data set is closed, or takes the process with it.

    Args:
        path: Where the finished file shall be.
        seal: Begin it with a checksum of the rest, for `sealed_hdf5`. Not for files that other programs shall read:
            some look for HDF5's signature in the first bytes only.

    Yields:
        The open file.

    Raises:
        DataError: The disk is full or the folder cannot be written; the message names the folder.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=_SEAL_SIZE if seal else 0) as file:
        yield file
    # not getbuffer: collecting that view after an error ends Python 3.12.1
    content = memoryview(image.getvalue())
    head, rest = content[:_SEAL_SIZE], content[_SEAL_SIZE:]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write((_SEAL + hashlib.sha256(rest).hexdigest().encode()).ljust(_SEAL_SIZE, b"\0") if seal else head)
        file.write(rest)


def is_intact(path: Path | str) -> bool:
    """Whether the bytes of an HDF5 file are those that `new_hdf5` wrote; true for a file without a seal.

    HDF5 looks at no checksum of its own: a damaged file may be read wrongly, or be read for ever.

    Raises:
        FormatError: It is a folder or a pipe.
        OSError: The file cannot be read.
    """
    with _regular(path).open("rb") as file:
        head = file.read(_SEAL_SIZE)
        return head.startswith(b"\x89HDF") or head.rstrip(b"\0") == _SEAL + _digest(file).encode()


@contextmanager
def sealed_hdf5(path: Path | str) -> Iterator[h5py.File]:
    """Open an HDF5 file that `new_hdf5` wrote, if its bytes are still those.

    Raises:
        OSError: The file is missing, cannot be read, or has been damaged.
    """
    if not is_intact(path):
        raise OSError("its bytes are not those that were written")
    with h5py.File(path, "r") as file:
        yield file


def sealed(content: Mapping[str, object]) -> dict[str, Any]:
    """A record with its checksum, JSON types only. NaN becomes null."""
    record = plain(dict(content), finite=True)
    return {**record, CHECKSUM: content_hash(record)}


def unsealed(content: object, path: Path | str, step: str) -> dict[str, Any]:
    """The record without its checksum, once that is found to be right.

    Args:
        content: From `sealed`, after its way through a file.
        path: The file, for the message.
        step: The step that writes it, for the message.

    Raises:
        FormatError: It is no record, or has been damaged or edited.
    """
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected a record of named values, got {type(content).__name__}. {_again(step)}")
    found = {key: value for key, value in content.items() if key != CHECKSUM}
    if CHECKSUM in content and content[CHECKSUM] != content_hash(found):
        raise FormatError(
            f"{path} is not what was written: its checksum is another. {_again(step)} "
            f"(If you have edited it on purpose, remove its entry {CHECKSUM!r}.)"
        )
    return found


def write_json(path: Path | str, content: Mapping[str, object]) -> None:
    """Write a record as indented JSON with its checksum, whole or not at all. NaN becomes null."""
    text = json.dumps(sealed(content), indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path | str, step: str = "the step that writes it") -> dict[str, Any]:
    """Read a record that `write_json` wrote, without its checksum.

    Args:
        path: The file.
        step: The step that writes it, for the message.

    Raises:
        FormatError: The file is missing, is no JSON, or is not what was written; the message says which.
    """
    text = record_text(path, step)
    try:
        return unsealed(json.loads(text, parse_constant=_finite, parse_float=_finite), path, step)
    # a flipped byte may nest a million brackets or ask for a number of as many digits
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise FormatError(f"{path} is not valid JSON ({reason}). {_again(step)}") from error


def record_text(path: Path | str, step: str) -> str:
    """The text of a record.

    Args:
        path: The file.
        step: The step that writes it, for the message.

    Raises:
        FormatError: The file is missing, is no text, or is larger than any record.
    """
    path = _regular(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist. Run {step}, or correct the path.").lacking(path) from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror or error}). Check its permissions.") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no text ({error}). {_again(step)}") from error


def parsed(content: object, kind: type[T], path: Path | str, step: str) -> T:
    """A record as a dataclass, its types checked: nothing is converted, nothing unknown is passed over.

    Args:
        content: JSON-like.
        kind: A dataclass with annotations.
        path: The file that it is from, for the message.
        step: The step that writes it, for the message.

    Raises:
        FormatError: A key is missing or unknown, a value is of another type, or the dataclass refuses it.
    """
    from pydantic import ValidationError  # what only reads foreign files need not wait for it

    try:
        return _adapter(kind).validate_json(json.dumps(content), strict=True, extra="forbid")
    except ValidationError as error:
        flaws = [
            f"{'.'.join(map(str, flaw['loc'])) or 'the whole'}: {flaw['msg']}, got {_short(flaw['input'])}"
            for flaw in error.errors(include_url=False)[:3]
        ]
        raise FormatError(f"{path} is not a record of this program ({'; '.join(flaws)}). {_again(step)}") from error
    except (GlitchflowError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not a record of this program ({error}). {_again(step)}") from error


def read_record(path: Path | str, kind: type[T], step: str) -> T:
    """`read_json` and `parsed` in one.

    Raises:
        FormatError: As there.
    """
    return parsed(read_json(path, step), kind, path, step)


def check_file(path: Path, expected: str, step: str) -> None:
    """Compare a file that a record lists with its checksum.

    Raises:
        FormatError: The file is missing, or is another one.
    """
    if not path.exists():
        raise FormatError(f"{path} does not exist. {_again(step, delete=False)}").lacking(path)
    if sha256(path) != expected:
        raise FormatError(f"{path} does not match its checksum: it has been damaged or edited. {_again(step)}")


def read_text(path: Path | str) -> str:
    """Read a file of text: UTF-8, or what its byte order mark says (spreadsheets write one); `.gz` is unpacked.

    Raises:
        FormatError: The file is missing, damaged, or no text.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} cannot be read: it is no text in UTF-8 ({error}). Save it as UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path} cannot be read ({error}). Correct the path, or bring the file again.") from error
    if "\0" in text:
        raise FormatError(f"{path} cannot be read: it is no text, or parts of it were never written.")
    return text


def sha256(path: Path | str) -> str:
    """Checksum of a file's bytes, as 64 hexadecimal digits (FIPS 180-4).

    Raises:
        FormatError: It is a folder or a pipe, or larger than any record where it is one by its name.
    """
    with _regular(path).open("rb") as file:
        return _digest(file)


def content_hash(content: object) -> str:
    """Checksum of a JSON-like value, independent of the order of its keys."""
    text = json.dumps(plain(content, finite=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _regular(path: Path | str) -> Path:
    """The path, unless reading it would take for ever: a pipe, or a record larger than any.

    Raises:
        FormatError: It is a folder, a pipe or alike, or too large.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FormatError(f"{path} is no file. Remove it, and run the step that writes it again.")
    if path.suffix in _RECORDS and path.exists() and (size := path.stat().st_size) > _LARGEST_RECORD:
        raise FormatError(
            f"{path} is larger than any record of this program: {size} bytes. Run the step that writes it again."
        )
    return path


def expanded(path: Path | str) -> str:
    """A path with the folder of the user in place of `~`; of a user that there is not, the path as it is."""
    return os.path.expanduser(path)  # noqa: PTH111  # Path.expanduser raises


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


@cache
def _adapter(kind: type[T]) -> "TypeAdapter[T]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _finite(text: str) -> float:
    value = float(text)
    if not float("-inf") < value < float("inf"):
        raise ValueError(f"{text} is no finite number")
    return value


def _again(step: str, *, delete: bool = True) -> str:
    return f"Delete it and run {step} again." if delete else f"Run {step} again."


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def explained(error: OSError, path: Path | str) -> DataError:
    """An error of the system in the user's words.

    Args:
        error: What it said.
        path: What could not be written.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(f"No space left while writing {path}. Free some, then run again: finished files are kept.")
    return DataError(f"Cannot write {path}: {error.strerror or error}. Check the folder and its permissions.")
