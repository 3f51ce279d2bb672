"""Processes that train one network together, as the loop sees them: one alone, or several by a strategy."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from glitchflow_plugin.errors import ConfigurationError, GlitchflowError

Backend = Literal["nccl", "gloo", "mpi"]
_Value = TypeVar("_Value")


class Processes(Protocol):
    """What the loop asks of those who train with it. Each method but `backward` is called by all at the same time."""

    @property
    def rank(self) -> int:
        """Number of this process; that of the first, which writes and tells, is 0."""
        ...

    @property
    def size(self) -> int:
        """Number of processes."""
        ...

    def gather(self, value: _Value) -> list[_Value]:
        """The values of all processes by rank, in each of them."""
        ...

    def any(self, flags: Sequence[bool]) -> tuple[bool, ...]:
        """For each flag whether one process or more has set it."""
        ...

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        ...

    def wrap(
        self, network: nn.Module, optimizer: Optimizer, scheduler: ReduceLROnPlateau | None
    ) -> tuple[nn.Module, Optimizer, ReduceLROnPlateau | None]:
        """What to run and step in their place, so that gradients are averaged over the processes."""
        ...

    def backward(self, network: nn.Module, loss: Tensor) -> None:
        """Gradients of a loss of a wrapped network."""
        ...


class OneProcess:
    """`Processes` where there is but one."""

    rank, size = 0, 1

    def gather(self, value: _Value) -> list[_Value]:
        """The value alone."""
        return [value]

    def any(self, flags: Sequence[bool]) -> tuple[bool, ...]:
        """The flags themselves."""
        return tuple(flags)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Leave them as they are."""

    def wrap(
        self, network: nn.Module, optimizer: Optimizer, scheduler: ReduceLROnPlateau | None
    ) -> tuple[nn.Module, Optimizer, ReduceLROnPlateau | None]:
        """The same."""
        return network, optimizer, scheduler

    def backward(self, network: nn.Module, loss: Tensor) -> None:
        """Gradients of a loss."""
        del network
        loss.backward()


class Strategy(Protocol):
    """What wraps a network for several processes, once they have met."""

    def global_rank(self) -> int:
        """Number of this process."""
        ...

    def global_world_size(self) -> int:
        """Number of processes."""
        ...

    def device(self) -> str:
        """Where this process computes."""
        ...

    def allgather_obj(self, obj: Any) -> list[Any]:
        """An object of each process, by rank."""
        ...

    @property
    def distributed(self) -> Callable[..., Any]:
        """Network, optimizer and scheduler as they are run and stepped in the place of those given."""
        ...


class SeveralProcesses:
    """`Processes` of a strategy that is initialised.

    Args:
        strategy: How they train together.
        options: What its `distributed` takes besides the network.
        through_engine: Whether it wraps the network in an engine that alone exchanges gradients, as DeepSpeed's.
    """

    def __init__(self, strategy: Strategy, options: Mapping[str, Any], *, through_engine: bool = False) -> None:
        self.strategy, self.options, self.through_engine = strategy, options, through_engine
        self.rank, self.size = strategy.global_rank(), strategy.global_world_size()

    def gather(self, value: _Value) -> list[_Value]:
        """The values of all processes by rank, in each of them."""
        return self.strategy.allgather_obj(value)

    def any(self, flags: Sequence[bool]) -> tuple[bool, ...]:
        """For each flag whether one process or more has set it."""
        if not dist.is_initialized():
            return tuple(any(each) for each in zip(*self.gather(tuple(flags)), strict=True))
        device = self.strategy.device() if dist.get_backend() == "nccl" else "cpu"
        together = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(together, op=dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in together.tolist())

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def wrap(
        self, network: nn.Module, optimizer: Optimizer, scheduler: ReduceLROnPlateau | None
    ) -> tuple[nn.Module, Optimizer, ReduceLROnPlateau | None]:
        """What to run and step in their place, so that gradients are averaged over the processes."""
        return self.strategy.distributed(network, optimizer, scheduler, **self.options)

    def backward(self, network: nn.Module, loss: Tensor) -> None:
        """Gradients of a loss, averaged over the processes."""
        engine: Any = network
        if self.through_engine:
            engine.backward(loss)
        else:
            loss.backward()


def choose_backend(chosen: str, *, gpus: bool) -> Backend:
    """What processes talk through: by the device, unless the user says otherwise.

    Args:
        chosen: `auto`, `nccl`, `gloo` or `mpi`.
        gpus: Whether there are some.

    Raises:
        ConfigurationError: nccl without GPUs, or a backend that this torch was built without.
    """
    backend: Any = ("nccl" if gpus else "gloo") if chosen == "auto" else chosen
    if backend == "nccl" and not gpus:
        message = "dist_backend: nccl needs GPUs and there are none. Use auto or gloo."
        raise ConfigurationError(message)
    if not dist.is_backend_available(backend):
        message = f"dist_backend: this torch was built without {backend}. Use auto."
        raise ConfigurationError(message)
    return backend


@contextmanager
def lost_processes_explained(timeout: float) -> Iterator[None]:
    """Say what has happened when a process loses the others.

    Args:
        timeout: Seconds that a process waits for the others.

    Raises:
        GlitchflowError: Another process has ended, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, dist.DistError) or "gloo" in text or "Timed out waiting" in text:
            message = (
                f"another process of this training has ended, or has not answered for {timeout:.0f} s "
                f"({brief(error)}). Its own message says why. The checkpoints are kept: when that is mended, start "
                "again and go on from the last one."
            )
            raise GlitchflowError(message) from error
        raise


def brief(error: BaseException) -> str:
    """The beginning of what an error says, in one line."""
    return " ".join(str(error).split())[:200]
