"""Banks of measured glitches: HDF5 with groups `IFO/CLASS/INDEX`.

Each group holds `strain`, whitened strain around the glitch, and `deepextractor`, the glitch alone as reconstructed by
DeepExtractor (Dooney et al., arXiv:2501.18423), in the same unit, with the attribute `snr`. The file's attributes
`sample_rate` (Hz), `duration` (s) and `glitch_window` (s, s) tell the times.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.errors import FormatError, NoEventsError
from glitchflow_plugin.types.arrays import Series

_MARGIN = 1.0  # s at either end of the whitened strain, spoilt by the whitening filter


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


def _read(group: h5py.Group, sample_rate: float, window: tuple[float, ...]) -> BankGlitch:
    detector, label, index = str(group.name).strip("/").split("/")
    strain = np.asarray(group["strain"], dtype=np.float64)
    waveform = np.asarray(group["deepextractor"], dtype=np.float64)
    margin, start, end = (round(second * sample_rate) for second in (_MARGIN, *window))
    quiet = np.concatenate([strain[margin : start - margin], strain[end + margin : strain.size - margin]])
    # the median absolute deviation is not moved by further glitches in the quiet part
    deviation = 1.4826 * np.median(np.abs(quiet - np.median(quiet)))
    listed = float(group.attrs.get("snr", np.nan))
    return BankGlitch(detector, label, int(index), waveform / deviation, sample_rate, listed)
