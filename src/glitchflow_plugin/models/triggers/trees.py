"""Random forest and histogram boosting on fixed features of a set of triggers: the rivals of all networks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from skops import io as skops

from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import UNKNOWN, TriggerAnswers, TriggerLabels, TriggerSets

TREES: Mapping[str, tuple[type, type]] = {
    "boosting": (HistGradientBoostingClassifier, HistGradientBoostingRegressor),
    "forest": (RandomForestClassifier, RandomForestRegressor),
}
#: Of a channel: ln SNR of its loudest trigger, its time, its log2 frequency; |dt| of the nearest one; their number.
_PER_CHANNEL = 5
_DT, _FREQUENCY, _SNR = 0, 1, 2
_SMALLEST = 1e-6
_TASKS = ("glitch", "kind", "log1p_snr", "channel")
#: Beyond what skops trusts by itself: arrays of nodes. Nothing else is ever made of a file.
_TRUSTED = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor", "sklearn.tree._tree.Tree")


@dataclass(frozen=True, eq=False)
class TriggerTrees:
    """Fitted trees, one ensemble a task.

    Attributes:
        estimators: By task; a task without labels has none.
        columns: By task the features that were known of any set it was learnt from; scikit-learn takes no others.
        num_channels: Channels of the vocabulary, UNKNOWN included.
        num_kinds: Classes of glitches.
    """

    estimators: Mapping[str, Any]
    columns: Mapping[str, NDArray[np.int64]]
    num_channels: int
    num_kinds: int

    def __call__(self, sets: TriggerSets) -> TriggerAnswers:
        """Answers for each set; of a task that had no labels, zeros."""
        inputs = set_features(sets, self.num_channels)
        glitch = self._log_shares("glitch", inputs, 2)
        snr = self.estimators.get("log1p_snr")
        expected = np.zeros(len(inputs)) if snr is None else snr.predict(inputs[:, self.columns["log1p_snr"]])
        return TriggerAnswers(
            glitch=_tensor(glitch[:, 1] - glitch[:, 0]),
            kind=_tensor(self._log_shares("kind", inputs, self.num_kinds)),
            log1p_snr=_tensor(expected),
            channel=_tensor(self._log_shares("channel", inputs, self.num_channels)),
        )

    def _log_shares(self, task: str, inputs: NDArray[np.float64], size: int) -> NDArray[np.float64]:
        shares = np.full((len(inputs), size), _SMALLEST)
        if (estimator := self.estimators.get(task)) is not None:
            shares[:, estimator.classes_.astype(int)] += estimator.predict_proba(inputs[:, self.columns[task]])
        return np.log(shares)

    def packed(self) -> bytes:
        """Contents of a file that holds no pickle (skops)."""
        sizes = [self.num_channels, self.num_kinds]
        return skops.dumps({"estimators": dict(self.estimators), "columns": dict(self.columns), "sizes": sizes})


def unpacked(content: bytes) -> TriggerTrees:
    """Rebuild what `TriggerTrees.packed` wrote.

    Raises:
        FormatError: It is something else, or holds types that trees do not need: none of them is made.
    """
    try:
        found = skops.loads(content, trusted=list(_TRUSTED))
        return TriggerTrees(found["estimators"], found["columns"], *found["sizes"])
    except Exception as error:
        raise FormatError(
            f"these are no trees ({type(error).__name__}: {str(error)[:300]}). Train them again."
        ) from error


def fit_trees(
    kind: str,
    inputs: Float[np.ndarray, "set feature"],
    labels: Mapping[str, NDArray[Any]],
    *,
    num_channels: int,
    num_kinds: int,
    seed: int = 0,
    **settings: Any,
) -> TriggerTrees:
    """Fit an ensemble for each task that has labels of two classes or more.

    Args:
        kind: `boosting` or `forest`.
        inputs: What to learn from, by `table`.
        labels: Of these by task, with the weights, likewise; unknown ones are left out of their task.
        num_channels: Channels of the vocabulary, UNKNOWN included.
        num_kinds: Classes of glitches.
        seed: Seed of the trees.
        settings: Arguments of scikit-learn's ensembles.

    Raises:
        ConfigurationError: The kind is unknown, or its ensembles do not take the settings.
        DataError: There is not a set with and one without a glitch.
    """
    if kind not in TREES:
        raise ConfigurationError(f"expected trees of the kind boosting or forest, got {kind!r}.")
    classifier, regressor = TREES[kind]
    estimators, columns = {}, {}
    for task in _TASKS:
        wanted = labels[task]
        known = np.isfinite(wanted) if task == "log1p_snr" else wanted >= 0
        if len(np.unique(wanted[known])) < 2:
            continue
        try:
            estimator = (regressor if task == "log1p_snr" else classifier)(random_state=seed, **settings)
            columns[task] = np.flatnonzero(np.isfinite(inputs[known]).any(axis=0))
            own = inputs[known][:, columns[task]]
            estimators[task] = estimator.fit(own, wanted[known], labels["weights"][known])
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"trees of the kind {kind!r} cannot be fitted with {settings} ({error})."
            ) from error
    if "glitch" not in estimators:
        raise DataError("expected sets with and without a glitch to learn from, got one kind alone. Label more times.")
    return TriggerTrees(estimators, columns, num_channels, num_kinds)


def table(
    batches: Iterable[tuple[TriggerSets, TriggerLabels]], num_channels: int
) -> tuple[Float[np.ndarray, "set feature"], dict[str, NDArray[Any]]]:
    """Features of all sets, and their labels by task, with their weights."""
    found = [(set_features(sets, num_channels), labels) for sets, labels in batches]
    if not found:
        raise DataError("expected sets of triggers to learn from, got none. Give training a share of the split.")
    names = (*_TASKS, "weights")
    joined = {name: np.concatenate([host(getattr(labels, name)) for _, labels in found]) for name in names}
    return np.concatenate([features for features, _ in found]), joined


def set_features(sets: TriggerSets, num_channels: int) -> Float[np.ndarray, "set feature"]:
    """What trees see of a set: a few numbers a channel, and the globals; NaN where there is no trigger or value.

    Args:
        sets: Sets of triggers.
        num_channels: Channels of the vocabulary, UNKNOWN included; others count as UNKNOWN.
    """
    channels = torch.where(sets.channels < num_channels, sets.channels, UNKNOWN)
    found = torch.full((len(sets), num_channels, _PER_CHANNEL), torch.nan, dtype=torch.float64)
    found[..., -1] = 0
    for channel in torch.unique(channels[sets.mask]).tolist():
        own = sets.mask & (channels == channel)
        there = own.any(1)
        loudest = sets.points[..., _SNR].masked_fill(~own, -torch.inf).argmax(1)
        point = sets.points[torch.arange(len(sets)), loudest]
        nearest = sets.points[..., _DT].abs().masked_fill(~own, torch.inf).amin(1)
        columns = torch.stack([point[:, _SNR], point[:, _DT], point[:, _FREQUENCY], nearest, own.sum(1)], dim=1)
        found[there, channel] = columns[there].double()
    known = torch.where(sets.globals_valid, sets.globals_.double(), torch.nan)
    return host(torch.cat([found.flatten(1), known], dim=1))


def _tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values).float()
