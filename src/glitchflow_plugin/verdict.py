"""What is said of an event or a window once its energies are known: each rule once, for NumPy and torch alike.

A case *holds a glitch* when its largest measured energy is above the threshold, and is *quiet* when it is at or below
it. It is *vetoed* where the predicted energy is above the threshold. A glitch is *cleaned* when nothing above the
threshold is left, and a quiet case is *lifted* when cleaning brings it above. An energy equal to the threshold is never
above it. NaN is neither above nor below: such a case is no glitch, and it is not quiet.
"""

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

Energies: TypeAlias = Any
"""Energies in SNR²: a NumPy array or a torch tensor."""

Mask: TypeAlias = Any
"""Booleans of the same kind and shape."""

GLITCH_THRESHOLD = 16.0
"""SNR² above which a case holds a glitch when nothing else is asked for."""

TOLD_SNR2 = 25.0
"""SNR² that a twin must predict of an event, or a witness explain of it, for the strain to tell anything of that.

It is power of whitened series: where so much is predicted and noise of variance 1 is all else, the gain is known to one
part in five. Below it a prediction is not believed, the strain is not asked whether it agrees, and no gain is followed.
"""

GROWTH = 0.05
"""Share by which the energy of a quiet case may grow before it counts as harmed."""

OUTCOMES = ("cleaned", "not cleaned", "missed", "false alarm", "quiet", "no strain")
"""What can come of an event."""

PASS, SUBTRACT, VETO = DECISIONS = ("pass", "subtract", "veto")
"""What a search shall do with an event: use it as it is, use the cleaned one, or leave it out."""

NEW_BELOW = 0.05
"""Share of validation events at least as new below which an event is new to the model."""


def above(energies: Energies, threshold: float | NDArray[np.float64]) -> Mask:
    """Energies above a threshold: loud pixels, glitches, vetoes.

    The comparison is that of real numbers, so that maps in single precision and what is found in them in double
    precision have one verdict: rounding 16.1 to single precision would make it larger than itself.

    Args:
        energies: SNR², of single or double precision, any shape.
        threshold: SNR²; several of them, in an array of a shape that fits, with NumPy arrays of double precision alone.

    >>> above(np.array([15.9, 16.0, 16.1]), 16.0)
    array([False, False,  True])
    """
    return energies > _representable(energies, threshold)


def holds_glitch(peak_measured: Energies, threshold: float | NDArray[np.float64]) -> Mask:
    """Whether the largest measured energy (SNR²) of each case makes it a glitch; arguments as for `above`."""
    return above(peak_measured, threshold)


def is_quiet(peak_measured: Energies, threshold: float | NDArray[np.float64]) -> Mask:
    """Whether the largest measured energy (SNR²) of each case makes it quiet; arguments as for `above`."""
    return peak_measured <= _representable(peak_measured, threshold)


def is_vetoed(peak_predicted: Energies, threshold: float | NDArray[np.float64]) -> Mask:
    """Whether predicted energies (SNR²), of a column or the largest of a case, are vetoed; arguments as for `above`."""
    return above(peak_predicted, threshold)


def is_cleaned(glitch: Mask, left: Mask) -> Mask:
    """Glitches of which nothing is left.

    Args:
        glitch: Whether a case holds a glitch before cleaning.
        left: Whether anything `above` the threshold is left after it.
    """
    return glitch & ~left


def earns_cleaning(glitch: Mask, left: Mask, before: Energies, after: Energies) -> Mask:
    """Cleaned glitches that count as a merit: energy that is added elsewhere must not pay for them.

    Args:
        glitch: Whether a case holds a glitch before cleaning.
        left: Whether anything `above` the threshold is left when what is predicted of noise is put back.
        before: Total energy before.
        after: Total energy after.
    """
    return is_cleaned(glitch, left) & (after <= before)


def is_lifted(quiet: Mask, left: Mask) -> Mask:
    """Quiet cases that show a glitch after cleaning; arguments as for `is_cleaned`."""
    return quiet & left


def is_harmed(quiet: Mask, left: Mask, before: Energies, after: Energies) -> Mask:
    """Quiet cases that are lifted, or whose energy has grown by more than `GROWTH`.

    Args:
        quiet: Whether a case is quiet before cleaning.
        left: Whether anything `above` the threshold is there after it.
        before: Total energy before.
        after: Total energy after.
    """
    return is_lifted(quiet, left) | (quiet & (after > (1 + GROWTH) * before))


def outcome(
    glitch: Bool[np.ndarray, " event"],
    vetoed: Bool[np.ndarray, " event"],
    cleaned: Bool[np.ndarray, " event"],
    measured: Bool[np.ndarray, " event"],
) -> NDArray[np.str_]:
    """What came of each event, in a word or two: one of `OUTCOMES`.

    Args:
        glitch: Whether it holds a glitch.
        vetoed: Whether it is vetoed: a glitch within its time, a quiet event anywhere.
        cleaned: Whether the glitch is cleaned.
        measured: Whether there is usable strain; without, the others but `vetoed` say nothing.

    Returns:
        `cleaned` or `not cleaned` for a vetoed glitch, `missed` for a glitch without veto, `false alarm` for a veto
        without glitch, `quiet` for neither, `no strain` where nothing was measured. Shape (event,).
    """
    good, bad, missed, false_alarm, quiet, unmeasured = OUTCOMES
    cases = [~measured, glitch & vetoed & cleaned, glitch & vetoed, glitch, vetoed]
    return np.select(cases, [unmeasured, good, bad, missed, false_alarm], quiet)


def decide(
    came: NDArray[np.str_],
    vetoed: Bool[np.ndarray, " event"],
    witnesses_missing: Int[np.ndarray, " event"],
    strangeness: Float[np.ndarray, " event"],
    stopped: Bool[np.ndarray, " event"],
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """What a search shall do with each event, and why.

    Without a veto an event passes: the witnesses have nothing to say against it. With one it is subtracted if that is
    known to clean it and the model knows such events, and is left out else.

    Args:
        came: What came of each event, see `outcome`.
        vetoed: Whether any of its time is vetoed.
        witnesses_missing: Witnesses of the model without usable data.
        strangeness: Share of validation events at least as new to the model; NaN where it is not known.
        stopped: Whether the closed loop has stopped a witness before.

    Returns:
        One of `DECISIONS`, and the reasons, joined by semicolons: the outcome, `witness missing`, `witness stopped`,
        `new to the model`; (event,) each.
    """
    doubts = {
        "witness missing": witnesses_missing > 0,
        "witness stopped": stopped,
        "new to the model": strangeness < NEW_BELOW,
    }
    sure = (came == OUTCOMES[0]) & ~np.any(list(doubts.values()), axis=0)
    decisions = np.select([~vetoed, sure], [PASS, SUBTRACT], VETO)
    reasons = came.astype(np.str_)
    for doubt, there in doubts.items():
        reasons = np.char.add(reasons, np.where(there, f"; {doubt}", ""))
    return decisions, reasons


def _representable(energies: Energies, threshold: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
    """The largest number at or below the threshold that energies in single precision can be equal to."""
    if energies.dtype.itemsize > 4 or isinstance(threshold, np.ndarray):
        return threshold
    level = np.float32(threshold)
    return float(level if float(level) <= threshold else np.nextafter(level, np.float32(-np.inf)))
