"""What a folder of clean strain says of a candidate, as the data-quality report of LIGO, Virgo and KAGRA takes it.

Fields of `data.json` as the package dqrtasks 0.8 describes them (https://dqr-builder.docs.ligo.org/dqrtasks/, "JSON
requirements"); the p-value is defined as in its task for iDQ: the smallest false-alarm probability of a stride in a
window about the time.
"""

import getpass
import json
import socket
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.folder_lookup import Said, said_by_folder
from glitchflow_plugin.products.rank_channels import RANK_RATE
from glitchflow_plugin.products.summary import versions

PROCESS = "glitchflow"

LONGEST = 3600.0
"""Longest time that is looked at about a candidate, s: the longer, the smaller is the smallest value by chance."""


def dqr_record(folder: Path | str, gps: float, window: float = 1.0) -> dict[str, object]:
    """The fields of `data.json` for a candidate.

    Args:
        folder: From stream_pipeline.
        gps: When the candidate is, GPS s.
        window: Length of the time about it that is looked at, s.

    Returns:
        Without a `p_value`, in the state `missing`, where the model has not looked at all of the window or its folder
        holds no ranks.

    Raises:
        ConfigurationError: There is no such time or window.
        FormatError: The folder cannot be read.
    """
    if not (np.isfinite(gps) and 1 / RANK_RATE <= window <= LONGEST):
        raise ConfigurationError(
            f"expected a GPS time and a window of {1 / RANK_RATE:g} to {LONGEST:g} s, got {gps:g} and {window:g} s."
        )
    times = gps + (np.arange(round(window * RANK_RATE)) + 0.5) / RANK_RATE - window / 2
    said = said_by_folder(folder, np.append(times, gps))
    about, said = said.decision[-1], said.of(slice(len(times)))
    record: dict[str, object] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hostname": socket.getfqdn(),
        "username": getpass.getuser(),
        "process_name": PROCESS,
        "process_version": versions()["glitchflow_plugin"],
        "directory": str(Path(folder).absolute()),
        "state": "missing",
        "summary": _missing(said, gps, window),
        "tables": [],
    }
    if record["summary"]:
        return record
    smallest = float(said.false_alarm.min())
    vetoed = said.vetoed.mean()
    return record | {
        "state": "done",
        "p_value": smallest,
        "summary": (
            f"The smallest false-alarm probability of a stride within {window / 2:g} s of GPS {gps:.3f} is "
            f"{smallest:.2g}; the model vetoes {vetoed:.0%} of this time. At the time itself: {about}."
        ),
        "tables": [
            {
                "columns": ["gps", "largest rank", "smallest false-alarm probability", "vetoed share", "decision"],
                "data": [[gps, float(said.rank.max()), smallest, float(vetoed), str(about)]],
            }
        ],
    }


def write_dqr(path: Path | str, record: dict[str, object]) -> None:
    """Write the record, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _missing(said: Said, gps: float, window: float) -> str:
    if not said.known.all():
        return f"The model has looked at {said.known.mean():.0%} of the {window:g} s about GPS {gps:.3f}: no p-value."
    return "" if np.isfinite(said.false_alarm).all() else "The folder holds no false-alarm probabilities: no p-value."
