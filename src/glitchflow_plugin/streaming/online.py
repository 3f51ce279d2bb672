"""The twin stride by stride: what comes in last decides about what lies a short look-ahead behind it.

Windows, belief, agreement, ranks and vetoes are those of continuous data (`streaming.subtraction`); what differs is that
the data end at the newest sample. So the output is a function of the last `OnlineTwin.memory` seconds alone: whoever
feeds these again gets the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.settings import NotNegative, section
from glitchflow_plugin.streaming.subtraction import Subtraction
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings
from glitchflow_plugin.types.arrays import Series

STAGES = ("conditioning", "network", "belief", "output")
"""What a stride's time is spent on."""


@section
class OnlineSettings:
    """How a model is used stride by stride; conf/online.yaml explains the keys.

    Attributes:
        lookahead: How far the output lies behind the newest sample, s, a multiple of `stream.stride`.
        stream: As for continuous data; its `stride` is also the length of what comes in and goes out at once.
    """

    lookahead: NotNegative = 1.0
    stream: StreamSettings = field(default_factory=lambda: StreamSettings(stride=1.0))


@dataclass(frozen=True, eq=False)
class Stride:
    """What comes in at once.

    Attributes:
        start: GPS s, a multiple of the stride.
        channels: Recorded channels by name, each from `start` on and as long as a stride, NaN where there are no data;
            what is missing is left out.
    """

    start: float
    channels: Mapping[str, Channel]


@dataclass(frozen=True, eq=False)
class Output:
    """What goes out at once.

    Attributes:
        span: Start and end, GPS s.
        strain: As it came in; None where none came.
        found: What the model says of it, as for a block of continuous data; None where there is no strain.
        seconds: What was spent on each of `STAGES`, s.
    """

    span: tuple[float, float]
    strain: Channel | None
    found: Subtraction | None
    seconds: Mapping[str, float]


class OnlineTwin:
    """A registered model that is fed stride by stride.

    Args:
        model: Twin and recipes.
        settings: Look-ahead, stride, spectra and belief.
    """

    def __init__(self, model: StreamModel, settings: OnlineSettings) -> None:
        self.model, self.settings = model, settings

    @property
    def memory(self) -> float:
        """Time that decides about an output, s: fed again from so long before it, its bytes are the same."""
        raise NotImplementedError

    def feed(self, stride: Stride) -> None:
        """Take a stride in without an output: what came before a restart.

        Raises:
            DataError: As `push`.
        """
        raise NotImplementedError

    def push(self, stride: Stride) -> Output | None:
        """Take a stride in, and say what lies the look-ahead behind its end; None while there is nothing so early.

        Raises:
            DataError: It does not follow the last one (`gap` tells what never came), is no multiple of the stride, or
                a channel is not as long as it.
        """
        raise DataError("not yet")

    def gap(self, start: float, stop: float) -> list[Output]:
        """What never came: the outputs up to where data begin again, in which nothing is analysed.

        Args:
            start: End of the last stride, GPS s.
            stop: Start of the next one, GPS s.
        """
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """All that outputs depend on: the last `memory` seconds."""
        raise NotImplementedError

    def restore(self, state: Mapping[str, Series]) -> None:
        """Go on from `state` as if there had been no interruption."""
        raise NotImplementedError
