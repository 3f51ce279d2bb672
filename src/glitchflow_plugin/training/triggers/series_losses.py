"""What a masked autoencoder of series may minimise. Each is a weighted mean over the samples that were hidden."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError, nearest
from glitchflow_plugin.settings import Fraction, NotNegative, section

_LEAST = 1e-12
"""Added below a root, whose slope at 0 is infinite."""


def _squared(told: Tensor, true: Tensor) -> Tensor:
    return (told - true).square()


def _squared_log(told: Tensor, true: Tensor) -> Tensor:
    return (_signed_log(told) - _signed_log(true)).square()


def _signed_log(values: Tensor) -> Tensor:
    """ln(1 + x), odd about 0: scaled values have either sign."""
    return values.sign() * values.abs().log1p()


def _huber(told: Tensor, true: Tensor) -> Tensor:
    return functional.huber_loss(told, true, reduction="none")


def _absolute(told: Tensor, true: Tensor) -> Tensor:
    return (told - true).abs()


def _log_cosh(told: Tensor, true: Tensor) -> Tensor:
    """Logarithm of cosh of the difference, which does not overflow."""
    away = (told - true).abs()
    return away + functional.softplus(-2 * away) - torch.log(away.new_tensor(2.0))


_EACH: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": _squared,
    "msle": _squared_log,
    "huber": _huber,
    "mae": _absolute,
    "log_cosh": _log_cosh,
    "rmse": _squared,
    "rmse_sparse": _squared,
}
LOSSES = tuple(_EACH)


@section
class SeriesLoss:
    """What is minimised.

    Attributes:
        kind: `mse`, `msle` (of the signed logarithm), `huber` (linear beyond 1), `mae`, `log_cosh`, `rmse`, or
            `rmse_sparse`: the root of the mean squared error, and how far the summaries are from sparse.
        sparsity: Mean activity wanted of each feature of a summary.
        sparsity_weight: What that counts for.
    """

    kind: str = "huber"
    sparsity: Fraction = 0.05
    sparsity_weight: NotNegative = 0.01

    def __post_init__(self) -> None:
        """Refuse a loss that there is not."""
        if self.kind not in LOSSES:
            raise ConfigurationError(
                f"expected a loss out of {', '.join(LOSSES)}, got {self.kind!r}.{nearest(self.kind, LOSSES)}"
            )


def series_loss(
    told: Float[Tensor, "set sample"],
    true: Float[Tensor, "set sample"],
    *,
    weights: Float[Tensor, "set sample"],
    hidden: Bool[Tensor, "set sample"],
    summary: Float[Tensor, "set feature"],
    settings: SeriesLoss,
) -> Float[Tensor, ""]:
    """The loss of some series.

    Args:
        told: What the autoencoder says.
        true: What was hidden; elsewhere it may hold anything.
        weights: What each sample counts for.
        hidden: Samples that count at all.
        summary: Of the encoder.
        settings: What is minimised.

    Returns:
        0 where nothing was hidden, or nothing of any weight; the summaries' part is left.
    """
    counted = torch.where(hidden, weights, 0.0)
    each = _EACH[settings.kind](torch.where(hidden, told, 0.0), torch.where(hidden, true, 0.0))
    total = counted.sum()
    mean = (counted * each).sum() / torch.where(total > 0, total, 1.0)
    if settings.kind.startswith("rmse"):
        mean = (mean + _LEAST).sqrt()
    if settings.kind == "rmse_sparse":
        mean = mean + settings.sparsity_weight * sparsity_divergence(summary, settings.sparsity)
    return mean


def sparsity_divergence(summary: Float[Tensor, "set feature"], wanted: float) -> Float[Tensor, ""]:
    """Sum over features of the divergence KL(wanted || mean activity) of two coins.

    The activity is the logistic function of a feature, its mean that over the series (A. Ng, Sparse autoencoder, CS294A
    lecture notes, 2011).

    >>> float(sparsity_divergence(torch.zeros(4, 3), 0.5))
    0.0
    """
    active = torch.sigmoid(summary).mean(0).clamp(1e-6, 1 - 1e-6)
    idle = (1 - wanted) * torch.log((1 - wanted) / (1 - active))
    return (wanted * torch.log(wanted / active) + idle).sum()
