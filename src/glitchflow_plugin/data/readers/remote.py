"""Data over the network through gwpy's clients: open data, NDS2 and datafind.

Credentials (Kerberos, SciTokens) are the clients' own business; nothing of them passes through here.
"""

import importlib.util
import math
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.error import URLError

from pydantic import Field

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import open_data
from glitchflow_plugin.data.readers.frames import as_channel, require_backend
from glitchflow_plugin.data.readers.gwosc import channel_name
from glitchflow_plugin.data.readers.time_limit import within
from glitchflow_plugin.errors import (
    ConfigurationError,
    ConnectionFailedError,
    FormatError,
    GlitchflowError,
    MissingDependencyError,
)
from glitchflow_plugin.settings import Count, Positive, Texts, section

if TYPE_CHECKING:
    from gwpy.timeseries import TimeSeries

FORMATS = ("open_data", "nds2", "datafind")

_LONGEST = 86400.0
"""No answer is worth a longer time, s; far longer ones are beyond the clocks of threads and sockets."""

_NOT_FOUND = (404, 410)
"""HTTP statuses by which a server says that it has no such data."""

_CLIENTS = ("requests", "urllib3", "http", "igwn_auth_utils")
"""Packages whose errors are about the exchange with the server, unless they carry one of these statuses."""


@section
class RemoteSettings:
    """Where and how to ask.

    Attributes:
        host: Server; the client's own default (gwosc.org, the site's NDS2 or datafind server) if None.
        port: Port of an NDS2 server.
        detectors: For open data: prefixes such as H1, L1, V1.
        sample_rate: For open data: 4096 or 16384 Hz.
        frametype: For datafind: for instance V1Online or H1_HOFT_C00.
        urltype: For datafind: `file` for a file system at hand, `osdf` or `https` elsewhere.
        cache: For open data: read whole files, which are kept for the next that asks; on continuous data always.
        cache_size: Size of all that is kept, GiB; what was used least lately goes.
        timeout: Time that an answer may take, s; of whole files of open data, that nearly nothing of one may come.
        release: For open data: release of the files, R2 in their names; the latest is fetched and called R1 if None.
    """

    host: str | None = None
    port: int | None = None
    detectors: Texts = ()
    sample_rate: int = 4096
    frametype: str | None = None
    urltype: str = "file"
    cache: bool = False
    cache_size: Positive = 4.0
    timeout: Annotated[float, Field(gt=0, le=_LONGEST)] = 300.0
    release: Count | None = None

    def decisive(self) -> dict[str, object]:
        """The settings that may change what is read."""
        return {key: value for key, value in vars(self).items() if key not in ("cache_size", "timeout")}


def channels_offered(kind: str, remote: RemoteSettings) -> tuple[str, ...]:
    """Channels known before asking: open data's strain; the other services need a channel list."""
    if kind != "open_data":
        return ()
    if not remote.detectors:
        raise ConfigurationError("open_data needs `remote.detectors`, for instance [H1, L1, V1].")
    return tuple(
        channel_name(detector, remote.sample_rate, release=remote.release or 1) for detector in remote.detectors
    )


def fetch(kind: str, remote: RemoteSettings, channels: Sequence[str], start: float, stop: float) -> dict[str, Channel]:
    """Fetch channels between two GPS times.

    Args:
        kind: `open_data`, `nds2` or `datafind`.
        remote: Where and how.
        channels: Names; for open data those of `channels_offered`.
        start: GPS s.
        stop: GPS s.

    Returns:
        Channels by name.

    Raises:
        ConnectionFailedError: The server cannot be reached, fails, is busy, refuses the credentials, breaks off, or is
            silent for `timeout`.
        MissingDependencyError: The client is not installed.
        FormatError: The server has no such data.
    """
    calls = {"open_data": _open_data, "nds2": _nds2, "datafind": _datafind}
    if kind not in calls:
        raise ConfigurationError(f"format must be one of {FORMATS}, got {kind!r}")
    if not channels:
        return {}
    return calls[kind](remote, channels, start, stop)


def _open_data(remote: RemoteSettings, channels: Sequence[str], start: float, stop: float) -> dict[str, Channel]:
    from gwpy.timeseries import TimeSeries

    where: dict[str, Any] = {"host": remote.host} if remote.host else {}
    if remote.release is not None:
        where["version"] = remote.release
    where["sample_rate"] = remote.sample_rate
    found = {}
    for name in channels:
        detector = name.split(":", 1)[0]
        what = f"open data of {detector} from {remote.host or 'gwosc.org'}"
        if remote.cache:
            urls = _asked(
                lambda detector=detector: open_data.locate(detector, start, stop, **where), what, remote.timeout
            )
            # how long files take depends on their size: each is watched while it comes
            found[name] = _asked(
                lambda urls=urls, name=name: open_data.read(
                    urls, name, start, stop, limit=remote.cache_size, timeout=remote.timeout
                ),
                what,
            )
            continue
        series = _asked(
            lambda detector=detector: TimeSeries.fetch_open_data(detector, start, stop, cache=False, **where),
            what,
            remote.timeout,
        )
        channel = as_channel(name, series)
        found[name] = Channel(name, channel.series, channel.t0, channel.sample_rate, "strain")
    return found


def _nds2(remote: RemoteSettings, channels: Sequence[str], start: float, stop: float) -> dict[str, Channel]:
    if importlib.util.find_spec("nds2") is None:
        raise MissingDependencyError(
            "NDS2 needs its client, which is not on PyPI. Run: conda install -c conda-forge python-nds2-client"
        )
    from gwpy.timeseries import TimeSeriesDict

    series = _asked(
        lambda: TimeSeriesDict.fetch(list(channels), start, stop, host=remote.host, port=remote.port),
        f"NDS2 data from {remote.host or 'the default server'}",
        remote.timeout,
    )
    return _channels(series)


def _datafind(remote: RemoteSettings, channels: Sequence[str], start: float, stop: float) -> dict[str, Channel]:
    require_backend()
    from gwpy.timeseries import TimeSeriesDict

    where: dict[str, Any] = {"host": remote.host} if remote.host else {}
    series = _asked(
        lambda: TimeSeriesDict.find(
            list(channels), start, stop, frametype=remote.frametype, urltype=remote.urltype, pad=math.nan, **where
        ),
        f"frames of type {remote.frametype} from {remote.host or 'the default datafind server'}",
        remote.timeout,
    )
    return _channels(series)


def _channels(series: "dict[str, TimeSeries]") -> dict[str, Channel]:
    return {str(name): as_channel(str(name), one) for name, one in series.items()}


def _asked(call: Callable, what: str, timeout: float | None = None):  # noqa: ANN202  # whatever the client returns
    try:
        return call() if timeout is None else within(timeout, call)
    except GlitchflowError:
        raise
    except ImportError as error:
        raise MissingDependencyError(f"Cannot ask for {what}: {error}.") from error
    except Exception as error:  # the clients raise groups and chains of many kinds
        if any(_is_connection_error(one) for one in _chain(error)):
            raise ConnectionFailedError(
                f"Cannot reach {what}: {_said(error)}. Check the network and `remote` in datasets.yaml, renew your "
                "credentials if they are refused, run again later if the server is busy or silent, or fetch the files "
                "elsewhere and read them with format gwosc, gwf or hdf5."
            ) from error
        raise FormatError(f"The server has no {what}: {_said(error)}.") from error


def _said(error: BaseException) -> str:
    """What an error says; of a group, what its members say."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(_said(one) for one in error.exceptions))
    return str(error) or type(error).__name__


def _is_connection_error(error: BaseException) -> bool:
    """Whether an error speaks of network, server or credentials: it says nothing about the data, and may pass."""
    status = _http_status(error)
    if status is not None:
        return status not in _NOT_FOUND
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror | URLError):
        return True
    # requests and urllib3 must not be imported for this
    if any(kind.__module__.split(".")[0] in _CLIENTS for kind in type(error).__mro__):
        return True
    # NDS2's client knows only RuntimeError
    return "failed to establish a connection" in str(error).lower()


def _http_status(error: BaseException) -> int | None:
    """Status of an HTTP answer, from urllib's error (`code`) or requests' (`response`)."""
    status = getattr(error, "code", None) if isinstance(error, URLError) else None
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and the members of groups."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += list(one.exceptions)
