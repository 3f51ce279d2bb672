import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glitchflow_plugin.signal.qtransform.kernels import median


def exact(values):
    return median(values, np.float32(values.mean()), values.max())


def test_without_a_place_for_machine_code_the_loops_are_compiled_all_the_same(tmp_path):
    # A file-size limit stands for a full disk: numba meets it when it first keeps what it has compiled.
    program = (
        "import resource, torch; from glitchflow_plugin.signal.qtransform import *; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "print(float(q_transform(torch.randn(6144), 1024.0, QTransformSettings()).mean()) > 0)"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.stdout.strip() == "True", answer.stderr


@given(
    arrays(np.float32, st.integers(1, 40).map(lambda half: 2 * half), elements=st.floats(0, 1e6, width=32)),
    st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_median_is_that_of_numpy(values, ties):
    if ties:
        values = np.round(values / 1e5 * ties).astype(np.float32)
    assert exact(values) == pytest.approx(np.median(values), rel=1e-6, abs=1e-30)


@pytest.mark.parametrize("law", ["exponential", "loud", "line", "zeros"])
def test_median_of_rows_as_they_occur(law):
    values = np.random.default_rng(3).exponential(size=(50, 2048)).astype(np.float32)
    if law == "loud":
        values[:, 700:760] *= 1e6
    if law == "line":
        values = (1000 + 1e-3 * values).astype(np.float32)
    if law == "zeros":
        values[:, 500:] = 0
    for row in values:
        assert exact(row) == np.float32(np.sort(row)[1023:1025].mean(dtype=np.float32))
