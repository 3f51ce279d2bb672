"""What a twin of waveforms says about itself on events that it has not seen: its limits, and how new they are to it."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.models.twins import SPOKEN_POWER, WaveformTwin
from glitchflow_plugin.training.calibration import Coverage, coverage, leave_out

#: Gain of a witness that shall look new to a twin.
_STRANGE_GAIN = 5.0
#: Numbers of missing witnesses that are tried, at most.
_MOST_NUMBERS = 10


def trust(
    twin: WaveformTwin, events: EventSet, channels: Sequence[str], *, batch_events: int, seed: int
) -> dict[str, Any]:
    """Coverage of the uncertainty, and p-values of being like the validation events, of events as they are and changed.

    Args:
        twin: Calibrated; its network must say how sure it is.
        events: Whitened series.
        channels: Target first, then the witnesses in the order of the twin.
        batch_events: Events in memory at a time.
        seed: Draws the witness that is made louder.

    Returns:
        JSON-like: `missing` (a row a number of witnesses left out), `loudness` (coverage by the power that is expected,
        likewise), `coverage` (by kind of pixel, probabilities announced and shares found) and `strangeness` (by kind of
        event, p-values).
    """
    device = twin.variance_noise.device
    batches: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(events), batch_events):
        rows = range(first, min(first + batch_events, len(events)))
        series = torch.from_numpy(events.read(rows, list(channels)).series).to(device)
        batches.append((series[:, 1:], series[:, :1]))
    generator = torch.Generator().manual_seed(seed)
    witnesses = [shown for shown, _ in batches]
    covered = {number: coverage(twin, batches, number) for number in _spread(len(channels) - 1)}
    found = covered[0]
    louder = (_one_louder(shown, generator) for shown in witnesses)
    return {
        "missing": [_without(twin, witnesses, number, one) for number, one in covered.items()],
        "loudness": {
            "edges": list(found.edges),
            "rows": [_by_loudness(number, one) for number, one in covered.items()],
        },
        "coverage": {
            "all pixels": [list(found.probability), list(found.share)],
            f"glitch predicted ({found.num_loud})": [list(found.probability), list(found.share_loud)],
        },
        "strangeness": {
            "held-out events": _p_values(twin, witnesses).tolist(),
            "of these, with a glitch predicted": _p_values(twin, witnesses, spoken=True).tolist(),
            "of these, with none predicted": _p_values(twin, witnesses, spoken=False).tolist(),
            f"a witness {_STRANGE_GAIN:g} times as loud": _p_values(twin, louder).tolist(),
        },
    }


def _spread(num_witnesses: int) -> list[int]:
    """Numbers of witnesses to leave out, from none to all but one."""
    numbers = np.linspace(0, max(0, num_witnesses - 1), min(max(1, num_witnesses), _MOST_NUMBERS)).round()
    return np.unique(numbers).astype(int).tolist()


def _one_louder(
    witnesses: Float[Tensor, "event witness time"], generator: torch.Generator
) -> Float[Tensor, "event witness time"]:
    gains = torch.ones(witnesses.shape[:2])
    drawn = torch.randint(0, gains.shape[1], (len(gains),), generator=generator)
    gains[torch.arange(len(gains)), drawn] = _STRANGE_GAIN
    return witnesses * gains[..., None].to(witnesses.device)


def _p_values(
    twin: WaveformTwin, shown: Iterable[Float[Tensor, "event witness time"]], *, spoken: bool | None = None
) -> Float[Tensor, " event"]:
    """Of the events of which the twin knows one; if asked, of those alone in which it predicts something or nothing."""
    found = []
    for witnesses in shown:
        with torch.no_grad():
            said = twin.explain(witnesses)
            p_values = twin.strangeness(said.summary, said.strain)
        power = said.strain.square().sum(dim=(1, 2))
        found.append(p_values if spoken is None else p_values[(power >= SPOKEN_POWER) == spoken])
    together = torch.cat(found)
    return together[~together.isnan()]


def _without(twin: WaveformTwin, witnesses: Sequence[Tensor], missing: int, found: Coverage) -> dict[str, Any]:
    """Level of the p-value and coverage of the 95 % limits where witnesses are missing, drawn for each event."""
    generator = torch.Generator().manual_seed(missing)
    p_values = _p_values(twin, (leave_out(shown, missing, generator)[0] for shown in witnesses))
    place = found.probability.index(0.95)
    return {
        "missing": missing,
        "events": len(p_values),
        "strange": int((p_values <= 0.05).sum()),
        "within": found.share[place],
        "within, glitch predicted": found.share_loud[place] if found.num_loud else None,
    }


def _by_loudness(missing: int, found: Coverage) -> dict[str, Any]:
    """Coverage of the 50 and 95 % limits by bin of the power that is expected; None where there is no pixel."""
    pairs = zip(found.by_loudness, found.num_by_loudness, strict=True)
    places = [found.probability.index(wanted) for wanted in (0.5, 0.95)]
    within = [[shares[place] for place in places] if pixels else None for shares, pixels in pairs]
    return {"missing": missing, "pixels": list(found.num_by_loudness), "within": within}
