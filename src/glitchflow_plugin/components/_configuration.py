"""`training.config` as itwinai takes it, with every key checked."""

from collections.abc import Mapping

from itwinai.torch.config import TrainingConfiguration as ItwinaiConfiguration
from pydantic import ConfigDict, ValidationError

from glitchflow_plugin.errors import ConfigurationError, nearest
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
            ConfigurationError: A key is unknown or a value has the wrong type; the message lists them.
        """
        try:
            return cls.model_validate(dict(values or {}))
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            unknown = [item["loc"][-1] for item in error.errors() if item["type"] == "extra_forbidden"]
            near = nearest(unknown[0], cls.model_fields) if unknown else ""
            message = f"training.config: {found}.{near} Keys it takes: {', '.join(sorted(cls.model_fields))}."
            raise ConfigurationError(message) from error
