"""How time and memory grow with channels, events and length: measured in fresh processes, and drawn."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

import harness
from glitchflow_plugin.plots.style import Picture, new_figure
from glitchflow_plugin.plots.style import picture as drawn


def measured(sizes: dict[str, list[int]], folder: Path, device: str) -> dict[str, list[dict[str, float]]]:
    """Seconds and peak memory of the scan over channels and events and of the Q-transform over length."""
    curves: dict[str, list[dict[str, float]]] = {}
    for axis, values in sizes.items():
        curves[axis] = [
            {axis: value} | harness.in_fresh_process(_point, axis, value, folder, device) for value in values
        ]
    return curves


def _point(axis: str, value: int, folder: Path, device: str) -> dict[str, float]:
    call = _transform(value, device) if axis == "length" else _scan(axis, value, folder, device)
    peak = harness.peak_of(call, device)
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return {"time": min(spent), "peak": peak}


def _scan(axis: str, value: int, folder: Path, device: str) -> Callable[[], object]:
    from subjects.scan import ScanSettings, event_set, scan_channels  # noqa: PLC0415  # in the fresh process only

    shape = {"events": 4, "channels": 16} | {axis: value}
    events = event_set(folder, shape["events"], shape["channels"])
    return lambda: scan_channels(events, ScanSettings(), device=device)


def _transform(seconds: int, device: str) -> Callable[[], object]:
    from subjects.qtransform import SAMPLE_RATE, QTransformSettings, q_transform  # noqa: PLC0415

    series = torch.randn(16, round(SAMPLE_RATE * seconds)).to(device)
    settings = QTransformSettings(frequency_low=16.0, num_times=43 * seconds)
    return lambda: q_transform(series, SAMPLE_RATE, settings)


@drawn
def picture(curves: dict[str, list[dict[str, float]]]) -> Picture:
    """Time above, memory below, one column an axis; the dashed line is proportional to the axis."""
    titles = {
        "channels": "scan, 4 events of 6 s",
        "events": "scan, 16 channels of 6 s",
        "length": "Q-transform, 16 series",
    }
    figure = new_figure(11.0, 6.0)
    rows = figure.subplots(2, len(curves), squeeze=False, sharex="col")
    for column, (axis, points) in enumerate(curves.items()):
        values = [point[axis] for point in points]
        for row, (key, unit, scale) in enumerate((("time", "s", 1.0), ("peak", "MiB", 2.0**20))):
            panel = rows[row, column]
            found = [point[key] / scale for point in points]
            panel.semilogx(values, found, "o-", color="tab:blue")
            if key == "time":
                panel.set_yscale("log")
                panel.yaxis.set_major_formatter("{x:g}")
                panel.plot(values, [found[-1] * value / values[-1] for value in values], "--", color="0.6")
                panel.set_title(titles[axis])
            else:
                panel.set_ylim(bottom=0)
                panel.set_xlabel("length, s" if axis == "length" else axis)
            panel.set_ylabel(f"{'time' if key == 'time' else 'peak memory'}, {unit}")
            panel.set_xticks(values, [str(value) for value in values])
            panel.minorticks_off()
    return figure
