"""How each channel of an event set is conditioned: as the settings ask for it, and as the set keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from glitchflow_plugin.data.readers.psd import read_psd
from glitchflow_plugin.data.recipe import said
from glitchflow_plugin.data.sources import Catalogue, ChannelOrigin
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.conditioning import USUAL_JITTER, ConditioningSettings
from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.signal.slow import SlowScale
from glitchflow_plugin.signal.whitening import WhiteningSettings

_PSD_SPACING = 0.25
"""Grid on which given spectra are kept in the recipe, Hz."""
SLOW = "slow"
"""Key of a channel's recipe."""


@dataclass(frozen=True, eq=False)
class ChannelRecipe:
    """Everything that decides the samples of one channel.

    Attributes:
        name: Name of the channel.
        settings: What is done to it.
        unit: Unit of the recording, if known.
        sample_rate: Rate of the recording, Hz, if known.
        psd: Density of its noise, where it is given.
        slow: Unit of its motion below the band, where that is kept.
    """

    name: str
    settings: ConditioningSettings
    unit: str | None = None
    sample_rate: float | None = None
    psd: Psd | None = None
    slow: SlowScale | None = None


def channel_recipes(
    catalogue: Catalogue, whitening: WhiteningSettings, psd_files: Mapping[str, str], quantity: Literal["psd", "asd"]
) -> list[ChannelRecipe]:
    """How the channels of a catalogue are conditioned, in its order.

    Args:
        catalogue: What there is, with the settings of each data set.
        whitening: The same for all channels.
        psd_files: File of a given spectrum, by channel.
        quantity: What these files hold.

    Raises:
        ConfigurationError: A spectrum is of a channel that is not used, or does not span its band.
    """
    unknown = sorted(set(psd_files) - set(catalogue.channels))
    if unknown:
        raise ConfigurationError(f"whiten.psd names channels that are not used: {unknown}")
    common = catalogue.processing
    psds = {
        name: _given_psd(name, path, quantity, catalogue.channels[name], common.sr) for name, path in psd_files.items()
    }
    recipes = []
    for name, origin in catalogue.channels.items():
        conditioning = ConditioningSettings(
            low=origin.processing.minf,
            high=origin.processing.maxf,
            sample_rate=common.sr,
            duration=common.len,
            whiten=common.whiten,
            whitening=whitening,
            crop_jitter=USUAL_JITTER if common.crop_jitter is None else common.crop_jitter,
            crop_seed=common.crop_seed,
        )
        recipes.append(ChannelRecipe(name, conditioning, origin.unit, origin.sample_rate, psds.get(name)))
    return recipes


def as_recipe(target: str, channels: Sequence[ChannelRecipe]) -> dict[str, Any]:
    """The recipe as it is stored with the event set and with the model (JSON types only)."""
    first = channels[0].settings
    return {
        "target": target,
        "sample_rate": first.sample_rate,
        "duration": first.duration,
        "whiten": first.whiten,
        "whitening": asdict(first.whitening),
        "order": first.order,
        "flat_length": first.flat_length,
        "crop_jitter": first.crop_jitter,
        "crop_seed": first.crop_seed,
        "channels": {one.name: _channel_entry(one) for one in channels},
    }


def _channel_entry(channel: ChannelRecipe) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "minf": channel.settings.low,
        "maxf": channel.settings.high,
        "unit": channel.unit,
        "recorded_sample_rate": channel.sample_rate,
    }
    if channel.psd is not None:
        entry["psd"] = {"spacing": channel.psd.spacing, "values": channel.psd.values.tolist()}
    if channel.slow is not None:
        entry[SLOW] = asdict(channel.slow)
    return entry


def channel_recipe(name: str, recipe: Mapping[str, Any]) -> ChannelRecipe:
    """How a channel is conditioned, from the recipe of an event set (the inverse of `as_recipe`).

    Raises:
        FormatError: The recipe does not say it, or is of a later version of this program.
    """
    recipe = said(recipe, "events")
    try:
        entry = recipe["channels"][name]
        settings = ConditioningSettings(
            low=entry["minf"],
            high=entry["maxf"],
            sample_rate=recipe["sample_rate"],
            duration=recipe["duration"],
            whiten=recipe["whiten"],
            whitening=WhiteningSettings(**recipe["whitening"]),
            order=recipe["order"],
            flat_length=recipe["flat_length"],
            crop_jitter=recipe["crop_jitter"],
            crop_seed=recipe["crop_seed"],
        )
        psd = entry.get("psd")
        given = None if psd is None else Psd(np.asarray(psd["values"], dtype=np.float64), float(psd["spacing"]))
        slow = SlowScale(**entry[SLOW]) if entry.get(SLOW) is not None else None
    except (KeyError, TypeError, ConfigurationError) as error:
        raise FormatError(
            f"the recipe does not say how {name} is conditioned as this version knows it ({error}). Make it again."
        ) from error
    # The rate may differ from training's (strain at 4096 or 16384 Hz); within the new data it must not vary.
    return ChannelRecipe(name, settings, entry.get("unit"), None, given, slow)


def slow_channels(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    """Channels of an event set, by its recipe, whose motion below the band is kept."""
    return tuple(name for name, entry in (recipe.get("channels") or {}).items() if entry.get(SLOW) is not None)


def whitening_of(
    content: WhiteningSettings | Mapping[str, object] | None,
) -> tuple[WhiteningSettings, dict[str, str], Literal["psd", "asd"]]:
    """What whiten.yaml asks for: settings, file of a spectrum by channel, and what these files hold.

    Raises:
        ConfigurationError: A key is unknown or a value makes no sense.
    """
    if content is None or isinstance(content, WhiteningSettings):
        return content or WhiteningSettings(), {}, "psd"
    values: dict[str, Any] = dict(content)
    files, quantity = values.pop("psd", None) or {}, values.pop("psd_quantity", "psd")
    if not isinstance(files, Mapping):
        raise ConfigurationError(
            f'whiten.psd: expected a file for each channel, as in {{"V1:Hrec_hoft": noise.txt}}, got {files!r}.'
        )
    return built(WhiteningSettings, values, "whiten"), dict(files), quantity


def _given_psd(name: str, path: str, quantity: Literal["psd", "asd"], origin: ChannelOrigin, sample_rate: float) -> Psd:
    """A spectrum from a file, on an even grid. It must span the band: nobody knows it beyond its ends."""
    frequencies, values = read_psd(path, quantity, name)
    low = origin.processing.minf
    # A slow channel has no spectrum above its own Nyquist frequency.
    high = min(origin.processing.maxf, sample_rate / 2, (origin.sample_rate or np.inf) / 2)
    if frequencies[0] > low or frequencies[-1] < high:
        raise ConfigurationError(
            f"whiten.psd: the spectrum of {name} reaches from {frequencies[0]:g} to {frequencies[-1]:g} Hz and must "
            f"span the band, {low:g} to {high:g} Hz. Give a longer one than {path}, or narrow processing.minf and maxf."
        )
    grid = np.arange(0, sample_rate / 2 + _PSD_SPACING, _PSD_SPACING)
    return Psd(np.interp(grid, frequencies, values), _PSD_SPACING)
