"""Twins: a network with what leads from physical units to its own and back, and what calibrates it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.models.coupling import CouplingNet, Explanation
from glitchflow_plugin.types.tensors import SeriesBatch, StrainSeries, StrainWindows, WindowBatch, host
from glitchflow_plugin.verdict import TOLD_SNR2

_Made = TypeVar("_Made")

Energies: TypeAlias = Float[Tensor, "*pixels"]
"""Energies or scaled energies of any shape."""

PROBABILITIES = (0.5, 0.68, 0.9, 0.95, 0.99)
"""For which a waveform twin says how much will be left at most."""

#: Predicted power (SNR²) from which an event counts as one in which something was predicted.
SPOKEN_POWER = TOLD_SNR2
#: Groups of references below which a p-value cannot reach 0.05.
_FEWEST_REFERENCES = 19
#: Sets of known features for which the way to distances is kept.
_KEPT = 32

TRANSFORMS = ("sqrt", "log1p", "none")


def scale_energy(energy: Energies, clamp: Tensor, scale: Tensor, transform: str) -> Energies:
    """Bring energies to a common range; why so, `signal.scaling` says.

    Args:
        energy: Energies, SNR².
        clamp: Largest energy that is told apart, SNR², a scalar.
        scale: Divisor, broadcast against the energies.
        transform: `sqrt`, `log1p`, or `none` (energies as they are, without scale).
    """
    limited = torch.minimum(energy.clamp(min=0), clamp)
    match transform:
        case "sqrt":
            return torch.sqrt(limited) / scale
        case "log1p":
            return torch.log1p(limited) / scale
        case _:
            return limited


def unscale_energy(scaled: Energies, clamp: Tensor, scale: Tensor, transform: str) -> Energies:
    """Inverse of `scale_energy` between 0 and the clamp; more than the clamp is never returned."""
    match transform:
        case "sqrt":
            energy = torch.square(scaled * scale)
        case "log1p":
            energy = torch.expm1(scaled * scale)
        case _:
            energy = scaled
    return torch.minimum(energy, clamp)


class EnergyTwin(nn.Module):
    """A network between energies: witness SNR² in, strain SNR² out, with the scaling inside.

    Args:
        network: From scaled witness windows to scaled strain windows.
        clamp: Largest energy that the scaling tells apart, SNR².
        witness_scale: Divisor of each witness's transformed energy, in channel order.
        target_scale: Divisor of the strain's.
        transform: `sqrt`, `log1p`, or `none`, see `scale_energy`.

    Raises:
        FormatError: The transform is unknown.

    >>> twin = EnergyTwin(nn.Identity(), clamp=1e4, witness_scale=[2.0], target_scale=2.0)
    >>> twin(torch.full((1, 1, 2, 2), 5.0)).mean().round(decimals=4)
    tensor(5.)
    """

    clamp: Tensor
    witness_scale: Tensor
    target_scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        clamp: float,
        witness_scale: Sequence[float],
        target_scale: float,
        transform: str = "sqrt",
    ) -> None:
        super().__init__()
        if transform not in TRANSFORMS:
            raise FormatError(f"expected a transform out of {TRANSFORMS}, got {transform!r}.")
        self.network = network
        self.transform = transform
        self.register_buffer("clamp", torch.tensor(float(clamp)))
        self.register_buffer("witness_scale", torch.tensor(list(witness_scale), dtype=torch.float32)[:, None, None])
        self.register_buffer("target_scale", torch.tensor(float(target_scale)))

    def forward(self, witnesses: WindowBatch) -> StrainWindows:
        """Predict strain energy.

        Args:
            witnesses: Witness energies, SNR², (window, witness, frequency, column).

        Returns:
            Strain energy, SNR², (window, 1, frequency, column).
        """
        scaled = self.network(self.scale_witnesses(witnesses))
        return unscale_energy(scaled, self.clamp, self.target_scale, self.transform)

    def scale_witnesses(self, witnesses: WindowBatch) -> WindowBatch:
        """What the network sees of the witness energies."""
        return scale_energy(witnesses, self.clamp, self.witness_scale, self.transform)

    def scale_target(self, strain: StrainWindows) -> StrainWindows:
        """What the network is asked to give for a strain energy; about 0..1."""
        return scale_energy(strain, self.clamp, self.target_scale, self.transform)


def gaussian_limits() -> Tensor:
    """Powers, over their mean, below which those of a complex Gaussian lie with each of `PROBABILITIES`.

    The share p of exponential powers lies below -log(1 - p) of their mean.
    """
    return -torch.log1p(-torch.tensor(PROBABILITIES))


class WaveformTwin(nn.Module):
    """A network between whitened series: witnesses in, the strain that they explain out.

    Whitened series have noise of variance 1 at every frequency, so there is nothing to scale. With a network that says
    how sure it is (`models.coupling`), the twin holds what calibrates that, fitted on validation events by
    `training.calibration`.

    What the network announces depends on how many witnesses are missing, so the calibration is one for each of some
    such numbers, the `levels`; and where much is predicted it errs otherwise than where little is, so limits are told
    apart by `loudness`, edges of the variance over that of the noise.

    Args:
        network: From witness series (event, witness, time) to strain (event, 1, time).
        summary_size: Length of the network's summary of an event; 0 if it gives none.
        num_references: Validation events whose summaries are kept for comparison.
        num_levels: Numbers of missing witnesses that are calibrated.
        num_bins: Bins of loudness with limits of their own.
        num_parts: Parts of a prediction (`contributions`) whose power is kept of each reference; 0 if it is not.
    """

    levels: Tensor
    loudness: Tensor
    variance_noise: Tensor
    variance_factor: Tensor
    limits: Tensor
    summary_mean: Tensor
    summary_covariance: Tensor
    summary_references: Tensor
    summary_groups: Tensor
    summary_powers: Tensor

    def __init__(
        self,
        network: nn.Module,
        summary_size: int = 0,
        num_references: int = 0,
        *,
        num_levels: int = 1,
        num_bins: int = 2,
        num_parts: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self._of: tuple[tuple[Tensor, int], ...] = ()
        self._held: dict[tuple[bytes, object], Any] = {}
        self.register_buffer("levels", torch.arange(float(num_levels)))
        self.register_buffer("variance_noise", torch.ones(num_levels))
        self.register_buffer("variance_factor", torch.ones(num_levels))
        self.register_buffer("loudness", 2.0 ** torch.arange(1.0, num_bins))
        self.register_buffer("limits", gaussian_limits().repeat(num_levels, num_bins, 1))
        self.register_buffer("summary_mean", torch.zeros(summary_size))
        self.register_buffer("summary_covariance", torch.eye(summary_size))
        self.register_buffer("summary_references", torch.zeros(num_references, summary_size))
        self.register_buffer("summary_groups", torch.arange(float(num_references)))
        self.register_buffer("summary_powers", torch.zeros(num_references, num_parts))

    def keep(self, **found: Tensor | float) -> None:
        """Put what calibration found into the buffers of these names, on the twin's own device and in its precision.

        References without groups are each of a group of its own; those without powers are compared with all events.
        """
        if "summary_references" in found:
            references = torch.as_tensor(found["summary_references"])
            usual = {"summary_groups": torch.arange(len(references)), "summary_powers": torch.zeros(len(references), 0)}
            found = usual | found
        for name, value in found.items():
            setattr(self, name, torch.as_tensor(value).to(self.limits))

    def forward(self, witnesses: SeriesBatch) -> StrainSeries:
        """Predict whitened strain, (event, 1, time); a witness of zeros is missing."""
        return self.network(witnesses)

    @property
    def explains(self) -> bool:
        """Whether the network says how sure it is."""
        return hasattr(self.network, "transform")

    def contributions(self, witnesses: SeriesBatch) -> SeriesBatch:
        """What each witness adds to the prediction, (event, part, time); their sum is the predicted strain.

        A network that is no sum over its witnesses has one part: the whole prediction.
        """
        network: Any = self.network
        return network.contributions(witnesses) if hasattr(network, "contributions") else self(witnesses)

    def summary(self, witnesses: SeriesBatch) -> Tensor:
        """What the network saw of each event, (event, feature), as `explain` tells it."""
        network = self.network
        return network.summary(witnesses) if isinstance(network, CouplingNet) else self._said(witnesses).summary

    def apart(self, witnesses: SeriesBatch) -> tuple[StrainSeries, SeriesBatch]:
        """The prediction, (event, 1, time), and its `contributions`."""
        parts = self.contributions(witnesses)
        return (self(witnesses) if hasattr(self.network, "contributions") else parts), parts

    def explain(self, witnesses: SeriesBatch) -> "Explained":
        """Prediction, and how far it can be trusted.

        Args:
            witnesses: As for `forward`.

        Raises:
            FormatError: The network does not say.
        """
        return self._calibrated(self._said(witnesses), witnesses)

    def foretell(self, witnesses: SeriesBatch) -> tuple[StrainSeries, Tensor]:
        """Strain and summary as from `explain`, without how far they can be trusted.

        Raises:
            FormatError: The network does not say.
        """
        network = self.network
        if isinstance(network, CouplingNet):
            return network.foretell(witnesses)
        said = self._said(witnesses)
        return said.strain, said.summary

    def explain_apart(self, witnesses: SeriesBatch) -> "tuple[Explained, SeriesBatch]":
        """What `explain` says, and the `contributions`, of one run of the network."""
        said, parts = self._said_apart(witnesses)
        return self._calibrated(said, witnesses), parts

    def subsets(
        self, witnesses: SeriesBatch, chosen: Iterable[tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[Explanation, SeriesBatch]]:
        """What the network says, before that is calibrated, of events some of whose witnesses are missing.

        Args:
            witnesses: As for `forward`. What follows from each of them alone is computed once for all.
            chosen: Which events (bool, (event,)), and which of their witnesses stay (bool, (chosen event, witness)).

        Yields:
            Explanation and `contributions` of the chosen events, one pair for each choice.
        """
        network: Any = self.network
        seen = network.look(witnesses) if isinstance(network, CouplingNet) else None
        for rows, keep in chosen:
            if seen is not None:
                yield network.tell(seen.without(rows, keep))
            else:
                yield self._said_apart(witnesses[rows] * keep[..., None])

    def _said(self, witnesses: SeriesBatch) -> Explanation:
        if not self.explains:
            raise FormatError(f"{type(self.network).__name__} does not say how sure it is. Use the model coupling.")
        network: Any = self.network
        return network(witnesses, explained=True)

    def _said_apart(self, witnesses: SeriesBatch) -> tuple[Explanation, SeriesBatch]:
        network = self.network
        if isinstance(network, CouplingNet):
            return network.tell(network.look(witnesses))
        return self._said(witnesses), self.contributions(witnesses)

    def _calibrated(self, said: Explanation, witnesses: SeriesBatch) -> "Explained":
        missing = (witnesses.abs().amax(dim=-1) == 0).sum(dim=-1)
        level = self.level_of(missing)
        noise, factor = (values[level][:, None, None] for values in (self.variance_noise, self.variance_factor))
        return Explained(said.strain, noise + factor * (said.variance - 1), said.summary, level)

    def level_of(self, missing: Tensor) -> Tensor:
        """Place in `levels` of the next number of missing witnesses that was calibrated; more than all cannot be."""
        return torch.searchsorted(self.levels, missing.to(self.levels)).clamp(max=len(self.levels) - 1)

    def is_loud(self, variance: Tensor, level: Tensor | int = 0) -> Tensor:
        """Pixels in which a glitch was predicted: at least twice the noise's power is expected to be left.

        Args:
            variance: As from `explain`, (event, ...) or of one level.
            level: Level of each event, (event,), or one for all.
        """
        return variance > 2 * _beside(self.variance_noise[level], variance)

    def residual_limits(self, variance: Tensor, level: Tensor | int = 0) -> Tensor:
        """Powers below which what is left lies with the probabilities of `PROBABILITIES`, (..., probability).

        Args:
            variance: As from `explain`, (event, ...) or of one level.
            level: Level of each event, (event,), or one for all.
        """
        noise = _beside(self.variance_noise[level], variance)
        loudness = torch.bucketize(variance / noise, self.loudness.to(variance))
        return (
            variance[..., None]
            * self.limits[_beside(torch.as_tensor(level, device=variance.device), variance), loudness]
        )

    def novelty(self, summary: Tensor) -> Tensor:
        """Squared Mahalanobis distance from the training events, over the number of features, (event,).

        Of a missing witness nothing is known: distances are those of the present ones, by their own covariance.

        Args:
            summary: As from `explain`, (event, feature); NaN for a missing witness.
        """
        distances = summary.new_zeros(len(summary), dtype=torch.float64)
        for known, rows in _patterns(summary):
            distances[rows] = self._distances(summary[rows], known)
        return distances

    def strangeness(self, summary: Tensor, strain: Tensor | None = None) -> Tensor:
        """Share of validation events that were at least as new: small for what was never seen, float64, (event,).

        A p-value under the hypothesis that the event is like those of validation; never 0. Validation events of one
        group (`data.groups`) are no independent cases: each counts as one over the size of its group, and the groups
        are counted, as in hierarchical conformal prediction (Lee, Barber and Willett 2023, arXiv:2306.06342). They are
        compared by the witnesses that the event has; where fewer than 19 groups have all of these, a p-value cannot
        reach 0.05 and is NaN.

        What is loud lies far from the mean as a rule, so events in which something is predicted are compared with such
        ones, the others with the others, if there are 19 groups of them: else a quiet event would always look familiar.

        Args:
            summary: As from `explain`, (event, feature); NaN for a missing witness.
            strain: The prediction, as from `explain`; None: all events are compared with all.
        """
        p_values = torch.full((len(summary),), torch.nan, dtype=torch.float64, device=summary.device)
        if len(self.summary_references) < _FEWEST_REFERENCES:
            return p_values
        apart = strain is not None and self.summary_powers.shape[1] > 0
        power = summary.new_zeros(len(summary)) if strain is None else strain.square().sum(dim=(-2, -1))
        for known, rows in _patterns(summary):
            for said in (False, True):
                own = rows[(power[rows] >= SPOKEN_POWER) == said]
                others = self._others(known, said if apart else None) if len(own) else None
                if others is not None:
                    beyond = others.distances[None, :] >= self._distances(summary[own], known)[:, None]
                    p_values[own] = ((beyond / others.sizes).sum(dim=1) + 1) / (others.num_groups + 1)
        return p_values

    def _others(self, known: Tensor, said: bool | None) -> "_Others | None":
        """References with which events are compared of which some features are known; None where they are too few.

        Args:
            known: Those features.
            said: Whether something is predicted of the events; None: that does not count.
        """

        def found() -> _Others | None:
            seen = ~torch.isnan(self.summary_references[:, known]).any(dim=1)
            alike = seen if said is None else seen & (self._spoke(known) == said)
            for among in (alike, seen):
                _, group, sizes = torch.unique(self.summary_groups[among], return_inverse=True, return_counts=True)
                if len(sizes) >= _FEWEST_REFERENCES:
                    return _Others(self._usual(known)[among], sizes.double()[group], len(sizes))
            return None

        return self._kept(known, said, found)

    def _spoke(self, known: Tensor) -> Tensor:
        """References of which something is predicted from the witnesses of some features, (reference,)."""
        parts, features = self.summary_powers.shape[1], self.summary_references.shape[1]
        # each witness has as many features as the next; a prediction that is no sum over witnesses has one part
        present = torch.unique(known * parts // max(1, features))
        return self.summary_powers[:, present if parts else []].sum(dim=1) >= SPOKEN_POWER

    def _distances(self, summary: Tensor, known: Tensor) -> Tensor:
        if not len(known):
            return summary.new_zeros(len(summary), dtype=torch.float64)
        away = (summary - self.summary_mean)[:, known].double()
        return torch.linalg.solve_triangular(self._root(known), away.T, upper=False).square().mean(dim=0)

    def _usual(self, known: Tensor) -> Tensor:
        """Distances of the references by some features, (reference,); NaN where these are not known."""
        return self._kept(known, "usual", lambda: self._distances(self.summary_references, known))

    def _root(self, known: Tensor) -> Tensor:
        """Lower Cholesky factor of the covariance of some features, (feature, feature)."""
        covariance = self.summary_covariance
        return self._kept(known, "root", lambda: torch.linalg.cholesky(covariance[known][:, known].double()))

    def _kept(self, known: Tensor, what: str | bool | None, make: Callable[[], _Made]) -> _Made:
        """What follows from some features alone, kept, since of many events the same ones are known."""
        told = self.summary_mean, self.summary_covariance, self.summary_references
        told = *told, self.summary_groups, self.summary_powers
        if not self._of or any(
            one is not other or one._version != version for one, (other, version) in zip(told, self._of, strict=True)
        ):
            self._of, self._held = tuple((one, one._version) for one in told), {}
        key = host(known).tobytes(), what
        if key not in self._held:
            made = make()
            self._held = {} if len(self._held) >= _KEPT else self._held
            self._held[key] = made
        return self._held[key]

    def __getstate__(self) -> dict[str, Any]:
        """What travels to other processes: without what can be computed anew."""
        return self.__dict__ | {"_of": (), "_held": {}}


class _Others(NamedTuple):
    """References with which events are compared.

    Attributes:
        distances: Of each from the training events, (reference,).
        sizes: Members of its group, (reference,).
        num_groups: Number of groups.
    """

    distances: Tensor
    sizes: Tensor
    num_groups: int


class Explained(NamedTuple):
    """A prediction and how far it can be trusted.

    Attributes:
        strain: Whitened, (event, 1, time).
        variance: Expected power of strain minus prediction by pixel of the short-time spectrum, where noise has about
            1, calibrated; (event, frequency, frame).
        summary: What the encoder saw of each witness, (event, feature); NaN for a missing one.
        level: Which of the twin's `levels` holds for the event, (event,).
    """

    strain: Tensor
    variance: Tensor
    summary: Tensor
    level: Tensor


def _beside(values: Tensor, variance: Tensor) -> Tensor:
    """One number an event, or one for all, in a shape that goes with (event, ...)."""
    return values.reshape(*values.shape, *(1,) * (variance.dim() - values.dim()))


def _patterns(summary: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Events of which the same features are known: those features, and the events."""
    patterns, which = torch.unique(~torch.isnan(summary), dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        yield torch.nonzero(pattern)[:, 0], torch.nonzero(which == number)[:, 0]


Twin: TypeAlias = EnergyTwin | WaveformTwin
"""Either kind."""
