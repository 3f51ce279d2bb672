"""The result of a channel scan and its files: results.yaml (everything), ranking.csv (a table), selected.txt (names).

`selected.txt` holds one channel a line and can be given wherever a channel list is asked for (`ch_list`).
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.errors import FormatError

RESULTS_NAME = "results.yaml"
TABLE_NAME = "ranking.csv"
SELECTION_NAME = "selected.txt"
FORMAT_VERSION = 1
_COLUMNS = ("correlation", "iou", "chance", "events", "strain_spikes", "witness_spikes", "shared_spikes")


@dataclass(frozen=True, eq=False)
class ChannelRanking:
    """Witness channels ordered by their correlation with the strain.

    Attributes:
        target: The reference channel, normally the strain.
        channels: Witnesses, best first; those without information last.
        correlation: Share of the target's spikes that the witness shares; NaN = no information. Shape (channel,).
        iou: Shared spikes over all spikes of the two; NaN = no information. Shape (channel,).
        chance: Correlation expected from accidental coincidences; NaN = not estimated. Shape (channel,).
        events: Events in which target and witness are both valid. Shape (channel,).
        strain_spikes: Spikes of the target in those events. Shape (channel,).
        witness_spikes: Spikes of the witness in those events. Shape (channel,).
        shared_spikes: Pairs. Shape (channel,).
        selected: The witnesses above the thresholds, best first; never the target.
        parameters: The scan's settings.
        event_set: Fingerprint of the event set.
    """

    target: str
    channels: tuple[str, ...]
    correlation: np.ndarray
    iou: np.ndarray
    chance: np.ndarray
    events: np.ndarray
    strain_spikes: np.ndarray
    witness_spikes: np.ndarray
    shared_spikes: np.ndarray
    selected: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    event_set: str = ""

    def __post_init__(self) -> None:
        """Refuse columns that do not belong together."""
        for name in _COLUMNS:
            if getattr(self, name).shape != (len(self.channels),):
                raise FormatError(
                    f"ranking: {name} has shape {getattr(self, name).shape}, expected ({len(self.channels)},)"
                )
        if len(set(self.channels)) != len(self.channels):
            raise FormatError("ranking: channel names must be unique")
        unknown = set(self.selected) - set(self.channels)
        if unknown:
            raise FormatError(f"ranking: selected channels that were not scanned: {sorted(unknown)}")
        if self.target in self.channels:
            raise FormatError(f"ranking: the target {self.target} cannot be its own witness")


def write_ranking(folder: Path | str, ranking: ChannelRanking) -> dict[str, Path]:
    """Write results.yaml, ranking.csv and selected.txt, each whole or not at all.

    Returns:
        Paths by what they hold: `results`, `table`, `selection`.
    """
    folder = Path(folder)
    paths = {"results": RESULTS_NAME, "table": TABLE_NAME, "selection": SELECTION_NAME}
    content = {
        "format_version": FORMAT_VERSION,
        "parameters": ranking.parameters,
        "event_set": ranking.event_set,
        "target": ranking.target,
        "selected": list(ranking.selected),
        "channels": list(ranking.channels),
        **{name: getattr(ranking, name).tolist() for name in _COLUMNS},
    }
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["channel", *_COLUMNS, "selected"])
    for row, channel in enumerate(ranking.channels):
        values = [getattr(ranking, name)[row].item() for name in _COLUMNS]
        shown = ["" if isinstance(value, float) and math.isnan(value) else value for value in values]
        writer.writerow([channel, *shown, channel in ranking.selected])
    texts = {
        "results": yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
        "table": table.getvalue(),
        "selection": "".join(f"{channel}\n" for channel in ranking.selected),
    }
    written = {}
    for name, text in texts.items():
        written[name] = folder / paths[name]
        with atomic_path(written[name]) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return written


def read_ranking(path: Path | str) -> ChannelRanking:
    """Read a scan's results.yaml, from its path or its folder.

    Raises:
        FormatError: The file is missing or is no result of a scan.
    """
    path = Path(path)
    path = path / RESULTS_NAME if path.is_dir() or not path.suffix else path
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist. Run the step Annalisa-scan, or correct the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is not valid YAML ({error}). Run the step Annalisa-scan again.") from error
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise FormatError(
                f"{path} has format version {content['format_version']}, this program reads {FORMAT_VERSION}."
            )
        return ChannelRanking(
            target=content["target"],
            channels=tuple(content["channels"]),
            selected=tuple(content["selected"]),
            parameters=content["parameters"],
            event_set=content["event_set"],
            **{name: _column(name, content[name]) for name in _COLUMNS},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} is not the result of a scan ({error!r}). Run Annalisa-scan again.") from error


def read_channel_list(path: Path | str) -> tuple[str, ...]:
    """Read a text file with one channel a line; empty lines and lines that start with # are skipped.

    Raises:
        FormatError: The file is missing, holds no channel, or holds one twice.
    """
    path = Path(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist: expected a text file with one channel a line.") from error
    channels = tuple(line for line in lines if line and not line.startswith("#"))
    if not channels:
        raise FormatError(f"{path} names no channel; expected one a line.")
    if len(set(channels)) != len(channels):
        raise FormatError(f"{path} names channels twice: {sorted({c for c in channels if channels.count(c) > 1})[:5]}.")
    return channels


def _column(name: str, values: Sequence[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64 if name in {"correlation", "iou", "chance"} else np.int64)
