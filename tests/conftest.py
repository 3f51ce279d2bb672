"""Seeds for every test, and the folder of real detector data where there is one."""

import os
import random
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # libraries that use the global generator
    if "torch" in __import__("sys").modules:
        import torch

        torch.manual_seed(0)


@pytest.fixture
def real_data() -> Path:
    """Folder named by GLITCHFLOW_TEST_DATA; the test is skipped without it."""
    folder = os.environ.get("GLITCHFLOW_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GLITCHFLOW_TEST_DATA does not name a folder of real detector data")
    return Path(folder)
