"""What all steps have in common: they keep their arguments, hold their folders, and tell what the system refuses."""

import errno
import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from itwinai.components import BaseComponent
from itwinai.distributed import detect_distributed_environment

from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.lock import at_work, in_use
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.preprocessing.engine import SLURM_ARRAY
from glitchflow_plugin.products.console import never_fail_on_output
from glitchflow_plugin.training.interruption import Interrupted

logger = logging.getLogger(__name__)

#: Keys of a step that differ between those who make one set together.
_OWN = ("engine", "name")
#: Exit code of what Ctrl-C ends, as shells give it.
_CTRL_C = 130
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


Step = TypeVar("Step", bound=BaseComponent)
Arguments = ParamSpec("Arguments")
Constructor = Callable[Concatenate[Step, Arguments], None]


def keeping_arguments(init: Constructor[Step, Arguments]) -> Constructor[Step, Arguments]:
    """Decorate `__init__`: its arguments, with their defaults, are the step's parameters, which itwinai serialises."""
    signature = inspect.signature(init)
    others = [name for name, one in signature.parameters.items() if one.kind is inspect.Parameter.VAR_KEYWORD]

    @functools.wraps(init)
    def initialised(self: Step, *arguments: Arguments.args, **keywords: Arguments.kwargs) -> None:
        init(self, *arguments, **keywords)
        given = signature.bind(self, *arguments, **keywords)
        given.apply_defaults()
        _, *kept = given.arguments.items()
        parameters = dict(kept)
        for name in others:
            parameters |= parameters.pop(name)
        self.save_parameters(**parameters)

    return initialised


def holding(*writes: str, reads: Sequence[str] = (), together: bool = True) -> Callable[[Any], Any]:
    """Decorate `execute`: nobody else works in the step's folders meanwhile.

    Args:
        writes: Names of the attributes that hold the folders it writes to.
        reads: Names of those that hold folders which must not change while it runs.
        together: Whether the tasks of a job array, all with the same settings, work in them at the same time.

    Returns:
        The decorator. What it makes of `execute` raises BusyError where somebody else is at work, and DataError where
        a file may not be read or written.
    """

    def decorate(execute: Any) -> Any:
        @functools.wraps(execute)
        def held(self: Any, *arguments: Any, **keywords: Any) -> Any:
            never_fail_on_output()
            work = self.name or type(self).__name__
            engine = getattr(self, "engine", None)
            shared = None
            if together and engine is not None and engine.name == SLURM_ARRAY:
                shared = content_hash({key: str(value) for key, value in self.parameters.items() if key not in _OWN})
            with ExitStack() as stack:
                stack.enter_context(_told(work, getattr(self, "how_to_go_on", _on_again)))
                ranks = detect_distributed_environment()
                if ranks.global_rank == 0:  # holds them for all that do this step together
                    here = _folders(self, writes)
                    several = ranks.global_world_size > 1
                    for _, folder in sorted(here.items()):
                        stack.enter_context(at_work(folder, work, shared=shared, several=several))
                    for place, folder in sorted(_folders(self, reads).items()):
                        if place not in here:
                            stack.enter_context(in_use(folder, work))
                return execute(self, *arguments, **keywords)

        held.holds = writes  # pyright: ignore[reportFunctionMemberAccess]  # a test looks for it in every step
        return held

    return decorate


def _folders(step: Any, names: Sequence[str]) -> dict[str, str]:
    """Folders of a step by where they are: one may be named in two ways, and is held once."""
    named = [str(getattr(step, name)) for name in names]
    return {os.path.realpath(folder): folder for folder in named}


def _on_again() -> str:
    return "What is finished is kept: the same command goes on."


@contextmanager
def _told(work: str, how_to_go_on: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        # one message: where it was in the code tells the user nothing
        ended = Interrupted(f"Ctrl-C ends {work}. {how_to_go_on()}", _CTRL_C)
        logger.warning("%s", ended)
        raise ended from None
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        place = error.filename or "a file"
        message = f"cannot read or write {place}: {error.strerror}. Check the folder and its permissions."
        raise DataError(message) from error
