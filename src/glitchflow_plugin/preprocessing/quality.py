"""What was wrong with the data: one record an event and channel, counted and written as tables."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from glitchflow_plugin.data.files import atomic_path, check_file, parsed, read_json, sha256, write_json
from glitchflow_plugin.errors import FormatError

QUALITY_NAME = "quality.json"
RECORDS_NAME = "quality.csv"
_COLUMNS = ["event_id", "channel", "reason", "detail"]
_FLAWS = "flaws_sha256"
_STEP = "the step that made the event set"
MISSING = "missing"
"""Reason of a channel that an event does not have."""


@dataclass(frozen=True)
class Flaw:
    """A channel of an event that was masked.

    Attributes:
        event_id: The event.
        channel: The channel.
        reason: `missing`, `nan`, `gap`, `constant`, `too short`, `band above nyquist`, `sample rate`, `unit` or
            `unreadable`.
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
        flaws: One record an event and channel that was masked.
    """

    events_read: int
    events_kept: int
    events_rejected: Mapping[str, int]
    channels: Mapping[str, Mapping[str, int]]
    missing_channels: tuple[str, ...] = ()
    flaws: tuple[Flaw, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each channel with flaws, the worst first, and one for channels that do not exist."""
        said = []
        if self.missing_channels:
            said.append(f"asked for but in no data set: {', '.join(self.missing_channels[:10])}")
        worst = sorted(self.channels.items(), key=lambda item: (-sum(item[1].values()), item[0]))
        for name, reasons in worst[:20]:
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
            said.append(f"{name} masked in {sum(reasons.values())} of {self.events_read} events ({counts})")
        if len(worst) > 20:
            said.append(f"{len(worst) - 20} more channels have flaws: see {QUALITY_NAME}")
        return tuple(said)


def collect(
    flaws: Iterable[Flaw],
    rejected: Mapping[str, str],
    kept: int,
    missing_channels: tuple[str, ...] = (),
) -> QualityReport:
    """Count flaws and rejected events."""
    flaws = tuple(sorted(flaws, key=lambda flaw: (flaw.event_id, flaw.channel)))
    channels: dict[str, Counter[str]] = {}
    for flaw in flaws:
        channels.setdefault(flaw.channel, Counter())[flaw.reason] += 1
    return QualityReport(
        events_read=kept + len(rejected),
        events_kept=kept,
        events_rejected=dict(sorted(Counter(rejected.values()).items())),
        channels={name: dict(sorted(count.items())) for name, count in sorted(channels.items())},
        missing_channels=missing_channels,
        flaws=flaws,
    )


def write_quality(folder: Path | str, report: QualityReport) -> tuple[Path, Path]:
    """Write the counts as `quality.json` and a line for each flaw as `quality.csv`; returns both paths."""
    import pandas as pd  # noqa: PLC0415  # half a second that a worker need not spend

    folder = Path(folder)
    content = asdict(report)
    flaws = content.pop("flaws")
    with atomic_path(folder / RECORDS_NAME) as temporary:
        pd.DataFrame(flaws, columns=_COLUMNS).to_csv(temporary, index=False)
    write_json(folder / QUALITY_NAME, {**content, _FLAWS: sha256(folder / RECORDS_NAME)})
    return folder / QUALITY_NAME, folder / RECORDS_NAME


def read_quality(folder: Path | str) -> QualityReport:
    """Read the report beside an event set, with its flaws.

    Raises:
        FormatError: There is none, or it is not what was written.
    """
    import pandas as pd  # noqa: PLC0415

    path, records = Path(folder) / QUALITY_NAME, Path(folder) / RECORDS_NAME
    content = read_json(path, _STEP)
    expected = content.pop(_FLAWS, None)  # not there in reports of earlier versions
    if expected is not None:
        check_file(records, str(expected), _STEP)
    try:
        table = pd.read_csv(records, dtype=str, keep_default_na=False) if records.exists() else pd.DataFrame()
    except (OSError, ValueError) as error:
        raise FormatError(f"{records} cannot be read ({error}). Delete it and run {_STEP} again.") from error
    return parsed({**content, "flaws": table.to_dict("records")}, QualityReport, path, _STEP)
