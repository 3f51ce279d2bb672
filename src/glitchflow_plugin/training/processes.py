"""Several processes that train one network together, as the loop sees them; and the one that trains alone."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

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
