"""How a disturbance gets from its sensor into another channel: a law, then a delayed, band-limited response.

Most laws are static. A hysteretic one remembers where it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy import fft

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.types.arrays import Series
from glitchflow_plugin.types.plain import JsonObject

Form = Literal["linear", "quadratic", "odd_quadratic", "threshold", "bilinear", "saturating", "hysteretic"]

_LEAK = 0.1
"""Share of its gain that a saturated path keeps, so that louder is always louder."""


@dataclass(frozen=True)
class Coupling:
    """A path from a witness to another channel.

    Attributes:
        form: The law: `linear` s; `quadratic` s², which doubles frequencies; `odd_quadratic` s·|s|;
            `threshold` nothing below `threshold`, the excess above it; `bilinear` s times a slow modulation;
            `saturating` s while small, a tenth of the slope far above `threshold`; `hysteretic` what follows s through
            a play of `threshold` to either side.
        band: Half-power band of the response, Hz.
        delay: s by which the other channel follows the witness.
        resonance: Frequency (Hz) and quality factor of a mechanical resonance on the way, or None.
        echo: A second path beside the first: its strength relative to that, and s by which it is later, or None.
        gain: Unit of the other channel per unit of the witness (per unit² for the quadratic laws).
        threshold: In the witness's unit.
        order: Steepness of the band's edges (Butterworth).
        memory: Time in which a hysteretic path creeps back to rest by a factor of e, s.
    """

    form: Form = "linear"
    band: tuple[float, float] = (10.0, 400.0)
    delay: float = 0.0
    resonance: tuple[float, float] | None = None
    echo: tuple[float, float] | None = None
    gain: float = 1.0
    threshold: float = 0.0
    order: int = 8
    memory: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if self.form not in get_args(Form):
            raise ConfigurationError(f"Unknown coupling {self.form!r}; choose one of {get_args(Form)}.")
        if not 0.0 < self.band[0] < self.band[1]:
            raise ConfigurationError(f"A coupling band needs 0 < low < high (Hz), got {self.band}.")
        if self.threshold < 0.0:
            raise ConfigurationError(f"A threshold must not be negative, got {self.threshold}.")
        if self.memory <= 0.0:
            raise ConfigurationError(f"The memory of a path must be positive, got {self.memory} s.")

    @property
    def degree(self) -> int | None:
        """Power with which the result grows with the witness's amplitude; None where there is no single power."""
        return {"linear": 1, "bilinear": 1, "quadratic": 2, "odd_quadratic": 2}.get(self.form)

    @property
    def silent_below(self) -> float:
        """Peak in the witness's unit up to which nothing arrives."""
        return self.threshold if self.form in ("threshold", "hysteretic") else 0.0


def distort(  # noqa: PLR0911  # one for each law
    witness: Series, coupling: Coupling, modulation: Series | float = 1.0, sample_rate: float = 4096.0
) -> Series:
    """The law of a coupling.

    Args:
        witness: Shape (time,), in the witness's unit.
        coupling: The path.
        modulation: Slow factor of a bilinear coupling, shape (time,).
        sample_rate: Hz; a memory fades in seconds.
    """
    match coupling.form:
        case "linear":
            return witness
        case "quadratic":
            return witness**2
        case "odd_quadratic":
            return witness * np.abs(witness)
        case "threshold":
            return np.sign(witness) * np.maximum(np.abs(witness) - coupling.threshold, 0.0)
        case "bilinear":
            return witness * modulation
        case "saturating":
            level = coupling.threshold
            return (1.0 - _LEAK) * level * np.tanh(witness / level) + _LEAK * witness if level else _LEAK * witness
        case "hysteretic":
            return play(witness, coupling.threshold, float(np.exp(-1.0 / (coupling.memory * sample_rate))))


def play(series: Series, width: float, kept: float = 1.0) -> np.ndarray:
    """What is dragged along with some play, as by a gear with backlash: it rests until it is pushed.

    The operator of which models of hysteresis are made: Visintin, Differential Models of Hysteresis (1994),
    doi:10.1007/978-3-662-11557-2.

    Args:
        series: Shape (time,), within the play at its beginning and at rest at its end.
        width: Half width of the play, in the series' unit.
        kept: Share of its displacement that is left after a sample without being pushed.

    Returns:
        float64, shape (time,): at no time further than `width` from the series.

    >>> play(np.array([0.0, 3.0, 2.0, 0.0, -3.0, 0.0]), 1.0).tolist()
    [0.0, 2.0, 2.0, 1.0, -2.0, -1.0]
    """
    result = np.zeros(series.size)
    moved = np.flatnonzero(np.abs(series) > width)
    if not moved.size:
        return result
    first = int(moved[0])
    # a few thousand samples of an event move; of the others it is known where they are
    last = int(np.flatnonzero(np.abs(series) > 1e-6 * width)[-1]) + 1
    held, dragged = 0.0, []
    for value in series[first:last].tolist():
        held = min(max(held * kept, value - width), value + width)
        dragged.append(held)
    result[first:last] = dragged
    result[last:] = held * kept ** np.arange(1, series.size - last + 1)
    return result


def pole_pair(frequency: np.ndarray, centre: float, quality: float) -> np.ndarray:
    """Denominator of a resonance's response: 1 far below `centre` (Hz), and i / `quality` there."""
    ratio = frequency / centre
    return 1.0 - ratio**2 + 1j * ratio / quality


def response(frequency: np.ndarray, coupling: Coupling) -> np.ndarray:
    """Complex transfer function of a coupling after its static law.

    The band's edges act on the magnitude only; all phase is the delay's and the resonance's, so that `delay` is what
    a coincidence test will find.

    Args:
        frequency: Hz, shape (frequency,).
        coupling: The path.

    Returns:
        complex128, shape (frequency,).
    """
    low, high = coupling.band
    positive = np.maximum(frequency, 1e-9)
    magnitude = 1.0 / np.sqrt(
        (1.0 + (low / positive) ** (2 * coupling.order)) * (1.0 + (frequency / high) ** (2 * coupling.order))
    )
    result = coupling.gain * magnitude * np.exp(-2j * np.pi * frequency * coupling.delay)
    if coupling.resonance is not None:
        result = result / pole_pair(frequency, *coupling.resonance)
    if coupling.echo is not None:
        strength, later = coupling.echo
        result = result * (1.0 + strength * np.exp(-2j * np.pi * frequency * later))
    return result


def couple(witness: Series, coupling: Coupling, sample_rate: float, modulation: Series | float = 1.0) -> Series:
    """What arrives at the other end of a coupling.

    Args:
        witness: Shape (time,), in the witness's unit, zero at both ends (the response is circular).
        coupling: The path.
        sample_rate: Sample rate of the witness and the result, Hz.
        modulation: Slow factor of a bilinear coupling, shape (time,).

    Returns:
        float64, shape (time,), in the unit of the other channel.
    """
    distorted = distort(witness, coupling, modulation, sample_rate)
    return through(distorted, sample_rate, lambda frequency: response(frequency, coupling))


def through(series: Series, sample_rate: float, response: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A transient after a linear path.

    Args:
        series: Shape (time,), zero at both ends (the response is circular).
        sample_rate: Hz.
        response: Complex transfer function of a frequency (Hz).

    Returns:
        float64, shape (time,).
    """
    return fft.irfft(fft.rfft(series) * response(fft.rfftfreq(series.size, 1.0 / sample_rate)), series.size)


def resample(series: Series, sample_rate: float, new_rate: float) -> np.ndarray:
    """A transient at another sample rate, low-passed (roll-off in the last tenth below the new Nyquist frequency).

    Args:
        series: Shape (time,), zero at both ends.
        sample_rate: Hz.
        new_rate: Hz; the duration must hold a whole number of samples at both rates.

    Returns:
        float64, shape (time at the new rate,).
    """
    num_samples = round(series.size * new_rate / sample_rate)
    if num_samples == series.size:
        return series
    spectrum = fft.rfft(series)
    nyquist = 0.5 * min(new_rate, sample_rate)
    frequency = fft.rfftfreq(series.size, 1.0 / sample_rate)
    edge = np.clip((nyquist - frequency) / (0.1 * nyquist), 0.0, 1.0)
    spectrum *= 0.5 - 0.5 * np.cos(np.pi * edge)
    size = num_samples // 2 + 1
    fitted = np.zeros(size, dtype=complex)
    kept = min(size, spectrum.size)
    fitted[:kept] = spectrum[:kept]
    return fft.irfft(fitted, num_samples) * (num_samples / series.size)


def linear_response(content: JsonObject, frequency: np.ndarray) -> np.ndarray | None:
    """Transfer function of a coupling as a truth file keeps it; None where its law is not linear.

    Args:
        content: Fields of a `Coupling`; of another record there is no transfer function.
        frequency: Hz, shape (frequency,).

    Returns:
        complex128, shape (frequency,).
    """
    if content.get("form") != "linear" or "band" not in content:
        return None
    return response(frequency, Coupling(**content))
