"""The vetoes of a run as a data-quality flag, in the formats that are asked for."""

import logging
from pathlib import Path

from glitchflow_plugin.inference.run import InferenceResult, InferenceSettings
from glitchflow_plugin.products.file_names import channel_word, file_name
from glitchflow_plugin.products.veto_flag import VetoFlag, flag_name, veto_flag
from glitchflow_plugin.products.veto_formats import dropped, write_flag

logger = logging.getLogger(__name__)

FOLDER = "vetoes"
"""Folder of the flag's files below that of the result."""


def result_flag(result: InferenceResult, target: str, settings: InferenceSettings) -> VetoFlag:
    """When a run's vetoes are raised, and when they are known: the time of its events.

    Args:
        result: From `run_inference`.
        target: The strain channel.
        settings: Threshold and padding.
    """
    model = result.maps.recipe.get("model") or {}
    name, version = model.get("name", "model"), model.get("version", 0)
    span = ["gps_start", "gps_end"]
    return veto_flag(
        flag_name(target, str(name), version),
        result.segments[span].to_numpy(dtype="float64"),
        result.events[span].to_numpy(dtype="float64"),
        padding=settings.veto_padding,
        description=f"{name} version {version} predicts an SNR^2 above {settings.threshold:g} in {target}",
    )


def write_vetoes(
    result: InferenceResult, target: str, settings: InferenceSettings, folder: Path
) -> tuple[list[Path], list[str]]:
    """Write the flag in the formats of `settings.products`.

    Args:
        result: From `run_inference`.
        target: The strain channel.
        settings: Formats, threshold and padding.
        folder: Folder of the result.

    Returns:
        The files, and what the formats lose, a sentence each.
    """
    if not settings.products:
        return [], []
    flag = result_flag(result, target, settings)
    description = f"{channel_word(flag.tag)}_{flag.version}"
    stem = file_name(flag.ifo, description, flag.known[0, 0], flag.known[-1, 1], "")
    paths, losses = [], []
    for kind in settings.products:
        paths += write_flag(flag, folder / FOLDER, stem, kind)
        if lost := dropped(flag, kind):
            losses.append(f"vetoes as {kind} lack {', '.join(lost)}")
    for loss in losses:
        logger.info("%s.", loss)
    return paths, losses
