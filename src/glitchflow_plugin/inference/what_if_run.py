"""A what-if from model and events to what is to be written."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from glitchflow_plugin.data.truth_file import Truth
from glitchflow_plugin.inference.asked import AskedSeries, AskedTwin, ask
from glitchflow_plugin.inference.attribution import Attributed, attribute_events, attribution_table
from glitchflow_plugin.inference.named_witnesses import judge_names, named_witnesses
from glitchflow_plugin.inference.subject import Subject
from glitchflow_plugin.inference.transfer_map import LINEAR, Response, transfer_map, true_transfer
from glitchflow_plugin.inference.what_if import (
    WhatIfSettings,
    answer_cases,
    check_changes,
    chosen_rows,
    sweep,
)
from glitchflow_plugin.inference.what_if_report import WhatIfResult


@dataclass(frozen=True, eq=False)
class Known:
    """What is known beside the model.

    Attributes:
        truth: Truth of the simulation that made the events.
        folder: Its event files.
        response: Transfer function of a coupling.
        ranking: Witnesses of a scan, best first.
    """

    truth: Truth | None = None
    folder: Path | None = None
    response: Response | None = None
    ranking: tuple[str, ...] = ()


def run_what_if(
    subject: Subject,
    folder: Path,
    settings: WhatIfSettings,
    known: Known,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> tuple[WhatIfResult, AskedTwin, tuple[str, ...]]:
    """Ask everything that the settings ask for.

    Args:
        subject: Model and events.
        folder: Gets the predictions.
        settings: What is asked.
        known: What answers are compared with.
        device: Where to compute.
        progress: Show a progress bar.

    Returns:
        What came of it, the twin, and what the user should know.
    """
    asked = _ask(subject, subject.bundle.twin, settings, device)
    rows = chosen_rows(asked.spectrograms, settings.events)
    check_changes(asked, settings)
    answers = answer_cases(asked, rows, folder, settings, progress=progress)
    attributed = attribute_events(asked, rows, settings.attribution, settings.seed)
    result = WhatIfResult(answers, attributed, attribution_table(asked, attributed), sweep(asked, attributed, settings))
    result = _judged(result, asked, settings, known)
    linear = _linear(subject, asked, settings, device)
    transfer, warnings = _transfer(asked, linear, attributed, settings, known)
    if not any(attributed.found):
        least = settings.attribution.least_snr
        warnings = (*warnings, f"No event has a prediction of SNR {least:g} or more: nothing is attributed.")
    return replace(result, transfer=transfer), asked, warnings


def _ask(subject: Subject, twin: torch.nn.Module, settings: WhatIfSettings, device: torch.device | str) -> AskedTwin:
    return ask(
        subject.bundle,
        twin.to(device),
        subject.spectrograms,
        subject.events,
        stride=settings.stride,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )


def _judged(result: WhatIfResult, asked: AskedTwin, settings: WhatIfSettings, known: Known) -> WhatIfResult:
    if known.truth is None:
        return result
    named = named_witnesses(asked, result.attributed, known.ranking, settings.attribution)
    judged = judge_names(asked, result.attributed, named, known.truth.events, settings.attribution, seed=settings.seed)
    return replace(result, judged=judged)


def _linear(
    subject: Subject, asked: AskedTwin, settings: WhatIfSettings, device: torch.device | str
) -> AskedSeries | None:
    """The linear twin that was registered beside one of waveforms."""
    baseline = subject.bundle.baseline
    linear = (
        None if baseline is None or not isinstance(asked, AskedSeries) else _ask(subject, baseline, settings, device)
    )
    return linear if isinstance(linear, AskedSeries) else None


def _transfer(
    asked: AskedTwin, linear: AskedSeries | None, attributed: Attributed, settings: WhatIfSettings, known: Known
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Transfer maps of twin, linear twin and simulator, and what the user should know."""
    chosen = settings.transfer
    if not chosen.channels:
        return pd.DataFrame(), ()
    if not isinstance(asked, AskedSeries):
        return pd.DataFrame(), ("No transfer map: a model of energies has no phase. Ask a model of waveforms.",)
    quiet = _quietest(asked, attributed, chosen.backgrounds)
    if not quiet:
        return pd.DataFrame(), ("No transfer map: no event has all witnesses, into one of which a probe could go.",)
    tables = [transfer_map(asked, quiet, chosen)]
    if linear is not None:
        # one size tells all of what is linear
        one = replace(chosen, amplitudes=chosen.amplitudes[-1:])
        tables.append(transfer_map(linear, quiet, one, model=LINEAR))
    if known.truth is not None and known.folder is not None and known.response is not None:
        tables.append(true_transfer(asked, known.truth, known.folder, known.response, chosen))
    return pd.concat(tables, ignore_index=True), ()


def _quietest(asked: AskedTwin, attributed: Attributed, count: int) -> list[int]:
    """Events with all witnesses of which least is predicted."""
    columns = asked.spectrograms.channel_rows(asked.witnesses)
    order = [attributed.rows[place] for place in np.argsort(attributed.snr, kind="stable")]
    return [row for row in order if asked.spectrograms.valid[row, columns].all()][:count]
