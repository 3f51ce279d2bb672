"""Statistics of the training data that incoming data are compared with: `reference.json` beside the training set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glitchflow_plugin.data.files import read_json, write_json

REFERENCE_NAME = "reference.json"


def read_reference(folder: Path | str) -> dict[str, Any] | None:
    """The statistics, JSON-like as `signal.drift.Reference.to_dict` gives them; None where there are none.

    Raises:
        FormatError: The file is not what was written.
    """
    path = Path(folder) / REFERENCE_NAME
    return read_json(path, "the Processor") if path.exists() else None


def write_reference(folder: Path | str, reference: Mapping[str, object]) -> Path:
    """Write the statistics, whole or not at all."""
    path = Path(folder) / REFERENCE_NAME
    write_json(path, dict(reference))
    return path
