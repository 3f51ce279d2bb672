"""Spectrum, filter and filtering of a batch of series."""

from pathlib import Path

import numpy as np
import torch
from gwpy.timeseries import TimeSeries
from ml4gw.transforms import SpectralDensity, Whiten

from glitchflow_plugin.signal.psd import welch_psd
from glitchflow_plugin.signal.whitening import whiten, whitening_filter
from harness import Candidate, Subject, Work

RATE, DURATION, FFT, OVERLAP, FILTER = 1024.0, 16.0, 2.0, 1.5, 2.0


def subject(_: Path, device: str, *, quick: bool) -> Subject:
    number = 4 if quick else 36
    series = np.random.default_rng(0).normal(size=(number, round(RATE * DURATION)))
    double = torch.as_tensor(series, device=device)
    single = [TimeSeries(row, sample_rate=RATE) for row in series]
    density = SpectralDensity(RATE, FFT, OVERLAP, average="median").double().to(device)
    filtering = Whiten(FILTER, RATE, highpass=8.0).to(device)

    def ours() -> None:
        for row in series:
            psd = welch_psd(row, RATE, FFT, OVERLAP)
            whiten(row, whitening_filter(psd, RATE, FILTER, (8.0, 500.0)))

    def gwpy() -> None:
        for row in single:
            row.whiten(FFT, OVERLAP, method="median", fduration=FILTER, highpass=8.0)

    size = series.shape[-1]
    segments = int((DURATION - FFT) / (FFT - OVERLAP)) + 1
    return Subject(
        item="series",
        setting=f"{number} series, {DURATION:g} s, {RATE:g} Hz, median spectrum of {FFT:g} s and filter, float64",
        candidates=(
            Candidate("ours", ours, number),
            Candidate("ml4gw", lambda: filtering(double[:, None], density(double[:, None])), number),
            Candidate("gwpy", gwpy, number),
        ),
        work=Work(
            ffts=((round(FFT * RATE), segments, True), (size, 2, True)),
            bytes=8 * (2 * size + segments * round(FFT * RATE) / 2),
            dtype=torch.float64,
        ),
        notes=("Ours is NumPy on one core, gwpy likewise; ml4gw runs on all threads or on the GPU.",),
    )
