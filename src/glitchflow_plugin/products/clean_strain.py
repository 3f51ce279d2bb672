"""Clean strain as files: recorded strain, what was taken from it, what is left, and a state channel.

Channels as in LIGO-T2000470, names of files as in LIGO-T010150, a bit of the state is set when all is well.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.file_names import channel_word, file_name, ifo_of
from glitchflow_plugin.types.arrays import Series

GLITCH = "glitch"
"""Suffix of what was taken from the strain."""

FORMATS = {"hdf5": ".h5", "gwf": ".gwf"}
"""Ending of a file by its format."""

STATE_RATE = 16.0
"""Samples of the state a second, Hz, as of the state vectors that searches read."""

STATE_BITS = {
    "ANALYSED": "there is strain, and the model has looked at its witnesses",
    "NOT_VETOED": "outside the vetoes that were given, and where that was asked for outside the model's own",
    "NOTHING_SUBTRACTED": "the clean strain is the recorded one, bit by bit",
    "WITNESSES_COMPLETE": "no witness of the model was missing, dead, or stopped by the closed loop",
    "IN_DISTRIBUTION": "the model tells that it has seen the like in training; never set by a model that cannot tell",
    "NO_SIGNAL_SUSPECTED": "nothing loud is left of the strain, which the witnesses would not explain",
    "STRAIN_AGREES": "all that the model predicts and believes was taken away: the strain holds it",
}
"""Name and meaning of the bits, from bit 0 on; each is set when this holds for the whole sample."""

_LONGEST_COMMENT = 60_000
"""Bytes that a text in a frame may have are counted in 16 bits."""


@dataclass(frozen=True, eq=False)
class CleanStrain:
    """A stretch of clean strain.

    Attributes:
        strain: The recorded strain.
        glitch: What was taken from it, of the same type, unit and rate.
        state: Bits as in `STATE_BITS`, int32, at `STATE_RATE`.
        suffix: Ends the name of the clean strain.
        ranks: What the model says of glitches, from `rank_channels`.
    """

    strain: Channel
    glitch: Series
    state: Series
    suffix: str = "clean"
    ranks: tuple[Channel, ...] = ()

    @property
    def channels(self) -> dict[str, Channel]:
        """What a file holds, by name: strain, glitch, their difference, state, ranks."""
        names = channel_names(self.strain.name, self.suffix)
        parts = [self.strain.series, self.glitch, self.strain.series - self.glitch]
        held = {name: replace(self.strain, name=name, series=one) for name, one in zip(names, parts, strict=False)}
        state = Channel(names[3], self.state, self.strain.t0, STATE_RATE)
        return held | {one.name: one for one in (state, *self.ranks)}


def channel_names(strain: str, suffix: str) -> tuple[str, str, str, str]:
    """Names of strain, glitch, clean strain and state.

    >>> channel_names("V1:Hrec_hoft", "clean")
    ('V1:Hrec_hoft', 'V1:Hrec_hoft_glitch', 'V1:Hrec_hoft_clean', 'V1:GLF-STATE_VECTOR')
    """
    return strain, f"{strain}_{GLITCH}", f"{strain}_{suffix}", f"{ifo_of(strain)}:GLF-STATE_VECTOR"


def clean_file_name(strain: str, suffix: str, start: float, stop: float, ending: str) -> str:
    """Name of a file from and to GPS times, s.

    >>> clean_file_name("V1:Hrec_hoft", "clean", 1400000000.0, 1400000256.0, ".gwf")
    'V-V1_GLF_HREC_HOFT_CLEAN-1400000000-256.gwf'
    """
    ifo = ifo_of(strain)
    description = channel_word(f"{ifo}_GLF_{strain.removeprefix(f'{ifo}:')}_{suffix}")
    return file_name(ifo[0], description, start, stop, ending)


def state_vector(flags: Mapping[str, Bool[np.ndarray, " time"]], num_samples: int) -> Series:
    """Bits of a state, int32, (sample,).

    Args:
        flags: By name of the bit where it holds, each over the whole stretch and at any rate above `STATE_RATE`; a bit
            that is not given is not set.
        num_samples: Samples of the state, at `STATE_RATE`.

    Raises:
        ConfigurationError: A name is no bit.
    """
    unknown = sorted(set(flags) - set(STATE_BITS))
    if unknown:
        raise ConfigurationError(f"the state has no bits {unknown}; it has {list(STATE_BITS)}.")
    state = np.zeros(num_samples, dtype=np.int32)
    for bit, name in enumerate(STATE_BITS):
        if name in flags:
            held = flags[name]
            starts = np.arange(num_samples) * len(held) // num_samples
            state |= np.logical_and.reduceat(held, starts).astype(np.int32) << bit
    return state


def load_writers(formats: Sequence[str]) -> None:
    """Import what files of some formats need: the first one need not wait for it.

    Args:
        formats: Keys of `FORMATS`.

    Raises:
        MissingDependencyError: There is no frame library.
    """
    if "gwf" in formats:
        frames.load_writer()


def write_clean_strain(
    folder: Path, content: CleanStrain, formats: Sequence[str], provenance: Mapping[str, object]
) -> list[Path]:
    """Write a stretch in each of some formats, every file whole or not at all.

    Args:
        folder: Where the files go.
        content: What they hold.
        formats: Keys of `FORMATS`.
        provenance: Model, version, checksums, recipe, settings: attributes of an HDF5 file, history of a frame.

    Returns:
        The files.

    Raises:
        MissingDependencyError: There is no frame library.
    """
    strain = content.strain
    channels = content.channels
    told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in provenance.items()}
    written = []
    for kind in formats:
        path = folder / clean_file_name(
            strain.name, content.suffix, strain.t0, strain.t0 + strain.duration, FORMATS[kind]
        )
        if kind == "gwf":
            short = {name: text for name, text in told.items() if len(text.encode()) < _LONGEST_COMMENT}
            frames.write(path, channels, history=short)
        else:
            hdf5.write(
                path, channels, attributes=told, bits={channel_names(strain.name, content.suffix)[3]: list(STATE_BITS)}
            )
        written.append(path)
    return written
