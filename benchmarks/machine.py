"""What this machine can do at most: measured rates of transforms, products and memory."""

import contextlib
import ctypes
import gc
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

_BYTES = 2**26
"""Of an array of the triad and of a batch of transforms at most: far more than a cache holds."""


def fft_flops(length: int, *, real: bool) -> float:
    """Operations of one transform by the usual count, 5 N log2 N; half of it for real input."""
    return (2.5 if real else 5) * length * math.log2(length)


def resident() -> int:
    """Resident memory of this process, bytes, after freed memory went back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # Written "5", the kernel forgets the largest resident size so far. Where it does not know that, a forked process
    # still starts with its parent's size of the moment.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def largest_resident() -> int:
    """Largest resident memory since `resident` was asked, bytes."""
    return _memory("VmHWM")


def synchroniser(device: str) -> Callable[[], None]:
    """Waits until the device has done what it was told."""
    return torch.cuda.synchronize if device != "cpu" else lambda: None


@dataclass
class Rates:
    """Best rates out of a few tries on a device, measured once and when first asked for."""

    device: str
    fft_rates: dict[str, float] = field(default_factory=dict)
    _rest: dict[str, float] = field(default_factory=dict)

    def fft(self, length: int, *, real: bool, dtype: torch.dtype) -> float:
        """Operations a second of many transforms of this length, by the count of `fft_flops`."""
        kind = f"{length} {'real' if real else 'complex'} {str(dtype).removeprefix('torch.')}"
        if kind not in self.fft_rates:
            # As many as stay in a cache, as an engine that works in chunks has them.
            batch = max(2**18 // length, 1)
            data = torch.randn(batch, length, dtype=dtype if real else _complex(dtype), device=self.device)
            transform = torch.fft.rfft if real else torch.fft.ifft
            self.fft_rates[kind] = batch * fft_flops(length, real=real) / self._fastest(lambda: transform(data))
        return self.fft_rates[kind]

    @property
    def matmul(self) -> float:
        """Operations a second of a product of float32 matrices of 1024 x 1024."""
        if "matmul" not in self._rest:
            left, right = torch.randn(2, 1024, 1024, device=self.device)
            self._rest["matmul"] = 2 * 1024**3 / self._fastest(lambda: left @ right)
        return self._rest["matmul"]

    def product(self, dtype: torch.dtype) -> float:
        """Operations a second of a product of large matrices; on a GPU, float32 in the way in which it convolves."""
        name = f"product {dtype}"
        if name not in self._rest:
            size = 2048 if self.device == "cpu" else 8192
            left, right = torch.randn(2, size, size, device=self.device).to(dtype)
            before = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
            try:
                self._rest[name] = 2 * size**3 / self._fastest(lambda: left @ right)
            finally:
                torch.backends.cuda.matmul.allow_tf32 = before
        return self._rest[name]

    @property
    def bandwidth(self) -> float:
        """Bytes a second of a triad, a = b + s c, two read and one written."""
        if "bandwidth" not in self._rest:
            first, second, target = torch.ones(3, _BYTES // 4, device=self.device)
            triad = lambda: torch.add(first, second, alpha=3.0, out=target)  # noqa: E731
            self._rest["bandwidth"] = 3 * _BYTES / self._fastest(triad)
        return self._rest["bandwidth"]

    def _fastest(self, call: Callable[[], object], seconds: float = 0.15) -> float:
        wait = synchroniser(self.device)
        call()
        wait()
        spent, stop = [], time.perf_counter() + seconds
        while len(spent) < 3 or time.perf_counter() < stop:
            start = time.perf_counter()
            call()
            wait()
            spent.append(time.perf_counter() - start)
        return min(spent)

    def describe(self) -> dict[str, object]:
        """Machine and rates, for the record."""
        name = torch.cuda.get_device_name() if self.device != "cpu" else _processor()
        return {
            "device": name,
            "threads": torch.get_num_threads(),
            "load": os.getloadavg()[0],
            "torch": torch.__version__,
            "matmul_gflops": self.matmul / 1e9,
            "bandwidth_gb_s": self.bandwidth / 1e9,
            "fft_gflops": {kind: rate / 1e9 for kind, rate in sorted(self.fft_rates.items())},
        }


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype == torch.float64 else torch.complex64


def _memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
