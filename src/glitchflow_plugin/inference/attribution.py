"""Which witness a prediction comes from: what its parts say, what removing each does, and Shapley values of both.

Shares are those of the prediction's power: the part of ŝ that a witness brings, projected on ŝ, over ŝ². So they add up
to one, and a witness that takes away what another has brought has a negative one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from glitchflow_plugin.inference.asked import AskedSeries, AskedTwin
from glitchflow_plugin.inference.predict import evaluating
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.settings import Count, CountOrNone, Positive, section
from glitchflow_plugin.signal.shapley import EXACT, shapley_values
from glitchflow_plugin.types.tensors import host

_COALITIONS = 128
"""Answers in memory at once."""
Permutations = Annotated[int, Field(ge=2)]
"""Orders that are drawn, of which a standard error is told."""


@section
class AttributionSettings:
    """How predictions are attributed; conf/what_if.yaml explains the keys."""

    least_snr: Positive = 5.0
    least_change: Positive = 1.0
    permutations: Permutations = 64
    window: Positive = 0.25
    threshold: Positive = 16.0
    block_length: Positive = 256.0
    replicates: CountOrNone = 1000
    batch_events: Count = 32


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each witness has to do with the prediction of one event.

    Attributes:
        active: Places of the witnesses that change the answer, by being there alone or by being removed.
        shapley: Share of the prediction, (witness,); 0 of those that are not active.
        error: Standard error of it, (witness,).
        removal: Share that goes when the witness is removed, (witness,).
        contribution: Share of the witness's part in a twin that is a sum, (witness,); NaN in one that is not.
        removed_snr: SNR of the prediction without the witness, (witness,).
        interaction: Power of what is left when what each removal takes has been taken from the prediction, over the
            power of the prediction: 0 where witnesses act each on its own.
        rest: Share that is there without any active witness.
        mismatch: Largest power of the difference between a witness's part and what its removal takes, over the power of
            the prediction; NaN in a twin that is no sum.
        snr: SNR of the prediction.
    """

    active: tuple[int, ...]
    shapley: Float[np.ndarray, " witness"]
    error: Float[np.ndarray, " witness"]
    removal: Float[np.ndarray, " witness"]
    contribution: Float[np.ndarray, " witness"]
    removed_snr: Float[np.ndarray, " witness"]
    interaction: float
    rest: float
    mismatch: float
    snr: float

    @property
    def top(self) -> int | None:
        """Place of the witness with the largest share; None where none is active."""
        return max(self.active, key=lambda place: self.shapley[place], default=None)


def attribute(asked: AskedTwin, seen: Tensor, settings: AttributionSettings, seed: int = 0) -> Attribution:
    """Attribute the prediction of one event.

    Args:
        asked: The twin.
        seen: What it sees of the event, (witness, ..., time).
        settings: From which change on a witness is active, and how many orders are drawn.
        seed: Decides the orders.
    """
    count = len(seen)
    present = seen.flatten(1).abs().amax(dim=1) > 0
    everybody, single = torch.ones(1, count, dtype=torch.bool), torch.eye(count, dtype=torch.bool)
    answers = _answers(asked, seen, torch.cat([everybody, ~everybody, single, ~single]))
    whole, silence, alone, without = answers.split([1, 1, count, count])
    power = whole.square().sum()
    taken = whole - without
    changes = torch.maximum((alone - silence).square().sum(dim=1), taken.square().sum(dim=1)).sqrt()
    active = torch.nonzero(present & (changes >= settings.least_change)).flatten().tolist()

    def _share(part: Tensor) -> np.ndarray:
        return host(part.double() @ whole[0].double() / power.double())

    shapley, error = np.zeros(count), np.zeros(count)
    inactive = ~torch.isin(torch.arange(count), torch.tensor(active, dtype=torch.long))

    def _members(coalitions: np.ndarray) -> Tensor:
        members = inactive.repeat(len(coalitions), 1)
        members[:, active] = torch.from_numpy(coalitions)
        return members

    def _worth(coalitions: np.ndarray) -> np.ndarray:
        return _share(_answers(asked, seen, _members(coalitions)))

    if active:
        shapley[active], error[active] = shapley_values(
            _worth, len(active), permutations=settings.permutations, seed=seed, exact=EXACT
        )
    nothing = _answers(asked, seen, _members(np.zeros((1, len(active)), dtype=bool)))
    parts = _parts(asked, seen)
    left = whole[0] - nothing[0] - taken[active].sum(dim=0)
    gaps = np.nan if parts is None else float((parts - taken).square().sum(dim=1).max() / power)
    return Attribution(
        active=tuple(active),
        shapley=shapley,
        error=error,
        removal=_share(taken),
        contribution=np.full(count, np.nan) if parts is None else _share(parts),
        removed_snr=host(asked.snr(without.unflatten(1, seen.shape[1:])).double()),
        interaction=float(left.square().sum() / power),
        rest=float(_share(nothing)[0]),
        mismatch=gaps,
        snr=float(asked.snr(whole.unflatten(1, seen.shape[1:]))[0]),
    )


def term_shares(asked: AskedTwin, seen: Tensor) -> Float[np.ndarray, " witness"]:
    """Share of each witness in the prediction of one event: its term of a sum, else what removing it takes.

    Args:
        asked: The twin.
        seen: What it sees of the event, (witness, ..., time).

    Returns:
        Shares; 0 where nothing is predicted.
    """
    whole = _answers(asked, seen, torch.ones(1, len(seen), dtype=torch.bool))
    parts = _parts(asked, seen)
    if parts is None:
        parts = whole - _answers(asked, seen, ~torch.eye(len(seen), dtype=torch.bool))
    power = whole.double().square().sum()
    shares = parts.double() @ whole[0].double() / power.clamp(min=1e-12)
    return host(shares)


def _answers(asked: AskedTwin, seen: Tensor, members: Tensor) -> Tensor:
    """Answers to some subsets of the witnesses, one a row, flat."""
    mask = members.reshape(*members.shape, *(1,) * (seen.dim() - 1))
    return torch.from_numpy(
        np.concatenate([host(asked.answer(seen * part).flatten(1)) for part in mask.split(_COALITIONS)])
    )


def _parts(asked: AskedTwin, seen: Tensor) -> Tensor | None:
    """Parts of the prediction by witness, (witness, time), where it is their sum."""
    twin = asked.predictor.twin if isinstance(asked, AskedSeries) else None
    if not isinstance(twin, WaveformTwin):
        return None
    with evaluating(twin), torch.no_grad():
        parts = torch.from_numpy(host(twin.contributions(seen[None].to(twin.variance_noise.device))[0]))
    return parts if len(parts) == len(seen) else None


@dataclass(frozen=True, eq=False)
class Attributed:
    """Attributions of some events.

    Attributes:
        rows: Rows of the spectrogram set.
        found: One each; None where less than `least_snr` is predicted.
        snr: SNR of each prediction.
    """

    rows: tuple[int, ...]
    found: tuple[Attribution | None, ...]
    snr: Float[np.ndarray, " event"]


def attribute_events(asked: AskedTwin, rows: Sequence[int], settings: AttributionSettings, seed: int = 0) -> Attributed:
    """Attribute the predictions of events in which something is predicted, some in memory at a time."""
    found, loud = [], []
    edges = [*range(0, len(rows), settings.batch_events), len(rows)]
    for first, last in pairwise(edges):
        seen = asked.read(rows[first:last])
        snr = host(asked.snr(asked.answer(seen)).double())
        loud.append(snr)
        found += [
            attribute(asked, one, settings, seed) if value >= settings.least_snr else None
            for one, value in zip(seen, snr, strict=True)
        ]
    return Attributed(tuple(rows), tuple(found), np.concatenate(loud) if loud else np.zeros(0))


def attribution_table(asked: AskedTwin, attributed: Attributed) -> pd.DataFrame:
    """One row for each attributed event and witness, the largest share first."""
    spectrograms, tables = asked.spectrograms, []
    for row, found in zip(attributed.rows, attributed.found, strict=True):
        if found is None:
            continue
        one = pd.DataFrame(
            {
                "event_id": spectrograms.event_ids[row],
                "gps_event": spectrograms.gps_event[row],
                "witness": asked.witnesses,
                "active": np.isin(np.arange(len(asked.witnesses)), found.active),
                "share": found.shapley,
                "share_error": found.error,
                "removal_share": found.removal,
                "contribution_share": found.contribution,
                "snr": found.snr,
                "snr_without": found.removed_snr,
                "interaction": found.interaction,
                "rest_share": found.rest,
            }
        )
        tables.append(one.sort_values("share", ascending=False, kind="stable"))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
