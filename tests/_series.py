"""Irregular series for tests, made from a seed."""

import torch

from glitchflow_plugin.types.series import SeriesSets
from glitchflow_plugin.types.triggers import TriggerLabels

CHANNELS = 3


def random_series(counts, *, padding=0, seed=0):
    """One series with each of these numbers of samples; channels have a level in common and sines of their own."""
    generator = torch.Generator().manual_seed(seed)
    width, rows = max(counts) + padding, len(counts)
    times = torch.rand(rows, width, generator=generator) * 20 - 10
    channels = torch.randint(0, CHANNELS, (rows, width), generator=generator)
    phase = torch.rand(rows, 1, generator=generator) * 6.28
    level = torch.randn(rows, 1, generator=generator)
    values = (channels + 1) * (5.0 + level + 0.3 * torch.sin(times / 2 + phase))
    uncertainties = 0.1 + torch.rand(rows, width, generator=generator)
    weights = 0.5 + torch.rand(rows, width, generator=generator)
    return SeriesSets(
        times, channels, values, uncertainties, weights, torch.arange(width) < torch.tensor(counts)[:, None]
    )


def labelled_series(number, seed=0):
    """Series of which those with a glitch have a rise in channel 1 about the anchor."""
    series = random_series([40] * number, seed=seed)
    glitch = torch.rand(number, generator=torch.Generator().manual_seed(seed + 1)) < 0.5
    risen = glitch[:, None] & (series.channels == 1) & (series.times.abs() < 3)
    unknown, nan = torch.full((number,), -1), torch.full((number,), torch.nan)
    labels = TriggerLabels(glitch.float(), unknown, nan, unknown, torch.ones(number))
    return SeriesSets(
        series.times, series.channels, series.values + 4.0 * risen, series.uncertainties, series.weights, series.mask
    ), labels
