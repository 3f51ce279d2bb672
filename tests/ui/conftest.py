"""A model of triggers, and files to ask it about."""

import numpy as np
import pandas as pd
import pytest
from tests._triggers import CHANNELS, KINDS, coupled_sets

from glitchflow_plugin.models.triggers.bundle import TriggerModel
from glitchflow_plugin.models.triggers.trees import fit_trees, table

NAMES = tuple(f"V1:AUX-{number:03d}" for number in range(CHANNELS - 1))


@pytest.fixture(scope="session")
def model():
    """A small forest that knows channels and classes by name."""
    chosen = {"num_channels": CHANNELS, "num_kinds": KINDS}
    trees = fit_trees("forest", *table([coupled_sets(200)], CHANNELS), n_estimators=10, n_jobs=1, **chosen)
    kinds = ("blip", "tomte", "whistle")
    return TriggerModel(
        trees, {"model": "forest", **chosen}, "V1:STRAIN", NAMES, kinds, {}, 0.5, metrics={"test_auc": 0.9}
    )


@pytest.fixture(scope="session")
def theirs():
    """Triggers as others write them: 100 of all channels, and one that no model knows, as text."""
    generator = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "time": [f"{1_400_000_000 + 3 * number}.123456789" for number in range(100)],
            "frequency": generator.uniform(20, 200, 100),
            "snr": generator.uniform(6, 30, 100),
            "channel": generator.choice(NAMES, 100),
        }
    )
    rows.loc[50, "channel"] = "V1:NEW"
    return rows.to_csv(index=False).encode()
