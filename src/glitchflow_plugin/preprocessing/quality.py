"""What was wrong with the data: one record an event and channel, counted and written as tables."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from glitchflow_plugin.data.files import atomic_path, check_file, parsed, read_json, sha256, write_json
from glitchflow_plugin.data.readers.tables import read_csv
from glitchflow_plugin.data.readers.trigger_table import TriggerReport
from glitchflow_plugin.data.readers.triggers import NEAR

QUALITY_NAME = "quality.json"
RECORDS_NAME = "quality.csv"
_COLUMNS = ["event_id", "channel", "reason", "detail"]
_FLAWS = "flaws_sha256"
_STEP = "the step that made the event set"
_CROWDED = 0.1
"""From this share of triggers that stand close to another, the user is told."""
MISSING = "missing"
"""Reason of a channel that an event does not have."""

ADVICE = {
    "missing": "Correct `ch_list`, or add a data set that has it at these times.",
    "nan": "Leave such channels out with `channels.exclude`, or such times out of `triggers`.",
    "gap": "Add the files that are missing, or leave such times out of `triggers`.",
    "constant": "Leave dead channels out with `channels.exclude`.",
    "too short": "Give longer events (or a longer `segment` of continuous data), or ask for less: a smaller "
    "processing.len, a larger processing.minf, or in whiten.yaml a smaller filter_length, fft_length or "
    "exclude_length. Slow channels need more than fast ones.",
    "band above nyquist": "Such a slow channel has nothing above processing.minf: give it a data set of its own with a "
    "lower minf, name it in `channels.slow` if its motion below that matters, or leave it out with "
    "`channels.exclude`.",
    "sample rate": "Correct the sample rate in the files.",
    "unit": "Correct the unit in the files.",
    "unreadable": "Fetch the files again; the log names them.",
    "copies differ": "Take one of the files out of the data set.",
    "outside the data": "Correct `triggers` or `path`, or bring the data of these times.",
}
"""What to do about a reason, by reason."""


@dataclass(frozen=True)
class Flaw:
    """A channel of an event that was masked, or a file that cannot be read.

    Attributes:
        event_id: The event; of a file that cannot be read, its name.
        channel: The channel; empty for a file.
        reason: `missing`, `nan`, `gap`, `constant`, `too short`, `band above nyquist`, `sample rate`, `unit`,
            `copies differ`, `unreadable` or `outside the data`.
        detail: What exactly was found.
    """

    event_id: str
    channel: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class QualityReport:
    """Counts and reasons for a whole event set.

    Attributes:
        events_read: Events found, unreadable files included.
        events_kept: Events in the set.
        events_rejected: Count by reason.
        channels: For each channel the count by reason, over all events; channels without flaws are left out.
        missing_channels: Channels that were asked for and that no data set has.
        flaws: One record an event and channel that was masked, and one a file that cannot be read.
        triggers: For each data set that is cut at triggers, how many there were and where they fell.
    """

    events_read: int
    events_kept: int
    events_rejected: Mapping[str, int]
    channels: Mapping[str, Mapping[str, int]]
    missing_channels: tuple[str, ...] = ()
    flaws: tuple[Flaw, ...] = ()
    triggers: tuple[TriggerReport, ...] = ()

    @property
    def events_seen(self) -> int:
        """Events whose file could be read."""
        return self.events_read - sum(count for why, count in self.events_rejected.items() if why.startswith("file:"))

    @property
    def never_usable(self) -> tuple[str, ...]:
        """Channels that are masked in every event: whatever is computed from the set knows nothing of them."""
        return tuple(name for name, reasons in self.channels.items() if sum(reasons.values()) >= self.events_seen)

    def warnings(self) -> tuple[str, ...]:
        """What a user must know.

        Returns:
            A sentence for each reason for which channels are never usable, with what to do; one for channels that do
            not exist; what is odd about the triggers; and one for each other channel with flaws, the worst first.
        """
        said = [*self._warnings_of_never_usable(), *(text for one in self.triggers for text in _warnings_of(one))]
        if self.missing_channels:
            said.append(f"asked for but in no data set: {', '.join(self.missing_channels[:10])}")
        files = [flaw for flaw in self.flaws if not flaw.channel]
        if files:
            said.append(f"{len(files)} file(s) cannot be read, the first since {files[0].detail}")
        never = set(self.never_usable)
        partly = [item for item in self.channels.items() if item[0] not in never]
        worst = sorted(partly, key=lambda item: (-sum(item[1].values()), item[0]))
        for name, reasons in worst[:20]:
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
            said.append(f"{name} masked in {sum(reasons.values())} of {self.events_read} events ({counts})")
        if len(worst) > 20:
            said.append(f"{len(worst) - 20} more channels have flaws: see {QUALITY_NAME}")
        return tuple(said)

    def _warnings_of_never_usable(self) -> Iterator[str]:
        by_reason: dict[str, list[str]] = {}
        for name in self.never_usable:
            by_reason.setdefault(max(self.channels[name].items(), key=lambda item: item[1])[0], []).append(name)
        for reason, names in by_reason.items():
            flaws = (flaw for flaw in self.flaws if (flaw.channel, flaw.reason) == (names[0], reason) and flaw.detail)
            detail = next((f" ({flaw.detail})" for flaw in flaws), "")
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            yield (
                f"MASKED IN ALL {self.events_seen} EVENTS: {len(names)} channel(s), {', '.join(names[:10])}{more}: "
                f"{reason}{detail}. {ADVICE.get(reason, '')}".rstrip()
            )


def collect(
    flaws: Iterable[Flaw],
    rejected: Mapping[str, str],
    kept: int,
    missing_channels: tuple[str, ...] = (),
    triggers: tuple[TriggerReport, ...] = (),
) -> QualityReport:
    """Count flaws and rejected events."""
    flaws = tuple(sorted(flaws, key=lambda flaw: (flaw.event_id, flaw.channel)))
    channels: dict[str, Counter[str]] = {}
    for flaw in flaws:
        if flaw.channel:
            channels.setdefault(flaw.channel, Counter())[flaw.reason] += 1
    return QualityReport(
        events_read=kept + len(rejected),
        events_kept=kept,
        events_rejected=dict(sorted(Counter(rejected.values()).items())),
        channels={name: dict(sorted(count.items())) for name, count in sorted(channels.items())},
        missing_channels=missing_channels,
        flaws=flaws,
        triggers=triggers,
    )


def _warnings_of(report: TriggerReport) -> Iterator[str]:
    """What is odd about the triggers of a data set."""
    if report.unreadable:
        first = next(iter(report.unreadable.values()))
        yield f"{len(report.unreadable)} file(s) of triggers cannot be read, the first since {first}"
    if report.crowded > _CROWDED * report.left:
        yield (
            f"{report.crowded} of {report.left} triggers stand within {NEAR:g} s of the one before, so one glitch is "
            "several events. Set `cluster` (s, such as 0.1 to 0.5) beside `path` of the triggers in datasets.yaml."
        )
    if report.overlapping:
        yield f"{report.overlapping} of {report.left} events overlap the one before, and so hold the same data in part"


def write_quality(folder: Path | str, report: QualityReport) -> tuple[Path, Path]:
    """Write the counts as `quality.json` and a line for each flaw as `quality.csv`; returns both paths."""
    import pandas as pd  # noqa: PLC0415  # half a second that a worker need not spend

    folder = Path(folder)
    content = asdict(report)
    flaws = content.pop("flaws")
    with atomic_path(folder / RECORDS_NAME) as temporary:
        table = pd.DataFrame(flaws, columns=_COLUMNS)
        table.to_csv(temporary, index=False, errors="backslashreplace")  # details quote what files say
    write_json(folder / QUALITY_NAME, {**content, _FLAWS: sha256(folder / RECORDS_NAME)})
    return folder / QUALITY_NAME, folder / RECORDS_NAME


def read_quality(folder: Path | str) -> QualityReport:
    """Read the report beside an event set, with its flaws.

    Raises:
        FormatError: There is none, or it is not what was written.
    """
    path, records = Path(folder) / QUALITY_NAME, Path(folder) / RECORDS_NAME
    content = read_json(path, _STEP)
    expected = content.pop(_FLAWS, None)  # not there in reports of earlier versions
    if expected is not None:
        check_file(records, str(expected), _STEP)
    # event ids and channels may start with any character: no line is a comment
    table = read_csv(records, comment="") if records.exists() else {}
    flaws = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    return parsed({**content, "flaws": flaws}, QualityReport, path, _STEP)
