"""Clean strain from continuous data, as a whole: files read, conditioned, predicted, written."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.readers import hdf5
from glitchflow_plugin.models.build import build_model
from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.preprocessing.channel_recipe import ChannelRecipe
from glitchflow_plugin.preprocessing.engine import IN_PROCESS
from glitchflow_plugin.signal.conditioning import ConditioningSettings
from glitchflow_plugin.streaming.blocks import open_blocks, plan_blocks
from glitchflow_plugin.streaming.run import ProductSettings, StreamJob, run_stream
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings
from harness import Candidate, Subject, Work

GPS, STRAIN, RATE, FILE = 1_400_000_000.0, "V1:STRAIN", 16384.0, 64.0
WITNESS_RATES = (256.0, 512.0, 1024.0, 2048.0)
SPACING = 16.0
"""Time from glitch to glitch, s; the strain and every fourth witness show each."""

REFERENCES = 500
"""Validation events that the twin compares with."""

CONDITIONING = ConditioningSettings(low=8.0, high=400.0, sample_rate=1024.0, duration=6.0)


def write_frames(folder: Path, seconds: float, witnesses: int) -> Path:
    """Files of white noise with a glitch now and then; made once."""
    if folder.exists():
        return folder
    rates = {STRAIN: RATE} | {f"V1:WITNESS_{row:02d}": WITNESS_RATES[row % 4] for row in range(witnesses)}
    for number, start in enumerate(np.arange(0.0, seconds, FILE)):
        rng, channels = np.random.default_rng(number), {}
        for name, rate in rates.items():
            series = rng.standard_normal(round(min(FILE, seconds - start) * rate)) * (rate / 2048.0) ** 0.5
            away = (np.arange(len(series)) / rate) % SPACING - SPACING / 2
            if name == STRAIN or rate == WITNESS_RATES[-1]:
                series += 8 * np.exp(-((away / 0.05) ** 2)) * np.sin(2 * np.pi * 100 * away)
            unit = 1e-21 if name == STRAIN else 1.0
            channels[name] = Channel(name, unit * series, GPS + start, rate, "strain" if name == STRAIN else "V")
        hdf5.write(folder / f"V-SIM-{GPS + start:.0f}-{len(series) / rate:.0f}.h5", channels)
    return folder


def coupling(witnesses: int) -> nn.Module:
    """The default network, untrained but for one filter, so that the glitches are predicted."""
    torch.manual_seed(0)
    network = build_model("coupling", in_channels=witnesses, event_gain=True, slow_context=True)
    with torch.no_grad():
        network.get_parameter("filters")[3, 0, 256] = 1.0
    return network


def _known_events(network: nn.Module, witnesses: int) -> dict[str, torch.Tensor]:
    """What a calibrated twin knows of validation events, of noise: with it each window is told familiar or new."""
    torch.manual_seed(1)
    noise = torch.randn(8, witnesses, round(CONDITIONING.duration * CONDITIONING.sample_rate))
    with torch.inference_mode():
        summaries = network.foretell(noise)[1] if isinstance(network, CouplingNet) else torch.zeros(0, 0)
    if not summaries.numel():
        return {}
    mean, spread = summaries.mean(dim=0), summaries.std(dim=0).clamp(min=0.1)
    return {
        "summary_references": mean + spread * torch.randn(REFERENCES, len(mean)),
        "summary_mean": mean,
        "summary_covariance": torch.diag(spread.square()),
    }


def job(folder: Path, network: nn.Module, witnesses: int) -> StreamJob:
    """All that is needed to make a block, with the default settings."""
    names = [f"V1:WITNESS_{row:02d}" for row in range(witnesses)]
    recipes = tuple(ChannelRecipe(name, CONDITIONING, "V", WITNESS_RATES[row % 4]) for row, name in enumerate(names))
    # as stream_model does
    twin = WaveformTwin(network).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    twin.keep(**_known_events(network, witnesses))
    model = StreamModel(twin, ChannelRecipe(STRAIN, CONDITIONING, "strain", RATE), recipes)
    return StreamJob(
        folder,
        model,
        StreamSettings(),
        ProductSettings(),
        {"glitchflow_model": "benchmark", "glitchflow_model_version": "1"},
    )


def whole(frames: Path, seconds: float, one: StreamJob) -> Callable[[], object]:
    """A run from files to files, with nothing there before."""

    def run() -> None:
        shutil.rmtree(one.folder, ignore_errors=True)
        blocks = plan_blocks([(GPS, GPS + seconds)], one.settings.block_length)
        datasets = DatasetSettings.listed([{"path": str(frames)}])
        opened, catalogue = open_blocks(datasets, blocks, one.model, one.settings)
        ready = replace(one, inputs=catalogue.fingerprint)
        if not any(block.believed for block in run_stream(ready, opened, IN_PROCESS, ready.what(opened)).blocks):
            raise RuntimeError("no glitch is predicted: correct benchmarks/subjects/stream.py")

    return run


def subject(folder: Path, _: str, *, quick: bool) -> Subject:
    seconds, witnesses = (32.0, 4) if quick else (640.0, 20)
    frames = write_frames(folder / f"frames-{seconds:.0f}x{witnesses}", seconds, witnesses)
    linear = build_model("wiener", in_channels=witnesses)
    with torch.no_grad():
        linear.get_parameter("filters")[3, linear.get_parameter("filters").shape[1] // 2] = 1.0
    candidates = tuple(
        Candidate(name, whole(frames, seconds, job(folder / name, network, witnesses)), round(seconds))
        for name, network in (("ours", coupling(witnesses)), ("wiener", linear))
    )
    samples = RATE + sum(WITNESS_RATES[row % 4] for row in range(witnesses))
    return Subject(
        item="second of strain",
        setting=f"{seconds:g} s at {RATE:g} Hz, {witnesses} witnesses at 256 to 2048 Hz, float64, one thread",
        candidates=candidates,
        work=Work(bytes=8 * (samples + 3 * RATE)),
        notes=(
            "A day on two processors takes 43200 times `ours ms`; the floor is reading and writing alone.",
            "wiener is the linear twin in place of the default network.",
        ),
    )
