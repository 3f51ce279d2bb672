"""What a model predicts of a glitch in a stream beside what it predicts of an event that is cut about it.

    python benchmarks/stream_and_events.py FOLDER --model glitchflow-demo --version 1 --tracking-uri sqlite:///mlflow.db

FOLDER is a stream of `simulate_pipeline`, whose glitches are known. Spectra are what differs: of 12 s or so beside an
event, medians of 64 s in a stream. True glitch, stream's and event's prediction are whitened by the filter of the event
and compared from a quarter of a second before a glitch to as much after it. Nothing is asked of the strain in either.
Intervals are those of a bootstrap of the glitches.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.truth_file import EventTruth, read_truth
from glitchflow_plugin.inference.predict import predict_strain
from glitchflow_plugin.signal.conditioning import ChannelRejectedError, condition, condition_together
from glitchflow_plugin.streaming.blocks import between, find_segments, open_blocks, plan_blocks, read_block
from glitchflow_plugin.streaming.run import stream_model
from glitchflow_plugin.streaming.subtraction import subtract
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings
from glitchflow_plugin.tracking import registry

BESIDE = 0.25
EVENT = 16.0
REPLICATES = 2000


class Compared(NamedTuple):
    """Of one glitch, whitened rms over that of the true one, or of the event's prediction for `difference`."""

    of_stream: float
    of_event: float
    difference: float


def compared(
    model: StreamModel, channels: dict[str, Channel], taken: Channel, event: EventTruth, gps: float
) -> Compared | None:
    """Compare the two predictions of a glitch.

    Args:
        model: Twin and recipes.
        channels: As recorded, by name.
        taken: What the stream takes from the strain.
        event: The glitch and others about it.
        gps: Where the event is cut, GPS s.

    Returns:
        None where a channel cannot be conditioned.
    """
    start, stop = gps - EVENT / 2, gps + EVENT / 2
    strain, glitch = (between(one, start, stop) for one in (channels[model.target.name], taken))
    if strain is None or glitch is None or len(glitch.series) != len(strain.series):
        return None
    true = np.zeros(len(strain.series))
    first = round((event.gps_start - strain.t0) * strain.sample_rate)
    alone = event.glitch_strain(strain.sample_rate)
    low, high = max(first, 0), min(first + len(alone), len(true))
    true[low:high] = alone[low - first : high - first]
    target = model.target
    try:
        crops, begin = condition_together(
            (strain.series, true, glitch.series), strain.sample_rate, strain.t0, gps, target.settings, psd=target.psd
        )
        witnesses = []
        for recipe in model.witnesses:
            one = between(channels[recipe.name], start, stop)
            assert one is not None  # simulated witnesses have no gaps
            made = condition(one.series, one.sample_rate, one.t0, gps, recipe.settings, psd=recipe.psd, gps_start=begin)
            witnesses.append(made[0])
    except ChannelRejectedError:
        return None
    predicted = predict_strain(model.twin, torch.from_numpy(np.stack(witnesses)[None].astype(np.float32)))[0][0].numpy()
    times = begin + np.arange(crops.shape[1]) / model.rate
    segments = event.glitch_segments
    near = (times > segments[0][0] - BESIDE) & (times < segments[-1][1] + BESIDE)
    _, truth, streamed = (one[near] for one in crops)
    size, own = np.linalg.norm(truth), predicted[near]
    return Compared(
        float(np.linalg.norm(truth - streamed) / size),
        float(np.linalg.norm(truth - own) / size),
        float(np.linalg.norm(streamed - own) / max(np.linalg.norm(own), 1e-9)),
    )


def interval(values: np.ndarray, figure: Callable[..., np.ndarray]) -> str:
    """A figure of all glitches with its 95 % interval."""
    drawn = values[np.random.default_rng(0).integers(len(values), size=(REPLICATES, len(values)))]
    low, high = np.quantile(figure(drawn, axis=1), (0.025, 0.975))
    return f"{float(figure(values, axis=0)):.3g} [{low:.3g}, {high:.3g}]"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a stream of simulate_pipeline that the model has never seen")
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", default="champion", help="a number, or an alias")
    parser.add_argument("--tracking-uri", default="sqlite:///mlflow.db")
    parser.add_argument("--seconds", type=float, default=512.0, help="of the stream, from its beginning")
    options = parser.parse_args()
    bundle = registry.load(options.model, options.version, options.tracking_uri)
    model, settings = stream_model(bundle), StreamSettings(agreement=False)
    datasets = DatasetSettings.listed([{"path": str(options.folder / "frames")}])
    (segment,) = find_segments(datasets, bundle.target, None)
    blocks = plan_blocks([(segment[0], min(segment[1], segment[0] + options.seconds))], settings.block_length)
    known = read_truth(options.folder).events.values()
    found: list[Compared] = []
    for block in open_blocks(datasets, blocks, model, settings)[0]:
        channels, _ = read_block(model, block)
        glitch = subtract(channels, model, block.span, block.segment, settings).glitch
        strain = channels[model.target.name]
        begin = between(strain, *block.span)
        assert begin is not None  # simulated strain has no gaps
        taken = Channel(strain.name, glitch, begin.t0, strain.sample_rate)
        for event in known:
            gps = event.gps_start + event.duration / 2
            seen = any(one.witness_snr for one in event.glitches)
            if seen and block.span[0] + EVENT / 2 <= gps <= block.span[1] - EVENT / 2:
                one = compared(model, channels, taken, event, gps)
                found += [] if one is None else [one]
    values = np.array(found)
    stream, event, difference = values.T
    print(f"GPS {segment[0]:.0f}: {len(values)} glitches that a witness sees, median [95 %]")
    print("amplitude left, stream", interval(stream, np.median))
    print("amplitude left, event ", interval(event, np.median))
    print("event less stream, paired, mean", interval(event - stream, np.mean))
    print("stream nearer to the truth", int((stream < event).sum()), "of", len(values))
    print("difference over the event's prediction, median", interval(difference, np.median))
    print("its quartiles", np.quantile(difference, (0.25, 0.75)).round(3).tolist())


if __name__ == "__main__":
    main()
