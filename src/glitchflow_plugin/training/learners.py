"""Which learner shows a network what it looks at."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.inference.model_data import check_events
from glitchflow_plugin.models.build import representation
from glitchflow_plugin.training.baseline import BaselineSettings
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.energy import EnergyLearner
from glitchflow_plugin.training.learner import Learner
from glitchflow_plugin.training.losses import LossSettings
from glitchflow_plugin.training.waveform import WaveformLearner, WaveformLoss

logger = logging.getLogger(__name__)


def choose_learner(
    training_set: TrainingSet,
    model: Mapping[str, Any],
    config: TrainingConfiguration,
    *,
    baseline: BaselineSettings,
    events: Path | str | None = None,
) -> Learner:
    """The learner of what the network looks at.

    Args:
        training_set: Windows, split and scaling.
        model: Name and settings of the network, as in conf/model/.
        config: Gives the loss, and the memory for a cache.
        baseline: Settings of the linear rival.
        events: Folder of the event set that the maps were made of.

    Raises:
        ConfigurationError: The network looks at series, and there are no events.
    """
    if representation(model["name"]) == "energy":
        return EnergyLearner(
            training_set=training_set,
            model=model,
            loss=LossSettings(l1=config.loss_l1, ssim=config.loss_ssim),
            baseline_settings=baseline,
            cache_mib=config.cache_mib,
            events=_events_of_maps(training_set, events),
        )
    if events is None:
        message = (
            f"the model {model['name']} looks at whitened series: give the Trainer `events`, the event set that the "
            "maps were made of."
        )
        raise ConfigurationError(message)
    return WaveformLearner(
        training_set=training_set,
        events=EventSet.open(events),
        model=model,
        loss=WaveformLoss(floor=config.loss_floor, variance=config.loss_variance),
        baseline_settings=baseline,
        cache_mib=config.cache_mib,
        start_mib=config.start_mib,
        truth=Path(config.truth) if config.truth else None,
    )


def _events_of_maps(training_set: TrainingSet, folder: Path | str | None) -> EventSet | None:
    """The event set that the maps were made of, where it is at hand: the gate injects signals into it."""
    if folder is None:
        return None
    try:
        events = EventSet.open(folder)
        check_events(training_set.open_spectrograms(), events)
    except FormatError as error:
        logger.warning("%s Whether signals stay in the strain cannot be tested.", error)
        return None
    return events
