"""Settings of the simulated detector."""

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from glitchflow_plugin.errors import ConfigurationError, nearest
from glitchflow_plugin.settings import Count, CountOrNone, NotNegative, Positive, Range, Share, Texts, section
from glitchflow_plugin.simulation.noise import Line, sensitivity


@section
class FamilySettings:
    """How often and how loud one family of glitches is.

    Attributes:
        weight: Relative frequency among the families.
        snr: Optimal SNR in the strain, drawn log-uniformly between the two.
        witness_snr: SNR in the main witness of a glitch of typical (geometric mean) strain SNR; fixes the gain.
        gain_spread: Standard deviation of the logarithm of the coupling's gain from event to event.
    """

    weight: NotNegative = 1.0
    snr: Range = (8.0, 30.0)
    witness_snr: Positive = 40.0
    gain_spread: NotNegative = 0.1


def known_families() -> dict[str, FamilySettings]:
    """All families, as they are unless the settings say otherwise."""
    return default_families() | {
        "saturation": FamilySettings(snr=(10.0, 25.0), witness_snr=50.0),
        "clipping": FamilySettings(snr=(12.0, 40.0), witness_snr=60.0),
        "hysteresis": FamilySettings(snr=(12.0, 35.0), witness_snr=50.0),
        "slow_gain": FamilySettings(snr=(12.0, 40.0), witness_snr=50.0),
        "two_paths": FamilySettings(snr=(12.0, 40.0), witness_snr=50.0),
        "resonant_witness": FamilySettings(snr=(10.0, 35.0), witness_snr=50.0),
    }


def default_families() -> dict[str, FamilySettings]:
    """The families of the embedded default; long glitches need more SNR to stand out as much."""
    return {
        "scattered_light": FamilySettings(weight=0.75, snr=(25.0, 70.0), witness_snr=70.0),
        "whistle": FamilySettings(snr=(18.0, 50.0), witness_snr=60.0),
        "light_modulation": FamilySettings(weight=1.1, snr=(15.0, 50.0), witness_snr=60.0),
        "blip": FamilySettings(weight=1.1),
        "tomte": FamilySettings(weight=1.1),
        "acoustic": FamilySettings(weight=1.1, snr=(10.0, 35.0), witness_snr=50.0),
    }


@section
class BackgroundSettings:
    """Measured strain under the glitches in place of simulated noise.

    Attributes:
        files: GWOSC HDF5 files.
        mode: `stretch` takes random stretches of the files as they are; `gaussian` draws Gaussian noise with their
            spectrum, of which there is as much as wanted.
        exclude: GPS intervals (start, end) that must not be used, for instance known mergers.
    """

    files: Texts
    mode: Literal["stretch", "gaussian"] = "stretch"
    exclude: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be used."""
        if not self.files:
            raise ConfigurationError("background.files is empty. Name GWOSC HDF5 files, or leave `background` out.")


@section
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
    classes: Texts | None = None
    detectors: Texts | None = None
    indices: tuple[int, ...] | None = None
    snr: Range | None = (15.0, 80.0)
    min_snr: float = 5.0
    witness_snr: float = 50.0
    gain_spread: float = 0.1


@section
class MergerSettings:
    """Binary-merger signals (IMRPhenomD) in some events.

    Attributes:
        fraction: Share of the events that hold one, independently of a glitch.
        snr: Optimal SNR, drawn log-uniformly.
        lowest_frequency: Where the waveform starts, Hz.
    """

    fraction: Share = 0.04
    snr: Range = (10.0, 30.0)
    lowest_frequency: float = 20.0


def _families(given: object) -> object:
    """What a family does not say is as it is by default."""
    if not isinstance(given, Mapping):
        return given
    known = known_families()
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigurationError(
            f"Unknown glitch families {unknown};{nearest(unknown[0], known)} choose from {sorted(known)}."
        )
    return {
        name: own if isinstance(own, FamilySettings) else {**asdict(known[name]), **(own or {})}
        for name, own in given.items()
    }


def _mergers(given: object) -> object:
    return MergerSettings(fraction=0.0) if given is None else given


@section
class SimulationSettings:
    """A set of simulated events.

    Attributes:
        num_events: Number of events.
        seed: Decides all that is drawn; event i depends on (seed, i) alone.
        ifo: Prefix of all channel names.
        gps_start: Start of the first event, GPS s.
        spacing: From the start of one event to the start of the next, s.
        duration: Length of an event, s.
        sample_rate: Sample rate of the strain, Hz.
        time_jitter: A glitch lies within ± this of the trigger, s; the trigger is the middle of the event.
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
        num_distractors: Distractors beside the four that are there anyway.
        transient_snr: SNR of these transients in their channel, drawn log-uniformly.
        gap_fraction: Share of the events with a gap (NaN) in one of the auxiliary channels.
    """

    num_events: Count = 360
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
    no_glitch_fraction: Share = 0.2
    no_witness_fraction: Share = 0.05
    coupling: float = 1.0
    families: Annotated[Mapping[str, FamilySettings] | None, BeforeValidator(_families)] = None
    bank: BankSettings | None = None
    mergers: Annotated[MergerSettings, BeforeValidator(_mergers)] = field(default_factory=MergerSettings)
    witness_transient_rate: float = 0.3
    distractor_rate: float = 0.6
    num_distractors: CountOrNone = 0
    transient_snr: Range = (12.0, 60.0)
    gap_fraction: Share = 0.05

    def __post_init__(self) -> None:
        """Fill in the families and check the whole."""
        if self.families is None:
            families = {} if self.bank is not None else default_families()
            object.__setattr__(self, "families", families)
        sensitivity(self.noise)
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

    def recipe(self) -> dict[str, Any]:
        """All that decides what one event looks like, as plain data; the number of events is left out."""
        content = asdict(self)
        content.pop("num_events")
        return content
