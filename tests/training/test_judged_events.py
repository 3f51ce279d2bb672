"""Twins whose doing is known, on a set of whitened series with an unlisted copy of the strain among its channels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.training.energy import EnergyLearner
from glitchflow_plugin.training.gate import GateSettings
from glitchflow_plugin.training.judged_events import Gate, gate_notes
from glitchflow_plugin.training.seen import contents
from glitchflow_plugin.training.waveform import WaveformLearner

RATE, SIZE, DELAY = 1024.0, 3072, 37
WITNESSES = ("WITNESS_1", "WITNESS_2")
SPLIT = {"block_length": 100.0, "train": 0.1, "validation": 0.2, "gate": 0.6, "test": 0.1}
SETTINGS = GateSettings(min_groups=20, replicates=500)


@pytest.fixture
def made(make_event_set, tmp_path):
    """Maps and series of 50 events: the first witness foretells the strain's bursts, the second is a copy of it."""
    generator = np.random.default_rng(0)
    series = generator.standard_normal((50, 3, SIZE)).astype(np.float32)
    for event in range(len(series)):
        if event % 2:
            start = 1400 + int(generator.integers(0, 200))
            burst = 10 * generator.standard_normal(60)
            series[event, 1, start : start + 60] += burst
            series[event, 0, start + 8 : start + 68] += burst / 2
    series[:, 2] = 0.7 * np.roll(series[:, 0], DELAY, axis=-1) + 0.7 * series[:, 2]
    recipe = {"sample_rate": RATE, "duration": SIZE / RATE}
    events = make_event_set(series, recipe=recipe)
    transform = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=128)
    maps = make_spectrograms(events, WITNESSES, transform, tmp_path / "maps", device="cpu")
    folder = str(tmp_path / "training")
    split = Splitter(SPLIT, str(maps.folder), folder).execute(maps)
    return Processor({}, str(maps.folder), folder).execute(split), events


class Known(nn.Module):
    """A network of whitened series that does what it is told, and holds a number, as networks do."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule
        self.register_buffer("number", torch.zeros(1))

    def forward(self, witnesses):
        return self.rule(witnesses)


def guide(witnesses, gain=0.5):
    """The strain's bursts: where the first witness is loud, half of it, 8 samples later."""
    loud = nn.functional.max_pool1d(witnesses[:, :1].abs(), 61, stride=1, padding=30) > 12
    return gain * torch.roll(witnesses[:, :1] * loud, 8, dims=-1)


def tone(witnesses, frequency, amplitude=0.3):
    times = torch.arange(witnesses.shape[-1]) / RATE
    return guide(witnesses) + amplitude * torch.sin(2 * torch.pi * frequency * times)


def beside(witnesses):
    """Right, and with each burst it removes it adds one of less power at 450 Hz."""
    right = guide(witnesses)
    times = torch.arange(witnesses.shape[-1]) / RATE
    size = 0.8 * right.norm(dim=-1, keepdim=True) * (2 / witnesses.shape[-1]) ** 0.5
    return right + size * torch.sin(2 * torch.pi * 450 * times)


def sometimes(witnesses):
    """Right in nine events of ten: about every tenth has its sign turned, and is loud."""
    turned = (witnesses[:, :1].sum(dim=-1, keepdim=True) * 1000).long() % 10 == 0
    return torch.where(turned, -3 * guide(witnesses), guide(witnesses))


RULES = {
    "honest": (guide, ""),
    "sign turned": (lambda x: -guide(x), "raises the power of event"),
    "doubled": (lambda x: guide(x, 1.5), "raises the power of event"),
    "tone at 3 Hz": (lambda x: tone(x, 3.0), "between 2 and 4 Hz"),
    "tone at 500 Hz": (lambda x: tone(x, 500.0), "between 256 and 512 Hz"),
    "tone in the band": (lambda x: tone(x, 100.0), "between 64 and 128 Hz"),
    "beside the burst": (beside, "raises the power of event"),
    "sometimes": (sometimes, "raises the power of event"),
    "copy": (lambda x: guide(x) + 0.5 * torch.roll(x[:, 1:], -DELAY, dims=-1), "SNR of an injected merger"),
    "late copy": (lambda x: guide(x) + 0.3 * torch.roll(x[:, 1:], 100, dims=-1), "SNR of an injected merger"),
    "faint copy": (lambda x: guide(x) + 0.15 * torch.roll(x[:, 1:], -DELAY, dims=-1), "SNR of an injected merger"),
}


def bundle_of(training_set, twin, name="wiener", **changes):
    maps = training_set.open_spectrograms()
    given = {
        "twin": twin,
        "target": maps.target,
        "witnesses": WITNESSES,
        "recipe": maps.recipe,
        "window_size": training_set.settings.size,
        "frequencies": tuple(maps.frequencies.tolist()),
        "times": tuple(maps.times.tolist()),
        "scaling": training_set.scaling,
        "metrics": {},
        "versions": {},
        "dataset": "abc",
        "model": {"name": name},
        "notes": dict(gate_notes(training_set)),
    }
    return ModelBundle(**{**given, **changes})


def gate(made, rule, settings=SETTINGS):
    training_set, events = made
    learner = WaveformLearner(training_set, events, {"name": "wiener"})
    bundle = bundle_of(training_set, WaveformTwin(Known(rule)))
    return Gate(training_set, events, learner.event_losses, bundle, settings, torch.device("cpu"))


def test_the_honest_twin_passes_and_every_other_is_refused(made):
    for name, (rule, why) in RULES.items():
        verdict = gate(made, rule).decide()
        assert verdict.promoted == (not why), (name, verdict.reason)
        if name == "honest":
            # it takes nothing in quiet events, and of glitches what hides a merger across them
            assert verdict.figures["signal_snr_change"] < 1e-3
            assert verdict.figures["signal_error_after"] < 0.5 * verdict.figures["signal_error_before"]
        assert why in verdict.reason, name


def test_a_copy_passes_only_by_its_name(made):
    rule, _ = RULES["faint copy"]
    assert gate(made, rule).decide().figures["signal_lost_worst"] > 0.05
    named = replace(SETTINGS, safe_override=["WITNESS_2"])
    assert gate(made, rule, named).decide().figures["signal_lost_worst"] < 1e-3


def test_a_champion_is_compared_with_on_what_neither_has_seen(made):
    split = made[0].split
    weak = gate(made, lambda x: guide(x, 0.1)).challenger
    better = gate(made, guide)
    verdict = better.decide(weak)
    assert verdict.promoted, verdict.reason
    assert verdict.figures["compared_events"] == len(split.gate) == 30
    assert verdict.figures["champion_gate_loss"] > verdict.figures["gate_loss"]
    assert not gate(made, lambda x: guide(x, 0.1)).decide(better.challenger).promoted

    # the champion has seen some of these events, under other names and at other times
    seen = weak.notes["seen_events"]
    spans = [[float(split.gate.gps_start[row]), float(split.gate.gps_stop[row])] for row in range(6)]
    verdict = better.decide(replace(weak, notes={"seen_events": {**seen, "gps": [*seen["gps"], *spans]}}))
    assert verdict.figures["compared_events"] == 24
    copies = contents(made[0].open_spectrograms(), list(split.gate.event_ids)[:8])
    verdict = better.decide(replace(weak, notes={"seen_events": {**seen, "contents": copies}}))
    assert verdict.figures["compared_events"] == 22
    # of an earlier version one knows from when to when its data were, or nothing
    whole = [float(split.gate.gps_start[0]), float(split.gate.gps_stop[-1])]
    verdict = better.decide(replace(weak, notes={"training_events": [], "gps": whole}))
    assert not verdict.promoted
    assert "none in the gate's part which neither has seen" in verdict.reason
    verdict = better.decide(replace(weak, notes={"training_events": [], "gps": [0.0, 1.0]}))
    assert verdict.promoted
    assert "copies at other times are not found" in verdict.reason
    verdict = better.decide(replace(weak, notes={"training_events": []}))
    assert not verdict.promoted
    assert "does not say which events it has seen" in verdict.reason


def test_a_version_that_its_linear_filter_beats_is_refused(made):
    weak = gate(made, lambda x: guide(x, 0.1))
    for gain, promoted in ((0.5, False), (0.1, True), (0.0, True)):
        rival = WaveformTwin(Known(lambda x, gain=gain: guide(x, gain)))
        verdict = replace(weak, challenger=replace(weak.challenger, baseline=rival)).decide()
        assert verdict.promoted == promoted, verdict.reason
        assert verdict.figures["linear_compared_events"] == verdict.figures["gate_events"]
        assert ("not shown to be no more than that of its linear filter" in verdict.reason) != promoted
    # judged as inference would use the filter itself
    itself = gate(made, lambda x: guide(x, 0.5)).decide()
    strong = WaveformTwin(Known(guide))
    verdict = replace(weak, challenger=replace(weak.challenger, baseline=strong)).decide()
    assert verdict.figures["linear_gate_loss"] == pytest.approx(itself.figures["gate_loss"])


class Energies(nn.Module):
    """A rule of energies as an `EnergyTwin` that scales nothing."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule
        self.register_buffer("number", torch.zeros(1))

    def forward(self, witnesses):
        return self.rule(witnesses)


def test_twins_of_energies_are_judged_by_series_and_maps(made):
    training_set, events = made
    learner = EnergyLearner(training_set, {"name": "unet"})

    def verdict(rule, series=events, **changes):
        bundle = bundle_of(training_set, Energies(rule), "unet")
        settings = replace(SETTINGS, **changes)
        return Gate(training_set, series, learner.event_losses, bundle, settings, torch.device("cpu")).decide()

    def loud(energies):
        return energies * (energies > 12)

    def guided(x):
        # the mean of noise, and what the first witness foretells
        return (0.15 * loud(x[:, :1])).clamp(min=1.0)

    honest = verdict(guided)
    assert honest.promoted, honest.reason
    assert honest.figures["signal_lost_worst"] < 0.05
    copy = verdict(lambda x: guided(x) + loud(x[:, 1:]))
    assert not copy.promoted
    assert "SNR of an injected merger" in copy.reason
    # what noise holds can be predicted by nobody's witness
    constant = verdict(lambda x: torch.full_like(x[:, :1], 1.0))
    assert not constant.promoted
    assert "is not less by more than the noise than that of a trivial prediction" in constant.reason
    untested = verdict(guided, series=None)
    assert not untested.promoted
    assert "could not be tested" in untested.reason
    assert verdict(guided, series=None, injections=0).promoted
    assert verdict(guided, injections=40).promoted  # more than there are quiet events
