"""A CUDA device that is not there: tensors with values, which say that they are on it and refuse to meet others.

`torch._subclasses.FakeTensorMode` has no values, so it ends at the first `.item()`, `nonzero` or NumPy array, and
without a GPU it cannot go backward. Here everything is computed on the CPU. Which storages "are on the device" is
written on them, and every call of torch is looked at: tensors of both devices in one call, NumPy arrays of tensors on
the device and a generator of the other device are errors, as they are on a GPU. tests/test_devices.py holds this
against FakeTensorMode, tests/gpu against a real device.

What it cannot see, and tests/gpu is for: operations without a CUDA kernel (numba's included) or with another one for
some type, what CUDA's autocast rounds that the CPU's does not, sums in another order, memory, pinned memory, streams,
NCCL.
"""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)

_TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}
#: Calls that take a tensor from one device to the other.
_MOVES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda, torch.Tensor.type_as}
#: What CUDA has in single and double precision alone, by how the names begin; the CPU's autocast would hide that.
_PRECISE = ("fft_", "linalg_")
_ROUGH = (torch.bfloat16, torch.float16)
_COPIES = {torch.Tensor.copy_, torch.Tensor.data.__set__, torch._has_compatible_shallow_copy_type}


def is_on(tensor):
    """Whether a tensor is on the device that is not there."""
    return getattr(tensor.untyped_storage(), "pretended", False)


def put_on(tensor):
    """Say of a tensor that it is there; its views are as well."""
    tensor.untyped_storage().pretended = True
    return tensor


def _tensors(values):
    """Tensors in arguments or results. torch's own walk through them takes a quarter of the time of these tests."""
    if isinstance(values, torch.Tensor):
        return [values]
    if not isinstance(values, dict | list | tuple):
        return []
    return [each for value in (values.values() if isinstance(values, dict) else values) for each in _tensors(value)]


class PretendedCuda(TorchFunctionMode):
    """Every call of torch, with a second device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: PLR0911, PLR0912
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return DEVICE if is_on(args[0]) else func(*args)
        if func == torch.Tensor.is_cuda.__get__:
            return is_on(args[0])
        if func == torch.Tensor.is_cpu.__get__:
            return not is_on(args[0])
        if func is torch.Tensor.get_device:
            return 0 if is_on(args[0]) else -1
        given = _tensors((args, kwargs))
        if func in _TO_NUMPY and is_on(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to the CPU.")
        if func is torch.Tensor.pin_memory:
            if is_on(args[0]):
                raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
            return args[0]
        if func in _MOVES:
            return self._moved(func, args, kwargs)
        if func in _COPIES:
            result = func(*args, **kwargs)
            if func == torch.Tensor.data.__set__ and is_on(args[1]):
                put_on(args[0])
            return result
        if func == torch.Tensor.grad.__get__:
            gradient = func(*args, **kwargs)
            return put_on(gradient) if gradient is not None and is_on(args[0]) else gradient
        target = self._target(func, given, args, kwargs)
        if target:
            kwargs = {key: torch.device("cpu") if key == "device" else value for key, value in kwargs.items()}
        kwargs.pop("pin_memory", None)
        known = {tensor.untyped_storage()._cdata for tensor in given}
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            if target and tensor.untyped_storage()._cdata not in known:
                put_on(tensor)
        return result

    def _target(self, func, given, args, kwargs):
        """Whether a call computes on the device; an error if it mixes devices."""
        name = getattr(func, "__name__", str(func))
        device = kwargs.get("device")
        there = [tensor for tensor in given if is_on(tensor)]
        here = [tensor for tensor in given if not is_on(tensor) and tensor.dim() > 0]
        if there and here and not _allowed(func, args):
            raise RuntimeError(
                f"{name}: Expected all tensors to be on the same device, but found at least two devices, "
                f"cuda:0 and cpu ({[tuple(each.shape) for each in there]} and {[tuple(each.shape) for each in here]})."
            )
        if name.startswith(_PRECISE) and any(tensor.dtype in _ROUGH for tensor in there):
            raise RuntimeError(f"{name}: not implemented on CUDA for {there[0].dtype}")
        target = bool(there) if device is None else torch.device(device).type == "cuda"
        generator = kwargs.get("generator")
        if generator is not None and target and generator.device.type == "cpu":
            raise RuntimeError(f"{name}: Expected a 'cuda' device type for generator but found 'cpu'.")
        return target

    def _moved(self, func, args, kwargs):
        tensor, target = args[0], is_on(args[0])
        if func is torch.Tensor.cpu:
            target = False
        elif func is torch.Tensor.cuda:
            return put_on(tensor.clone()) if not target else tensor
        else:
            named = [
                value for value in (*args[1:], *kwargs.values()) if isinstance(value, str | torch.device | torch.Tensor)
            ]
            for value in named:
                target = is_on(value) if isinstance(value, torch.Tensor) else torch.device(value).type == "cuda"
        args = tuple(torch.device("cpu") if isinstance(value, str | torch.device) else value for value in args)
        kwargs = {key: torch.device("cpu") if key == "device" else value for key, value in kwargs.items()}
        result = func(*args, **kwargs)
        if target != is_on(tensor) and result.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            result = result.clone()
        return put_on(result) if target else result


def _allowed(func, args):
    """What CUDA takes although devices mix: an index that lies on the CPU, and filling a slice from there."""
    if func not in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
        return False
    indices = [index for index in _tensors(args[1:2]) if index.dim() > 0]
    if not is_on(args[0]) and any(is_on(index) for index in indices):
        return False
    if func is torch.Tensor.__getitem__:
        return True
    plain = not indices and not any(
        isinstance(leaf, list) for leaf in (args[1] if isinstance(args[1], tuple) else [args[1]])
    )
    return plain or is_on(args[2]) == is_on(args[0]) or args[2].dim() == 0


@contextmanager
def pretended_cuda():
    """Make a second device: `device="cuda"` works, and tensors that meet on different devices are errors."""
    autocast = torch.autocast

    def autocast_here(kind, *arguments, **keywords):
        return autocast("cpu" if kind == "cuda" else kind, *arguments, **keywords)

    export = torch.export.export

    def export_here(module, values, *arguments, **keywords):
        held = [*module.parameters(), *module.buffers(), *_tensors(values)]
        if len(set(map(is_on, held))) > 1:
            raise RuntimeError("export: Expected all tensors to be on the same device.")
        with torch._C.DisableTorchFunction():  # it makes fake tensors of its own
            return export(module, values, *arguments, **keywords)

    with (
        patch.object(torch.export, "export", export_here),
        patch.multiple(
            torch.cuda,
            is_available=lambda: True,
            device_count=lambda: 1,
            current_device=lambda: 0,
            set_device=lambda _: None,
            get_device_capability=lambda _=None: (9, 0),
            get_device_name=lambda _=None: "none",
            get_rng_state_all=list,
            set_rng_state_all=lambda _: None,
            empty_cache=lambda: None,
            synchronize=lambda _=None: None,
            is_current_stream_capturing=lambda: False,
        ),
        patch.object(torch, "autocast", autocast_here),
        PretendedCuda(),
    ):
        yield DEVICE


#: What may be done with tensors of a device `d` and of the CPU, and what may not.
CALLS = {
    "both": (lambda d: torch.ones(3, device=d) + torch.ones(3), False),
    "number": (lambda d: torch.ones(3, device=d) + torch.tensor(2.0), True),
    "join": (lambda d: torch.cat([torch.ones(3, device=d), torch.ones(3)]), False),
    "product": (lambda d: torch.ones(3, 3, device=d) @ torch.ones(3, 3), False),
    "where": (lambda d: torch.where(torch.ones(3, device=d) > 0, torch.ones(3), 0.0), False),
    "layer": (lambda d: torch.nn.Linear(3, 3)(torch.ones(2, 3, device=d)), False),
    "layer there": (lambda d: torch.nn.Linear(3, 3, device=d)(torch.ones(2, 3, device=d)), True),
    "index here": (lambda d: torch.ones(3, device=d)[torch.tensor([0, 2])], True),
    "index_select": (lambda d: torch.ones(3, device=d).index_select(0, torch.tensor([0, 2])), False),
    "in place": (lambda d: torch.ones(3).add_(torch.ones(3, device=d)), False),
    "copy": (lambda d: torch.ones(3).copy_(torch.ones(3, device=d)), True),
    "slice": (lambda d: torch.ones(3, device=d)[:2].copy_(torch.zeros(2)), True),
    "back": (lambda d: torch.ones(3, device=d).cpu() + torch.ones(3), True),
    "like": (lambda d: torch.ones_like(torch.ones(3, device=d)) + torch.ones(3, device=d), True),
    "parameter": (lambda d: torch.nn.Parameter(torch.ones(3, device=d)) * torch.ones(3), False),
}


def passes(call, device):
    try:
        call(device)
    except (RuntimeError, TypeError):
        return False
    return True
