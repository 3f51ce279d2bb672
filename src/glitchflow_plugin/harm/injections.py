"""Which signals are put where: sources drawn from a seed, at glitches and far from them, none upon another."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Annotated, Literal, get_args

import numpy as np
from jaxtyping import Float
from pydantic import Field

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Count, CountOrNone, Positive, Range, Replicates, section
from glitchflow_plugin.signal.waveforms import Waveform, binary_duration, compact_binary, sine_gaussian

Kind = Literal["binary", "sine_gaussian", "long"]
KINDS: tuple[Kind, ...] = get_args(Kind)

EDGE = 2.0
"""Time beside the ends of what is looked at, further than segments of the spectrum are long, that stays free, s."""

_QUIET_TRIES = 4
"""Places far from glitches that are tried, for each that there would be room for."""

_RARE = 0.05
"""Share of its SNR that a signal must have in the band that is searched."""


@section
class HarmSettings:
    """Which signals are injected and how they are looked for; conf/harm.yaml explains the keys."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = KINDS
    passes: Count = 2
    spacing: Positive = 2.0
    snr: Range = (8.0, 40.0)
    lowest_frequency: Positive = 20.0
    long_frequency: Positive = 25.0
    band: Range | None = None
    fft_length: Positive = 4.0
    glitch_snr2: Positive = 30.0
    near: Positive = 0.5
    quiet: Positive = 4.0
    threshold: Positive = 8.0
    unsafe_loss: Positive = 0.01
    replicates: Replicates = 1000
    seed: CountOrNone = 0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.near >= self.quiet:
            raise ConfigurationError(
                f"harm.settings.near ({self.near:g} s) must be below harm.settings.quiet ({self.quiet:g} s)."
            )

    @property
    def edge(self) -> float:
        """Time at the ends of a stretch in which no signal may be, s."""
        return self.fft_length + EDGE


@dataclass(frozen=True)
class Source:
    """A signal before it is placed.

    Attributes:
        kind: What it is.
        parameters: By name, as the function takes them that makes its waveform.
        before: From its beginning to its time, s.
        after: From its time to its end, s.
    """

    kind: Kind
    parameters: Mapping[str, float]
    before: float
    after: float


@dataclass(frozen=True)
class Injection:
    """A signal at its place.

    Attributes:
        source: What it is.
        gps: GPS time of the merger, or of the middle, s.
        snr: Optimal SNR in the quiet noise.
    """

    source: Source
    gps: float
    snr: float

    @property
    def span(self) -> tuple[float, float]:
        """Start and end, GPS s."""
        return self.gps - self.source.before, self.gps + self.source.after

    @property
    def told(self) -> str:
        """Its parameters as JSON."""
        return json.dumps(dict(self.source.parameters), sort_keys=True)


def draw_source(kind: Kind, rng: np.random.Generator, settings: HarmSettings, band: tuple[float, float]) -> Source:
    """A source of a kind: log-uniform in masses, frequency and quality, uniform in spins and angles.

    Args:
        kind: Binaries of black holes of 5 to 50 solar masses with spins up to 0.5, neutron stars of 1.2 to 2 solar
            masses without, or sine-Gaussians of Q 3 to 30.
        rng: Draws.
        settings: Frequencies at which binaries begin.
        band: Frequencies that a sine-Gaussian may have, Hz.
    """
    if kind == "sine_gaussian":
        low, high = np.log(band)
        inner = 0.15 * (high - low)  # not at the edges, where the filter falls
        parameters = {
            "frequency": float(np.exp(rng.uniform(low + inner, high - inner))),
            "quality": float(np.exp(rng.uniform(np.log(3.0), np.log(30.0)))),
            "phase": float(rng.uniform(0, 2 * np.pi)),
        }
        half = 5 * parameters["quality"] / (np.sqrt(2) * np.pi * parameters["frequency"])
        return Source(kind, parameters, half, half)
    masses = (5.0, 50.0) if kind == "binary" else (1.2, 2.0)
    spins = rng.uniform(-0.5, 0.5, 2) if kind == "binary" else np.zeros(2)
    larger, smaller = sorted(np.exp(rng.uniform(np.log(masses[0]), np.log(masses[1]), 2)).tolist(), reverse=True)
    parameters = {
        "mass_1": larger,
        "mass_2": smaller,
        "spin_1": float(spins[0]),
        "spin_2": float(spins[1]),
        "psi": float(rng.uniform(0, np.pi)),
    }
    return Source(kind, parameters, binary_duration(larger, smaller, _begins(kind, settings)), 0.5)


def _begins(kind: Kind, settings: HarmSettings) -> float:
    return settings.lowest_frequency if kind == "binary" else settings.long_frequency


def waveform(source: Source, sample_rate: float, settings: HarmSettings) -> Waveform:
    """The waveform of a source at a rate (Hz), of no particular loudness."""
    if source.kind == "sine_gaussian":
        return sine_gaussian(sample_rate, **source.parameters)
    return compact_binary(sample_rate, _begins(source.kind, settings), **source.parameters)


def draw_pass(
    kinds: Sequence[Kind],
    free: Sequence[tuple[float, float]],
    glitches: Float[np.ndarray, " glitch"],
    rng: np.random.Generator,
    settings: HarmSettings,
    *,
    band: tuple[float, float],
) -> list[Injection]:
    """Signals that are injected together: by turns at a glitch and far from all, in order of time.

    Args:
        kinds: One is drawn for each.
        free: Stretches within which a signal must lie, GPS s.
        glitches: GPS s.
        rng: Draws.
        settings: How far apart, how loud, how near.
        band: Frequencies that a sine-Gaussian may have, Hz.
    """
    total = sum(stop - start for start, stop in free)
    tries = _QUIET_TRIES * int(total / max(settings.spacing, 1.0))
    anywhere = _places(free, rng.uniform(0, total, tries))
    quiet = anywhere[distance_to(glitches, anywhere, anywhere) >= settings.quiet]
    near = rng.permutation(glitches) + rng.uniform(-settings.near, settings.near, len(glitches))
    accepted: list[Injection] = []
    for gps in chain.from_iterable(zip_longest(near, quiet)):
        if gps is None:
            continue
        source = draw_source(kinds[int(rng.integers(len(kinds)))], rng, settings, band)
        one = Injection(source, float(gps), float(np.exp(rng.uniform(*np.log(settings.snr)))))
        if _fits(one.span, free) and all(_apart(one.span, other.span, settings.spacing) for other in accepted):
            accepted.append(one)
    return sorted(accepted, key=lambda one: one.gps)


def distance_to(
    glitches: Float[np.ndarray, " glitch"], start: Float[np.ndarray, " signal"], stop: Float[np.ndarray, " signal"]
) -> Float[np.ndarray, " signal"]:
    """How far the nearest glitch is from each signal, s: 0 where it lies within, infinite without glitches.

    >>> distance_to(np.array([10.0, 20.0]), np.array([11.0, 8.0, 26.0]), np.array([13.0, 12.0, 27.0]))
    array([1., 0., 6.])
    """
    beyond = np.maximum(start[:, None] - glitches, glitches - stop[:, None])
    return np.maximum(beyond.min(axis=1, initial=np.inf), 0.0)


def check_power(kind: str, inside: float, whole: float, band: tuple[float, float]) -> None:
    """Refuse a band in which a signal has next to nothing.

    Args:
        kind: Kind of signal.
        inside: Its SNR in the band.
        whole: Its SNR in the whole band of the model.
        band: Hz.

    Raises:
        ConfigurationError: It has less than a twentieth.
    """
    if inside < _RARE * whole or not whole:
        share = 100 * inside / whole if whole else 0.0
        raise ConfigurationError(
            f"a signal of kind {kind} has {share:.2g} % of its SNR between {band[0]:g} and {band[1]:g} Hz, expected at "
            f"least {100 * _RARE:g} %. Widen harm.settings.band, or leave {kind} out of harm.settings.kinds."
        )


def _places(free: Sequence[tuple[float, float]], along: Float[np.ndarray, " try"]) -> Float[np.ndarray, " try"]:
    """GPS times at some distances along stretches."""
    if not len(free):
        return np.empty(0)
    lengths = np.array([stop - start for start, stop in free])
    ends = np.cumsum(lengths)
    row = np.minimum(np.searchsorted(ends, along, "right"), len(free) - 1)
    return np.array([stop for _, stop in free])[row] - (ends[row] - along)


def _fits(span: tuple[float, float], free: Sequence[tuple[float, float]]) -> bool:
    return any(start <= span[0] and span[1] <= stop for start, stop in free)


def _apart(one: tuple[float, float], other: tuple[float, float], spacing: float) -> bool:
    return one[0] >= other[1] + spacing or one[1] + spacing <= other[0]
