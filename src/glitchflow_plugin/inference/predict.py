"""Predict the strain's map from the maps of its witnesses."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.records import EventBatch, SpectrogramBatch
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.inference.clean import clean_maps, loudest_by_column
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.stft import ShortTimeFourier
from glitchflow_plugin.models.twins import Explained, WaveformTwin
from glitchflow_plugin.signal.agreement import agreed
from glitchflow_plugin.signal.band_power import power_left
from glitchflow_plugin.signal.columns import Columns, tile_length
from glitchflow_plugin.signal.gain_watch import MeasuredGains
from glitchflow_plugin.signal.qtransform import QTransformSettings, axes, q_transform, q_transform_relative
from glitchflow_plugin.signal.windows import cut_windows, join_windows, tile_starts
from glitchflow_plugin.signal.witness_gain import measured_gains
from glitchflow_plugin.types.arrays import ValidityMask


def predict_maps(
    twin: nn.Module,
    witnesses: Float[Tensor, "event witness frequency time"],
    batch_size: int = 64,
    *,
    size: int = 64,
    stride: int | None = None,
) -> Float[Tensor, "event frequency time"]:
    """Predict whole maps: cut them into windows, run the twin, and join what it says.

    A network sees one window at a time and knows least at its edges. With a stride below the window size the windows
    overlap, and each column is taken from the window in which it lies farthest from an edge.

    Args:
        twin: Witness energies (window, witness, frequency, column) to strain energies (window, 1, frequency, column),
            SNR². Runs in evaluation mode and is put back into the mode it was in.
        witnesses: Energies of the witnesses in the model's order, SNR².
        batch_size: Windows in one call of the twin; bounds the memory.
        size: Columns of a window.
        stride: Columns from one window to the next; `size` (tiles side by side) if None.

    Returns:
        Predicted energies on the device and in the order of `witnesses`, SNR². The twin's own device is used for
        computing.

    Raises:
        ConfigurationError: A setting is out of range, or a map shorter than a window.
        DataError: The twin returns another shape.
    """
    if batch_size < 1:
        msg = f"batch_size must be at least 1 window, got {batch_size}."
        raise ConfigurationError(msg)
    num_events, _, num_frequencies, num_times = witnesses.shape
    starts = _covering_starts(num_times, size, stride)
    device = _device_of(twin, witnesses)
    maps = witnesses.new_empty((num_events, num_frequencies, num_times))
    step = max(1, batch_size // len(starts))
    with evaluating(twin), torch.inference_mode():
        for first in range(0, num_events, step):
            events = witnesses[first : first + step]
            windows = cut_windows(events, starts, size).flatten(0, 1)
            predicted = torch.cat([_call(twin, part.to(device)) for part in windows.split(batch_size)])
            predicted = predicted.to(maps).unflatten(0, (len(events), len(starts)))
            maps[first : first + step] = join_windows(predicted, starts, num_times)
    # a plain tensor, so that callers may use it in autograd code
    return maps.clone() if maps.is_inference() else maps


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a twin says of some events.

    Attributes:
        measured: Measured maps, SNR², (event, frequency, time); zero where there is no usable strain.
        predicted: Predicted maps, SNR², same shape.
        cleaned: What is left of the measured maps, SNR², same shape.
        strain: Whitened strain that is taken away, (event, time); None for a twin of energies.
        measured_strain: Measured whitened strain, (event, time); None likewise.
        expected_residual: Where the twin expects something to be left: mean power of strain minus prediction in the
            short-time spectrum at the place of each pixel, the noise included, in the unit of the maps, whose tiles
            are of other sizes; None where it does not say.
        strangeness: Share of validation events that were at least as new to the twin, (event,); NaN where too few of
            them have the same witnesses; None likewise.
        agreement: Share of the predicted power that is taken away, (event,): less than 1 where the strain does not
            hold it; NaN where nothing is predicted or measured; None for a twin of energies.
        loudest: Largest predicted energy at any time of each column, SNR², (event, time); None where the prediction
            was made from maps, which say nothing between their columns and mix both ends of an event.
        power: Power of the strain by band before and after cleaning, SNR² (`signal.band_power`), (event, band, 2); None
            for a twin of energies.
        gains: How the strain follows each part of the prediction; None where nobody watches that.
    """

    measured: Float[Tensor, "event frequency time"]
    predicted: Float[Tensor, "event frequency time"]
    cleaned: Float[Tensor, "event frequency time"]
    strain: Float[Tensor, "event time"] | None = None
    measured_strain: Float[Tensor, "event time"] | None = None
    expected_residual: Float[Tensor, "event frequency time"] | None = None
    strangeness: Float[Tensor, " event"] | None = None
    agreement: Float[Tensor, " event"] | None = None
    loudest: Float[Tensor, "event time"] | None = None
    power: Float[Tensor, "event band 2"] | None = None
    gains: MeasuredGains | None = None

    def rank(self, inside: Bool[Tensor, "frequency time"]) -> Float[Tensor, "event time"]:
        """Largest predicted energy of each column, by which vetoes are decided, SNR².

        Args:
            inside: Pixels that are looked at where the prediction was made from maps.
        """
        return loudest_by_column(self.predicted, inside) if self.loudest is None else self.loudest


class Predictor(Protocol):
    """Something that predicts events, whatever a twin looks at."""

    def __call__(self, batch: SpectrogramBatch) -> Prediction:
        """Predict the events of a batch: maps of the witnesses last, of the target before them where there are any."""
        ...


@dataclass(frozen=True, eq=False)
class MapPredictor:
    """Predicts from the maps of the witnesses.

    Attributes:
        twin: As for `predict_maps`.
        num_witnesses: Witnesses of the twin.
        window_size: Columns of a window.
        stride: Columns from one window to the next.
        batch_size: Windows in one call of the twin.
    """

    twin: nn.Module
    num_witnesses: int
    window_size: int = 64
    stride: int | None = None
    batch_size: int = 64

    def __call__(self, batch: SpectrogramBatch) -> Prediction:
        """Predict; cleaned is the difference of the energies."""
        maps = torch.from_numpy(batch.maps).to(_device_of(self.twin, torch.empty(0)))
        witnesses = blank_invalid(maps[:, -self.num_witnesses :], batch.valid[:, -self.num_witnesses :])
        measured = maps[:, 0] if maps.shape[1] > self.num_witnesses else torch.zeros_like(maps[:, 0])
        predicted = predict_maps(self.twin, witnesses, self.batch_size, size=self.window_size, stride=self.stride)
        return Prediction(measured, predicted, clean_maps(measured, predicted))


@dataclass(frozen=True, eq=False)
class SeriesPredictor:
    """Predicts from the whitened series of the witnesses; maps are the Q-transforms of predicted and cleaned strain.

    Attributes:
        twin: Whitened witness series (event, witness, time) to whitened strain (event, 1, time).
        events: The event set that the maps were made of.
        target: The strain channel.
        witnesses: Witness channels in the order of the twin.
        qtransform: Settings of the maps.
        batch_size: Events in one call of the twin.
        agree: Whether only that is taken away which the strain agrees with (`signal.agreement`); else all.
        longest_lag: How far the parts of a prediction are moved to measure how the strain follows them, s; None: that
            is not measured.
    """

    twin: nn.Module
    events: EventSet
    target: str
    witnesses: tuple[str, ...]
    qtransform: QTransformSettings
    batch_size: int = 16
    agree: bool = True
    longest_lag: float | None = None

    def __call__(self, batch: SpectrogramBatch) -> Prediction:
        """Predict; cleaned is the map of strain minus prediction, in the unit of the measured one.

        Raises:
            FormatError: The event set lacks an event of the batch.
        """
        count = len(self.witnesses)
        measurable = batch.maps.shape[1] > count
        names = [*([self.target] if measurable else []), *self.witnesses]
        read = read_series(self.events, batch.event_ids, batch.gps_start, names)
        device = _device_of(self.twin, torch.empty(0))
        series = torch.from_numpy(np.asarray(read.series, dtype=np.float32)).to(device)
        # a witness may have been blanked in the maps for a reason of its own
        keep = torch.from_numpy(read.valid[:, -count:] & batch.valid[:, -count:]).to(device)
        witnesses = series[:, -count:] * keep[..., None]
        predicted, explained, parts = _foretold(
            self.twin, witnesses, self.batch_size, apart=self.longest_lag is not None
        )
        predicted = predicted * keep.any(dim=1, keepdim=True)  # not every network is silent when all its witnesses are
        measured_strain = series[:, 0] if measurable else torch.zeros_like(predicted)
        rate = self.events.sample_rate
        maps = torch.from_numpy(batch.maps[:, :1]).to(device)
        expected, loudest = expected_maps_and_peaks(predicted, rate, self.qtransform)
        taken = agreed(predicted, measured_strain) if self.agree and measurable else predicted
        residual = strangeness = gains = None
        if parts is not None and self.longest_lag is not None:
            there = torch.from_numpy(read.valid[:, :1] & batch.valid[:, :1]).to(device)
            gains = measured_gains(measured_strain * there, parts, rate, self.longest_lag)
        if explained is not None and explains(self.twin):
            transform = cast("ShortTimeFourier", self.twin.network.transform)
            residual = self._on_map(explained.variance, transform, predicted.shape[-1])
            strangeness = self.twin.strangeness(explained.summary, explained.strain)
        return Prediction(
            measured=maps[:, 0] if measurable else torch.zeros_like(maps[:, 0]),
            predicted=expected,
            cleaned=q_transform_relative(measured_strain - taken, measured_strain, rate, self.qtransform),
            strain=taken,
            measured_strain=measured_strain,
            expected_residual=residual,
            strangeness=strangeness,
            agreement=_share(taken, predicted, measured_strain),
            power=power_left(measured_strain, taken, rate),
            loudest=loudest,
            gains=gains,
        )

    def _on_map(
        self, variance: Float[Tensor, "event row frame"], transform: ShortTimeFourier, num_samples: int
    ) -> Float[Tensor, "event frequency time"]:
        """Expected power at the pixels of the maps, from those of the short-time spectrum."""
        rate = self.events.sample_rate
        frequencies, times = axes(num_samples / rate, self.qtransform)
        rows = torch.as_tensor(frequencies) / rate * transform.frame_size
        columns = transform.column(torch.as_tensor(times) * rate)
        # grid_sample counts from -1 (first pixel) to 1 (last)
        height, width = variance.shape[-2:]
        grid = torch.stack(
            torch.meshgrid(2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1, indexing="xy"), dim=-1
        )
        grid = grid.to(variance)[None].expand(len(variance), -1, -1, -1)
        sampled = functional.grid_sample(variance[:, None], grid, align_corners=True, padding_mode="border")[:, 0]
        return sampled * _unit(self.qtransform)


def read_series(
    events: EventSet, event_ids: Sequence[str], gps_start: Float[np.ndarray, " event"], names: Sequence[str]
) -> EventBatch:
    """Read the series of events that maps were made of.

    Args:
        events: The event set.
        event_ids: Ids of the events, as the maps name them.
        gps_start: First sample of each event, GPS s.
        names: Channels.

    Raises:
        FormatError: The event set lacks an event, or its events begin at other times.
    """
    row_of = events.row_of
    missing = [event_id for event_id in event_ids if event_id not in row_of]
    if missing:
        msg = (
            f"{events.folder} lacks {len(missing)} events of the maps (the first is {missing[0]}). "
            "Give the event set that the maps were made of."
        )
        raise FormatError(msg)
    read = events.read([row_of[event_id] for event_id in event_ids], names)
    if not np.array_equal(read.gps_start, gps_start):
        msg = (
            f"the events of {events.folder} begin at other times than those of the maps. Give the event set "
            "that the maps were made of."
        )
        raise FormatError(msg)
    return read


def _share(taken: Tensor, predicted: Tensor, measured: Tensor) -> Tensor:
    share = taken.square().sum(dim=-1) / predicted.square().sum(dim=-1)
    return torch.where(measured.abs().amax(dim=-1) > 0, share, torch.nan)


def explains(twin: nn.Module) -> TypeGuard[WaveformTwin]:
    """Whether a twin says how sure it is."""
    return isinstance(twin, WaveformTwin) and twin.explains


def make_predictor(
    bundle: ModelBundle,
    twin: nn.Module,
    events: EventSet | None = None,
    *,
    stride: int | None = None,
    batch_size: int = 64,
    agree: bool = True,
    longest_lag: float | None = None,
) -> Predictor:
    """What predicts events with a registered twin or its baseline.

    Args:
        bundle: Says what the twin looks at.
        twin: The bundle's twin or baseline, on the device where it is to run.
        events: The event set that the maps were made of; a twin of waveforms needs it.
        stride: Columns from one window to the next; for maps.
        batch_size: Windows in one call of the twin; for waveforms a quarter of it, in events.
        agree: Whether of waveforms only that is taken away which the strain agrees with; else all, to judge the twin.
        longest_lag: As for `SeriesPredictor`, s.

    Raises:
        ConfigurationError: The twin needs an event set and there is none.
        FormatError: The event set is not whitened or has another rate.
    """
    if bundle.representation == "energy":
        return MapPredictor(twin, len(bundle.witnesses), bundle.window_size, stride, batch_size)
    if events is None:
        msg = (
            "this model looks at whitened series and needs the event set that the maps were made of. Give "
            "inference.events beside inference.spectrograms, or let Load-infdata make both."
        )
        raise ConfigurationError(msg)
    recipe = Recipe.from_dict(bundle.recipe)
    rate = float(recipe.part("events")["sample_rate"])
    if events.manifest.units != "whitened" or events.sample_rate != rate:
        msg = (
            f"expected a whitened event set at {rate:g} Hz, got {events.folder} ({events.manifest.units}, "
            f"{events.sample_rate:g} Hz). Make it by the model's recipe with Load-infdata."
        )
        raise FormatError(msg)
    transform = QTransformSettings.from_recipe(recipe.part("qtransform"))
    return SeriesPredictor(
        twin, events, bundle.target, bundle.witnesses, transform, max(1, batch_size // 4), agree, longest_lag
    )


def predict_strain(
    twin: nn.Module, witnesses: Float[Tensor, "event witness time"], batch_size: int = 16
) -> tuple[Float[Tensor, "event time"], Float[Tensor, "event feature"] | None]:
    """Whitened strain that the witnesses explain, some events at a time, on the device of the twin.

    Args:
        twin: Witness series (event, witness, time) to strain (event, 1, time). Runs in evaluation mode and is put back
            into the mode it was in.
        witnesses: Whitened series; zero where a witness is missing.
        batch_size: Events in one call; bounds the memory.

    Returns:
        Strain; and, from a twin that says how sure it is, the summary of each event (`WaveformTwin.explain`), else
        None.
    """
    device = _device_of(twin, witnesses)
    with evaluating(twin), torch.no_grad():
        series = [part.to(device) for part in witnesses.split(batch_size)]
        if explains(twin):
            strain, summary = map(torch.cat, zip(*(twin.foretell(shown) for shown in series), strict=True))
            return strain[:, 0], summary
        return torch.cat([twin(part)[:, 0] for part in series]), None


def _foretold(
    twin: nn.Module, witnesses: Float[Tensor, "event witness time"], batch_size: int, *, apart: bool
) -> tuple[Float[Tensor, "event time"], Explained | None, Float[Tensor, "event part time"] | None]:
    """What a twin explains, and what each witness adds to it; None where that is not asked for."""
    device = _device_of(twin, witnesses)
    with evaluating(twin), torch.no_grad():
        series = [part.to(device) for part in witnesses.split(batch_size)]
        if explains(twin):
            said = [twin.explain_apart(shown) if apart else (twin.explain(shown), None) for shown in series]
            found = Explained(*map(torch.cat, zip(*(each for each, _ in said), strict=True)))
            return (
                found.strain[:, 0],
                found,
                torch.cat([part for _, part in said if part is not None]) if apart else None,
            )
        if apart and isinstance(twin, WaveformTwin):
            strain, parts = zip(*(twin.apart(shown) for shown in series), strict=True)
            return torch.cat(strain)[:, 0], None, torch.cat(parts)
        return torch.cat([twin(part)[:, 0] for part in series]), None, None


def expected_maps(
    strain: Float[Tensor, "event time"],
    sample_rate: float,
    qtransform: QTransformSettings,
    columns: tuple[int, int] | None = None,
) -> Float[Tensor, "event frequency time"]:
    """Map of a strain without noise, in the unit of measured maps.

    Measured maps are divided by the median of their rows. A prediction has no noise to be divided by; what noise of the
    whitened strain's variance would have is taken instead. Its energies are exponential: their median is ln 2 of their
    mean. Unlike a measured map, which is periodic, it shows nothing of one end of the event at the other.

    Args:
        strain: Whitened, (event, time).
        sample_rate: Hz.
        qtransform: Settings of the measured maps.
        columns: First and one past the last column that is wanted; None: all.
    """
    white = replace(qtransform, norm="white")
    return q_transform(strain, sample_rate, white, periodic=False, columns=columns) * _unit(qtransform)


def expected_maps_and_peaks(
    strain: Float[Tensor, "event time"],
    sample_rate: float,
    qtransform: QTransformSettings,
    columns: tuple[int, int] | None = None,
) -> tuple[Float[Tensor, "event frequency time"], Float[Tensor, "event time"]]:
    """Maps as from `expected_maps`, and the largest energy at any time of each column.

    Columns are samples: what is shorter than their distance may lie between two of them and show in neither. So that a
    veto finds it, the map is sampled at least once a tile.

    Args:
        strain: As for `expected_maps`.
        sample_rate: Hz.
        qtransform: As there.
        columns: As there.

    Returns:
        The maps, and the largest energies, (event, time); both SNR².
    """
    frequencies, times = axes(strain.shape[-1] / sample_rate, qtransform)
    edges = Columns(times)
    shortest = tile_length(frequencies[-1:], min(qtransform.qs))[0]
    # an odd number, so that the samples in the middle are those of the map
    finer = 2 * math.ceil((edges.width / shortest - 1) / 2) + 1 if edges.width > shortest else 1
    finely = replace(qtransform, num_times=finer * qtransform.num_times)
    first, stop = columns or (0, len(edges))
    of_column = np.searchsorted(edges.right[:-1], axes(edges.duration, finely)[1])
    wanted = int(np.searchsorted(of_column, first)), int(np.searchsorted(of_column, stop))
    fine = expected_maps(strain, sample_rate, finely, wanted)
    index = torch.from_numpy(of_column[slice(*wanted)] - first).to(fine.device).expand(len(fine), -1)
    loudest = fine.new_zeros(len(fine), stop - first).scatter_reduce(1, index, fine.amax(dim=-2), "amax")
    return fine[..., first * finer - wanted[0] :: finer].contiguous(), loudest


def _unit(qtransform: QTransformSettings) -> float:
    """Mean energy of white noise in the unit of the maps."""
    return 1 / math.log(2) if qtransform.norm == "median" else 1.0


def blank_invalid(
    maps: Float[Tensor, "event witness frequency time"], valid: ValidityMask
) -> Float[Tensor, "event witness frequency time"]:
    """Set the maps of invalid channels to zero energy: a dead witness says nothing, and explains nothing.

    Zero is below the noise floor (the median energy of a row is 1), so it cannot be taken for a transient; a glitch
    that only this witness sees is missed, which is why such events are counted and flagged in the tables.

    Args:
        maps: Energies, SNR².
        valid: False where a channel is missing or was rejected.

    Returns:
        A copy where something had to be blanked, else the maps themselves.
    """
    if valid.all():
        return maps
    keep = torch.from_numpy(np.ascontiguousarray(valid)).to(maps.device)
    return torch.where(keep[:, :, None, None], maps, 0.0)


def _call(twin: nn.Module, windows: Tensor) -> Tensor:
    predicted = twin(windows)
    expected = (len(windows), 1, *windows.shape[2:])
    if tuple(predicted.shape) != expected:
        msg = (
            f"the twin must return strain maps of shape {expected} for witnesses of shape {tuple(windows.shape)}, "
            f"got {tuple(predicted.shape)}. Use a model that was registered by the training pipeline."
        )
        raise DataError(msg)
    return predicted[:, 0]


def _covering_starts(num_times: int, size: int, stride: int | None) -> tuple[int, ...]:
    tiles = tile_starts(num_times, size)
    if stride is None or stride == size:
        return tiles
    if not 1 <= stride <= size:
        msg = f"stride must be within 1..{size} columns so that windows cover the map, got {stride}."
        raise ConfigurationError(msg)
    return tuple(sorted({*range(0, num_times - size + 1, stride), num_times - size}))


def _device_of(twin: nn.Module, tensor: Tensor) -> torch.device:
    held = next(twin.parameters(), None)
    if held is None:
        held = next(twin.buffers(), tensor)
    return held.device


@contextmanager
def evaluating(twin: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards the twin is in the mode that it was in."""
    was_training = twin.training
    twin.eval()
    try:
        yield
    finally:
        twin.train(was_training)
