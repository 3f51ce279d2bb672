"""The kernels of a GPU, run by Triton's interpreter, and what a call launches; tests/gpu runs them on a real one."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from tests.signal.qtransform import _interpreted
from tests.signal.qtransform._interpreted import NORMS, SAMPLES, TILES, noise
from torch.utils._python_dispatch import TorchDispatchMode

from glitchflow_plugin.signal.qtransform import QTransformSettings, Spectrum, device_kernels
from glitchflow_plugin.signal.qtransform.planes import Plane


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """What a process with the interpreter found."""
    path = tmp_path_factory.mktemp("interpreted") / "found.pt"
    command = [sys.executable, "-m", _interpreted.__name__, str(path)]
    subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, check=True, timeout=300)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [SAMPLES, SAMPLES * 5 // 4])
def test_kernels_of_a_gpu_give_what_those_of_a_cpu_give(interpreted, norm, size):
    plane, spectrum = _interpreted.plane_and_spectrum(norm, size)
    expected, peaks = plane.maps(spectrum)
    found, found_peaks = interpreted["maps"][norm, size]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_peaks, peaks, rtol=1e-5, atol=1e-6)
    assert found[0].max() > 0
    assert not found[1].any()


@pytest.mark.parametrize("law", _interpreted.amplitudes())
def test_median_of_a_row_is_exact(interpreted, law):
    energy = _interpreted.amplitudes()[law][:, 0].square()
    middle = energy.sort(dim=-1).values[:, TILES // 2 - 1 : TILES // 2 + 1].mean(dim=-1)
    expected = torch.where(middle > 0, energy.amax(dim=-1) / middle, 0)
    torch.testing.assert_close(interpreted["peaks"][law], expected, rtol=1e-6, atol=0)


def test_whether_they_work_is_seen_by_running_them(interpreted, monkeypatch, caplog):
    assert interpreted["work"]

    def broken(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(device_kernels, "place_windows", broken)
    device_kernels.work_on.cache_clear()
    assert [device_kernels.work_on("cpu") for _ in range(2)] == [False, False]
    assert caplog.text.count("no compiler") == 1
    device_kernels.work_on.cache_clear()


class _Launches(TorchDispatchMode):
    """Counts what PyTorch would launch: operations that make or write values."""

    QUIET = (
        "empty",
        "view",
        "expand",
        "slice",
        "select",
        "unsqueeze",
        "reshape",
        "detach",
        "as_strided",
        "alias",
        "t.",
    )

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::")
        if not name.startswith(self.QUIET):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("number", [1, 64])
def test_a_call_takes_few_launches_whatever_the_batch(number):
    """6 s at 1024 Hz, 64 x 257, Q 12: a launch takes a GPU some 5 microseconds, be it for one series or thousands."""
    own = []

    def place_windows(bins, gathered, _window):
        own.append("place_windows")
        return torch.empty((len(bins), *gathered.shape), dtype=torch.complex64)

    counted = SimpleNamespace(place_windows=place_windows, rows_to_columns=lambda *_: own.append("rows_to_columns"))
    plane = Plane(6144, 1024.0, 12.0, QTransformSettings(), "cpu")
    maps, peaks = torch.empty(number, 64, 257), torch.empty(number, 46)
    series = noise(number, 6144)
    plane.launch(counted, Spectrum.of(series), maps, peaks)  # what is made once
    own.clear()
    with _Launches() as launches:
        plane.launch(counted, Spectrum.of(series), maps, peaks)
    assert len(launches.names) + len(own) <= 40, (launches.names, own)
    assert not {"_local_scalar_dense", "nonzero", "is_nonzero"} & set(launches.names)  # these would wait for the GPU
