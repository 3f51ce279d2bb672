"""What streaming did to the noise: measured block by block, told for the whole run in figures and a picture."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from glitchflow_plugin.data.units import same_unit
from glitchflow_plugin.plots.noise import plot_noise
from glitchflow_plugin.products.clean_strain import CleanStrain
from glitchflow_plugin.products.folder import BlockRecord, Manifest
from glitchflow_plugin.products.noise_file import noise_path, read_noise, write_noise
from glitchflow_plugin.products.pictures import IMAGES, save_figure
from glitchflow_plugin.products.summary import Metric
from glitchflow_plugin.signal.noise_change import FFT_LENGTH, NoiseChanges, noise_changes
from glitchflow_plugin.streaming.noise_figures import noise_metrics

_PICTURE = "noise.png"


def keep_noise(
    folder: Path, span: tuple[float, float], content: CleanStrain, quiet: Bool[np.ndarray, " sample"]
) -> None:
    """Write down what a subtraction did to the noise of a block, if the block is long enough to tell.

    Args:
        folder: Folder of the files.
        span: Start and end of the block, GPS s.
        content: What its file holds.
        quiet: Where the recorded strain holds nothing loud, over the same time at any rate.
    """
    strain = content.strain
    clean = strain.series - content.glitch
    ranged = not strain.unit or same_unit(strain.unit, "strain")
    changes = noise_changes(strain.series, clean, quiet, strain.t0, strain.sample_rate, ranged=ranged)
    pieces = [NoiseChanges.of(one) for one in changes]
    if pieces:
        write_noise(noise_path(folder, *span), reduce(NoiseChanges.and_then, pieces))


@dataclass(frozen=True)
class NoiseTold:
    """What a run's summary says of the noise."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)


def tell_noise(folder: Path, manifest: Manifest) -> NoiseTold:
    """Figures of all blocks, and their picture, which is written.

    Args:
        folder: Folder of the files.
        manifest: What it holds.
    """
    noise = whole_noise(folder, manifest.blocks)
    if noise is None:
        return NoiseTold()
    frequencies = np.arange(len(noise.before)) / FFT_LENGTH
    spectra = (np.sqrt(noise.before), np.sqrt(noise.after))
    picture = plot_noise(frequencies, *spectra, noise.span, noise.ranges, strain=manifest.strain)
    metrics, details = noise_metrics(noise)
    path = save_figure(picture, folder / IMAGES / _PICTURE)
    return NoiseTold(metrics, {"noise": str(path)}, {"noise": details})


def whole_noise(folder: Path, blocks: Iterable[BlockRecord]) -> NoiseChanges | None:
    """What subtraction did to the noise of all blocks; of strain that changes its rate, those of the first rate.

    Args:
        folder: Folder of the files.
        blocks: What it holds.
    """
    whole: NoiseChanges | None = None
    for block in blocks:
        part = read_noise(noise_path(folder, block.start, block.stop)) if block.files else None
        if part is not None and (whole is None or len(whole.before) == len(part.before)):
            whole = part if whole is None else whole.and_then(part)
    return whole
