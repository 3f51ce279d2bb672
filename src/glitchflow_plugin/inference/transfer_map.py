"""How a twin of waveforms answers to each witness by frequency: gain, delay, and whether it is linear.

A burst of one frequency is added to one whitened witness of a quiet event, and what it changes in the prediction is
compared with the burst. Three sizes tell whether the answer grows as the burst does: a gate or a threshold lets little
of a small one pass. Gains are of whitened series: strain over its noise, by witness over its noise.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from glitchflow_plugin.data.event_files import list_event_files, read_event
from glitchflow_plugin.data.truth_file import Truth
from glitchflow_plugin.inference.asked import AskedSeries
from glitchflow_plugin.settings import Count, Positive, Texts, section
from glitchflow_plugin.signal.intervention import matching
from glitchflow_plugin.signal.probe import Arrived, arrived, burst, growth
from glitchflow_plugin.signal.psd import welch_psd
from glitchflow_plugin.types.plain import JsonObject
from glitchflow_plugin.types.tensors import host

Response = Callable[[JsonObject, NDArray[np.float64]], NDArray[np.complex128] | None]
"""From a coupling in a truth file, and frequencies (Hz), to its transfer function; None of one that is not linear."""

TWIN, LINEAR, TRUE = "twin", "linear twin", "simulator"
"""Whose response it is."""
_SPECTRUM_EVENTS = 8
"""Events of which noise spectra are medians."""
_FELT = 0.1
"""Share of its largest gain from which a true response counts in a comparison."""


@section
class TransferSettings:
    """What is probed; conf/what_if.yaml explains the keys."""

    channels: Texts = ("*",)
    frequencies: Count = 16
    amplitudes: tuple[Positive, ...] = (10.0, 30.0, 100.0)
    backgrounds: Count = 2
    longest_delay: Positive = 0.1


def probe_frequencies(asked: AskedSeries, count: int) -> NDArray[np.float64]:
    """Frequencies of the probes, Hz, even in the logarithm, within the rows of the maps."""
    rows = asked.spectrograms.frequencies
    return np.geomspace(rows[0], rows[-1], count + 2)[1:-1]


def transfer_map(
    asked: AskedSeries, rows: Sequence[int], settings: TransferSettings, *, model: str = TWIN
) -> pd.DataFrame:
    """Probe each witness.

    Args:
        asked: The twin.
        rows: Quiet events, one background each.
        settings: What is probed.
        model: Whose response it is, for the table.

    Returns:
        One row for each witness, frequency and size of the probe: means over the backgrounds, `gain_deviation` between
        them, and `growth`, the power with which the answer grows with the probe.

    Raises:
        ChannelMismatchError: The model has no such witness.
    """
    frequencies = probe_frequencies(asked, settings.frequencies)
    backgrounds = asked.read(rows)
    size, rate = backgrounds.shape[-1], asked.sample_rate
    kinds = [(frequency, amplitude) for frequency in frequencies for amplitude in settings.amplitudes]
    probes = np.stack([burst(*kind, size, rate) for kind in kinds])
    found = []
    for place in matching(settings.channels, asked.witnesses) if settings.channels else []:
        for background in backgrounds:
            before = asked.answer(background[None])
            outputs = []
            # as many as there are sizes at a time
            for part in torch.from_numpy(probes).float().split(len(settings.amplitudes)):
                seen = background.repeat(len(part), 1, 1)
                seen[:, place] += part
                outputs.append(host((asked.answer(seen) - before).double()))
            for (frequency, amplitude), probe, output in zip(kinds, probes, np.concatenate(outputs), strict=True):
                one = arrived(probe, output, frequency, sample_rate=rate, longest=settings.longest_delay)
                found.append(_row(asked.witnesses[place], model, frequency, amplitude, one))
    keys = ["witness", "model", "frequency", "amplitude"]
    table = pd.DataFrame(found, columns=[*keys, *Arrived._fields]).groupby(keys, sort=False)
    means = table.mean().assign(gain_deviation=table["gain"].std()).reset_index()
    return means.merge(_growth(means), on=keys[:3])


def true_transfer(
    asked: AskedSeries, truth: Truth, folder: Path, response: Response, settings: TransferSettings
) -> pd.DataFrame:
    """The same of the couplings by which a simulation made its glitches, where their law is linear.

    A true response leads from one channel's unit to another's; between whitened series it is that times the ratio of
    the spectra of their noise, which is measured in the recorded events. Gains differ from glitch to glitch: the
    geometric mean is taken. What a second witness of a cause sees has no coupling of its own.

    Args:
        asked: The twin that it is compared with.
        truth: What the simulation knows.
        folder: Its event files.
        response: Transfer function of a coupling.
        settings: What is probed.
    """
    frequencies = probe_frequencies(asked, settings.frequencies)
    size, rate = asked.predictor.events.num_samples, asked.sample_rate
    grid = np.fft.rfftfreq(size, 1 / rate)
    found = []
    for witness, coupling in _linear_couplings(truth).items():
        if witness not in asked.witnesses:
            continue
        transfer = response(coupling, grid)
        if transfer is None:
            continue
        densities = _densities(folder, (truth.target, witness), grid)
        whitened = transfer * np.sqrt(densities[1] / densities[0])
        for frequency in frequencies:
            probe = burst(frequency, 1.0, size, rate)
            output = np.fft.irfft(np.fft.rfft(probe) * whitened, size)
            one = arrived(probe, output, frequency, sample_rate=rate, longest=settings.longest_delay)
            found.append(_row(witness, TRUE, frequency, np.nan, one))
    return pd.DataFrame(found, columns=["witness", "model", "frequency", "amplitude", *Arrived._fields])


def gain_errors(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Median factor by which a gain is wrong, by witness whose true response is known and by model, and amplitude.

    Frequencies count at which the true gain is at least a tenth of its largest.
    """
    errors: dict[str, dict[str, float]] = {}
    true = table[table["model"] == TRUE]
    for witness, known in true.groupby("witness", sort=False):
        felt = known[known["gain"] >= _FELT * known["gain"].max()].set_index("frequency")["gain"]
        others = table[(table["witness"] == witness) & (table["model"] != TRUE)]
        found = {}
        for (model, amplitude), one in others.groupby(["model", "amplitude"], sort=False):
            gains = one.set_index("frequency")["gain"].reindex(felt.index)
            with np.errstate(divide="ignore"):
                found[f"{model}, SNR {amplitude:g}"] = float(np.exp(np.median(np.abs(np.log(gains / felt)))))
        errors[str(witness)] = found
    return errors


def _linear_couplings(truth: Truth) -> dict[str, JsonObject]:
    """The coupling of each main witness, with the geometric mean of its gains."""
    gains: dict[str, list[float]] = {}
    kept: dict[str, JsonObject] = {}
    for event in truth.events.values():
        for glitch in event.glitches:
            if glitch.witnesses and "gain" in glitch.coupling:
                gains.setdefault(glitch.witnesses[0], []).append(float(glitch.coupling["gain"]))
                kept.setdefault(glitch.witnesses[0], glitch.coupling)
    return {name: {**kept[name], "gain": float(np.exp(np.mean(np.log(gains[name]))))} for name in kept}


def _densities(folder: Path, channels: Sequence[str], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median noise spectra of channels over some recorded events, (channel, frequency)."""
    found = []
    for path in list_event_files(folder)[:_SPECTRUM_EVENTS]:
        read = read_event(path, channels).channels
        spectra = [welch_psd(np.nan_to_num(read[name].series), read[name].sample_rate, 1.0, 0.5) for name in channels]
        found.append([spectrum.at(grid) for spectrum in spectra])
    return np.median(found, axis=0)


def _growth(means: pd.DataFrame) -> pd.DataFrame:
    keys = ["witness", "model", "frequency"]
    found = [
        (*key, growth(one["size"].to_numpy(), one["amplitude"].to_numpy()))
        for key, one in means.groupby(keys, sort=False)
    ]
    return pd.DataFrame(found, columns=[*keys, "growth"])


def _row(witness: str, model: str, frequency: float, amplitude: float, found: Arrived) -> tuple[object, ...]:
    return (witness, model, frequency, amplitude, *found)
