"""What maps look like: the keys that scan.yaml and process.yaml share, and the Q-transform that they ask for."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import Count, Finite, Number, PositiveNumber, section
from glitchflow_plugin.signal.qtransform import QTransformSettings

OneOrMore = Annotated[
    Number | Sequence[Number], Field(description="a number, or a list of numbers where several are meant")
]
Band = Annotated[
    Sequence[Finite | int], Field(min_length=2, max_length=2, description="a pair [lowest, highest] in Hz")
]


@section
class MapSettings:
    """The keys that each step which makes maps has; conf/maps.yaml explains them."""

    q: OneOrMore = 12.0
    frange: Band = (8.0, 400.0)
    fres: PositiveNumber | None = None
    tres: PositiveNumber | None = None
    num_t_bins: Count = 257
    num_f_bins: Count = 64
    logf: bool = False
    whiten: bool | None = None

    def __post_init__(self) -> None:
        """Refuse maps that no event has."""
        self.transform(2 * (self.tres or 1))  # the range of tres depends on the event

    def check_whitening(self, events: EventSet, group: str) -> None:
        """Refuse an event set that Data-processor whitened where these settings say otherwise, or the reverse.

        Args:
            events: The event set.
            group: Name of the file that the settings are from.

        Raises:
            ConfigurationError: They differ; whitening needs the margins that only Data-processor sees.
        """
        is_whitened = events.manifest.units == "whitened"
        if self.whiten in (None, is_whitened):
            return
        raise ConfigurationError(
            f"{group}.yaml asks for whiten: {str(self.whiten).lower()}, but the series of {events.folder} are "
            f"{'whitened' if is_whitened else 'not whitened'}. Run Data-processor with `whiten` in datasets.yaml set "
            f"that way, or set whiten: null in {group}.yaml to take the event set as it is."
        )

    def transform(self, duration: float) -> QTransformSettings:
        """The Q-transform of events of this length, s.

        Raises:
            ConfigurationError: A value is out of range.
        """
        low, high = self.frange
        if self.fres is not None and self.logf:
            raise ConfigurationError(
                "fres needs a linear frequency axis: set logf: false, or num_f_bins in place of fres."
            )
        if self.fres is not None and self.fres > high - low:
            raise ConfigurationError(f"fres must be between 0 and {high - low:g} Hz, got {self.fres}.")
        if self.tres is not None and self.tres > duration / 2:
            raise ConfigurationError(f"tres must be between 0 and {duration / 2:g} s, got {self.tres}.")
        qs = self.q if isinstance(self.q, Sequence) else (self.q,)
        return QTransformSettings(
            q=qs[0] if len(qs) == 1 else tuple(qs),
            frequency_low=low,
            frequency_high=high,
            num_frequencies=self.num_f_bins if self.fres is None else round((high - low) / self.fres) + 1,
            num_times=self.num_t_bins if self.tres is None else round(duration / self.tres),
            log_frequency=self.logf,
        )
