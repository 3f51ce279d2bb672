"""What a short look-ahead costs: glitches taken stride by stride, beside those of the stream that knows the future.

    python benchmarks/online_lookahead.py STREAM --model glitchflow-demo --version 1 --tracking-uri sqlite:///mlflow.db

STREAM is a stream of the simulator: frames/ and the truth of its glitches. Power is that of whitened strain; intervals
(95 %) are those of a bootstrap by glitches. The model's own training decides how much can be removed at all.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.signal import filters
from glitchflow_plugin.signal.conditioning import at_common_rate
from glitchflow_plugin.signal.psd import welch_psd
from glitchflow_plugin.signal.whitening import whiten, whitening_filter
from glitchflow_plugin.streaming.blocks import between, find_segments, open_blocks, plan_blocks, read_block
from glitchflow_plugin.streaming.online import OnlineSettings, OnlineTwin, Stride
from glitchflow_plugin.streaming.run import stream_model
from glitchflow_plugin.streaming.subtraction import subtract
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings
from glitchflow_plugin.tracking import registry

TRIED = ((1.0, 0.0), (1.0, 1.0), (1.0, 2.0), (0.5, 0.0), (0.5, 0.5), (1.0, 4.0))
"""Stride and look-ahead, s."""

LEARNING = 48.0
"""Time at the beginning that is not judged, s: spectra are of the past."""

BESIDE = 0.25
"""Time about a glitch that is judged with it, s."""

QUIET = 4.0
"""Farther from any glitch than this strain is quiet, s."""


@dataclass(frozen=True, eq=False)
class Truth:
    """True glitches of a stretch, whitened, and the way there."""

    rate: float
    high: float
    taps: np.ndarray
    glitch: np.ndarray
    spans: list[tuple[float, float]]

    def whitened(self, taken: np.ndarray, own_rate: float) -> np.ndarray:
        """What was taken from the strain, as `glitch` is."""
        return whiten(filters.resample(taken, own_rate, self.rate, self.high)[0], self.taps)[0]


def read_truth(stream: Path, strain: Channel, model: StreamModel) -> Truth:
    """The glitches in a strain, whitened by its own spectrum.

    Args:
        stream: Folder of the simulator.
        strain: All of it.
        model: How it is conditioned.
    """
    settings, own = model.target.settings, strain.sample_rate
    series, spans = np.zeros(len(strain.series)), []
    with h5py.File(stream / "truth.h5") as file:
        for event in file["events"].values():
            for one in event.get("glitches", {}).values():
                waveform = one["waveform"]
                t0 = float(waveform.attrs["t0"])
                first = round((t0 - strain.t0) * own)
                if not 0 <= first <= len(series) - len(waveform):
                    continue
                series[first : first + len(waveform)] += waveform[:] * waveform.attrs["scale"]
                spans.append((t0 - strain.t0 - BESIDE, t0 - strain.t0 + len(waveform) / own + BESIDE))
    (measured, glitch), _, edge = at_common_rate([strain.series, series], own, strain.t0, settings)
    band = filters.usable_band(settings.low, settings.high, own, settings.sample_rate)
    density = welch_psd(measured[edge:-edge], settings.sample_rate, 1.0, 0.5)
    taps = whitening_filter(density, settings.sample_rate, settings.whitening.filter_length, band)
    return Truth(settings.sample_rate, band[1], taps, whiten(glitch, taps)[0], spans)


def strides(channels: dict[str, Channel], start: float, stop: float, length: float) -> Iterator[Stride]:
    """Continuous channels in strides."""
    for gps in np.arange(start, stop, length).tolist():
        parts = {name: between(one, gps, gps + length) for name, one in channels.items()}
        yield Stride(gps, {name: one for name, one in parts.items() if one is not None})


def taken_online(
    model: StreamModel, channels: dict[str, Channel], span: tuple[float, float], tried: OnlineSettings
) -> np.ndarray:
    """What is taken from the strain stride by stride, (time,)."""
    strain = channels[model.target.name]
    taken, twin = np.zeros(len(strain.series)), OnlineTwin(model, tried)
    for stride in strides(channels, *span, tried.stream.stride):
        found = twin.push(stride)
        if found.found is not None:
            first = round((found.span[0] - strain.t0) * strain.sample_rate)
            taken[first : first + len(found.found.glitch)] = found.found.glitch
    return taken


def judge(taken: np.ndarray, truth: Truth, own_rate: float) -> dict[str, str]:
    """Median power removed of glitches, and power added a quiet second, SNR²."""
    said = truth.whitened(taken, own_rate)
    rate, rng = truth.rate, np.random.default_rng(0)
    removed = []
    quiet = np.ones(len(said), dtype=bool)
    quiet[: round(LEARNING * rate)] = False
    for start, stop in truth.spans:
        near = slice(round(max(start, 0) * rate), round(stop * rate))
        quiet[round(max(start - QUIET, 0) * rate) : round((stop + QUIET) * rate)] = False
        power = np.square(truth.glitch[near]).sum()
        if start > LEARNING and power > 64:
            removed.append(1 - np.square(truth.glitch - said)[near].sum() / power)
    drawn = rng.choice(removed, (2000, len(removed)))
    medians, means = np.median(drawn, axis=1), np.mean(np.clip(drawn, -1, 1), axis=1)

    def told(value: float, replicates: np.ndarray) -> str:
        low, high = np.quantile(replicates, (0.025, 0.975))
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    seconds = np.add.reduceat(np.where(quiet, np.square(said), 0), np.arange(0, len(said), round(rate)))
    whole = np.add.reduceat(quiet.astype(int), np.arange(0, len(said), round(rate))) == round(rate)
    draws = rng.choice(seconds[whole], (2000, whole.sum())).mean(axis=1)
    return {
        "glitches": str(len(removed)),
        "median removed": told(float(np.median(removed)), medians),
        "mean removed": told(float(np.mean(np.clip(removed, -1, 1))), means),
        "quiet s": str(int(whole.sum())),
        "added SNR² a quiet second": told(float(seconds[whole].mean()), draws),
    }


def main() -> None:
    """Print a row for the stream, and one for each stride and look-ahead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stream", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--seconds", type=int, default=100_000, help="of the stream that are looked at, at most")
    asked = parser.parse_args()
    bundle = registry.load(asked.model, asked.version, asked.tracking_uri)
    model, settings = stream_model(bundle), StreamSettings()
    datasets = DatasetSettings.listed([{"path": str(asked.stream / "frames")}])
    whole = plan_blocks(find_segments(datasets, bundle.target, None), asked.seconds)
    longest = max(whole, key=lambda one: one.span[1] - one.span[0])
    (block,), _ = open_blocks(datasets, [replace(longest, segment=longest.span)], model, settings)
    channels, segment = read_block(model, block)[0], block.span
    strain = channels[bundle.target]
    truth = read_truth(asked.stream, strain, model)
    print("offline", judge(subtract(channels, model, segment, segment, settings).glitch, truth, strain.sample_rate))
    for stride, lookahead in TRIED:
        tried = OnlineSettings(lookahead, replace(settings, stride=stride))
        taken = taken_online(model, channels, segment, tried)
        print(stride, lookahead, judge(taken, truth, strain.sample_rate), flush=True)


if __name__ == "__main__":
    main()
