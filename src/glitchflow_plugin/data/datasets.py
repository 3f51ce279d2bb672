"""The entries of datasets.yaml: what a data set is, what to take of it, and how to condition it."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

from glitchflow_plugin.data.channels import ChannelSelection
from glitchflow_plugin.data.readers import remote
from glitchflow_plugin.data.readers.remote import RemoteSettings
from glitchflow_plugin.data.readers.triggers import TriggerSettings
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Finite, Located, Positive, built, section

Format = Literal["auto", "events", "gwosc", "gwf", "hdf5", "open_data", "nds2", "datafind"]


@section
class EventRange:
    """Which events to take: indices into the list sorted by id (event files) or time (triggers)."""

    min: int | None = None
    max: int | None = None


@section
class ProcessingSettings:
    """How the channels of a data set are conditioned; conf/datasets.yaml explains the keys.

    Attributes:
        crop_jitter: None: half a second, and for inference what the model's events had.
    """

    minf: Positive = 8.0
    maxf: Finite = 400.0
    sr: Finite = 1024.0
    len: Finite = 6.0
    batch: int = 16
    whiten: bool = True
    crop_jitter: Finite | None = None
    crop_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a band that the common rate cannot hold."""
        if not self.minf < self.maxf:
            raise ConfigurationError(f"the band must fulfil 0 < minf < maxf, got {self.minf:g}-{self.maxf:g} Hz")
        if self.maxf > self.sr / 2:
            raise ConfigurationError(
                f"maxf ({self.maxf:g} Hz) is above half of sr ({self.sr:g} Hz), where a series sampled at sr holds "
                f"nothing. Raise sr to {2 * self.maxf:g} Hz or more, or lower maxf to {self.sr / 2:g} Hz or less"
            )


@section
class DatasetSettings:
    """One entry of datasets.yaml.

    Attributes:
        path: Folder of event files; file, folder, glob pattern or cache file of continuous data.
        format: Told by what the path holds if `auto`; `open_data`, `nds2` and `datafind` need no path.
        target: Strain channel. One of the data sets must name it.
        ch_list: Channels wanted, or a text file with one a line; all by default.
        allow_missing: Whether channels of `ch_list`, and patterns, may be in none of the data sets.
        channels: Patterns and index range.
        events: Index range.
        triggers: When to cut continuous data; the middle of each stretch of files by default.
        groups: A table with the columns event_id and group: events of one group are no independent cases.
        segment: Length cut about a trigger, s: the crop, the filters' ends, and noise for the spectrum.
        remote: Server and what to ask it.
        processing: Conditioning of the channels that come from here.
    """

    path: Located | None = None
    format: Format = "auto"
    target: str | None = None
    ch_list: Located | tuple[str, ...] | None = None
    allow_missing: bool = False
    channels: ChannelSelection = field(default_factory=ChannelSelection)
    events: EventRange = field(default_factory=EventRange)
    triggers: TriggerSettings | None = None
    groups: Located | None = None
    segment: float = 16.0
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    processing: ProcessingSettings = field(default_factory=ProcessingSettings)

    def __post_init__(self) -> None:
        """Refuse a missing path, and events without room."""
        if self.path is None and self.format not in remote.FORMATS:
            raise ConfigurationError(f"a data set of format {self.format} needs a `path`")
        if self.segment <= self.processing.len:
            raise ConfigurationError(
                f"segment ({self.segment:g} s) must be longer than processing.len ({self.processing.len:g} s): "
                "filters need room at both ends and the spectrum needs noise beside the event"
            )

    @classmethod
    def listed(cls, entries: "Sequence[Mapping[str, Any] | DatasetSettings]") -> "list[DatasetSettings]":
        """Settings from the list of entries.

        Raises:
            ConfigurationError: It is no list, or an entry is wrong.
        """
        if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
            raise ConfigurationError(
                f"datasets: expected a list with an entry for each data set (`- path: /data/events`), got {entries!r}."
            )
        return [cls.from_mapping(entry, position) for position, entry in enumerate(entries)]

    @classmethod
    def from_mapping(cls, entry: "Mapping[str, Any] | DatasetSettings", position: int = 0) -> "DatasetSettings":
        """Settings from an entry as YAML gives it.

        Raises:
            ConfigurationError: A key is unknown or a value is wrong; the message names the entry.
        """
        if isinstance(entry, DatasetSettings):
            return entry
        where = f"datasets[{position}]"
        if not isinstance(entry, Mapping):
            raise ConfigurationError(f"{where}: expected a mapping with `path`, `target` and so on, got {entry!r}")
        values = {key: value for key, value in entry.items() if value is not None}
        triggers = values.get("triggers")
        if isinstance(triggers, Mapping):
            values["triggers"] = {key: value for key, value in triggers.items() if value is not None}
        elif triggers is not None and not isinstance(triggers, TriggerSettings):
            values["triggers"] = {"path" if isinstance(triggers, str) else "times": triggers}
        return built(cls, values, where)
