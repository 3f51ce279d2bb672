"""The pipelines of this package: itwinai's, whose run has a name that can be part of paths."""

from typing import Any

from itwinai.pipeline import Pipeline

from glitchflow_plugin.data.names import check_name


class NamedPipeline(Pipeline):
    """Steps that write below folders which are named after the run.

    Args:
        steps: As for itwinai's Pipeline.
        run_name: Of the run; the configuration makes the folders of all steps from it. None: not from a name.
        name: Of the pipeline.

    Raises:
        ConfigurationError: The name would lead elsewhere. No step has run.
    """

    def __init__(self, steps: Any, run_name: str | int | None = None, name: str | None = None) -> None:
        super().__init__(steps, name)
        self.save_parameters(run_name=run_name)
        if run_name is not None:
            check_name(str(run_name), "run_name")  # 4711 is a number in YAML
