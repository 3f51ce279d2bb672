"""One step of learning: gradients of a batch, in pieces where memory is short, and what follows from them."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adadelta, Adam, AdamW, Optimizer, RMSprop
from torch.optim.sgd import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from glitchflow_plugin.errors import ConfigurationError, DataError

logger = logging.getLogger(__name__)

_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
#: Where torch has fused optimisers.
_FUSED_DEVICES = ("cpu", "cuda")


def parameter_groups(network: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Parameters of a network for its optimiser: first all that learn at `rate`, then those that have another.

    Args:
        network: What learns; its `relative_rates`, where it has any, are factors on the rate by parameter name.
        rate: Learning rate.
    """
    factors: Mapping[str, float] = getattr(network, "relative_rates", {})
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in network.named_parameters():
        groups.setdefault(factors.get(name, 1.0), []).append(parameter)
    if len(groups) == 1:  # as checkpoints without such rates know it
        return [{"params": groups[1.0]}]
    return [{"params": own, "lr": rate * factor, "relative": factor} for factor, own in groups.items()]


def build_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    name: str,
    *,
    rate: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    momentum: float = 0.9,
) -> Optimizer:
    """An optimiser by name, all parameters in one call (fused) where torch has that.

    Args:
        parameters: What to learn, on the device where that happens, or groups of it (`parameter_groups`).
        name: `adadelta`, `adam`, `adamw`, `rmsprop` or `sgd`.
        rate: Learning rate.
        weight_decay: As torch defines it for each.
        betas: Decay of the moments of adam and adamw.
        momentum: Momentum of rmsprop and sgd.

    Raises:
        ConfigurationError: The name is unknown.
    """
    learnt: Any = list(parameters)
    common: dict[str, Any] = {"lr": rate, "weight_decay": weight_decay}
    single = [each for one in learnt for each in (one["params"] if isinstance(one, dict) else [one])]
    fused = {"fused": all(each.device.type in _FUSED_DEVICES and each.is_floating_point() for each in single)}
    match name:
        case "adam":
            return Adam(learnt, betas=betas, **common, **fused)
        case "adamw":
            return AdamW(learnt, betas=betas, **common, **fused)
        case "sgd":
            return SGD(learnt, momentum=momentum, **common, **fused)
        case "rmsprop":
            return RMSprop(learnt, momentum=momentum, **common)
        case "adadelta":
            return Adadelta(learnt, **common)
    message = f"expected an optimizer out of adadelta, adam, adamw, rmsprop and sgd, got {name!r}."
    raise ConfigurationError(message)


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a network's weights, to be updated after each step.

    Early on the decay is (1 + n) / (10 + n) after n steps where that is smaller, so that the random first weights are
    soon forgotten.

    Args:
        network: Whose weights are averaged.
        decay: Share of the average that a step keeps, for instance 0.999.

    Raises:
        ConfigurationError: The decay is not between 0 and 1.
    """
    if not 0 < decay < 1:
        message = f"expected ema between 0 and 1, for instance 0.999, or null, got {decay}. Correct training.yaml."
        raise ConfigurationError(message)

    def mean(averaged: Any, current: Any, _: Any) -> None:
        # the model's own count lies on the CPU: reading it does not wait for the device
        count = int(average.n_averaged)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averaged, current, count)

    average = AveragedModel(network, multi_avg_fn=mean)
    return average.eval().requires_grad_(requires_grad=False)


def warm_up(optimizer: Optimizer, rate: float, step: int, steps: int) -> None:
    """Raise the learning rate linearly to `rate` over the first `steps` steps; afterwards leave it alone."""
    if step < steps:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("relative", 1.0) * (step + 1) / steps


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _MEMORY_SIGNS)


class Stepper:
    """Takes steps on batches. When memory runs out it halves the pieces in which a batch is worked through.

    Among several processes that is an error in the last piece, whose work the others wait for.

    The pieces' gradients add up to that of the whole batch, so that the step is the same within rounding.

    Args:
        losses: Witnesses and strain, on the device, to one differentiable loss a window.
        place: Brings a tensor of a piece to the device.
        network: What is learnt, with the wrapper of distributed training where there is one.
        optimizer: Over the network's parameters.
        gradient_clip: Largest norm of the gradient.
        average: Moving average of the weights to keep up; None for none.
        world_size: Processes whose gradients are averaged.
        piece_size: Windows of a piece at first; None: the whole batch.
        backward: Gradients of a loss; distributed strategies have their own.
    """

    def __init__(
        self,
        losses: Callable[[Tensor, Tensor], Tensor],
        place: Callable[[Tensor], Tensor],
        network: nn.Module,
        optimizer: Optimizer,
        *,
        gradient_clip: float,
        average: AveragedModel | None = None,
        world_size: int = 1,
        piece_size: int | None = None,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> None:
        self.backward = backward
        self.losses, self.place, self.network, self.optimizer = losses, place, network, optimizer
        self.gradient_clip, self.average, self.world_size = gradient_clip, average, world_size
        self.piece_size = piece_size
        self._in_exchange = False

    def step(self, witnesses: Tensor, strain: Tensor, counting: int | None = None, whole: int | None = None) -> Tensor:
        """Learn from one batch.

        Args:
            witnesses: Witnesses of this process's windows, (window, ...).
            strain: Strain of the same windows.
            counting: How many of them, from the first on, count; all by default.
            whole: Windows that count in the batches of all processes together; those of this one by default.

        Returns:
            Sum of the losses that count, float64, on the device: nothing waits for it.

        Raises:
            DataError: Not even a single window fits into memory, or several processes learn together.
        """
        counting = len(strain) if counting is None else counting
        whole = counting if whole is None else whole
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                total = self._gradients(witnesses, strain, counting, whole)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(strain), error)
            # outside of `except`, whose error holds on to the memory
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(getattr(self.network, "module", self.network))
        return total

    def _gradients(self, witnesses: Tensor, strain: Tensor, counting: int, whole: int) -> Tensor:
        size = min(self.piece_size or len(strain), len(strain))
        sums = []
        for first in range(0, len(strain), size):
            last = first + size >= len(strain)
            # what wraps the network talks to the other processes in its forward pass too
            self._in_exchange = last and self.world_size > 1
            with nullcontext() if last else self._alone():
                losses = self.losses(
                    self.place(witnesses[first : first + size]), self.place(strain[first : first + size])
                )
                losses = losses[: max(0, counting - first)]
                # processes average their gradients, so each counts as often as there are processes
                self.backward(losses.sum() * (self.world_size / whole))
            self._in_exchange = False
            sums.append(losses.detach().double().sum())
        return torch.stack(sums).sum()

    def _alone(self) -> AbstractContextManager[None]:
        """Without exchanging gradients with other processes."""
        alone = getattr(self.network, "no_sync", None)
        return alone() if alone is not None else nullcontext()

    def _halve(self, size: int, error: Exception) -> None:
        size = min(self.piece_size or size, size)
        if self._in_exchange:
            message = (
                "memory ran out while processes exchanged their gradients, and the others cannot repeat that. Set a "
                "smaller training.config.batch_size."
            )
            raise DataError(message) from error
        if size == 1:
            message = (
                f"a single window does not fit into memory ({type(error).__name__}: {str(error)[:200]}). Choose a "
                "smaller network (conf/model/), fewer channels, or another device."
            )
            raise DataError(message) from error
        self.piece_size = (size + 1) // 2
        logger.warning(
            "memory ran out: batches are worked through in pieces of %d windows from now on; what is learnt from a "
            "batch stays the same",
            self.piece_size,
        )
