"""Banks of glitches, measured or generated: HDF5 with groups `IFO/CLASS/INDEX`.

Each group holds `strain`, whitened strain around the glitch, and `deepextractor`, the glitch alone as reconstructed by
DeepExtractor (Dooney et al., arXiv:2501.18423), in the same unit, with the attribute `snr`. The file's attributes
`sample_rate` (Hz), `duration` (s) and `glitch_window` (s, s) tell the times.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.data.files import new_hdf5
from glitchflow_plugin.errors import FormatError, NoEventsError
from glitchflow_plugin.types.arrays import Series

_MARGIN = 1.0  # s at either end of the whitened strain, spoilt by the whitening filter, and beside the glitch
_BEFORE = 3.0  # s to either side of a glitch that is written: 1 s of it is quiet


@dataclass(frozen=True, eq=False)
class BankGlitch:
    """One measured glitch.

    Attributes:
        detector: For instance `H1`.
        label: Its class, for instance `Blip`.
        index: Within detector and class.
        waveform: Whitened glitch in units of the noise's standard deviation, shape (time,), so that the root of its
            summed squares is its SNR.
        sample_rate: Hz.
        listed_snr: SNR that the bank lists.
    """

    detector: str
    label: str
    index: int
    waveform: Series
    sample_rate: float
    listed_snr: float

    @property
    def name(self) -> str:
        """`IFO/CLASS/INDEX`."""
        return f"{self.detector}/{self.label}/{self.index}"

    @property
    def snr(self) -> float:
        """SNR of the waveform."""
        return float(np.sqrt(np.sum(self.waveform**2)))


def read_glitch_bank(
    path: Path | str,
    classes: Collection[str] | None = None,
    detectors: Collection[str] | None = None,
    indices: Collection[int] | None = None,
    min_snr: float = 0.0,
) -> list[BankGlitch]:
    """Read the glitches of a bank, sorted by detector, class and index.

    Args:
        path: The bank.
        classes: Those to read; all by default.
        detectors: Those to read; all by default.
        indices: Those to read within each class; all by default.
        min_snr: Waveforms below it are left out.

    Raises:
        FormatError: The file is no such bank.
        NoEventsError: The choice leaves nothing.
    """
    try:
        with h5py.File(path, "r") as file:
            rate = float(file.attrs.get("sample_rate", 4096.0))
            window = tuple(float(edge) for edge in file.attrs.get("glitch_window", (6.0, 8.0)))
            found = [
                _read(file[f"{detector}/{label}/{index}"], sample_rate=rate, window=window)
                for detector in sorted(file)
                if detectors is None or detector in detectors
                for label in sorted(file[detector])
                if classes is None or label in classes
                for index in sorted(file[detector][label], key=int)
                if indices is None or int(index) in indices
            ]
            held = sorted({label for detector in file for label in file[detector]})
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise FormatError(
            f"{path} is not a glitch bank ({error}). Expected HDF5 groups IFO/CLASS/INDEX with the datasets strain "
            "and deepextractor."
        ) from error
    loud = [glitch for glitch in found if glitch.snr >= min_snr]
    if not loud:
        raise NoEventsError(
            f"No glitch of {path} passes: classes {classes}, detectors {detectors}, indices {indices}, SNR >= "
            f"{min_snr}. The bank holds the classes {held}."
        )
    return loud


def write_glitch_bank(
    path: Path | str, glitches: Iterable[tuple[BankGlitch, Mapping[str, str | float]]], seed: int = 0
) -> Path:
    """Write glitches as a bank that `read_glitch_bank` reads, whole or not at all.

    Around each glitch its `strain` has white Gaussian noise, whose deviation, as readers estimate it, is 1: a waveform
    comes back in the unit in which it was given.

    Args:
        path: The bank.
        glitches: With attributes to be written beside `snr`; waveforms of one length and rate.
        seed: Decides the noise.

    Raises:
        FormatError: Waveforms differ in length or rate.
    """
    generator = np.random.default_rng(seed)
    kind: tuple[int, float] | None = None
    with new_hdf5(path, seal=False) as file:
        for glitch, attributes in glitches:
            size, rate = len(glitch.waveform), glitch.sample_rate
            kind = kind or (size, rate)
            if (size, rate) != kind:
                raise FormatError(
                    f"expected waveforms of {kind[0]} samples at {kind[1]:g} Hz, got {size} at {rate:g} Hz."
                )
            before = round(_BEFORE * rate)
            strain = generator.standard_normal(2 * before + size)
            strain /= _deviation(strain, round(_MARGIN * rate), before, before + size)
            strain[before : before + size] += glitch.waveform
            group = file.create_group(glitch.name)
            group["strain"], group["deepextractor"] = strain.astype(np.float32), glitch.waveform.astype(np.float32)
            group.attrs.update({**attributes, "snr": glitch.listed_snr})
        if kind is not None:
            length = kind[0] / kind[1]
            window = (_BEFORE, _BEFORE + length)
            file.attrs.update({"sample_rate": kind[1], "duration": _BEFORE + window[1], "glitch_window": window})
    return Path(path)


def _deviation(strain: Series, margin: int, start: int, end: int) -> float:
    """Of the noise beside a glitch."""
    quiet = np.concatenate([strain[margin : start - margin], strain[end + margin : strain.size - margin]])
    # the median absolute deviation is not moved by further glitches in the quiet part
    return float(1.4826 * np.median(np.abs(quiet - np.median(quiet))))


def _read(group: h5py.Group, sample_rate: float, window: tuple[float, ...]) -> BankGlitch:
    detector, label, index = str(group.name).strip("/").split("/")
    strain = np.asarray(group["strain"], dtype=np.float64)
    waveform = np.asarray(group["deepextractor"], dtype=np.float64)
    margin, start, end = (round(second * sample_rate) for second in (_MARGIN, *window))
    listed = float(group.attrs.get("snr", np.nan))
    scaled = waveform / _deviation(strain, margin, start, end)
    return BankGlitch(detector, label, int(index), scaled, sample_rate, listed)
