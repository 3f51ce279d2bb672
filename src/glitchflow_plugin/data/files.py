"""Files written whole or not at all; text and JSON read with a clear error."""

import errno
import gzip
import hashlib
import io
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from glitchflow_plugin.errors import DataError, FormatError

_CHUNK = 1 << 20


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
def new_hdf5(path: Path | str) -> Iterator[h5py.File]:
    """Give an HDF5 file to fill, which is written to `path` at the end, whole or not at all.

    It is filled in memory. HDF5 itself does not survive a disk that is full: it leaves holes of zeros without telling,
    when a data set is closed, or takes the process with it.

    Args:
        path: Where the finished file shall be.

    Yields:
        The open file.

    Raises:
        DataError: The disk is full or the folder cannot be written; the message names the folder.
    """
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        yield file
    with atomic_path(path) as temporary:
        temporary.write_bytes(image.getbuffer())


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all. NaN becomes null."""
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        FormatError: The file is missing or is no JSON; the message says which.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist. Run the step that writes it, or correct the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is not valid JSON ({error}). Delete it and run the step that writes it.") from error


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
    """Checksum of a file's bytes, as 64 hexadecimal digits (FIPS 180-4)."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def content_hash(content: Any) -> str:
    """Checksum of a JSON-like value, independent of the order of its keys."""
    text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(content: Any) -> Any:
    """JSON types in place of tuples, paths and NumPy scalars or arrays; null in place of NaN and infinities."""
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple | set | frozenset):
        return [_plain(value) for value in (sorted(content) if isinstance(content, set | frozenset) else content)]
    if isinstance(content, Path):
        return str(content)
    if hasattr(content, "tolist"):
        return _plain(content.tolist())
    if isinstance(content, float) and not (float("-inf") < content < float("inf")):
        return None
    return content


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
