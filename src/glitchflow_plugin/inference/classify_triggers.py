"""What a registered model says of times, from the triggers about them: probabilities, SNR, ranks, and what to veto."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.special import entr, expit
from torch import nn

from glitchflow_plugin.data.triggers.labels import LabelSettings
from glitchflow_plugin.data.triggers.sets import SetSettings, Vocabulary, trigger_sets
from glitchflow_plugin.errors import ChannelMismatchError
from glitchflow_plugin.models.triggers.bundle import TriggerModel
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.false_alarm import FalseAlarm
from glitchflow_plugin.signal.glitch_snr import GlitchSNR
from glitchflow_plugin.signal.rank_calibration import RankCalibration, RankedGlitches, calibrate_ranks
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import POINT_FEATURES, UNKNOWN, TriggerAnswers, TriggerSets

UNKNOWN_NAME = "UNKNOWN"
"""What a channel is called that the model does not know."""

RANKS = "ranks"
"""Note of a model: what is known of its log-odds as ranks."""

TRUST = "trust"
"""Note of a model: how far its answers hold on times that it never saw."""

LABELS = "labels"
"""Note of a model: how the times were labelled that it has learnt from."""


OTHER_TIMES = {
    "strain": "times were chosen by triggers of the witnesses: of such, glitch claims too much and false_alarm too "
    "little, since the model's labels are times of the strain, drawn without regard to other channels (label and train "
    "with triggers.label.settings.times=witnesses)",
    "witnesses": "times come from a table: glitch and false_alarm are right of times of the witnesses' loudest "
    "triggers, which the model has learnt from, and may be wrong of others (label and train with "
    "triggers.label.settings.times=strain)",
}
"""What is wrong where a model of labels of each kind is asked about times of the other."""


def known_labels(model: TriggerModel) -> LabelSettings:
    """How the times of a model were labelled; of models of before that was noted, as all were then."""
    note = model.notes.get(LABELS)
    return LabelSettings(times="strain") if note is None else built(LabelSettings, note, LABELS)


def known_ranks(model: TriggerModel) -> RankCalibration | None:
    """What a model knows of its ranks; None where it does not."""
    note = model.notes.get(RANKS)
    if note is None:
        return None
    seen, false_alarm = RankedGlitches.from_dict(note["glitches"]), FalseAlarm.from_dict(note["false_alarm"])
    as_they_were = GlitchSNR(lowest=float(seen.snr.min()), exponent=None)
    return calibrate_ranks(seen, false_alarm, as_they_were).at_rate(note["rate"])


def unknown_channels(model: TriggerModel, channels: Mapping[str, int], who: str, source: str) -> dict[str, int]:
    """Channels that the model does not know, with their triggers.

    Args:
        model: The model.
        channels: Triggers by channel.
        who: What the model is called.
        source: What the triggers are called.

    Raises:
        ChannelMismatchError: It knows none of them.
    """
    if not set(channels) & set(model.channels):
        raise ChannelMismatchError(
            f"{source} holds none of the {len(model.channels)} channels that {who} knows, such as "
            f"{', '.join(model.channels[:4])}, but {', '.join(sorted(channels)[:4]) or 'no trigger'}. Choose other "
            "triggers or another model."
        )
    return {name: count for name, count in channels.items() if name not in (*model.channels, model.target)}


def classified(
    model: TriggerModel,
    triggers: ds.Dataset,
    times: Int[np.ndarray, " time"],
    device: torch.device | str = "cpu",
) -> Iterator[pa.Table]:
    """A row a time, some at a time: see `rows_of`.

    Args:
        model: The model.
        triggers: As `open_triggers` gives them; channels that the model does not know count as UNKNOWN.
        times: Rising, GPS ns.
        device: Where networks compute.
    """
    vocabulary, settings = Vocabulary(model.channels, model.kinds), SetSettings(**model.sets)
    ranks, start = known_ranks(model), 0
    if isinstance(model.model, nn.Module):
        model.model.to(device)
    for sets in trigger_sets(triggers, times, vocabulary, model.target, settings):
        with torch.no_grad():
            told = model.model(sets.to(device)).to("cpu").float()
        yield rows_of(model, told, times[start : start + len(sets)], ranks, _seen(sets, model.channels))
        start += len(sets)


def rows_of(
    model: TriggerModel,
    told: TriggerAnswers,
    times: Int[np.ndarray, " time"],
    ranks: RankCalibration | None,
    seen: Mapping[str, NDArray[Any]],
) -> pa.Table:
    """The table of some times.

    `time` is in GPS ns. `glitch` is the probability that a glitch of the strain is near a time that is chosen as those
    of the labels are: log-odds that were learnt of drawn times, with the prior of all such times added; of labels of
    the kind `strain` these are the slots of live time that they were separated by. `rank` is these log-odds;
    `false_alarm` and `efficiency` are the shares of quiet times and of glitches of validation with at least such a
    rank. `kind` is the likeliest class and `kind_X` the probability of class X, if it is a glitch; `snr` is the SNR
    expected of it, with its interval from `snr_low` to `snr_high`. `entropy` is what is not known of the answer, be it
    quiet or one of the classes, in bits: 0 where one is certain. What was `seen` follows.
    """
    rank = host(told.glitch.double()) + model.log_prior
    glitch = expit(rank)
    columns: dict[str, Any] = {"time": times, "glitch": glitch, "rank": rank}
    shares = np.ones((len(rank), 1))
    if ranks is not None:
        drawn = rank - model.log_prior
        columns |= {"false_alarm": ranks.false_alarm(drawn), "efficiency": ranks.efficiency(drawn)}
    if model.kinds:
        shares = host(told.kind.double().softmax(1))
        columns["kind"] = np.array(model.kinds)[shares.argmax(1)]
        columns |= {f"kind_{kind}": shares[:, place] for place, kind in enumerate(model.kinds)}
    expected = host(told.log1p_snr.double())
    columns["snr"] = np.maximum(np.expm1(expected), 0.0)
    if np.isfinite(model.half_width):
        ends = (("snr_low", -model.half_width), ("snr_high", model.half_width))
        columns |= {name: np.maximum(np.expm1(expected + away), 0.0) for name, away in ends}
    columns["entropy"] = entropy(glitch, shares)
    table = pa.table({**columns, **seen})
    unit = pa.field("time", pa.int64(), nullable=False, metadata={"unit": "ns", "description": "GPS time"})
    return table.set_column(0, unit, table["time"])


def entropy(glitch: Float[np.ndarray, " time"], shares: Float[np.ndarray, "time kind"]) -> Float[np.ndarray, " time"]:
    """Entropy of what a time holds, a glitch of one of the classes or none, in bits.

    Args:
        glitch: Probability of a glitch.
        shares: Probability of each class, if it is one.

    >>> entropy(np.array([0.5, 1.0, 1.0]), np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]))
    array([1., 1., 0.])
    """
    return (entr(1 - glitch) + entr(glitch[:, None] * shares).sum(1)) / np.log(2)


def _seen(sets: TriggerSets, channels: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """What is about each time: how many triggers, and the channel of the loudest; empty where there is none."""
    counts = sets.mask.sum(1)
    loudness = sets.points[:, :, POINT_FEATURES.index("log_snr")].where(sets.mask, -torch.inf)
    names = np.array(["", UNKNOWN_NAME, *channels])
    place = torch.zeros_like(counts)
    if sets.mask.any():
        loudest = sets.channels.gather(1, loudness.argmax(1, keepdim=True))[:, 0]
        place = torch.where(counts > 0, loudest + 1, 0)
    return {
        "channel": names[host(place)],
        "triggers": host(counts),
        "unknown_triggers": host((sets.mask & (sets.channels == UNKNOWN)).sum(1)),
    }
