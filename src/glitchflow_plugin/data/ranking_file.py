"""The result of a channel scan and its files: results.yaml (everything), a table as CSV and Parquet, selected.txt.

`selected.txt` holds one channel a line and can be given wherever a channel list is asked for (`ch_list`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from glitchflow_plugin.data.files import CHECKSUM, atomic_path, parsed, record_text, sealed, unsealed
from glitchflow_plugin.errors import FormatError

if TYPE_CHECKING:
    import pandas as pd

RESULTS_NAME = "results.yaml"
TABLE_NAME = "ranking.csv"
PARQUET_NAME = "ranking.parquet"
SELECTION_NAME = "selected.txt"
FORMAT_VERSION = 2
_STEP = "the step Annalisa-scan"
_REAL = (
    "correlation",
    "iou",
    "chance",
    "p_value",
    "p_common",
    "q_value",
    "significance",
    "efficiency",
    "deadtime",
    "efficiency_over_deadtime",
    "use_percentage",
    "lag",
    "lag_error",
    "safety_p_value",
)
_WHOLE = ("events", "strain_spikes", "witness_spikes", "shared_spikes", "round", "family")
_COLUMNS = dict.fromkeys(_REAL, np.float64) | dict.fromkeys(_WHOLE, np.int64) | {"representative": np.bool_}


@dataclass(frozen=True)
class RankingRound:
    """The best channel of a round of the scan, and its figures in that round.

    Attributes:
        round: Its number, from 1.
        channel: The best channel.
        explained: Spikes of the target that it explains, and that are set aside for the next rounds.
        remaining: Spikes of the target before this round.
        significance: Hveto's, -log10 of a Poisson probability.
        p_value: From time slides.
        q_value: Smallest false-discovery rate at which it is a discovery.
        correlation: Share of the remaining spikes that it shares.
        efficiency: Share of the remaining spikes that a veto removes.
        deadtime: Share of the remaining time that a veto removes.
        use_percentage: Share of its spikes that veto a spike of the target, %.
    """

    round: int
    channel: str
    explained: int
    remaining: int
    significance: float
    p_value: float
    q_value: float
    correlation: float
    efficiency: float
    deadtime: float
    use_percentage: float


@dataclass(frozen=True, eq=False)
class ChannelRanking:
    """Witness channels ordered by their correlation with the strain.

    Arrays have shape (channel,); NaN = no information. `signal/rounds.py` and `signal/slides.py` define the figures.

    Attributes:
        target: The reference channel, normally the strain.
        channels: Witnesses, best first; those without information last.
        correlation: Share of the target's spikes that the witness shares.
        iou: Shared spikes over all spikes of the two.
        chance: Correlation expected from accidental coincidences.
        p_value: Probability of so many shared spikes by accident (time slides, each event slid on its own).
        p_common: The same with one slide for all events, (1 + k) / (1 + n).
        q_value: Smallest false-discovery rate at which the channel is a discovery; NaN for unsafe channels.
        significance: Hveto's, -log10 of a Poisson probability.
        efficiency: Share of the target's spikes that a veto of the witness's spikes removes.
        deadtime: Share of the time that such a veto removes.
        efficiency_over_deadtime: The ratio of the two.
        use_percentage: Share of the witness's spikes that veto a spike of the target, %.
        lag: Best lag, s, positive where the witness follows the target; of significant channels.
        lag_error: Its standard error, s.
        safety_p_value: Probability of so many coincidences with the injections by accident; NaN without injections.
        events: Events in which target and witness are both valid.
        strain_spikes: Spikes of the target in those events.
        witness_spikes: Spikes of the witness in those events.
        shared_spikes: Pairs.
        round: Round that the channel won; 0: none.
        family: Number of its family of redundant channels; 0: not significant.
        representative: Whether it won a round first of its family, or else is the most significant of it.
        selected: The witnesses that passed, best first; never the target.
        rounds: The rounds in order.
        unsafe: Why, by channel that is never selected.
        overridden: The same by channel that may be selected nevertheless, because the user named it.
        parameters: The scan's settings.
        event_set: Fingerprint of the event set.
    """

    target: str
    channels: tuple[str, ...]
    correlation: np.ndarray
    iou: np.ndarray
    chance: np.ndarray
    p_value: np.ndarray
    p_common: np.ndarray
    q_value: np.ndarray
    significance: np.ndarray
    efficiency: np.ndarray
    deadtime: np.ndarray
    efficiency_over_deadtime: np.ndarray
    use_percentage: np.ndarray
    lag: np.ndarray
    lag_error: np.ndarray
    safety_p_value: np.ndarray
    events: np.ndarray
    strain_spikes: np.ndarray
    witness_spikes: np.ndarray
    shared_spikes: np.ndarray
    round: np.ndarray
    family: np.ndarray
    representative: np.ndarray
    selected: tuple[str, ...]
    rounds: tuple[RankingRound, ...] = ()
    unsafe: Mapping[str, str] = field(default_factory=dict)
    overridden: Mapping[str, str] = field(default_factory=dict)
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
        named = {*self.selected, *self.unsafe, *self.overridden, *(one.channel for one in self.rounds)}
        unknown = named - set(self.channels)
        if unknown:
            raise FormatError(f"ranking: channels that were not scanned: {sorted(unknown)}")
        if set(self.selected) & set(self.unsafe):
            raise FormatError(f"ranking: unsafe channels are selected: {sorted(set(self.selected) & set(self.unsafe))}")
        if self.target in self.channels:
            raise FormatError(f"ranking: the target {self.target} cannot be its own witness")

    @property
    def requirements(self) -> str:
        """What a channel had to reach to be selected, in words."""
        limits = {"fdr": 1.0} | self.parameters
        asked = [
            f"a false-discovery rate <= {limits['fdr']:g}" if limits["fdr"] < 1 and limits.get("num_slides") else "",
            *(
                f"{words} >= {limits[key]:g}{beyond}"
                for key, words, beyond in (
                    ("threshold_corr", "a correlation", ", beyond chance too,"),
                    ("threshold_iou", "an IoU", ""),
                )
                if limits.get(key) is not None
            ),
        ]
        return " and ".join(filter(None, asked))

    def table(self) -> "pd.DataFrame":
        """One row a channel."""
        import pandas as pd

        return pd.DataFrame(
            {
                "channel": list(self.channels),
                **{name: getattr(self, name) for name in _COLUMNS},
                "unsafe": [self.unsafe.get(name, "") for name in self.channels],
                "selected": [name in self.selected for name in self.channels],
            }
        )


def write_ranking(folder: Path | str, ranking: ChannelRanking) -> dict[str, Path]:
    """Write results.yaml, ranking.csv, ranking.parquet and selected.txt, each whole or not at all.

    Returns:
        Paths by what they hold: `results`, `table`, `parquet`, `selection`.
    """
    folder = Path(folder)
    content = {
        "format_version": FORMAT_VERSION,
        "parameters": ranking.parameters,
        "event_set": ranking.event_set,
        "target": ranking.target,
        "selected": list(ranking.selected),
        "rounds": [asdict(one) for one in ranking.rounds],
        "unsafe": dict(ranking.unsafe),
        "overridden": dict(ranking.overridden),
        "channels": list(ranking.channels),
        **{name: getattr(ranking, name).tolist() for name in _COLUMNS},
    }
    table = ranking.table()
    written = {
        "results": folder / RESULTS_NAME,
        "table": folder / TABLE_NAME,
        "parquet": folder / PARQUET_NAME,
        "selection": folder / SELECTION_NAME,
    }
    with atomic_path(written["results"]) as path:
        path.write_text(yaml.safe_dump(_sealed(content), sort_keys=False, allow_unicode=True), encoding="utf-8")
    with atomic_path(written["table"]) as path:
        table.to_csv(path, index=False)
    with atomic_path(written["parquet"]) as path:
        table.to_parquet(path, index=False)
    with atomic_path(written["selection"]) as path:
        path.write_text("".join(f"{channel}\n" for channel in ranking.selected), encoding="utf-8")
    return written


def read_ranking(path: Path | str) -> ChannelRanking:
    """Read a scan's results.yaml, from its path or its folder.

    Raises:
        FormatError: The file is missing or is no result of a scan.
    """
    path = Path(path)
    path = path / RESULTS_NAME if path.is_dir() or not path.suffix else path
    text = record_text(path, _STEP)
    try:
        content = unsealed(yaml.safe_load(text), path, _STEP)
    # PyYAML raises ValueError and its children where a date or a number is none
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not valid YAML ({error}). Run {_STEP} again.") from error
    if content.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {content.get('format_version')}, this program reads {FORMAT_VERSION}. "
            f"Run {_STEP} again."
        )
    values: dict[str, Any] = dict(vars(parsed(content, _Stored, path, _STEP)))
    values.pop("format_version")
    values |= {name: np.array(values[name], dtype=kind) for name, kind in _COLUMNS.items()}
    try:
        return ChannelRanking(**values)
    except FormatError as error:
        raise FormatError(f"{path}: {error}. Run {_STEP} again.") from error


def _sealed(content: dict[str, object]) -> dict[str, object]:
    """With its checksum; NaN stays what it is, as YAML can say it."""
    return {**content, CHECKSUM: sealed(content)[CHECKSUM]}


#: Content of results.yaml.
_Stored = make_dataclass(
    "_Stored",
    [
        ("format_version", int),
        ("parameters", dict[str, Any]),
        ("event_set", str),
        ("target", str),
        ("selected", tuple[str, ...]),
        ("rounds", tuple[RankingRound, ...]),
        ("unsafe", dict[str, str]),
        ("overridden", dict[str, str]),
        ("channels", tuple[str, ...]),
        *((name, list[float]) for name in _REAL),
        *((name, list[int]) for name in _WHOLE),
        ("representative", list[bool]),
    ],
)
