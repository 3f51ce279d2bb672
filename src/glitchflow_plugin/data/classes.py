"""Classes of glitches by event, where somebody knows them: in tables, and in what simulations know."""

from collections.abc import Sequence
from pathlib import Path

from glitchflow_plugin.data.event_files import TRUTH_FILE_NAME
from glitchflow_plugin.data.truth_file import read_truth_labels
from glitchflow_plugin.data.window_order import read_labels

_TABLES = (".csv", ".txt", ".tsv")


def event_classes(sources: Sequence[Path | str]) -> dict[str, str]:
    """Class by event id; a later source overrules.

    Args:
        sources: Tables (.csv, .txt, .tsv) with the columns `event_id` and `label`, and folders below which simulations
            keep their truth. A folder that is missing knows nothing.

    Raises:
        FormatError: A table is missing or lacks a column; a truth file is damaged.
    """
    classes: dict[str, str] = {}
    for source in map(Path, sources):
        # the name of a folder may have a dot
        if source.is_file() or (source.suffix.lower() in _TABLES and not source.is_dir()):
            classes |= read_labels(source)
        else:
            for path in sorted(source.rglob(TRUTH_FILE_NAME)):
                classes |= read_truth_labels(path)
    return classes
