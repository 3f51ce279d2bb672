"""What a model of triggers has to beat: the loudest trigger alone, and logistic regression on the trees' features."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from glitchflow_plugin.models.triggers.trees import set_features
from glitchflow_plugin.types.tensors import host
from glitchflow_plugin.types.triggers import POINT_FEATURES, TriggerSets

_LOG_SNR = POINT_FEATURES.index("log_snr")


def loudest(sets: TriggerSets) -> Float[np.ndarray, " set"]:
    """ln(1 + SNR) of the loudest trigger of any channel; 0 where there is none."""
    loudness = torch.where(sets.mask, sets.points[..., _LOG_SNR].exp().log1p(), 0.0)
    silent = loudness.new_zeros(len(sets), 1)
    return host(torch.cat([loudness, silent], dim=1).amax(1).double())


def logistic(
    inputs: Float[np.ndarray, "set feature"], labels: Mapping[str, NDArray[Any]], *, num_channels: int
) -> Callable[[TriggerSets], Float[np.ndarray, " set"]]:
    """Logistic regression of glitch or not; what is missing gets the mean of the rest and a column that says so.

    Args:
        inputs: What to learn from, by `table`.
        labels: Of these, likewise.
        num_channels: Channels of the vocabulary, UNKNOWN included.

    Returns:
        From sets to log-odds.
    """
    model = make_pipeline(
        SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=1000)
    )
    model.fit(inputs, labels["glitch"], logisticregression__sample_weight=labels["weights"])
    return lambda others: model.decision_function(set_features(others, num_channels))
