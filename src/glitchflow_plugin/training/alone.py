"""Teaching by the loop of all trainings in this process alone, without a registry: for who uses the library."""

from pathlib import Path

import torch
from torch import nn

from glitchflow_plugin.tracking.tracker import Tracker
from glitchflow_plugin.training.batches import WindowBatches
from glitchflow_plugin.training.checkpoints import BEST, judged_weights, load_weights, read_checkpoint
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.learner import Learnable
from glitchflow_plugin.training.loop import Loop, LoopSettings
from glitchflow_plugin.training.processes import OneProcess
from glitchflow_plugin.training.progress import Progress


def teach_alone(
    learner: Learnable,
    batches: WindowBatches,
    config: TrainingConfiguration,
    *,
    epochs: int,
    checkpoints: Path | str,
    tracker: Tracker,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, int]:
    """Teach a new network.

    Args:
        learner: What is learnt.
        batches: Of one process.
        config: How it is learnt.
        epochs: Passes over the training batches, at most.
        checkpoints: Folder for checkpoints; what is there is replaced.
        tracker: Gets the numbers.
        seed: Of weights and whatever else is drawn.
        device: Where.

    Returns:
        The network with the weights that are best on validation, in evaluation mode, and the epochs that it took.

    Raises:
        Interrupted: A signal asked to end; a checkpoint was written.
        DataError: Memory is too short, or the loss is no number.
    """
    torch.manual_seed(seed)
    checkpoints = Path(checkpoints)
    loop = Loop(
        learner,
        batches,
        LoopSettings(config=config, epochs=epochs, random_seed=seed, checkpoints=checkpoints, disable_tqdm=True),
        device=torch.device(device),
        processes=OneProcess(),
        progress=Progress(tracker, epochs),
    )
    loop.run()
    network = learner.network()
    load_weights(network, judged_weights(read_checkpoint(checkpoints / BEST)))
    return network.to(device).eval(), loop.state.epochs_begun
