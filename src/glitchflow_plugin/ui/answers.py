"""What a registered model says of triggers in files that somebody has dropped: bytes in, a table and bytes out."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from glitchflow_plugin.data.readers.trigger_files import SUFFIXES
from glitchflow_plugin.data.triggers.formats import store_triggers
from glitchflow_plugin.data.triggers.labels import loudest_times
from glitchflow_plugin.data.triggers.store import open_triggers, read_manifest
from glitchflow_plugin.errors import DataError, GlitchflowError, NoEventsError
from glitchflow_plugin.inference.classify_triggers import classified, known_labels, unknown_channels
from glitchflow_plugin.models.triggers.bundle import TriggerModel
from glitchflow_plugin.products.classified import TABLE_NAME, readable, write_classified


@dataclass(frozen=True)
class Dropped:
    """A file as it came.

    Attributes:
        name: Its name, which may tell format and channel.
        content: Its bytes.
    """

    name: str
    content: bytes


@dataclass(frozen=True, eq=False)
class Answered:
    """What a model says.

    Attributes:
        times: A row a time, as `products.classified.readable` gives it.
        files: The table as files, by kind: parquet, csv.
        triggers: How many were read, by channel.
        unknown: The same of channels that the model does not know.
        bad: Rows that are no triggers, by reason.
    """

    times: pd.DataFrame
    files: Mapping[str, bytes]
    triggers: Mapping[str, int]
    unknown: Mapping[str, int]
    bad: Mapping[str, int]


def answers(model: TriggerModel, who: str, dropped: Sequence[Dropped], *, channel: str | None = None) -> Answered:
    """Ask a model about the loudest triggers of the channels that it knows, as Classify does, on the CPU.

    Args:
        model: The model.
        who: What it is called.
        dropped: Files in any format of triggers.
        channel: The channel of their triggers, where they do not tell it.

    Raises:
        DataError: A file cannot be read, or holds nothing that the model can be asked about. It is called by its name.
    """
    named = {Path(one.name).name: one.content for one in dropped}
    called = ", ".join(named)
    if len(named) < len(dropped):
        raise DataError(f"expected files of different names, got {[one.name for one in dropped]}. Rename one.")
    if others := [name for name in named if Path(name).suffix not in SUFFIXES]:
        raise DataError(f"{', '.join(others)}: expected files that end in {', '.join(SUFFIXES)}.")
    with tempfile.TemporaryDirectory() as temporary:
        given = Path(temporary, "given")
        given.mkdir()
        for name, content in named.items():
            (given / name).write_bytes(content)
        try:
            return _answers(model, who, given, called, channel)
        except GlitchflowError as error:
            raise DataError(str(error).replace(f"{given}/", "").replace(str(given), called)) from error


def _answers(model: TriggerModel, who: str, given: Path, called: str, channel: str | None) -> Answered:
    store, result = given.parent / "store", given.parent / "result"
    bad = store_triggers(given, store, recipe={"source": called}, channel=channel)
    channels = read_manifest(store).channels
    unknown = unknown_channels(model, channels, who, called)
    triggers = open_triggers(store)
    labels = known_labels(model)
    times = loudest_times(triggers, model.channels, labels.separation)
    if not len(times):
        raise NoEventsError(f"{called} holds no time to ask about. Give other triggers.")
    paths, _ = write_classified(classified(model, triggers, times), result, text=True)
    files = {path.suffix[1:]: path.read_bytes() for path in paths}
    return Answered(readable(pd.read_parquet(result / TABLE_NAME)), files, channels, unknown, bad)


def chosen(
    times: pd.DataFrame, *, channels: Sequence[str] = (), words: Sequence[str] = (), least: float = 0.0
) -> pd.DataFrame:
    """Some of the times, by loudest channel, by what is said of them, and by the least probability of a glitch.

    Args:
        times: As in `Answered`.
        channels: Names; none for all.
        words: What is said; none for all.
        least: Of `glitch`.
    """
    rows = times["glitch"] >= least
    rows &= times["channel"].isin(list(channels)) if channels else True
    rows &= times["said"].isin(list(words)) if words else True
    return times[rows]
