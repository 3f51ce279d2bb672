"""Learning on whitened series: the strain that the witnesses explain, with its phase."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.series_dataset import SeriesDataset
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.truth_file import read_truth_labels, truth_path
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.cases import map_statistics
from glitchflow_plugin.inference.closed_loop import reference_of
from glitchflow_plugin.inference.model_data import check_events
from glitchflow_plugin.inference.predict import (
    MapPredictor,
    Prediction,
    SeriesPredictor,
    expected_maps,
    expected_maps_and_peaks,
)
from glitchflow_plugin.inference.residual import EventsLeft, strongest_part
from glitchflow_plugin.models.build import build_model
from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.models.wiener import FILTER_SIZE, WienerSums
from glitchflow_plugin.plots.cleaning import CleaningExample, plot_cleaning
from glitchflow_plugin.plots.maps import FrequencyAxis
from glitchflow_plugin.plots.style import Picture
from glitchflow_plugin.preprocessing.channel_recipe import slow_channels
from glitchflow_plugin.preprocessing.truth import read_glitch_truth
from glitchflow_plugin.signal.agreement import agreed
from glitchflow_plugin.signal.band_power import power_left
from glitchflow_plugin.signal.gain_watch import MeasuredGains, WatchSettings
from glitchflow_plugin.signal.qtransform import QTransformSettings, q_transform, q_transform_relative
from glitchflow_plugin.signal.witness_gain import measured_gains
from glitchflow_plugin.simulation.detector import event_path
from glitchflow_plugin.training.baseline import Baseline, BaselineSettings
from glitchflow_plugin.training.calibration import calibrate
from glitchflow_plugin.training.evaluation import WindowResults, ZeroTwin, pixels_inside
from glitchflow_plugin.training.filter_start import (
    choose_laws,
    choose_span,
    fit_filters,
    folds_of,
    laws_within,
    sums_by_fold,
)
from glitchflow_plugin.training.judged_maps import JudgedOnMaps
from glitchflow_plugin.training.learner import Batches, Review
from glitchflow_plugin.training.slow_start import find_context, set_context
from glitchflow_plugin.types.tensors import host

logger = logging.getLogger(__name__)

#: Events that tell how loud quiet strain is.
_MOST_QUIET = 64
#: Events in memory while first filters are fitted.
_START_BATCH = 8


@dataclass(frozen=True)
class WaveformLoss:
    """What is minimised: the share of a glitch's excess power that is left.

    Attributes:
        floor: Excess power (SNR²) of a glitch that counts half as much as a very loud one. It keeps quiet events, whose
            excess is nothing but fluctuation, from being divided by next to nothing: there an added power of this size
            counts as much as missing a loud glitch altogether.
        variance: Weight of the likelihood of the announced variance, which nothing else depends on.
    """

    floor: float = 1000.0
    variance: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be minimised."""
        if not self.floor > 0 or self.variance < 0:
            message = (
                f"expected loss_floor > 0 and loss_variance of at least 0, got {self.floor} and {self.variance}. "
                "Correct training.yaml."
            )
            raise ConfigurationError(message)


@dataclass(frozen=True, eq=False)
class WaveformLearner(JudgedOnMaps):
    """A `Learner` of whitened strain from whitened witnesses; an item is a whole event.

    Attributes:
        training_set: Which events, and the maps on which twins are judged.
        events: The event set that the maps were made of.
        model: Name and settings of the network, as in conf/model/.
        loss: What is minimised.
        baseline_settings: Settings of the linear rival, whose `ridges` are tried.
        cache_mib: Largest size of the series that a data set keeps in memory, MiB.
        start_mib: Memory for the sums from which first filters follow, MiB; where all laws take more, fewer are tried.
        truth: Folder of the simulation that made the events, whose glitches alone are then learnt: the strain's noise
            teaches nothing. Events that it does not know are learnt as measured.
    """

    training_set: TrainingSet
    events: EventSet
    model: Mapping[str, Any]
    loss: WaveformLoss = field(default_factory=WaveformLoss)
    baseline_settings: BaselineSettings = field(default_factory=BaselineSettings)
    cache_mib: float = 2048.0
    start_mib: float = 2048.0
    truth: Path | None = None

    def __post_init__(self) -> None:
        """Refuse an event set that has nothing to do with the maps."""
        check_events(self.maps, self.events)

    @cached_property
    def qtransform(self) -> QTransformSettings:
        """Of the maps."""
        return QTransformSettings.from_recipe(Recipe.from_dict(self.maps.recipe).part("qtransform"))

    @cached_property
    def noise_power(self) -> float:
        """Power of whitened strain without a glitch, summed over an event: the median of quiet training events."""
        dataset = self.dataset("train")
        quiet = np.flatnonzero(~dataset.windows["glitch"].to_numpy(dtype=bool))
        known = quiet if len(quiet) else np.arange(len(dataset))
        chosen = known[np.linspace(0, len(known) - 1, min(len(known), _MOST_QUIET)).astype(int)]
        return float(np.median([dataset[int(index)][1].square().sum() for index in chosen]))

    def dataset(self, part: str) -> SeriesDataset:
        """Events of `train`, `validation` or `test`."""
        return SeriesDataset(self.training_set, self.events, part, self.witnesses, self.cache_mib)

    def training_windows(self) -> SeriesDataset:
        """Events of `train`; where the truth is known the second row of strain is the glitch alone."""
        glitches = self._glitches
        if not glitches:
            return self.dataset("train")
        return SeriesDataset(self.training_set, self.events, "train", self.witnesses, self.cache_mib, glitches=glitches)

    @cached_property
    def _glitches(self) -> dict[str, np.ndarray]:
        """The glitch alone in the whitened strain, (time,), of the training events that `truth` knows."""
        if self.truth is None or not truth_path(self.truth).exists():
            return {}
        # whoever needs the room may have removed the files of events that are in the event set
        known = [name for name in read_truth_labels(self.truth) if event_path(self.truth, name).exists()]
        names = sorted(set(known) & set(self.training_set.split.train.event_ids) & set(self.events.row_of))
        if not names:
            return {}
        needed = len(names) * self.events.num_samples * np.dtype(np.float32).itemsize / 2**20
        if needed > self.cache_mib:
            logger.warning(
                "The glitches of %d training events take %.0f MiB, and training.config.cache_mib allows %.0f: the "
                "strain is learnt as measured.",
                len(names),
                needed,
                self.cache_mib,
            )
            return {}
        starts = self.events.gps_start[[self.events.row_of[name] for name in names]]
        alone = read_glitch_truth(self.truth, self.events.recipe, names, starts).strain.astype(np.float32)
        logger.info("%s tells the glitches of %d training events", self.truth, len(names))
        return dict(zip(names, alone, strict=True))

    @property
    def _slow(self) -> list[int]:
        """Places of the witnesses whose slow motion is kept."""
        return [self.witnesses.index(name) for name in slow_channels(self.events.recipe) if name in self.witnesses]

    def network(self) -> nn.Module:
        """The network, its weights random."""
        settings = {key: value for key, value in self.model.items() if key != "name"}
        return build_model(self.model["name"], in_channels=len(self.witnesses), **settings)

    def initialise(self, network: nn.Module) -> None:
        """Tell a network its slow channels, and fit the filters of one with a `fitted_start` to the training events."""
        if isinstance(network, CouplingNet):
            if network.place is not None:
                set_context(network, self._slow, [], self.events.sample_rate)
            if network.fitted_start:
                self._fit_filters(network)

    def twin(self, network: nn.Module) -> WaveformTwin:
        """The network, with room for its calibration, on its own device."""
        return WaveformTwin(network).to(next(network.parameters()).device)

    def losses(self, network: Callable[..., Any], twin: WaveformTwin, witnesses: Tensor, strain: Tensor) -> Tensor:
        """Share of the excess power that is left, one number an event, and the likelihood of the variance.

        The last row of strain is what is to be predicted: the first, what was measured, or the glitch alone.
        """
        measured, target = strain[:, :1], strain[:, -1:]
        if not twin.explains:
            return self.share_left(network(witnesses), measured, target)
        explanation = network(witnesses, explained=True)
        loss = self.share_left(explanation.strain, measured, target)
        transform: Any = twin.network.transform
        left = transform((measured - explanation.strain.detach())[:, 0])
        power = torch.view_as_real(left).square().sum(dim=-1)
        likelihood = explanation.variance.log() + power / explanation.variance
        # with a weight of zero as well: processes exchange the gradients of all parameters
        return loss + self.loss.variance * likelihood.mean(dim=(1, 2))

    def share_left(self, predicted: Tensor, strain: Tensor, target: Tensor | None = None) -> Tensor:
        """Share of the excess power that is left, (event,): 1 for no prediction, about 0 for a perfect one.

        Args:
            predicted: Whitened strain, (event, 1, time).
            strain: Measured, same shape.
            target: What is to be predicted, same shape; what was measured if None.
        """
        target = strain if target is None else target
        before, after = target.square().sum(dim=(1, 2)), (target - predicted).square().sum(dim=(1, 2))
        return 1 + (after - before) / self.worth(strain)

    def worth(self, strain: Tensor) -> Tensor:
        """Power that counts as one in the loss of each event, (event,)."""
        return (strain.square().sum(dim=(1, 2)) - self.noise_power).clamp(min=0) + self.loss.floor

    def judge(
        self,
        predict: Callable[[Tensor], Tensor],
        batches: Batches,
        twin: WaveformTwin,
        *,
        device: torch.device,
        threshold: float,
    ) -> WindowResults:
        """Loss, and accuracies on the maps of measured, predicted and cleaned strain."""
        del twin
        parts = []
        with torch.no_grad():
            for witnesses, strain in batches:
                measured, predicted = strain.to(device), predict(witnesses.to(device))
                expected = expected_maps(predicted[:, 0], self.events.sample_rate, self.qtransform)
                parts.append(self._judged(measured, predicted, expected, threshold))
        return WindowResults.concatenate(parts)

    def _judged(self, measured: Tensor, predicted: Tensor, expected: Tensor, threshold: float) -> WindowResults:
        """Loss and statistics of predictions (event, 1, time) whose maps are `expected`."""
        rate, inside = self.events.sample_rate, pixels_inside(self.maps)
        losses = self.share_left(predicted, measured).double()
        maps = q_transform(measured[:, 0], rate, self.qtransform)
        cleaned = q_transform_relative((measured - predicted)[:, 0], measured[:, 0], rate, self.qtransform)
        statistics = map_statistics(maps, expected, None, threshold, cleaned=cleaned, inside=inside)
        return WindowResults(float(losses.sum()), statistics)

    def examples(
        self,
        predict: Callable[[Tensor], Tensor],
        dataset: SeriesDataset,
        *,
        title: str,
        threshold: float,
        axis: FrequencyAxis = "log",
        classes: Mapping[str, str] | None = None,
    ) -> Picture:
        """Figure of the three events with the loudest strain."""
        chosen = np.argsort(-dataset.windows["peak"].to_numpy(), kind="stable")[:3]
        rate, examples = self.events.sample_rate, []
        for index in chosen:
            witnesses, strain = dataset[int(index)]
            with torch.no_grad():
                predicted = predict(witnesses[None])[:, 0]
            measured = strain[:1].to(predicted.device)
            examples.append(
                CleaningExample(
                    event_id=str(dataset.event_ids[index]),
                    gps_start=float(dataset.gps_start[index]),
                    gps_event=float(self.maps.gps_event[self.maps.row_of[str(dataset.event_ids[index])]]),
                    note=(classes or {}).get(str(dataset.event_ids[index]), ""),
                    predicted=host(expected_maps(predicted, rate, self.qtransform)[0]),
                    measured=host(q_transform(measured, rate, self.qtransform)[0]),
                    cleaned=host(q_transform_relative(measured - predicted, measured, rate, self.qtransform)[0]),
                )
            )
        return plot_cleaning(
            examples, self.maps.frequencies, self.maps.times, threshold=threshold, title=title, axis=axis
        )

    def origin(self) -> dict[str, str]:
        """Checksums of the events and the split, and of which events the glitch alone is learnt."""
        split = {name: self.training_set.split.part(name).event_ids for name in PARTS}
        parts: dict[str, Any] = {"events": self.events.manifest.fingerprint, "split": split}
        if self._glitches:
            parts["truth"] = sorted(self._glitches)
        return {name: content_hash(part) for name, part in parts.items()}

    def calibrate(self, twin: WaveformTwin, batches: Callable[[str], Batches]) -> None:
        """Fit what the twin says about itself on validation events."""
        if twin.explains:
            calibrate(twin, batches("train"), batches("validation"), self.validation_groups())

    def review(self, twin: WaveformTwin, batches: Callable[[str], Batches], *, threshold: float) -> Review:
        """Calibrate, judge, and measure how the strain follows each witness, which the closed loop compares with."""
        rate, watch, device = self.events.sample_rate, WatchSettings(), twin.variance_noise.device
        results: list[WindowResults] = []
        gains: list[MeasuredGains] = []
        ranks: list[np.ndarray] = []
        power: list[np.ndarray] = []

        def look(strain: Tensor, predicted: Tensor, parts: Tensor) -> None:
            expected, loudest = expected_maps_and_peaks(predicted[:, 0], rate, self.qtransform)
            results.append(self._judged(strain, predicted, expected, threshold))
            gains.append(measured_gains(strain[:, 0], parts, rate, watch.longest_lag))
            ranks.append(host(loudest.double()))
            taken = agreed(predicted[:, 0], strain[:, 0])
            power.append(host(power_left(strain[:, 0], taken, rate)))

        if twin.explains:
            calibrate(twin, batches("train"), batches("validation"), self.validation_groups(), look)
        else:
            with torch.no_grad():
                for witnesses, strain in batches("validation"):
                    look(strain.to(device), *twin.apart(witnesses.to(device)))
        joined, judged = MeasuredGains.joined(gains), WindowResults.concatenate(results)
        groups = self.validation_groups()
        reference = reference_of(self.witnesses, joined, groups, watch)
        left = EventsLeft(
            event_ids=tuple(map(str, self.dataset("validation").event_ids)),
            groups=groups,
            power=np.concatenate(power),
            glitch=judged.statistics.glitch,
            witness=strongest_part(reference.parts, np.where(joined.power >= watch.least_power, joined.power, 0)),
        )
        return Review(judged, reference, left, self._whole_ranks(np.concatenate(ranks)))

    def _whole_ranks(self, ranks: Float[np.ndarray, "event time"]) -> dict[str, Float[np.ndarray, " time"]]:
        """Those of the validation events of which maps and series have the same witnesses, and any."""
        names = [str(event_id) for event_id in self.dataset("validation").event_ids]
        of_maps, of_series = (
            each.valid[[each.row_of[name] for name in names]][:, each.channel_rows(self.witnesses)]
            for each in (self.maps, self.events)
        )
        alike = (of_maps == of_series).all(axis=1) & of_maps.any(axis=1)
        return {name: rank for name, rank, known in zip(names, ranks, alike, strict=True) if known}

    def validation_groups(self) -> Int[np.ndarray, " event"]:
        """Number of the group of each validation event that is looked at."""
        split = self.training_set.split
        numbers = split.validation.group_of(split.block_length)
        return np.array([numbers[str(event_id)] for event_id in self.dataset("validation").event_ids])

    def _fit_filters(self, network: CouplingNet) -> None:
        """Begin with the filters that explain the training events best, of laws that hold for events left out."""
        dataset, split = self.training_windows(), self.training_set.split
        numbers = split.train.group_of(split.block_length)
        folds = folds_of(np.array([numbers[str(event_id)] for event_id in dataset.event_ids]))

        def weighed() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for witnesses, strain in DataLoader(dataset, batch_size=_START_BATCH):
                yield witnesses, strain[:, -1:], self.worth(strain[:, :1]).rsqrt()[:, None, None]

        slow = self._slow if network.place is not None else []
        if slow:
            contexts = find_context(network, weighed(), folds, slow, self.events.sample_rate)
            set_context(network, slow, contexts, self.events.sample_rate)
            for one in contexts:
                how = "direction" if one.strength is None else "place"
                logger.info("%s follows the %s of %s", self.witnesses[one.witness], how, self.witnesses[one.channel])
        num_witnesses, num_laws, filter_size = network.filters.shape
        laws = laws_within(num_witnesses, num_laws, filter_size, self.start_mib)
        if laws < num_laws:
            logger.warning(
                "The start's sums of %d laws of %d witnesses do not fit into training.config.start_mib (%.0f): %s.",
                num_laws,
                num_witnesses,
                self.start_mib,
                "filters begin with their linear laws" if laws else "filters begin at chance",
            )
        if not laws:
            return
        weighted = (
            (root[..., None] * network.law_series(witnesses)[:, :, :laws], root * target)
            for witnesses, target, root in weighed()
        )
        sums = sums_by_fold(weighted, folds, network.filter_size)
        span = choose_span(sums, laws)
        chosen = choose_laws(sums, laws, slow, span)
        fitted = fit_filters(sums, chosen, span)
        with torch.no_grad():
            begin = network.filters[:, :laws]
            begin.copy_(torch.where(chosen[..., None], fitted, begin))
            network.filters[slow] = 0.0
            network.filters[slow, :laws] = fitted[slow]

    def baseline(self, twin: WaveformTwin, batches: Callable[[str], Batches]) -> Baseline:
        """The linear filter of the least loss on training events: a Wiener filter that weights events as the loss does.

        The loss is a weighted sum of squares, so the filter follows in closed form from series that are divided by the
        root of what their event's power counts as. The ridge is chosen on validation.
        """
        sums = WienerSums(len(self.witnesses), int(self.model.get("filter_size") or FILTER_SIZE))
        return self.fit_linear(sums, sums.solve, batches, twin.variance_noise.device)

    def fit_linear(
        self,
        sums: WienerSums,
        solve: Callable[[float], nn.Module],
        batches: Callable[[str], Batches],
        device: torch.device,
    ) -> Baseline:
        """Fit a linear subtraction in closed form to training events as the loss weights them; see `baseline`.

        Args:
            sums: Gather the training events.
            solve: Makes of them the network with a ridge.
            batches: Gives the batches of a part afresh.
            device: The one that predicts.
        """
        for witnesses, strain in batches("train"):
            root = self.worth(strain).rsqrt()[:, None, None]
            sums.add(root * witnesses, root * strain)
        ridges = self.baseline_settings.ridges
        rivals = [self.twin(solve(ridge).to(device)).eval() for ridge in ridges]
        lost = np.zeros(len(rivals))
        with torch.no_grad():
            for witnesses, strain in batches("validation"):
                shown, measured = witnesses.to(device), strain.to(device)
                lost += [float(self.share_left(rival(shown), measured).double().sum()) for rival in rivals]
        best, threshold = int(lost.argmin()), self.training_set.settings.threshold
        results = self.judge(rivals[best], batches("validation"), rivals[best], device=device, threshold=threshold)
        chosen = Baseline(rivals[best], "waveform", ridges[best], results.figures())
        logger.info("Linear subtraction: ridge %g, validation loss %.4f", chosen.ridge, chosen.validation["loss"])
        return chosen

    def predictor(self, twin: nn.Module) -> SeriesPredictor | MapPredictor:
        """What predicts whole events with this twin."""
        if isinstance(twin, ZeroTwin):
            return MapPredictor(twin, len(self.witnesses), self.training_set.settings.size)
        return SeriesPredictor(twin.eval(), self.events, self.maps.target, self.witnesses, self.qtransform)

    def event_losses(self, prediction: Prediction, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Share of the excess power that is left; that of nothing is 1."""
        del inside  # the series is judged as a whole
        if prediction.strain is None or prediction.measured_strain is None:
            message = "expected a prediction of series, got one of maps alone. Judge a twin of waveforms."
            raise ConfigurationError(message)
        strain = prediction.measured_strain[:, None]
        return self.share_left(prediction.strain[:, None], strain), strain.new_ones(len(strain), 1)
