"""The exceptions a user can meet. Each message says what was expected, what came, and what to do next."""


class GlitchflowError(Exception):
    """Anything this package raises on purpose."""


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
    """Training, validation and test data share an event or a stretch of time."""


class MissingDependencyError(GlitchflowError, ImportError):
    """An optional package is needed for this input."""


class RegistryError(GlitchflowError):
    """The model registry does not hold, or cannot take, what was asked for."""


class ConnectionFailedError(GlitchflowError):
    """A server or the network cannot be reached."""
