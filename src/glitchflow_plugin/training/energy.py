"""Learning on energies: windows of Q-transform maps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glitchflow_plugin.data.files import content_hash
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.data.window_dataset import WindowDataset
from glitchflow_plugin.inference.predict import MapPredictor, Prediction
from glitchflow_plugin.models.build import build_model
from glitchflow_plugin.models.twins import EnergyTwin, scale_energy
from glitchflow_plugin.plots.cleaning import CleaningExample, plot_cleaning
from glitchflow_plugin.plots.maps import FrequencyAxis
from glitchflow_plugin.plots.style import Picture
from glitchflow_plugin.training.baseline import Baseline, BaselineSettings, fit_baseline
from glitchflow_plugin.training.evaluation import WindowResults, judge_windows
from glitchflow_plugin.training.judged_maps import JudgedOnMaps
from glitchflow_plugin.training.learner import Batches, Review
from glitchflow_plugin.training.losses import LossSettings, map_loss
from glitchflow_plugin.types.tensors import host

#: Constant predictions (SNR²) that a twin has to beat: nothing, and what noise holds, whose median is 1.
_TRIVIAL = (0.0, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True, eq=False)
class EnergyLearner(JudgedOnMaps):
    """A `Learner` of strain energies from witness energies, SNR².

    Attributes:
        training_set: Windows, split and scaling.
        model: Name and settings of the network, as in conf/model/.
        loss: Weights of the loss.
        baseline_settings: Settings of the linear rival.
        cache_mib: Largest size of the maps that a data set keeps in memory, MiB.
        events: The event set that the maps were made of, for the gate's injections; None if it is not at hand.
    """

    training_set: TrainingSet
    model: Mapping[str, Any]
    loss: LossSettings = field(default_factory=LossSettings)
    baseline_settings: BaselineSettings = field(default_factory=BaselineSettings)
    cache_mib: float = 2048.0
    events: EventSet | None = None

    def dataset(self, part: str) -> WindowDataset:
        """Windows of `train`, `validation` or `test`."""
        return WindowDataset(self.training_set, part, cache_mib=self.cache_mib)

    def training_windows(self) -> WindowDataset:
        """Windows of `train`."""
        return self.dataset("train")

    def network(self) -> nn.Module:
        """The network, its weights random."""
        settings = {key: value for key, value in self.model.items() if key != "name"}
        size = self.training_set.settings.size
        return build_model(self.model["name"], in_channels=len(self.witnesses), window_size=size, **settings)

    def initialise(self, network: nn.Module) -> None:
        """Leave all weights random."""

    def twin(self, network: nn.Module) -> EnergyTwin:
        """The network with the scaling about it, on the network's device."""
        scaling = self.training_set.scaling
        twin = EnergyTwin(
            network,
            clamp=scaling["clamp"],
            witness_scale=[scaling["scale"][channel] for channel in self.witnesses],
            target_scale=scaling["scale"][self.maps.target],
            transform=scaling["transform"],
        )
        return twin.to(next(network.parameters()).device)

    def losses(
        self, network: Callable[[Tensor], Tensor], twin: EnergyTwin, witnesses: Tensor, strain: Tensor
    ) -> Tensor:
        """L1 and SSIM of scaled maps, one number a window."""
        return map_loss(network(twin.scale_witnesses(witnesses)), twin.scale_target(strain), self.loss)

    def judge(
        self,
        predict: Callable[[Tensor], Tensor],
        batches: Batches,
        twin: EnergyTwin,
        *,
        device: torch.device,
        threshold: float,
    ) -> WindowResults:
        """Loss and accuracies of predictions over batches, in the scaling of `twin`."""
        return judge_windows(predict, batches, twin, self.loss, device=device, threshold=threshold)

    def examples(
        self,
        predict: Callable[[Tensor], Tensor],
        dataset: WindowDataset,
        *,
        title: str,
        threshold: float,
        axis: FrequencyAxis = "log",
        classes: Mapping[str, str] | None = None,
    ) -> Picture:
        """Figure of the windows with the loudest strain, one for each of three events."""
        loudest = np.argsort(-dataset.windows["peak"].to_numpy(), kind="stable")
        chosen = list({dataset.event_ids[index]: int(index) for index in loudest[::-1]}.values())[-3:][::-1]
        examples = []
        for index in chosen:
            witnesses, strain = dataset[index]
            with torch.no_grad():
                predicted = host(predict(witnesses[None])[0, 0])
            measured = host(strain[0])
            examples.append(
                CleaningExample(
                    event_id=str(dataset.event_ids[index]),
                    gps_start=float(dataset.gps_start[index]),
                    gps_event=float(self.maps.gps_event[self.maps.row_of[str(dataset.event_ids[index])]]),
                    note=(classes or {}).get(str(dataset.event_ids[index]), ""),
                    predicted=predicted,
                    measured=measured,
                    cleaned=np.abs(measured - predicted),
                )
            )
        times = self.maps.times[: dataset.size] - self.maps.times[0]
        return plot_cleaning(examples, self.maps.frequencies, times, threshold=threshold, title=title, axis=axis)

    def origin(self) -> dict[str, str]:
        """Checksums of the maps, the split and the scaling."""
        split = {name: self.training_set.split.part(name).event_ids for name in PARTS}
        parts = {
            "spectrograms": self.maps.manifest.fingerprint,
            "split": split,
            "scaling": self.training_set.scaling,
        }
        return {name: content_hash(part) for name, part in parts.items()}

    def baseline(self, twin: EnergyTwin, batches: Callable[[str], Batches]) -> Baseline:
        """The linear witness filter, fitted to the training windows and chosen on validation."""
        return fit_baseline(
            partial(batches, "train"),
            partial(batches, "validation"),
            twin,
            self.baseline_settings,
            self.loss,
            num_witnesses=len(self.witnesses),
            window_size=self.training_set.settings.size,
        )

    def calibrate(self, twin: EnergyTwin, batches: Callable[[str], Batches]) -> None:
        """Nothing: a twin of energies does not say how sure it is."""

    def review(self, twin: EnergyTwin, batches: Callable[[str], Batches], *, threshold: float) -> Review:
        """Judge the validation windows; energies have no sign, so there is no gain to follow."""
        device = twin.clamp.device
        return Review(self.judge(twin, batches("validation"), twin, device=device, threshold=threshold))

    def predictor(self, twin: nn.Module) -> MapPredictor:
        """What predicts whole maps with this twin."""
        return MapPredictor(twin.eval(), len(self.witnesses), self.training_set.settings.size)

    def event_losses(self, prediction: Prediction, inside: Tensor) -> tuple[Tensor, Tensor]:
        """L1 and SSIM of whole scaled maps, and those of constants: predicting the noise's mean takes no twin."""
        scaling = self.training_set.scaling

        def scaled(energies: Tensor) -> Tensor:
            clamp, scale = (energies.new_tensor(v) for v in (scaling["clamp"], scaling["scale"][self.maps.target]))
            return scale_energy(energies * inside, clamp, scale, scaling["transform"])[:, None]

        measured = scaled(prediction.measured)
        trivial = [
            map_loss(scaled(torch.full_like(prediction.measured, each)), measured, self.loss) for each in _TRIVIAL
        ]
        return map_loss(scaled(prediction.predicted), measured, self.loss), torch.stack(trivial, dim=1)
