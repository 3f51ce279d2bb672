"""`training.config` as itwinai takes it, with every key checked."""

from collections.abc import Mapping

from itwinai.torch.config import TrainingConfiguration as ItwinaiConfiguration
from pydantic import ConfigDict

from glitchflow_plugin.settings import built
from glitchflow_plugin.training.configuration import TrainingConfiguration


class StrictConfiguration(TrainingConfiguration, ItwinaiConfiguration):  # pyright: ignore[reportIncompatibleVariableOverride]
    """itwinai's training configuration, which refuses keys that it does not know, with defaults for this package.

    itwinai takes any key in silence, so that a misspelt learning rate has no effect.
    """

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def checked(cls, values: Mapping[str, object] | None) -> "StrictConfiguration":
        """Build it from YAML.

        Raises:
            ConfigurationError: A key is unknown or a value has the wrong type; the message names it.
        """
        return built(cls, values, "training.config")

    def changed(self, sample: Mapping[str, object]) -> "StrictConfiguration":
        """The same with a sample of a search space, whose keys and types are checked as those of YAML are."""
        return self.checked({**self.model_dump(), **sample})
