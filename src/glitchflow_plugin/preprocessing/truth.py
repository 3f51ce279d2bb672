"""What a simulated set knows about its glitches, as the event set would show them: whitened and cropped alike."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from glitchflow_plugin.data.event_files import list_event_files, read_event, read_event_header
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.data.truth_file import EventTruth, WaveformTruth, read_truth
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.preprocessing.channel_recipe import channel_recipe
from glitchflow_plugin.signal.conditioning import condition_together

_BATCH = 16
"""Events in memory at a time."""


@dataclass(frozen=True, eq=False)
class GlitchTruth:
    """True glitches of some events, one row an event.

    Attributes:
        event_ids: One id a row.
        strain: What the glitches alone are in the whitened strain; zero without a glitch. Shape (event, time).
        label: Class of the loudest glitch; empty without one.
        group: What it shares with others, see `data.truth_file`; empty where nothing is known.
        snr: Its optimal SNR in the strain; 0 without one.
        witness_snr: Its largest SNR in a witness; 0 where no witness sees it.
        witnesses: Channels that see it.
        has_merger: Whether a binary merger is in the strain.
        law: Form of the coupling of the loudest glitch; empty without one.
        from_bank: Whether its waveform was measured, and its witness made from it.
        outside: Classes whose couplings lie outside the laws of the default network.
    """

    event_ids: tuple[str, ...]
    strain: Float[np.ndarray, "event time"]
    label: tuple[str, ...]
    snr: Float[np.ndarray, " event"]
    witness_snr: Float[np.ndarray, " event"]
    witnesses: tuple[tuple[str, ...], ...]
    has_merger: Bool[np.ndarray, " event"]
    group: tuple[str, ...] = ()
    law: tuple[str, ...] = ()
    from_bank: tuple[bool, ...] = ()
    outside: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """What is not known is empty, but there."""
        for name, unknown in (("group", ""), ("law", ""), ("from_bank", False)):
            if len(getattr(self, name)) != len(self.event_ids):
                object.__setattr__(self, name, (unknown,) * len(self.event_ids))

    @property
    def witnessed(self) -> Bool[np.ndarray, " event"]:
        """Events with a glitch that a witness sees."""
        return self.witness_snr > 0

    @property
    def measured(self) -> bool:
        """Whether nothing is known but what the measured maps show."""
        return bool(np.isnan(self.strain).all())

    @property
    def quiet(self) -> Bool[np.ndarray, " event"]:
        """Events with neither glitch nor merger."""
        return (self.snr == 0) & ~self.has_merger


def read_glitch_truth(
    folder: Path | str,
    recipe: Mapping[str, object],
    event_ids: Sequence[str],
    gps_start: Float[np.ndarray, " event"],
    workers: int = 2,
) -> GlitchTruth:
    """Read the true glitches of a simulated set and condition them as the measured strain was.

    Args:
        folder: The simulated event files, with their truth file.
        recipe: The event set made from them tells it (`EventSet.recipe`, or `events` in a spectrogram set's recipe).
        event_ids: Events wanted, in this order.
        gps_start: First sample of each in the event set, GPS s.
        workers: Threads.

    Returns:
        One row an event.

    Raises:
        FormatError: There is no truth file.
        DataError: An event is unknown there.
        ChannelRejectedError: The strain of an event cannot be conditioned by the recipe.
    """
    truth = read_truth(folder)
    files = {read_event_header(path).event_id: path for path in list_event_files(folder)}
    unknown = [name for name in event_ids if name not in truth.events or name not in files]
    if unknown:
        raise DataError(
            f"{folder} knows nothing of {len(unknown)} events (the first is {unknown[0]}). Correct `truth`."
        )
    channel = channel_recipe(truth.target, recipe)

    def _glitch(event_id: str, start: float) -> np.ndarray:
        event, raw = truth.events[event_id], read_event(files[event_id], [truth.target])
        measured = raw.channels[truth.target]
        alone = event.glitch_strain(measured.sample_rate) if event.glitches else np.zeros(len(measured.series))
        both = (measured.series, alone)
        crops, _ = condition_together(
            both, measured.sample_rate, measured.t0, raw.gps_event, channel.settings, psd=channel.psd, gps_start=start
        )
        return crops[1]

    # filters release the interpreter's lock
    with ThreadPoolExecutor(workers) as pool:
        strain = np.stack(list(pool.map(_glitch, event_ids, map(float, gps_start))))
    loudest = [_loudest(truth.events[name]) for name in event_ids]
    return GlitchTruth(
        event_ids=tuple(event_ids),
        strain=strain,
        label=tuple(one.label if one else "" for one in loudest),
        snr=np.array([one.snr if one else 0.0 for one in loudest]),
        witness_snr=np.array([max(one.witness_snr.values(), default=0.0) if one else 0.0 for one in loudest]),
        witnesses=tuple(tuple(one.witnesses) if one else () for one in loudest),
        has_merger=np.array([bool(truth.events[name].signals) for name in event_ids]),
        group=tuple(truth.events[name].group for name in event_ids),
        law=tuple(str(one.coupling.get("form", "")) if one else "" for one in loudest),
        from_bank=tuple("bank" in one.parameters if one else False for one in loudest),
        outside=frozenset(truth.recipe.get("outside", ())),
    )


def measured_truth(
    maps: SpectrogramSet, num_samples: int, threshold: float, inside: Bool[np.ndarray, "frequency time"] | None = None
) -> GlitchTruth:
    """What the measured maps say of glitches that nobody knows: what is loud counts as one, its waveform is NaN.

    Args:
        maps: Target first, then the witnesses.
        num_samples: Samples of a whitened series.
        threshold: SNR² above which a pixel is a glitch; the SNR of an event is the root of its loudest pixel.
        inside: Pixels that count; all if None.

    Returns:
        One row an event.
    """
    pixels = np.ones((len(maps.frequencies), len(maps.times)), bool) if inside is None else inside
    peaks = np.concatenate([batch.maps[:, :, pixels].max(axis=2) for batch in maps.batches(_BATCH)])
    loud = np.where(peaks > threshold, np.sqrt(peaks), 0.0)
    glitch, seen = loud[:, 0] > 0, loud[:, 1:]
    return GlitchTruth(
        event_ids=maps.event_ids,
        strain=np.full((len(maps), num_samples), np.nan, dtype=np.float32),
        label=("",) * len(maps),
        snr=loud[:, 0],
        witness_snr=np.where(glitch, seen.max(axis=1, initial=0.0), 0.0),
        witnesses=tuple(tuple(compress(maps.channels[1:], row)) for row in seen > 0),
        has_merger=np.zeros(len(maps), bool),
        group=maps.groups,
    )


def _loudest(event: EventTruth) -> WaveformTruth | None:
    return max(event.glitches, key=lambda glitch: glitch.snr, default=None)
