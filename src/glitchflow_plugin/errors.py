"""The exceptions a user can meet. Each message says what was expected, what came, and what to do next."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Self


class GlitchflowError(Exception):
    """Anything this package raises on purpose.

    Attributes:
        missing: File or folder that is not there and that another step may make; None where that is not the trouble.
    """

    missing: Path | None = None

    def lacking(self, path: Path | str) -> Self:
        """The error, with what is missing: whoever knows the configuration can name the step that makes it."""
        self.missing = Path(path)
        return self


class ConfigurationError(GlitchflowError, ValueError):
    """A setting is missing, misspelt or out of range."""


class DataError(GlitchflowError):
    """Input data cannot be used as they are."""


class FormatError(DataError):
    """A file is not in the layout it claims, is truncated, or fails its checksum."""


class BusyError(DataError):
    """Another process is at work on the same, or has just finished it."""


class ChannelMismatchError(DataError):
    """The channels that are needed and the channels at hand differ."""


class NoEventsError(DataError):
    """Nothing is left to work on."""


class LeakageError(DataError):
    """Parts of a split share an event, a group or a stretch of time."""


class MissingDependencyError(GlitchflowError, ImportError):
    """An optional package is needed for this input."""


class RegistryError(GlitchflowError):
    """The model registry does not hold, or cannot take, what was asked for."""


class ConnectionFailedError(GlitchflowError):
    """A server or the network cannot be reached."""


def nearest(name: object, known: Iterable[object], most: int = 3, least: float = 0.6) -> str:
    """What somebody may have meant, as a sentence to be put after a message; empty where nothing is near.

    Args:
        name: What came.
        known: What could have come.
        most: Names, at most.
        least: Similarity from which a name is near; 1: the same.

    >>> nearest("treshold", ["threshold", "q", "fres"])
    ' Nearest: threshold.'
    >>> nearest("x", ["threshold"])
    ''
    """
    names = {str(one).lower(): str(one) for one in known}
    close = get_close_matches(str(name).lower(), names, n=most, cutoff=least)
    return f" Nearest: {', '.join(names[one] for one in close)}." if close else ""


def causes(error: object) -> Iterator[BaseException]:
    """What was raised, out of the wrappers that hydra and Ray put around it, and last the wrapper itself.

    Ray's are also of the class of what they wrap, and their text is that of a traceback: look at the first that fits.
    """
    if not isinstance(error, BaseException):
        return
    inner: list[object] = []
    wrapper = type(error).__module__.partition(".")[0]
    if wrapper in ("hydra", "ray"):
        failures = getattr(error, "worker_failures", None)
        inner = [*(failures.values() if isinstance(failures, dict) else ()), getattr(error, "controller_failure", None)]
        inner += [getattr(error, "cause", None), error.__cause__]
    for one in inner:
        if one is not error:
            yield from causes(one)
    yield error
