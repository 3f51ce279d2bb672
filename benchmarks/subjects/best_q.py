"""The loudest of several Q-planes for each series."""

from pathlib import Path

from gwpy.timeseries import TimeSeries
from ml4gw.transforms import QScan

from glitchflow_plugin.signal.qtransform import QTransformSettings, q_transform
from harness import Candidate, Subject
from subjects.qtransform import DURATION, SAMPLE_RATE, SHAPE, gwpy_map, noise, work

QS = (4.0, 64.0)
BAND = (8.0, 250.0)  # the windows of the lowest Q reach the Nyquist frequency above


def subject(_: Path, device: str, *, quick: bool) -> Subject:
    number = 4 if quick else 36
    series = noise(number, device)
    scan = QScan(DURATION, SAMPLE_RATE, SHAPE, qrange=list(QS), frange=list(BAND)).to(device)
    qs = tuple(scan.get_qs())  # the ladder of Chatterji's thesis, which gwpy climbs too
    settings = QTransformSettings(q=qs, frequency_low=BAND[0], frequency_high=BAND[1])
    single = TimeSeries(series[0].double().cpu().numpy(), sample_rate=SAMPLE_RATE)
    return Subject(
        item="series",
        setting=f"{number} series as above, {len(qs)} Qs from {qs[0]:.1f} to {qs[-1]:.1f}, {BAND[0]:g}-{BAND[1]:g} Hz",
        candidates=(
            Candidate("ours", lambda: q_transform(series, SAMPLE_RATE, settings), number),
            Candidate("ml4gw QScan", lambda: scan(series[:, None]), number),
            Candidate("gwpy", lambda: gwpy_map(single, QS, BAND), 1),
        ),
        work=work(qs, BAND),
        notes=("QScan takes one Q for the whole batch and interpolates that plane only; ours takes one a series.",),
    )
