"""Complex tiles and back to the series."""

from pathlib import Path

import torch

from glitchflow_plugin.signal.qtransform import QFrame, QTransformSettings
from harness import Candidate, Subject
from subjects.qtransform import DURATION, SAMPLE_RATE, noise, work

WINDOW, STEP = 512, 128


def subject(_: Path, device: str, *, quick: bool) -> Subject:
    number = 4 if quick else 36
    series = noise(number, device)
    settings = QTransformSettings()
    frame = QFrame(round(SAMPLE_RATE * DURATION), SAMPLE_RATE, settings).to(device)
    window = torch.hann_window(WINDOW, device=device)

    def short_time() -> torch.Tensor:
        tiles = torch.stft(series, WINDOW, STEP, window=window, return_complex=True)
        return torch.istft(tiles, WINDOW, STEP, window=window, length=series.shape[-1])

    band = (settings.frequency_low, settings.frequency_high)
    once = work([settings.qs[0]], band, maps=0)
    size = series.shape[-1]
    return Subject(
        item="series",
        setting=f"{number} series as above, to tiles and back",
        candidates=(
            Candidate("ours", lambda: frame.inverse(frame.forward(series)), number),
            Candidate("torch STFT", short_time, number),
        ),
        work=type(once)(
            ffts=tuple((length, 2 * count, real) for length, count, real in once.ffts),
            bytes=2 * 4 * size,
        ),
        notes=(f"No peer inverts a Q-transform; torch's STFT (Hann, {WINDOW}, {STEP}) is another, simpler frame.",),
    )
