"""Whether an event set is whitened as a step expects."""

from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import ConfigurationError


def check_whitening(events: EventSet, whiten: bool | None, group: str) -> None:
    """Compare the key `whiten` of scan.yaml or process.yaml with what Data-processor did.

    Raises:
        ConfigurationError: They differ; whitening needs the margins that only Data-processor sees.
    """
    if whiten is None:
        return
    if not isinstance(whiten, bool):
        raise ConfigurationError(f"{group}.yaml: whiten must be true, false or null without quotes, got {whiten!r}.")
    is_whitened = events.manifest.units == "whitened"
    if is_whitened != whiten:
        raise ConfigurationError(
            f"{group}.yaml asks for whiten: {str(whiten).lower()}, but the series of {events.folder} are "
            f"{'whitened' if is_whitened else 'not whitened'}. Run Data-processor with `whiten` in datasets.yaml set "
            f"that way, or set whiten: null in {group}.yaml to take the event set as it is."
        )
