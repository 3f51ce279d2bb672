"""Settings of the simulated detector."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.simulation.noise import Line, sensitivity


@dataclass(frozen=True)
class FamilySettings:
    """How often and how loud one family of glitches is.

    Attributes:
        weight: Relative frequency among the families.
        snr: Optimal SNR in the strain, drawn log-uniformly between the two.
        witness_snr: SNR in the main witness of a glitch of typical (geometric mean) strain SNR; fixes the gain.
        gain_spread: Standard deviation of the logarithm of the coupling's gain from event to event.
    """

    weight: float = 1.0
    snr: tuple[float, float] = (8.0, 60.0)
    witness_snr: float = 40.0
    gain_spread: float = 0.1

    def __post_init__(self) -> None:
        """Read YAML's list as a pair and check it."""
        object.__setattr__(self, "snr", _interval("snr", self.snr))
        if self.weight < 0.0 or self.witness_snr <= 0.0 or self.gain_spread < 0.0:
            raise ConfigurationError(f"weight and gain_spread must be >= 0 and witness_snr > 0, got {self}.")


def default_families() -> dict[str, FamilySettings]:
    """The families of the embedded default; long glitches need more SNR to stand out as much."""
    return {
        "scattered_light": FamilySettings(weight=0.75, snr=(35.0, 120.0), witness_snr=70.0),
        "whistle": FamilySettings(snr=(25.0, 90.0), witness_snr=60.0),
        "light_modulation": FamilySettings(weight=1.1, snr=(20.0, 100.0), witness_snr=60.0),
        "blip": FamilySettings(weight=1.1),
        "tomte": FamilySettings(weight=1.1),
        "acoustic": FamilySettings(weight=1.1, snr=(12.0, 70.0), witness_snr=50.0),
    }


@dataclass(frozen=True)
class BackgroundSettings:
    """Measured strain under the glitches in place of simulated noise.

    Attributes:
        files: GWOSC HDF5 files.
        mode: `stretch` takes random stretches of the files as they are; `gaussian` draws Gaussian noise with their
            spectrum, of which there is as much as wanted.
        exclude: GPS intervals (start, end) that must not be used, for instance known mergers.
    """

    files: tuple[str, ...]
    mode: Literal["stretch", "gaussian"] = "stretch"
    exclude: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Read YAML's lists as tuples and check them."""
        files = (self.files,) if isinstance(self.files, str) else tuple(str(file) for file in self.files)
        object.__setattr__(self, "files", files)
        object.__setattr__(self, "exclude", tuple(_interval("exclude", pair) for pair in self.exclude))
        if not files:
            raise ConfigurationError("background.files is empty. Name GWOSC HDF5 files, or leave `background` out.")
        if self.mode not in ("stretch", "gaussian"):
            raise ConfigurationError(f"background.mode must be stretch or gaussian, got {self.mode!r}.")


@dataclass(frozen=True)
class BankSettings:
    """Measured glitch waveforms, for which witnesses are made.

    Attributes:
        path: Bank file, groups `IFO/CLASS/INDEX`.
        classes: Classes to use; all by default. Each becomes a family with a witness of its own.
        detectors: Detectors to use; all by default.
        indices: Indices within each class to use; all by default. Give training and inference different ones.
        snr: Optimal SNR in the strain, drawn log-uniformly; None keeps the bank's own.
        min_snr: Waveforms whose reconstruction has a lower SNR are left out.
        witness_snr: SNR in the witness of a glitch of typical strain SNR.
        gain_spread: As in `FamilySettings`.
    """

    path: str
    classes: tuple[str, ...] | None = None
    detectors: tuple[str, ...] | None = None
    indices: tuple[int, ...] | None = None
    snr: tuple[float, float] | None = (15.0, 80.0)
    min_snr: float = 5.0
    witness_snr: float = 50.0
    gain_spread: float = 0.1

    def __post_init__(self) -> None:
        """Read YAML's lists as tuples."""
        for name in ("classes", "detectors", "indices"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        if self.snr is not None:
            object.__setattr__(self, "snr", _interval("bank.snr", self.snr))


@dataclass(frozen=True)
class MergerSettings:
    """Binary-merger signals (IMRPhenomD) in some events.

    Attributes:
        fraction: Share of the events that hold one, independently of a glitch.
        snr: Optimal SNR, drawn log-uniformly.
        lowest_frequency: Where the waveform starts, Hz.
    """

    fraction: float = 0.04
    snr: tuple[float, float] = (10.0, 30.0)
    lowest_frequency: float = 20.0

    def __post_init__(self) -> None:
        """Read YAML's list as a pair."""
        object.__setattr__(self, "snr", _interval("mergers.snr", self.snr))


@dataclass(frozen=True)
class SimulationSettings:
    """A set of simulated events.

    Attributes:
        num_events: Number of events.
        seed: Of all randomness; event i depends on (seed, i) alone.
        ifo: Prefix of all channel names.
        gps_start: Start of the first event, GPS s.
        spacing: From the start of one event to the start of the next, s.
        duration: Of an event, s.
        sample_rate: Of the strain, Hz.
        time_jitter: A glitch lies within ± this of the middle of its event, s.
        noise: Sensitivity of the interferometer: `advirgo` or `aligo`.
        lines: Lines in the strain; None takes mains, calibration tones and violin modes.
        mains: Frequency of the mains network, Hz; in strain and witnesses.
        background: Measured strain in place of simulated noise.
        no_glitch_fraction: Share of the events without any glitch.
        no_witness_fraction: Share of the glitches that no witness sees.
        coupling: Factor on all glitches in the strain; 0 leaves the noise alone. The witnesses do not change.
        families: Families of glitches by name; those left out do not occur.
        bank: Measured glitch waveforms; with them `families` is empty unless it is given.
        mergers: Binary-merger signals.
        witness_transient_rate: Expected transients in each true witness and event that leave the strain alone.
        distractor_rate: Expected transients in each distractor and event.
        transient_snr: SNR of these transients in their channel, drawn log-uniformly.
        gap_fraction: Share of the events with a gap (NaN) in one of the auxiliary channels.
    """

    num_events: int = 360
    seed: int = 1
    ifo: str = "V1"
    gps_start: float = 1_400_000_000.0
    spacing: float = 64.0
    duration: float = 16.0
    sample_rate: float = 4096.0
    time_jitter: float = 1.0
    noise: str = "advirgo"
    lines: tuple[Line, ...] | None = None
    mains: float = 50.0
    background: BackgroundSettings | None = None
    no_glitch_fraction: float = 0.2
    no_witness_fraction: float = 0.05
    coupling: float = 1.0
    families: Mapping[str, FamilySettings] | None = None
    bank: BankSettings | None = None
    mergers: MergerSettings = field(default_factory=MergerSettings)
    witness_transient_rate: float = 0.3
    distractor_rate: float = 0.6
    transient_snr: tuple[float, float] = (12.0, 60.0)
    gap_fraction: float = 0.05

    def __post_init__(self) -> None:
        """Build the parts from YAML's dictionaries and check the whole."""
        setting = object.__setattr__
        setting(self, "background", _built(BackgroundSettings, self.background))
        setting(self, "bank", _built(BankSettings, self.bank))
        setting(self, "mergers", _built(MergerSettings, self.mergers) or MergerSettings(fraction=0.0))
        setting(self, "transient_snr", _interval("transient_snr", self.transient_snr))
        if self.lines is not None:
            setting(self, "lines", tuple(_built(Line, line) for line in self.lines))
        families = self.families
        if families is None:
            families = {} if self.bank is not None else default_families()
        known = default_families()
        unknown = sorted(set(families) - set(known))
        if unknown:
            raise ConfigurationError(f"Unknown glitch families {unknown}; choose from {sorted(known)}.")
        built = {
            name: value if isinstance(value, FamilySettings) else replace(known[name], **dict(value or {}))
            for name, value in families.items()
        }
        setting(self, "families", built)
        sensitivity(self.noise)
        if self.num_events < 1:
            raise ConfigurationError(f"num_events must be at least 1, got {self.num_events}.")
        if self.spacing < self.duration:
            raise ConfigurationError(
                f"Events overlap: spacing {self.spacing} s is less than duration {self.duration} s."
            )
        if self.duration < 8.0 or self.duration * 256.0 != round(self.duration * 256.0):
            raise ConfigurationError(f"duration must be at least 8 s, a multiple of 1/256 s, got {self.duration} s.")
        if self.sample_rate < 2048.0 or self.sample_rate % 2048.0:
            raise ConfigurationError(f"sample_rate must be a multiple of 2048 Hz, got {self.sample_rate}.")
        if not 0.0 <= self.time_jitter <= self.duration / 2.0 - 3.0:
            raise ConfigurationError(f"time_jitter must leave 3 s to either end of an event, got {self.time_jitter} s.")
        shares = ("no_glitch_fraction", "no_witness_fraction", "gap_fraction")
        wrong = [name for name in shares if not 0.0 <= getattr(self, name) <= 1.0]
        if wrong or not 0.0 <= self.mergers.fraction <= 1.0:
            raise ConfigurationError(f"Fractions must lie between 0 and 1: {wrong or 'mergers.fraction'}.")

    def recipe(self) -> dict[str, Any]:
        """All that decides what one event looks like, as plain data; the number of events is left out."""
        content = asdict(self)
        content.pop("num_events")
        return content


def _built(kind: type, value: Any) -> Any:
    """An instance from a dictionary; None and instances pass. A misspelt key is an error that lists the right ones."""
    if value is None or isinstance(value, kind):
        return value
    try:
        return kind(**dict(value))
    except TypeError as error:
        known = ", ".join(entry.name for entry in fields(kind))
        raise ConfigurationError(f"{kind.__name__}: {error}. Known keys: {known}.") from error


def _interval(name: str, value: Any) -> tuple[float, float]:
    """A pair low <= high from YAML's list."""
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name} needs two numbers [low, high], got {value!r}.") from error
    if low > high:
        raise ConfigurationError(f"{name} needs low <= high, got {value!r}.")
    return low, high
