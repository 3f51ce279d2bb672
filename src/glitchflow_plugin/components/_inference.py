"""What the steps that use a registered model on maps have in common: their arguments, and where their results lie."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from itwinai.components import BaseComponent

from glitchflow_plugin.components._step import keeping_arguments
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.results import claim, place
from glitchflow_plugin.data.sharded import SpectrogramSet
from glitchflow_plugin.inference.subject import Sources, Subject
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.settings import built


class Decisive(Protocol):
    """Settings of which some change what comes of a step."""

    def decisive(self) -> Mapping[str, object]: ...


S = TypeVar("S", bound=Decisive)


class InferenceStep(BaseComponent, Generic[S]):
    """A step that looks at maps with a registered model.

    Args:
        settings: The keys of the step's section in inference.yaml.
        folder: Below it everything goes, in a folder named after what it is of.
        tensorboard: Folder for TensorBoard, likewise; none if None.
        model: `name` and `version`, used where no model comes from the step before.
        tracking_uri: Address of the registry, likewise.
        spectrograms: Folder of the maps, used where none come from the step before.
        events: Folder of the event set that these maps were made of; models of waveforms need it.
        data: Folder of Load-infdata, whose sets are used where `spectrograms` is not given either.
        datasets: What Load-infdata made them of.
        result: Name of the result's folder; None: named after what it is of.
        replace: Whether another result of the name `result` may go.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        pictures: The keys of pictures.yaml.
        name: Name of the step.
    """

    kind: type[S]
    section: str

    @keeping_arguments
    def __init__(
        self,
        settings: Mapping[str, object],
        folder: str,
        *,
        tensorboard: str | None = None,
        model: Mapping[str, object] | None = None,
        tracking_uri: str = "sqlite:///mlflow.db",
        spectrograms: str | None = None,
        events: str | None = None,
        data: str | None = None,
        datasets: Sequence[Mapping[str, object]] | None = None,
        result: str | None = None,
        replace: bool = False,
        device: str = "auto",
        pictures: Mapping[str, object] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.settings = built(self.kind, settings, self.section)
        self.folder, self.tensorboard = Path(folder), tensorboard
        self.sources = Sources(model, tracking_uri, spectrograms, events, data, datasets)
        self.result = None if result is None else check_name(str(result), "inference.yaml: result")
        self.replace, self.device = replace, device
        self.pictures = built(PictureSettings, pictures, "pictures")

    @property
    def board(self) -> Path | None:
        """Folder of this result for TensorBoard."""
        return None if self.tensorboard is None else Path(self.tensorboard) / self.place.name

    def find(self, bundle: ModelBundle | None, spectrograms: SpectrogramSet | None, suffix: str = "") -> Subject:
        """What the step works on; from then on `place` is the folder of what comes of it, to be held and claimed.

        Args:
            bundle: Model from the step before.
            spectrograms: Maps from the step before.
            suffix: What the folder's name says beside data and model.
        """
        subject = self.sources.find(bundle, spectrograms)
        self._record = self.record_of(subject)
        self.place = place(self.folder, subject.name + suffix, self._record, chosen=self.result)
        return subject

    def record_of(self, subject: Subject) -> dict[str, object]:
        """All that decides about the result."""
        return subject.record(self.settings.decisive())

    def claim(self) -> None:
        """Write down what the results in `place` are of."""
        claim(self.place, self._record, replace=self.replace)
