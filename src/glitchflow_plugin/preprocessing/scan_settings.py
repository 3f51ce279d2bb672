"""The keys of scan.yaml."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.map_settings import MapSettings
from glitchflow_plugin.settings import Count, CountOrNone, Finite, Number, Positive, Share, section
from glitchflow_plugin.signal.coincidence import Tolerance
from glitchflow_plugin.signal.rounds import Criteria

#: Distance in octaves where frequencies are compared and tolerance_distance gives none.
DEFAULT_OCTAVES = 0.5


@section
class ScanSettings(MapSettings):
    """The keys of scan.yaml; conf/scan.yaml explains those that are not of maps."""

    memory: Positive = 128.0
    num_batch: Count | None = None
    num_chan: Count | None = None
    threshold: Positive = 20.0
    time_window: Positive | None = None
    time_only_mode: bool = True
    tolerance_distance: Annotated[
        Number | Annotated[Sequence[Number], Field(min_length=1, max_length=2)],
        Field(description="seconds, or a pair [seconds, octaves]"),
    ] = 0.25
    refchan: str | None = None
    threshold_corr: Share | None = None
    threshold_iou: Share | None = None
    num_slides: CountOrNone = 128
    fdr: Share = 0.01
    fdr_method: Literal["bh", "by"] = "bh"
    max_rounds: Count = 20
    family_overlap: Share = 0.5
    unsafe: tuple[str, ...] = ()
    injections: Annotated[
        str | Sequence[Finite | int] | None,
        Field(description="a list of GPS times in s, or the path of a file with them"),
    ] = None
    safety: Share = 0.001
    safe_override: tuple[str, ...] = ()
    hveto: bool = False

    def __post_init__(self) -> None:
        """Refuse a scan that decides nothing, and maps that no event has."""
        super().__post_init__()
        _ = self.tolerance
        if not self.criteria.tests and self.threshold_corr is None and self.threshold_iou is None:
            raise ConfigurationError(
                f"nothing would decide which channels are witnesses: the test is off (num_slides: {self.num_slides}, "
                f"fdr: {self.fdr:g}), and threshold_corr and threshold_iou are null. Leave num_slides above 0 and fdr "
                "below 1, or set a threshold in scan.yaml (threshold_corr: 0.17, threshold_iou: 0.08)."
            )
        if self.injections is not None and not self.num_slides:
            raise ConfigurationError("injections are compared with time slides: num_slides must not be 0.")

    @property
    def tolerance(self) -> Tolerance:
        """The coincidence distance: seconds, and octaves unless `time_only_mode`."""
        given = self.tolerance_distance
        time, octaves = [*(given if isinstance(given, Sequence) else [given]), DEFAULT_OCTAVES][:2]
        return Tolerance(time=float(time), octaves=None if self.time_only_mode else float(octaves))

    @property
    def criteria(self) -> Criteria:
        """What a witness must reach."""
        return Criteria(self.threshold_corr, self.threshold_iou, self.fdr, self.fdr_method, self.num_slides)
