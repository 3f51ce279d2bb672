"""Names that become parts of paths, of addresses in the registry, and of command lines: one rule for all."""

import os
import re

from glitchflow_plugin.errors import ConfigurationError

_NAME = re.compile(r"\w[\w .-]*")
_ALIAS = re.compile(r"\w[\w-]*")
_RESERVED = re.compile(r"v?\d+|latest", re.IGNORECASE)
#: Bytes, so that what is put around a name still fits a file name (255) and a column of the registry (256).
_LONGEST = 160


def check_name(name: object, what: str) -> str:
    """Refuse a name that cannot be a folder, a registered model and a word of a command line.

    Args:
        name: The name.
        what: Where it was given: a key of the configuration.

    Returns:
        The name.

    Raises:
        ConfigurationError: The message says what is allowed.

    >>> check_name("o4-scan_2", "run_name")
    'o4-scan_2'
    """
    if isinstance(name, str) and _NAME.fullmatch(name) and not name.endswith((" ", ".")) and _fits(name):
        return name
    raise ConfigurationError(
        f"{what}: expected letters, digits, spaces and ._- (first a letter, a digit or _, last no space or dot, "
        f" at most {_LONGEST} bytes), got {_shown(name)}. It becomes the name of a folder or of a registered "
        "model: choose another one."
    )


def check_alias(alias: object, what: str) -> str:
    """Refuse an alias that the registry does not take or that reads like the number of a version.

    Args:
        alias: The alias.
        what: Where it was given.

    Returns:
        The alias.

    Raises:
        ConfigurationError: The message says what is allowed.
    """
    if isinstance(alias, str) and _ALIAS.fullmatch(alias) and not _RESERVED.fullmatch(alias) and _fits(alias):
        return alias
    raise ConfigurationError(
        f"{what}: expected letters, digits and _- (not a number, v with a number, or latest), got {_shown(alias)}. "
        "Choose another alias, for instance champion."
    )


def _fits(name: str) -> bool:
    try:
        return len(os.fsencode(name)) <= _LONGEST
    except UnicodeEncodeError:  # the file names of this system have no such letters
        return False


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}..."
