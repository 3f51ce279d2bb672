"""The run summary: what a step read, kept and rejected, what it measured, and where its results are."""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from glitchflow_plugin import __version__
from glitchflow_plugin.data.files import read_record, write_json

SUMMARY_NAME = "summary.json"
_LONGEST_VALUE = 80
_PACKAGES = ("itwinai", "torch", "ml4gw", "gwpy", "mlflow", "numpy", "h5py")


def now() -> str:
    """The present moment, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of this program, Python and the libraries that decide the numbers."""
    found = {"glitchflow_plugin": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Metric:
    """A figure with its uncertainty and what it must be compared with.

    Attributes:
        value: The figure; None where it is undefined (the reason stands in the warnings).
        low: Lower end of its interval.
        high: Upper end of its interval.
        baseline: The same figure of the baselines, by name.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    baseline: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class EventCounts:
    """Events read, kept and rejected; `rejected` counts them by reason."""

    read: int = 0
    kept: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_reasons(cls, kept: int, reasons: Iterable[str]) -> "EventCounts":
        """Count the reasons of the rejected events beside the number of kept ones."""
        rejected = dict(sorted(Counter(reasons).items()))
        return cls(read=kept + sum(rejected.values()), kept=kept, rejected=rejected)


@dataclass(frozen=True)
class Changed:
    """A setting that is not what the files of conf/ say.

    Attributes:
        used: The value; None also where the key was taken out.
        file: That of the files; None also where they do not have the key.
        by: Who changed it: the command line, or which profile.
    """

    used: object
    file: object
    by: str

    def told(self, longest: int | None = None) -> str:
        """In words; of values that are longer than so many characters, the beginning.

        >>> Changed("coupling", None, "command line").told(6)
        'coupli..., by command line; the files have null'
        """
        return f"{_short(self.used, longest)}, by {self.by}; the files have {_short(self.file, longest)}"


@dataclass(frozen=True)
class RunSummary:
    """What one step of a pipeline did.

    Attributes:
        pipeline: Name of the pipeline and step, for instance `preproc_pipeline/Annalisa-scan`.
        started: ISO 8601, UTC.
        inputs: What went in: paths, data sets, the model with its version.
        events: Counts.
        metrics: By stable, documented name.
        outputs: Paths by what they hold.
        profile: Name of the profile that was applied, or `none`; empty where the step was not started by hydra.
        changed: By key the settings of this step that differ from the files of conf/.
        warnings: What the user should know.
        details: Curves and counts that are too long for the table; JSON-like, in summary.json alone.
        finished: ISO 8601, UTC.
        versions: Versions of this program, Python and the libraries that decide the numbers.
    """

    pipeline: str
    started: str
    inputs: Mapping[str, object] = field(default_factory=dict)
    events: EventCounts = field(default_factory=EventCounts)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    outputs: Mapping[str, object] = field(default_factory=dict)
    profile: str = ""
    changed: Mapping[str, Changed] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)
    finished: str = field(default_factory=now)
    versions: Mapping[str, str] = field(default_factory=versions)


def write_summary(folder: Path | str, summary: RunSummary) -> Path:
    """Write `summary.json` into a folder, whole or not at all, and return its path."""
    path = Path(folder) / SUMMARY_NAME
    write_json(path, asdict(summary))
    return path


def read_summary(path: Path | str) -> RunSummary:
    """Read a summary from its file or the folder that holds it.

    Raises:
        FormatError: The file is missing or is no summary.
    """
    path = Path(path)
    path = path / SUMMARY_NAME if path.is_dir() else path
    return read_record(path, RunSummary, "the step")


def format_summary(summary: RunSummary, width: int = 110, place: Path | None = None) -> str:
    """The summary as a table for a terminal.

    Args:
        summary: What a step did.
        width: Characters.
        place: Folder that the summary lies in, where several are shown.
    """
    title = summary.pipeline if place is None else f"{place}: {summary.pipeline}"
    table = Table(title=title, title_justify="left", show_header=False, width=width)
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("value", overflow="fold")
    counts = summary.events
    if counts.read:
        table.add_row("events", f"{counts.read} read, {counts.kept} kept, {sum(counts.rejected.values())} rejected")
    for reason, number in counts.rejected.items():
        table.add_row("", f"rejected {number}: {reason}")
    for name, value in summary.inputs.items():
        table.add_row(f"input {name}", str(value))
    if summary.profile:
        table.add_section()
        table.add_row("profile", summary.profile)
    for key, one in summary.changed.items():
        table.add_row(f"set {key}", one.told(_LONGEST_VALUE))
    if summary.metrics:
        table.add_section()
    for name, metric in summary.metrics.items():
        table.add_row(name, _format_metric(metric))
    table.add_section()
    for name, value in summary.outputs.items():
        table.add_row(f"output {name}", str(value))
    for warning in summary.warnings:
        table.add_row("warning", warning)
    stream = StringIO()
    # names and paths are no markup: [old], and :bell: in a channel
    Console(file=stream, width=width, color_system=None, markup=False, emoji=False).print(table)
    return stream.getvalue()


def number(value: float) -> str:
    """A figure for readers, to four digits, and to the last before the point where a count may be meant.

    >>> number(10997.0), number(0.98765), number(1e20)
    ('10997', '0.9877', '1e+20')
    """
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"


def _short(value: object, longest: int | None) -> str:
    text = "null" if value is None else str(value)
    return text if longest is None or len(text) <= longest else f"{text[:longest]}..."


def _format_metric(metric: Metric) -> str:
    if metric.value is None:
        return "undefined"
    text = number(metric.value)
    if metric.low is not None and metric.high is not None:
        text += f"  [{number(metric.low)}, {number(metric.high)}]"
    known = {name: value for name, value in metric.baseline.items() if value is not None}
    if known:
        text += "  baseline: " + ", ".join(f"{name} {number(value)}" for name, value in known.items())
    return text
