"""Maps of series: at one Q, at the loudest of several, and in the unit of another series' map."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal.qtransform.planes import Plane, plane
from glitchflow_plugin.signal.qtransform.settings import QTransformSettings, check_settings, padded_size
from glitchflow_plugin.signal.qtransform.spectrum import Spectrum
from glitchflow_plugin.types.tensors import SeriesTensor


def q_transform(
    series: SeriesTensor,
    sample_rate: float,
    settings: QTransformSettings,
    *,
    periodic: bool = True,
    check: bool = True,
    columns: tuple[int, int] | None = None,
) -> Float[Tensor, "*batch frequency column"]:
    """Q-transform energy in units of SNR², each row divided by its median (or by what `settings.norm` says).

    Agrees with gwpy's `q_transform` at the same Q and resolution within 1e-3; the module's text names two exceptions.

    Args:
        series: Time series, shape (..., time); any unit, since rows are normalised.
        sample_rate: Hz.
        settings: Q, frequency range and shape of the map.
        periodic: Whether the series goes on from its start behind its end, as for gwpy; False: it is zero beyond both.
            The zeros count in medians and means of rows, so this goes with the norms "white" and "none".
        check: Whether samples are looked at, which waits for a GPU at the end of the call. False: the map of a series
            with NaN or infinity is NaN, and the call returns as soon as its work is queued.
        columns: First and one past the last column of the map that is wanted; None: all. Norms are of the whole.

    Returns:
        Maps, float32, shape (..., frequency, time), on the axes that `axes` gives, on the device of `series`.
        A series of zeros gives a map of zeros.

    Raises:
        ConfigurationError: The settings do not fit the data; the message says what fits.
        DataError: The series holds NaN or infinity or complex numbers, or its energies do not fit float32 (`norm`
            "white" and "none" only).

    Example:
        >>> q_transform(torch.zeros(2, 6144), 1024.0, QTransformSettings()).shape
        torch.Size([2, 64, 257])
    """
    return q_scan(series, sample_rate, settings, periodic=periodic, check=check, columns=columns)[0]


def q_transform_relative(
    series: SeriesTensor,
    reference: Float[Tensor, "..."],
    sample_rate: float,
    settings: QTransformSettings,
    *,
    columns: tuple[int, int] | None = None,
) -> Float[Tensor, "*batch frequency column"]:
    """Q-transform energy in the unit of another series' map: each row divided by what that row of the other is.

    Energies before and after something was taken away can only be compared in one unit. Divided by its own medians,
    a series to which noise was added would look as quiet as before. Both are periodic, as measured maps are: a series
    from which nothing was taken has the map of the reference, at the edges too.

    Args:
        series: Time series, shape (..., time).
        reference: The series that give the unit (and, with several Q, the Q), same shape.
        sample_rate: Hz.
        settings: As for `q_transform`.
        columns: As for `q_transform`.

    Returns:
        Maps as from `q_transform`; zero where a row of the reference is.

    Raises:
        ConfigurationError: As for `q_transform`, or the shapes differ.
        DataError: As for `q_transform`.
    """
    if series.shape != reference.shape:
        raise ConfigurationError(
            f"expected series and reference of one shape, got {tuple(series.shape)} and {tuple(reference.shape)}."
        )
    check_settings(series.shape[-1], sample_rate, settings)
    num_samples = series.shape[-1]
    own, other = (Spectrum.of(each.reshape(-1, num_samples)) for each in (series, reference))
    first, *others = planes = _planes(series, sample_rate, settings, num_samples, columns)
    maps = first.relative(own, other)
    if others:
        chosen = q_scan(reference, sample_rate, settings)[1].reshape(-1)
        for one in others:
            maps = torch.where((chosen == one.q)[:, None, None], one.relative(own, other), maps)
    for spectrum in (own, other):
        refuse_unfit(spectrum, planes)
    return maps.reshape(*series.shape[:-1], *maps.shape[1:])


def q_scan(
    series: SeriesTensor,
    sample_rate: float,
    settings: QTransformSettings,
    *,
    periodic: bool = True,
    check: bool = True,
    columns: tuple[int, int] | None = None,
) -> tuple[Float[Tensor, "*batch frequency column"], Float64[Tensor, "*batch"]]:
    """Map of each series at the Q, among those of the settings, whose plane has the loudest tile.

    Args:
        series: As for `q_transform`.
        sample_rate: Hz.
        settings: As for `q_transform`; with several Q, all planes are made from one spectrum.
        periodic: As for `q_transform`.
        check: As for `q_transform`.
        columns: As for `q_transform`; the loudest tile may lie in others.

    Returns:
        Maps as from `q_transform`, and the Q of each, float64, shape (...).

    Raises:
        ConfigurationError: As for `q_transform`.
        DataError: As for `q_transform`.
    """
    if series.ndim == 0:
        raise DataError("the Q-transform expects series with a time axis, got a single number.")
    check_settings(series.shape[-1], sample_rate, settings)
    num_samples = series.shape[-1]
    size = num_samples if periodic else padded_size(num_samples, sample_rate, settings)
    spectrum = Spectrum.of(series.reshape(-1, num_samples), size)
    first, *others = planes = _planes(series, sample_rate, settings, size, columns)
    # On a GPU the check comes last: waiting for its answer before would leave the GPU without work.
    last = check and series.device.type != "cpu"
    if check and not last:
        refuse_unfit(spectrum, planes)
    maps, peaks = first.maps(spectrum)
    peak = peaks.amax(dim=-1)
    chosen = torch.full_like(spectrum.largest, first.q)
    for one in others:
        other, peaks = one.maps(spectrum)
        louder = peaks.amax(dim=-1) > peak
        maps = torch.where(louder[:, None, None], other, maps)
        chosen, peak = torch.where(louder, one.q, chosen), torch.maximum(peak, peaks.amax(dim=-1))
    if last:
        refuse_unfit(spectrum, planes)
    return maps.reshape(*series.shape[:-1], *maps.shape[1:]), chosen.reshape(series.shape[:-1])


def refuse_unfit(spectrum: Spectrum, planes: list[Plane]) -> None:
    """See that samples are finite and that energies fit float32; waits once for the device.

    Raises:
        DataError: They are not, or do not.
    """
    low, high = zip(*(one.fitting for one in planes), strict=True)
    spectrum.refuse_unfit(max(low), min(high), planes[0].groups[0].norm)


def _planes(
    series: Tensor, sample_rate: float, settings: QTransformSettings, size: int, columns: tuple[int, int] | None
) -> list[Plane]:
    """The plane of each Q, for spectra of series with zeros behind them up to `size` samples."""
    of = series.shape[-1], float(sample_rate)
    device = str(series.device)
    return [plane(*of, q, settings, device, padded_samples=size, columns=columns) for q in settings.qs]
