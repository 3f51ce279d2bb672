"""Triton kernels of the Q-transform on a GPU: one launch where PyTorch's operations take a dozen.

They do what `kernels` does on a CPU, a program for each row of tiles of a series. A median is found by selection:
energies are not negative, so their bits order as whole numbers, and the one in the middle is made from its highest bit
down by counting what lies below.
"""

import logging
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

logger = logging.getLogger(__name__)

#: Tiles of a row that a program holds in registers; longer rows are left to PyTorch.
MOST_TILES = 8192
#: Above the bits of any energy, which are those of a float32 without its sign.
_NO_ENERGY = tl.constexpr(0x7FFFFFFF)


@triton.jit
def _place(  # noqa: ANN202, PLR0917
    spectra,  # noqa: ANN001
    bins,  # noqa: ANN001
    window,  # noqa: ANN001
    slots,  # noqa: ANN001
    num_bins,  # noqa: ANN001
    num_rows,  # noqa: ANN001
    num_tiles,  # noqa: ANN001
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    series, row = place // num_rows, place % num_rows
    tile = tl.arange(0, BLOCK)
    inside = tile < num_tiles
    weight = tl.load(window + row * num_tiles + tile, mask=inside, other=0.0)
    source = spectra + 2 * (series * num_bins + tl.load(bins + row * num_tiles + tile, mask=inside, other=0))
    target = slots + 2 * (place * num_tiles + tile)
    tl.store(target, tl.load(source, mask=inside, other=0.0) * weight, mask=inside)
    tl.store(target + 1, tl.load(source + 1, mask=inside, other=0.0) * weight, mask=inside)


@triton.jit
def _median(energy, inside, num_tiles):  # noqa: ANN001, ANN202
    bits = tl.where(inside, energy.to(tl.int32, bitcast=True), _NO_ENERGY)
    half = num_tiles // 2
    lower = 0
    for turn in tl.static_range(31):  # type: ignore[attr-defined]  # a loop of the compiler's
        tried = lower | (1 << (30 - turn))
        lower = tl.where(tl.sum((bits < tried).to(tl.int32), axis=0) < half, tried, lower)
    upto = tl.sum((bits <= lower).to(tl.int32), axis=0)
    above = tl.min(tl.where(bits > lower, bits, _NO_ENERGY), axis=0)
    upper = tl.where(upto > half, lower, above)
    return (lower.to(tl.float32, bitcast=True) + upper.to(tl.float32, bitcast=True)) * 0.5


@triton.jit
def _rows(  # noqa: ANN202, PLR0917
    tiles,  # noqa: ANN001
    units,  # noqa: ANN001
    first_taps,  # noqa: ANN001
    weights,  # noqa: ANN001
    columns,  # noqa: ANN001
    peaks,  # noqa: ANN001
    num_rows,  # noqa: ANN001
    num_tiles,  # noqa: ANN001
    num_columns,  # noqa: ANN001
    first_row,  # noqa: ANN001
    all_rows,  # noqa: ANN001
    NORM: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    series, row = place // num_rows, place % num_rows
    own = tiles + 2 * place * num_tiles
    tile = tl.arange(0, BLOCK)
    inside = tile < num_tiles
    real = tl.load(own + 2 * tile, mask=inside, other=0.0)
    imaginary = tl.load(own + 2 * tile + 1, mask=inside, other=0.0)
    energy = real * real + imaginary * imaginary
    if NORM == 0:
        unit = _median(energy, inside, num_tiles)
    elif NORM == 1:
        unit = tl.sum(energy, axis=0) / num_tiles
    else:
        unit = tl.load(units + place)
    factor = tl.where(unit > 0, 1.0 / tl.where(unit > 0, unit, 1.0), 0.0)
    target = series * all_rows + first_row + row
    tl.store(peaks + target, tl.max(energy, axis=0) * factor)
    column = tl.arange(0, BLOCK_COLUMNS)
    wanted = column < num_columns
    first = tl.load(first_taps + column, mask=wanted, other=0)
    value = tl.zeros((BLOCK_COLUMNS,), dtype=tl.float32)
    for tap in range(TAPS):
        near = own + 2 * ((first + tap) % num_tiles)
        real = tl.load(near, mask=wanted, other=0.0)
        imaginary = tl.load(near + 1, mask=wanted, other=0.0)
        weight = tl.load(weights + column * TAPS + tap, mask=wanted, other=0.0)
        value += weight * (real * real + imaginary * imaginary)
    tl.store(columns + target * num_columns + column, value * factor, mask=wanted)


def place_windows(bins: Tensor, gathered: Tensor, window: Tensor) -> Tensor:
    """Windowed stretch of each row in its slots of an inverse transform.

    Args:
        bins: Spectra, complex64, shape (series, bin), contiguous.
        gathered: Bin of each slot, int32, shape (row, tile).
        window: Its weight, zero where a slot is empty, float32, shape (row, tile).

    Returns:
        Complex64, shape (series, row, tile).
    """
    num_rows, num_tiles = gathered.shape
    slots = torch.empty((len(bins), num_rows, num_tiles), dtype=torch.complex64, device=bins.device)
    _place[len(bins) * num_rows,](
        torch.view_as_real(bins),
        gathered,
        window,
        torch.view_as_real(slots),
        bins.shape[1],
        num_rows,
        num_tiles,
        BLOCK=triton.next_power_of_2(num_tiles),
        num_warps=_warps(num_tiles),  # type: ignore[call-arg]  # for Triton's launcher
    )
    return slots


def rows_to_columns(  # noqa: PLR0917  # the order of the CPU's
    tiles: Tensor,
    units: Tensor | None,
    norm: int,
    first_taps: Tensor,
    weights: Tensor,
    columns: Tensor,
    peaks: Tensor,
    first_row: int,
) -> None:
    """Energy of the tiles, divided by its norm, at the columns of the map.

    Args:
        tiles: Complex64, shape (series, row, tile), contiguous.
        units: What the energies are divided by with `norm` 2, float32, shape (series, row).
        norm: 0 median, 1 mean, 2 `units`.
        first_taps: First tile that each column is made from, not negative, int32, shape (column,).
        weights: Weights of the tiles from there on, float32, shape (column, tap).
        columns: Result, float32, shape (series, all rows, column); rows from `first_row` on are written.
        peaks: Largest energy of each row, float32, shape (series, all rows); the same.
        first_row: Place of the first row.
    """
    number, num_rows, num_tiles = tiles.shape
    _rows[number * num_rows,](
        torch.view_as_real(tiles),
        peaks if units is None else units,  # not looked at without a norm that is known
        first_taps,
        weights,
        columns,
        peaks,
        num_rows,
        num_tiles,
        columns.shape[2],
        first_row,
        columns.shape[1],
        NORM=norm,
        TAPS=weights.shape[1],
        BLOCK=triton.next_power_of_2(num_tiles),
        BLOCK_COLUMNS=triton.next_power_of_2(columns.shape[2]),
        num_warps=_warps(max(num_tiles, columns.shape[2])),  # type: ignore[call-arg]  # for Triton's launcher
    )


@lru_cache(maxsize=16)
def work_on(device: str) -> bool:
    """Whether the kernels compile and compute on a GPU; asked once. Where not, a warning says why."""
    try:
        tiles = torch.tensor([[[1.0, 2.0, 4.0, 3.0]]], dtype=torch.complex64, device=device)
        columns, peaks = torch.empty((1, 1, 2), device=device), torch.empty((1, 1), device=device)
        taps, weights = torch.tensor([0, 2], dtype=torch.int32, device=device), torch.eye(2, device=device)
        gathered = torch.arange(4, dtype=torch.int32, device=device)[None]
        placed = place_windows(tiles[0], gathered, torch.ones((1, 4), device=device))
        rows_to_columns(placed, None, 0, taps, weights, columns, peaks, 0)
        # Energies 1, 4, 16, 9 with the median 6.5; columns take the first and the last tile.
        right = torch.allclose(columns.cpu().flatten() * 6.5, torch.tensor([1.0, 9.0]), rtol=1e-5)
        problem = None if right else "they compute something else"
    except Exception as error:  # whatever a compiler or a driver raises; PyTorch then does the work
        problem = f"{type(error).__name__}: {error}"
    if problem:
        logger.warning("the Q-transform's own kernels do not work on %s (%s): it takes PyTorch's.", device, problem)
    return problem is None


def _warps(size: int) -> int:
    return max(1, min(8, size // 256))
