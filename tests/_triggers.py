"""Sets of triggers for tests, made from a seed."""

import torch

from glitchflow_plugin.training.alone import teach_alone
from glitchflow_plugin.training.processes import OneProcess
from glitchflow_plugin.training.triggers.held import HeldRows
from glitchflow_plugin.training.triggers.learn import Lesson
from glitchflow_plugin.training.triggers.learner import set_batches
from glitchflow_plugin.types.triggers import POINT_FEATURES, TriggerLabels, TriggerSets

CHANNELS, GLOBALS, KINDS = 6, 3, 3


def random_sets(counts, *, padding=0, seed=0):
    """One set with each of these numbers of triggers."""
    generator = torch.Generator().manual_seed(seed)
    width = max(counts) + padding
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    points = torch.randn(len(counts), width, len(POINT_FEATURES), generator=generator)
    channels = torch.randint(0, CHANNELS, (len(counts), width), generator=generator)
    globals_ = torch.randn(len(counts), GLOBALS, generator=generator)
    valid = torch.rand(len(counts), GLOBALS, generator=generator) < 0.8
    return TriggerSets(points, channels, mask, globals_, valid)


def coupled_sets(number, *, seed=0, rate=4.0):
    """Sets where a loud trigger of channel 1 or 2 near the anchor is a glitch of class 1 or 2, and chance triggers.

    The SNR in the strain is that of the trigger; half of the sets hold a glitch.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((number,), rate), generator=generator).long().clamp(max=15)
    sets = random_sets([15, *counts.tolist()], seed=seed)[1:]
    glitch = torch.rand(number, generator=generator) < 0.5
    kind = torch.randint(1, KINDS, (number,), generator=generator)
    snr = 1.0 + torch.rand(number, generator=generator)
    sets.points[:, :, 2] = sets.points[:, :, 2].abs() * 0.3
    sets.points[glitch, 0, 2], sets.points[glitch, 0, 0] = snr[glitch] + 1.0, 0.0
    sets.channels[glitch, 0] = kind[glitch]
    sets.mask[glitch, 0] = True
    log1p = torch.where(glitch, snr, torch.nan)
    kinds = torch.where(glitch, kind, -1)
    unknown = torch.full((number,), -1)
    return sets, TriggerLabels(glitch.float(), kinds, log1p, unknown, torch.ones(number))


def coupled(number, seed=0):
    """The same in memory with their labels."""
    return HeldRows(*coupled_sets(number, seed=seed))


class Quiet:
    """A tracker that keeps the numbers alone, by name."""

    def __init__(self):
        self.numbers = {}

    def metric(self, name, value, step):
        del step
        self.numbers.setdefault(name, []).append(value)

    def figure(self, *_): ...

    def params(self, *_): ...

    def text(self, *_): ...


def learn(learner, validation, config, *, epochs, checkpoints, tracker, device="cpu"):
    """Teach a network of triggers by the loop, in this process."""
    batches = set_batches(learner.training, validation, config, seed=0, processes=OneProcess())
    network, taken = teach_alone(
        learner, batches, config, epochs=epochs, checkpoints=checkpoints, tracker=tracker, device=device
    )
    return Lesson(network, taken, 1.0)


def teaching(folder, config, epochs=2):
    """How a contest teaches networks in a test: by the loop, in this process."""

    def teach(name, learner, own, validation):
        given = config.model_copy(update=own)
        return learn(learner, validation, given, epochs=epochs, checkpoints=folder / name, tracker=Quiet())

    return teach
