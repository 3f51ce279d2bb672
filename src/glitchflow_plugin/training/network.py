"""A network with all that it is learnt with, new or from a checkpoint."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from glitchflow_plugin.training.checkpoints import load_weights
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.learner import Learnable
from glitchflow_plugin.training.precision import choose_precision, in_precision
from glitchflow_plugin.training.processes import Processes
from glitchflow_plugin.training.steps import Stepper, build_optimizer, moving_average, parameter_groups

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class NetworkInTraining:
    """A network that learns.

    Attributes:
        network: The network itself, whose names of weights are those of checkpoints.
        wrapped: What runs it while it learns, which averages gradients over the processes.
        twin: What validation judges: the network, or its moving average, with the scaling about it.
        optimizer: Over the network's parameters.
        scheduler: Lowers the learning rate; None: it stays.
        average: Moving average of the weights; None: there is none.
    """

    network: nn.Module
    wrapped: nn.Module
    twin: Any
    optimizer: Optimizer
    scheduler: ReduceLROnPlateau | None
    average: AveragedModel | None

    def state(self) -> dict[str, Any]:
        """Plain values and tensors beside the weights, for a checkpoint."""
        return {
            "optimizer_state_dict": self.optimizer.state_dict(),
            "lr_scheduler_state_dict": self.scheduler.state_dict() if self.scheduler is not None else None,
            "average_count": int(self.average.n_averaged) if self.average is not None else 0,
        }

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Weights by the name of their file in a checkpoint."""
        model = {"model": self.network.state_dict()}
        return model if self.average is None else model | {"average": self.average.module.state_dict()}


def network_in_training(
    learner: Learnable,
    config: TrainingConfiguration,
    device: torch.device,
    processes: Processes,
    checkpoint: Mapping[str, Any] | None = None,
) -> NetworkInTraining:
    """Make what a learner's network is learnt with.

    Args:
        learner: Gives network and twin.
        config: How it is learnt.
        device: Where.
        processes: Wrap it.
        checkpoint: As `read_checkpoint` gives it; None: a new training.

    Raises:
        ConfigurationError: The checkpoint is of another network.
    """
    network = learner.network()
    if checkpoint is not None:
        load_weights(network, checkpoint["model"])
    elif processes.rank == 0:  # passes over all training events: once for all processes
        learner.initialise(network)
    network = network.to(device)
    if checkpoint is None:
        processes.broadcast(network.state_dict().values())
    if config.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(
        parameter_groups(network, config.optim_lr),
        config.optimizer,
        rate=config.optim_lr,
        weight_decay=config.optim_weight_decay,
        betas=config.optim_betas,
        momentum=config.optim_momentum,
    )
    scheduler = None
    if config.lr_scheduler == "plateau":
        factor, patience = config.lr_scheduler_gamma, config.lr_scheduler_patience
        scheduler = ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
    average = None if config.ema is None else moving_average(network, config.ema)
    if checkpoint is not None:
        state, averaged = checkpoint["state"], checkpoint.get("average")
        optimizer.load_state_dict(state["optimizer_state_dict"])
        if scheduler is not None and state["lr_scheduler_state_dict"]:
            scheduler.load_state_dict(state["lr_scheduler_state_dict"])
        if average is not None and averaged:
            load_weights(average.module, averaged)
            average.n_averaged.fill_(state.get("average_count", 0))
    twin = learner.twin(network if average is None else average.module)
    wrapped, optimizer, scheduler = processes.wrap(network, optimizer, scheduler)
    return NetworkInTraining(network, wrapped, twin, optimizer, scheduler, average)


def make_stepper(
    learner: Learnable,
    model: NetworkInTraining,
    config: TrainingConfiguration,
    device: torch.device,
    processes: Processes,
    *,
    piece_size: int | None = None,
) -> Stepper:
    """What takes the steps, in the precision and compiled as the configuration says."""
    dtype = choose_precision(config.precision, device)
    logger.info("training on %s in %s", device, str(dtype).removeprefix("torch."))
    # the compiled network is another object: checkpoints keep the names of this one
    runs: Callable[..., Any] = torch.compile(model.wrapped) if config.compile else model.wrapped  # type: ignore[assignment]
    return Stepper(
        partial(learner.losses, in_precision(runs, dtype), model.twin),
        partial(to_device, device=device, channels_last=config.channels_last),
        model.wrapped,
        model.optimizer,
        gradient_clip=config.gradient_clip,
        average=model.average,
        world_size=processes.size,
        piece_size=piece_size,
        backward=partial(processes.backward, model.wrapped),
    )


def to_device(windows: Any, device: torch.device, *, channels_last: bool) -> Any:
    """Bring windows to the device, images in the memory layout of the network; a record of tensors as it can."""
    if not isinstance(windows, Tensor):
        return windows.to(device)
    layout = torch.channels_last if channels_last and windows.dim() == 4 else torch.contiguous_format
    return windows.to(device, memory_format=layout, non_blocking=True)
