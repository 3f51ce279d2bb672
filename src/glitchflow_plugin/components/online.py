"""Online: clean frames and flags from frames as they appear, with a registered model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from itwinai.components import BaseComponent, monitor_exec

from glitchflow_plugin.components._step import holding, keeping_arguments
from glitchflow_plugin.data.frame_intake import FrameIntake, IntakeSettings
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.results import claim
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.inference.subject import check_model, load_model, model_inputs
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.products.summary import now
from glitchflow_plugin.report.step import report
from glitchflow_plugin.settings import built
from glitchflow_plugin.streaming.online import OnlineSettings, OnlineTwin
from glitchflow_plugin.streaming.online_run import OnlineRun, OnlineRunSettings, expected_channels, online_summary
from glitchflow_plugin.streaming.run import ProductSettings, StreamJob, provenance_of, stream_model, stream_ranks
from glitchflow_plugin.training.interruption import stop_requests


class Online(BaseComponent):
    """Subtract what a registered model predicts from strain as it comes, stride by stride.

    Args:
        model: `name` and `version` (a number or an alias) of the registered model.
        tracking_uri: Address of the registry.
        folder: Below it everything goes, in a folder named after model and version.
        frames: Folders in which frames appear.
        intake: The keys of `intake` in online.yaml.
        settings: The keys of `settings` there.
        run: The keys of `run` there.
        products: The keys of `products` there.
        result: Name of the result's folder; None: named after the model.
        replace: Whether another result of that name may go.
        name: Name of the step.
    """

    @keeping_arguments
    def __init__(
        self,
        model: Mapping[str, object],
        tracking_uri: str,
        folder: str,
        frames: Sequence[str] | str,
        *,
        intake: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
        run: Mapping[str, object] | None = None,
        products: Mapping[str, object] | None = None,
        result: str | None = None,
        replace: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.model, self.tracking_uri = check_model(model), tracking_uri
        self.frames = [Path(one) for one in ([frames] if isinstance(frames, str) else frames)]
        if not self.frames:
            raise ConfigurationError("online.frames names no folder. Give those in which frames appear.")
        self.intake = built(IntakeSettings, intake, "online.intake")
        self.settings = built(OnlineSettings, settings, "online.settings")
        self.run = built(OnlineRunSettings, run, "online.run")
        self.products = built(ProductSettings, products, "online.products")
        chosen = result or f"{self.model['name']}-{self.model['version']}"
        self.place = Path(folder) / check_name(str(chosen), "online.yaml: result")
        self.replace = replace

    @monitor_exec
    @holding("place")
    def execute(self, _before: object = None) -> Path:
        """Work until `run.until`, `run.idle` or a signal; returns the folder of the products."""
        started = now()
        bundle = load_model(self.model, self.tracking_uri)
        job = self._job(bundle)
        intake = FrameIntake(self.frames, expected_channels(job), self.settings.stream.stride, self.intake)
        with stop_requests() as asked:
            run = OnlineRun(job, OnlineTwin(job.model, self.settings), intake, self.run, lambda: asked.name is not None)
            claim(self.place, run.what, replace=self.replace, section="online")
            run.run()
        report(online_summary(run, model_inputs(bundle), started), self.place)
        return self.place

    def _job(self, bundle: ModelBundle) -> StreamJob:
        stream, strain = self.settings.stream, self.products.target or bundle.target
        provenance = provenance_of(bundle, stream, strain) | {"glitchflow_lookahead": self.settings.lookahead}
        return StreamJob(
            self.place,
            stream_model(bundle, strain),
            stream,
            self.products,
            provenance,
            ranks=stream_ranks(bundle, self.products),
        )
