"""Choosing channels: by list, text file, glob pattern and index range."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from glitchflow_plugin.data.files import read_text
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Texts, section


@section
class ChannelSelection:
    """Which of the channels to take.

    Attributes:
        include: Glob patterns, such as `V1:ENV_*`; a channel must match one. All by default.
        exclude: Glob patterns; a channel must match none.
        slow: Glob patterns of channels whose motion below the band is kept beside what they hold in it.
        min: First index to take, after the patterns and in the order of the list or, without a list, of the names.
        max: One past the last index to take.
    """

    include: Texts = ()
    exclude: Texts = ()
    slow: Texts = ()
    min: int | None = None
    max: int | None = None


def read_channel_list(ch_list: str | Path | Sequence[str] | None) -> tuple[str, ...] | None:
    """Channel names as `ch_list` gives them: a list, or a text file with a name a line (`#` starts a comment).

    Returns:
        The names in order, each once; None if no list was given.

    Raises:
        ConfigurationError: The file is missing or empty.
        FormatError: The file is no text.
    """
    if ch_list is None:
        return None
    if isinstance(ch_list, str | Path):
        path = Path(ch_list)
        if not path.is_file():
            raise ConfigurationError(f"ch_list: {path} is no file. Give a text file with a channel a line, or a list.")
        lines = [line.split("#", 1)[0].split() for line in read_text(path).splitlines()]
        names = [words[0] for words in lines if words]
    elif isinstance(ch_list, Sequence):
        names = [str(name) for name in ch_list]
    else:
        raise ConfigurationError(f"ch_list must be a list of channel names or the path of a file, got {ch_list!r}.")
    if not names:
        raise ConfigurationError("ch_list holds no channel. Leave it out to take all channels.")
    return tuple(dict.fromkeys(names))


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that match one of the glob patterns.

    >>> matching(["V1:ENV_MIC", "V1:SUS_X"], ["V1:ENV_*"])
    ['V1:ENV_MIC']
    """
    patterns = tuple(patterns)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def select_channels(
    available: Iterable[str],
    target: str | None = None,
    ch_list: Sequence[str] | None = None,
    selection: ChannelSelection | None = None,
) -> tuple[str, ...]:
    """Names to take, the target first.

    Args:
        available: Names at hand.
        target: Strain channel: always taken, outside patterns and range, if it is at hand.
        ch_list: Names wanted, in this order; names that are not at hand stay in, so that they are reported as missing.
        selection: Patterns and range.

    Raises:
        ConfigurationError: The patterns match nothing; the message suggests names.
    """
    selection = selection or ChannelSelection()
    at_hand = sorted(set(available))
    names = [name for name in (at_hand if ch_list is None else ch_list) if name != target]
    chosen = names
    if selection.include:
        chosen = matching(chosen, selection.include)
    excluded = set(matching(chosen, selection.exclude))
    chosen = [name for name in chosen if name not in excluded]
    if names and not chosen:
        close = get_close_matches(str(selection.include[0]) if selection.include else "", names, n=3, cutoff=0.3)
        raise ConfigurationError(
            f"channels: include {list(selection.include)} and exclude {list(selection.exclude)} leave none of "
            f"{len(names)} channels; there are for instance {close or names[:3]}."
        )
    chosen = chosen[selection.min : selection.max]
    first = (
        [target] if target is not None and (target in at_hand or (ch_list is not None and target in ch_list)) else []
    )
    return tuple(first + chosen)
