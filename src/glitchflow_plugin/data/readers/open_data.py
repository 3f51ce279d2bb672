"""Whole files of open data (GWOSC), each downloaded once: a store of bounded size that all processes share."""

import http.client
import math
import os
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlparse

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.files import atomic_path, content_hash
from glitchflow_plugin.data.lock import take
from glitchflow_plugin.data.readers import gwosc
from glitchflow_plugin.data.readers.continuous import GAP, cut
from glitchflow_plugin.data.readers.time_limit import within
from glitchflow_plugin.errors import BusyError, FormatError

_LEAST = 2**20
"""Bytes that must come in the time that a server may be silent, as long as there are more."""

_PATIENCE = 3600.0
"""How long another process may take for its download of the same file, s."""


def store() -> Path:
    """Where the files are kept: below the user's folder for what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "glitchflow" / "open_data"


def locate(
    detector: str, start: float, stop: float, *, sample_rate: int, version: int | None = None, host: str | None = None
) -> list[str]:
    """Addresses of the files that hold strain between two GPS times, or what there is of it.

    Args:
        detector: Its prefix, such as H1.
        start: GPS s.
        stop: GPS s.
        sample_rate: 4096 or 16384 Hz.
        version: Release of the files; None: the latest.
        host: Server; None: gwosc.org.
    """
    from gwosc import datasets, locate

    where = {} if host is None else {"host": host}
    span = math.floor(start), math.ceil(stop)
    try:
        found = locate.get_urls(detector, *span, sample_rate=sample_rate, version=version, **where)
    except ValueError:  # some of it is nowhere: runs give the rest
        runs = datasets.find_datasets(type="run", detector=detector, segment=span, **where)
        parts = (locate.get_run_urls(run, detector, *span, sample_rate=sample_rate, **where) for run in runs)
        found = [url for part in parts for url in part]
    return sorted(set(found))


@contextmanager
def downloaded(url: str, limit: float, timeout: float) -> Iterator[Path]:
    """The file of an address, which stays while it is used; afterwards the oldest go if there are too many.

    Args:
        url: Of http or https.
        limit: Size of all files that may be kept beside this one, GiB.
        timeout: How long a server may be silent, or send next to nothing, s.

    Raises:
        OSError: The server cannot be reached, fails, or is silent.
        http.client.HTTPException: It breaks off, or falls silent.
        DataError: The folder cannot be written.
    """
    path = store() / f"{content_hash(url)[:12]}-{Path(urlparse(url).path).name}"
    hold = take(_lock_of(path), f"the download of {url}", patience=_PATIENCE)
    try:
        if not path.exists():
            _download(url, path, timeout)
            _make_room(path, limit)
        os.utime(path)
        yield path
    finally:
        hold.close()


def read(urls: Sequence[str], name: str, start: float, stop: float, *, limit: float, timeout: float) -> Channel:
    """Strain between two GPS times out of files, as far as they hold it.

    Args:
        urls: From `locate`.
        name: What the channel is called.
        start: GPS s.
        stop: GPS s.
        limit: As for `downloaded`, likewise the next.
        timeout: s.

    Raises:
        http.client.HTTPException: What came is no file of open data.
        OSError: As `downloaded`.
        FormatError: They hold none of it, or contradict each other.
    """

    def _renamed(path: Path, _: Sequence[str], first: float, last: float) -> dict[str, Channel]:
        (one,) = gwosc.read(path, list(gwosc.describe(path).channels), first, last).values()
        return {name: replace(one, name=name)}

    with ExitStack() as held:
        files = []
        for url in urls:
            path = held.enter_context(downloaded(url, limit, timeout))
            try:
                files.append(gwosc.describe(path))
            except FormatError as error:
                path.unlink(missing_ok=True)
                raise http.client.HTTPException(f"{url} gave something else than its file: {error}") from error
        channels, problems = cut(files, _renamed, [name], start, stop)
    problem = problems.get(name, "")
    if name not in channels or (problem and not problem.startswith(GAP)):
        raise FormatError(f"{name} from GPS {start:.3f} to {stop:.3f}: {problem or 'no file holds any of it'}")
    return channels[name]


def _download(url: str, path: Path, timeout: float) -> None:
    if urlparse(url).scheme not in ("http", "https"):
        raise http.client.InvalidURL(f"expected an address of http or https, got {url}")
    with (
        _opened(url, timeout) as answer,
        atomic_path(path) as part,
        part.open("wb") as file,
    ):
        _copy(answer, file, timeout)
        expected = int(answer.headers.get("Content-Length") or file.tell())
        if file.tell() != expected:
            raise http.client.IncompleteRead(b"", expected - file.tell())


def _opened(url: str, timeout: float) -> http.client.HTTPResponse:
    """The answer's beginning; its socket has the same limit, and whichever notices first, the words are the same."""
    try:
        return within(timeout, lambda: urllib.request.urlopen(url, timeout=timeout))  # noqa: S310  # it is checked
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {timeout:g} s (`remote.timeout`)") from error


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, timeout: float) -> None:
    """Write what comes, as long as enough of it comes: the limit of the socket is met by a byte now and then."""
    begun, come = time.monotonic(), 0
    while part := _next(answer):
        file.write(part)
        come += len(part)
        if time.monotonic() - begun > timeout:
            if come < _LEAST:
                raise http.client.HTTPException(f"{come} bytes came within {timeout:g} s (`remote.timeout`)")
            begun, come = time.monotonic(), 0


def _next(answer: http.client.HTTPResponse) -> bytes:
    """What has come; a fault of the line is none of the file that is written."""
    try:
        return answer.read1(2**20)
    except OSError as error:
        raise http.client.HTTPException(f"the server broke off: {error}") from error


def _make_room(new: Path, limit: float) -> None:
    """Remove the files that were used least lately, but for those that are in use."""
    files = sorted(
        (one for one in new.parent.glob("*-*") if one.suffix != ".lock"), key=lambda one: one.stat().st_mtime
    )
    too_much = sum(one.stat().st_size for one in files) - limit * 2**30
    for one in files:
        if one == new or too_much <= 0:
            continue
        with suppress(BusyError):
            hold = take(_lock_of(one), "making room")
            too_much -= one.stat().st_size
            one.unlink()
            hold.close()


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
