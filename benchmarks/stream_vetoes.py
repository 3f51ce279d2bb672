"""What the vetoes of continuous data are worth, beside those of the model's rivals: a table with 95 % intervals.

    python benchmarks/stream_vetoes.py FRAMES --model glitchflow-demo --version 1 --tracking-uri sqlite:///mlflow.db

The strain's own loud columns are the glitches (`docs/vetoes.md`), from an SNR of `--lowest` on, below which many are of
the noise; intervals are those of a bootstrap by stretches of `--group` seconds, in the middle of which the simulator's
streams have their glitches. `--energies FILE` keeps what costs the time, so that figures can be made again.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.inference.cases import MARGIN as COLUMNS_BESIDE
from glitchflow_plugin.inference.intervals import Estimate
from glitchflow_plugin.inference.predict import expected_maps_and_peaks, predict_strain
from glitchflow_plugin.inference.rank_report import known_ranks, rank_reliability
from glitchflow_plugin.inference.run import LINEAR, MODEL, InferenceSettings
from glitchflow_plugin.inference.veto_report import RANDOM, VETOES, false_alarm_reliability
from glitchflow_plugin.inference.veto_rivals import CHANNEL, ROUNDS, Rivals, ranks_of_peaks
from glitchflow_plugin.inference.veto_worth import Judged, Worth, judge_rank, lead_at_half, slid, worth_at
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.rank_channels import RANK_RATE
from glitchflow_plugin.signal.columns import Columns
from glitchflow_plugin.signal.glitch_snr import GlitchSNR, fitted_exponent
from glitchflow_plugin.signal.qtransform import axes, q_transform_relative
from glitchflow_plugin.signal.vetoes import find_glitches
from glitchflow_plugin.streaming.blocks import find_segments, open_blocks, plan_blocks, read_block
from glitchflow_plugin.streaming.ranks import along_time, within_block
from glitchflow_plugin.streaming.run import stream_model
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings, look, prepare
from glitchflow_plugin.tracking import registry

PADDING = 0.05
THRESHOLD = 16.0
REPLICATES = 1000


def loudest_along_time(
    frames: str, bundle: ModelBundle, settings: StreamSettings, seconds: float = math.inf
) -> tuple[dict[str, np.ndarray], float]:
    """Largest energies at `RANK_RATE`, SNR², by what they are of: strain, model, linear rival, and each witness.

    Returns:
        Series over all blocks, and the GPS time of their first sample, s.
    """
    datasets = DatasetSettings.listed([{"path": frames}])
    model = stream_model(bundle)
    (start, stop), *_ = find_segments(datasets, bundle.target, None)
    blocks = plan_blocks([(start, min(stop, start + seconds))], settings.block_length)
    blocks, _ = open_blocks(datasets, blocks, model, settings)
    parts: dict[str, list[np.ndarray]] = {}
    for block in blocks:
        prepared = prepare(read_block(model, block)[0], model, block.span, block.segment, settings)
        first, last = (edge / settings.stride for edge in block.span)
        centres = settings.stride * np.arange(math.floor(first) - 1, math.ceil(last) + 2)
        series = [look(prepared, model, centre)[1:] for centre in centres]
        strain = torch.from_numpy(np.stack([one for one, _ in series]))
        witnesses = torch.from_numpy(np.stack([one for _, one in series]))
        asked = strain.any(dim=1).numpy() & witnesses.flatten(1).any(dim=1).numpy()
        found = {"strain": _loudest(strain, model)}
        for name, twin in ((MODEL, bundle.twin), (LINEAR, bundle.baseline)):
            predicted = predict_strain(twin, witnesses)[0]
            found[name] = expected_maps_and_peaks(predicted, model.rate, model.qtransform)[1].numpy()
        found |= {one.name: _loudest(witnesses[:, row], model) for row, one in enumerate(model.witnesses)}
        for name, each in found.items():
            each[~asked] = np.nan
            held = along_time(each, centres[0], block.span, model.duration, settings.stride)
            parts.setdefault(name, []).append(within_block(held))
    return {name: np.concatenate(each) for name, each in parts.items()}, blocks[0].span[0]


def _loudest(series: torch.Tensor, model: StreamModel) -> np.ndarray:
    return q_transform_relative(series, series, model.rate, model.qtransform).amax(dim=-2).double().numpy()


def judged_above(energies: np.ndarray, threshold: float, duration: float, beside: int) -> Judged:
    """The stretches with their glitches.

    Args:
        energies: Of the strain, (group, sample).
        threshold: Energy above which a column is loud, SNR².
        duration: Length of a group, s.
        beside: Samples on either side of a loud one that belong to its glitch.
    """
    columns = Columns(np.arange(round(duration * RANK_RATE)) / RANK_RATE)
    live = (~np.isnan(energies)).all(axis=0)
    measured = np.where(live, energies, 0.0)
    return Judged(columns, live, find_glitches(measured, threshold, columns, beside), np.arange(len(measured)))


def judge(
    energies: Mapping[str, np.ndarray], notes: Mapping[str, Any], judged: Judged
) -> tuple[dict[str, Worth], dict[str, Estimate], dict[str, Estimate]]:
    """Worths by name, leads, and what the vetoes are worth as written.

    Args:
        energies: By name, (group, sample).
        notes: What the model carries about its vetoes.
        judged: From `judged_above`.
    """
    columns, live = judged.columns, judged.live
    rivals = Rivals.from_dict(notes["rivals"])
    peaks = np.stack([energies[name] for name in rivals.channels], axis=1)
    made = ranks_of_peaks(rivals, np.nan_to_num(peaks), columns)
    own = np.nan_to_num(energies[MODEL])
    ranks = {
        MODEL: (own, float(notes["padding"])),
        LINEAR: (np.nan_to_num(energies[LINEAR]), float(notes["padding"])),
        CHANNEL: (made[CHANNEL], rivals.padding),
        ROUNDS: (made[ROUNDS], 0.0),
        RANDOM: (slid(own, live), float(notes["padding"])),
    }
    worths = {name: judge_rank(rank, judged, padding=pad, replicates=REPLICATES) for name, (rank, pad) in ranks.items()}
    leads = {
        name: lead_at_half(worths[MODEL], worths[name], replicates=REPLICATES) for name in (LINEAR, CHANNEL, ROUNDS)
    }
    return worths, leads, worth_at(own, judged, THRESHOLD, PADDING, replicates=REPLICATES)


def reliability(
    energies: Mapping[str, np.ndarray], notes: Mapping[str, Any], judged: Judged, laws: Sequence[GlitchSNR]
) -> pd.DataFrame:
    """What is claimed of ranks and what is found, for glitches of several distributions, at their rate in the stream.

    Args:
        energies: By name, (group, sample).
        notes: What the model carries about its vetoes.
        judged: From `judged_above`.
        laws: The distributions.
    """
    own, seconds = np.nan_to_num(energies[MODEL]), judged.live.sum() / RANK_RATE * len(energies[MODEL])
    tables = [false_alarm_reliability(own, judged, notes, InferenceSettings(replicates=REPLICATES)).assign(law="clean")]
    for law in laws:
        known = known_ranks(notes, law)
        if known is not None:
            louder = np.count_nonzero(judged.glitches.snr >= law.lowest)
            found = rank_reliability(own, judged, known.at_rate(louder / seconds), replicates=REPLICATES)
            tables.append(
                found.assign(law=f"{law}; {known.glitches} validation glitches, {known.effective:.0f} effective")
            )
    return pd.concat(tables, ignore_index=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", help="folder of continuous data that the model has never seen")
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", default="champion", help="a number, or an alias")
    parser.add_argument("--tracking-uri", default="sqlite:///mlflow.db")
    parser.add_argument("--group", type=float, default=16.0, help="s of a stretch that counts as one case")
    parser.add_argument("--lowest", type=float, default=GlitchSNR().lowest, help="SNR from which on a glitch counts")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of the stream, from its beginning")
    parser.add_argument("--energies", type=Path, help="file (.npz) in which energies are kept, or from which they come")
    options = parser.parse_args()
    bundle = registry.load(options.model, options.version, options.tracking_uri)
    model, settings = stream_model(bundle), StreamSettings()
    energies, start = kept(
        options.energies, lambda: loudest_along_time(options.frames, bundle, settings, options.seconds)
    )
    size = round(options.group * RANK_RATE)
    whole = len(energies["strain"]) // size - 2
    # the first and the last stretch reach to where no window fits
    energies = {name: one[size : (whole + 1) * size].reshape(whole, size) for name, one in energies.items()}
    column = model.duration / len(axes(model.duration, model.qtransform)[1])
    beside = round(COLUMNS_BESIDE * column * RANK_RATE)
    notes = bundle.notes[VETOES]
    judged, loud = (
        judged_above(energies["strain"], one, options.group, beside) for one in (THRESHOLD, options.lowest**2)
    )
    worths, leads, written = judge(energies, notes, loud)
    own = fitted_exponent(judged.glitches.snr, options.lowest)
    print(
        f"GPS {start:.0f}: {whole} stretches of {options.group:g} s, {len(loud.glitches)} glitches, exponent {own:.2f}"
    )
    for name, worth in worths.items():
        shown = {**worth.at_half, "ROC area": worth.roc_area}
        print(f"{name:13}", *(f"{what} {_interval(one)}" for what, one in shown.items()))
    for name, one in leads.items():
        print(f"lead over {name} {_interval(one)}")
    for name, one in written.items():
        print(f"as written: {name} {_interval(one)}")
    laws = [GlitchSNR(options.lowest, exponent) for exponent in (GlitchSNR().exponent, 2.0, own, None)]
    print(reliability(energies, notes, judged, laws).to_string())


def kept(
    path: Path | None, make: Callable[[], tuple[dict[str, np.ndarray], float]]
) -> tuple[dict[str, np.ndarray], float]:
    """What `make` gives, or gave when the file was written."""
    if path is not None and path.exists():
        with np.load(path) as file:
            return {name: file[name] for name in file.files if name != "start"}, float(file["start"])
    energies, start = make()
    if path is not None:
        np.savez(path, start=start, **energies)
    return energies, start


def _interval(one: Estimate) -> str:
    return "-" if one.value is None else f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"


if __name__ == "__main__":
    main()
