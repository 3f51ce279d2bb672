"""The keys of scan.yaml."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.spectrograms import check_count, check_flags, check_map_keys
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.coincidence import Tolerance
from glitchflow_plugin.signal.rounds import Criteria

#: Distance in octaves where frequencies are compared and tolerance_distance gives none.
DEFAULT_OCTAVES = 0.5


@dataclass(frozen=True)
class ScanSettings:
    """The keys of scan.yaml; conf/scan.yaml and conf/maps.yaml explain them."""

    memory: float = 128.0
    num_batch: int | None = None
    num_chan: int | None = None
    threshold: float = 20.0
    time_window: float | None = None
    time_only_mode: bool = True
    tolerance_distance: float | Sequence[float] = 0.25
    q: float | Sequence[float] = 12.0
    frange: Sequence[float] = (8.0, 400.0)
    fres: float | None = None
    tres: float | None = None
    num_t_bins: int = 257
    num_f_bins: int = 64
    refchan: str | None = None
    logf: bool = False
    whiten: bool | None = None
    threshold_corr: float | None = None
    threshold_iou: float | None = None
    num_slides: int = 128
    fdr: float = 0.01
    fdr_method: Literal["bh", "by"] = "bh"
    max_rounds: int = 20
    family_overlap: float = 0.5
    unsafe: Sequence[str] = ()
    injections: str | Sequence[float] | None = None
    safety: float = 0.001
    safe_override: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for key in ("unsafe", "safe_override"):
            names = getattr(self, key)
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise ConfigurationError(f"{key} must be a list of channel names, got {names!r}.")
            object.__setattr__(self, key, tuple(names))
        check_flags(self, ("time_only_mode", "logf"))
        for key in ("num_batch", "num_chan", "max_rounds"):
            if getattr(self, key) is not None or key == "max_rounds":
                check_count(key, getattr(self, key))
        if self.num_slides != 0:
            check_count("num_slides", self.num_slides)
        self._check_numbers()
        if self.fdr_method not in ("bh", "by"):
            raise ConfigurationError(
                f"fdr_method must be bh (Benjamini-Hochberg) or by (Benjamini-Yekutieli), got {self.fdr_method!r}."
            )
        self._check_injections()
        if not self.criteria.tests and self.threshold_corr is None and self.threshold_iou is None:
            raise ConfigurationError(
                f"nothing would decide which channels are witnesses: the test is off (num_slides: {self.num_slides}, "
                f"fdr: {self.fdr:g}), and threshold_corr and threshold_iou are null. Leave num_slides above 0 and fdr "
                "below 1, or set a threshold in scan.yaml (threshold_corr: 0.17, threshold_iou: 0.08)."
            )
        if self.injections is not None and not self.num_slides:
            raise ConfigurationError("injections are compared with time slides: num_slides must not be 0.")
        _ = self.tolerance
        check_map_keys(self)

    def _check_numbers(self) -> None:
        shares = ("threshold_corr", "threshold_iou", "fdr", "family_overlap", "safety")
        for key in ("memory", "threshold", "time_window", *shares):
            value = getattr(self, key)
            if value is None and key in ("time_window", "threshold_corr", "threshold_iou"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigurationError(f"{key} must be a number, got {value!r}.")
            object.__setattr__(self, key, float(value))  # YAML has whole numbers
            if key in shares and not 0 <= value <= 1:
                raise ConfigurationError(f"{key} is a share between 0 and 1, got {value}.")
        positive = {
            "threshold": "an energy in SNR²",
            "memory": "in MiB",
            "time_window": "a half-width in s (or null)",
        }
        for key, meaning in positive.items():
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{key} is {meaning} and must be positive, got {value}.")

    def _check_injections(self) -> None:
        given = self.injections
        if given is None or isinstance(given, str):
            return
        numbers = list(given) if isinstance(given, Sequence) else [None]
        if not all(
            isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in numbers
        ):
            raise ConfigurationError(
                f"injections must be a list of GPS times in s, or the path of a file with them, got {given!r}."
            )

    @classmethod
    def from_yaml(cls, content: Mapping[str, Any]) -> "ScanSettings":
        """Settings from the content of scan.yaml.

        Raises:
            ConfigurationError: A value is out of range, or a key is misspelt or has been replaced.
        """
        return built(cls, content, "scan")

    @property
    def tolerance(self) -> Tolerance:
        """The coincidence distance: seconds, and octaves unless `time_only_mode`."""
        distance = self.tolerance_distance
        pair = list(distance) if isinstance(distance, Sequence) and not isinstance(distance, str) else [distance]
        numbers = [value for value in pair if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) != len(pair) or len(pair) not in (1, 2):
            raise ConfigurationError(
                f"tolerance_distance must be seconds, or a pair [seconds, octaves], got {self.tolerance_distance!r}."
            )
        octaves = float(pair[1]) if len(pair) == 2 else DEFAULT_OCTAVES
        return Tolerance(time=float(pair[0]), octaves=None if self.time_only_mode else octaves)

    @property
    def criteria(self) -> Criteria:
        """What a witness must reach."""
        return Criteria(self.threshold_corr, self.threshold_iou, self.fdr, self.fdr_method, self.num_slides)
