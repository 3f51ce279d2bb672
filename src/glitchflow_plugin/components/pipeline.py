"""The pipelines of this package: itwinai's, whose run has a name that can be part of paths."""

from typing import Any

from itwinai.pipeline import Pipeline

from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.settings import check_arguments


class NamedPipeline(Pipeline):
    """Steps that write below folders which are named after the run.

    Args:
        steps: As for itwinai's Pipeline.
        run_name: Name of the run; the configuration makes the folders of all steps from it. None: not from a name.
        name: Name of the pipeline.

    Raises:
        ConfigurationError: The name would lead elsewhere, or a step has text where it wants a number. No step has run.
    """

    def __init__(self, steps: Any, run_name: str | int | None = None, name: str | None = None) -> None:
        super().__init__(steps, name)
        self.save_parameters(run_name=run_name)
        if run_name is not None:
            check_name(str(run_name), "run_name")  # 4711 is a number in YAML
        for step in steps.values() if isinstance(steps, dict) else steps:
            check_arguments(type(step).__init__, getattr(step, "parameters", {}), type(step).__name__)
