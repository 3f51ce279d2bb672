"""The loop from series to verdicts: a witness that changes is left out, and nothing else is."""

import json
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.inference._reference import measure_reference

import glitchflow_plugin.components.trainer as trainer_module
from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.retrain import Retrain
from glitchflow_plugin.data.files import read_json
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.inference.closed_loop import (
    NOTE,
    WHOLE,
    close_loop,
    gain_table,
    loop_details,
    measure_gains,
    reference_of,
)
from glitchflow_plugin.inference.report import run_warnings
from glitchflow_plugin.inference.residual import NOTE as RESIDUAL
from glitchflow_plugin.inference.run import InferenceSettings, run_inference
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.models.wiener import WienerFilter
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.products.summary import EventCounts
from glitchflow_plugin.signal.drift import DriftReport, ExceedanceCount
from glitchflow_plugin.signal.gain_watch import WatchSettings, watch_gains
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.signal.residual_watch import ResidualSettings
from glitchflow_plugin.signal.slow import SHARE
from glitchflow_plugin.tracking.versions import ModelVersion
from glitchflow_plugin.training.residual import events_left, watch_residual
from glitchflow_plugin.training.retraining import Finding, decide, pinned
from glitchflow_plugin.training.signals import whitened_mergers
from glitchflow_plugin.training.slow_start import Context, set_context

TRANSFORM = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=64)
WITNESSES = ("WITNESS_1", "WITNESS_2")
SETTINGS = InferenceSettings(batch_events=7, replicates=0)
QUIET = np.random.default_rng(1).standard_normal((8, 3, 1024)).astype(np.float32)


def coupled_series(num_events, seed, *, reversed_from=10**9, num_samples=1024):
    """The strain follows each witness at half its amplitude; witness 1 has a glitch in each event, 2 in every third."""
    generator = np.random.default_rng(seed)
    series = generator.standard_normal((num_events, 3, num_samples)).astype(np.float32)
    for event in range(num_events):
        for witness in (1, 2) if event % 3 == 0 else (1,):
            start = int(generator.integers(300, 650))
            burst = 12 * generator.standard_normal(40)
            series[event, witness, start : start + 40] += burst
            series[event, 0, start : start + 40] += 0.5 * burst * (-1 if witness == 1 and event >= reversed_from else 1)
    return series


@pytest.fixture
def twin():
    network = WienerFilter(2, filter_size=3)
    with torch.no_grad():
        network.filters[:, 1] = 0.4
    return WaveformTwin(network).eval()


@pytest.fixture
def make_case(make_event_set, twin, tmp_path):
    def make(series, valid=None, **more):
        events = make_event_set(series, valid, recipe={"sample_rate": 1024.0, "duration": 1.0}, **more)
        maps = make_spectrograms(events, WITNESSES, TRANSFORM, tmp_path / f"maps of {events.folder.name}", device="cpu")
        before = torch.from_numpy(coupled_series(30, 1))
        reference = measure_reference(twin, WITNESSES, [(before[:, 1:], before[:, :1])], np.arange(30), 1024.0)
        bundle = ModelBundle(
            twin=twin,
            target="STRAIN",
            witnesses=WITNESSES,
            recipe=maps.recipe,
            window_size=64,
            frequencies=tuple(maps.frequencies),
            times=tuple(maps.times),
            model={"name": "wiener"},
            notes={NOTE: reference.to_dict()},
        )
        return bundle, maps, events

    return make


def infer(case, folder, settings=SETTINGS):
    bundle, maps, events = case
    return run_inference(bundle, maps, folder, settings, events=events, progress=False)


def test_a_reversed_witness_is_left_out_and_glitches_no_longer_grow(make_case, tmp_path):
    case = make_case(coupled_series(30, 2, reversed_from=12))
    result, without = (
        infer(case, tmp_path / name, replace(SETTINGS, closed_loop=WatchSettings(enabled=enabled)))
        for name, enabled in (("with", True), ("without", False))
    )
    assert without.loop is None
    assert "witnesses_stopped" not in without.events
    stopped = (result.events["witnesses_stopped"] == "WITNESS_1:gain_low").to_numpy()
    first = int(stopped.argmax())
    assert 12 + 4 <= first <= 12 + 10
    assert stopped[first:].all()
    assert not stopped[:first].any()
    assert (result.events["witnesses_stopped"][:first] == "").all()
    assert result.events["reasons"].str.contains("witness stopped").tolist() == stopped.tolist()
    loudest, needless = (each.events["peak_snr2_predicted"].to_numpy(float) for each in (result, without))
    alone = np.arange(30) % 3 > 0  # where the other witness is silent
    assert (needless[first:][alone[first:]] > 16).all()
    assert loudest[first:][alone[first:]].max() < 16
    assert (loudest[first:][~alone[first:]] > 16).all()
    # events before it are those of the run without the loop
    columns = ["peak_snr2_predicted", "peak_snr2_cleaned"]
    assert result.events[columns][:first].equals(without.events[columns][:first])
    assert result.events["witnesses_missing"].sum() == 0
    assert any("WITNESS_1 was stopped after GPS" in said for said in run_warnings(result))
    table, details = gain_table(result.loop, result.maps), loop_details(result.loop, result.maps)
    assert details["WITNESS_1"]["now"]["high"] < 0 < details["WITNESS_1"]["training"]["low"]
    assert details["WITNESS_2"]["stopped"] is None
    assert details["WITNESS_2"]["glitches"] == 10 == (table["witness"] == "WITNESS_2").sum()
    assert table["gps_event"].is_monotonic_increasing


def test_the_verdict_is_the_same_for_any_batch_and_after_another_run(make_case, tmp_path):
    case = make_case(coupled_series(20, 3, reversed_from=4))
    first, again = infer(case, tmp_path / "one"), infer(case, tmp_path / "one")
    small = replace(SETTINGS, batch_events=3)
    other = infer(case, tmp_path / "two", small)
    assert first.loop is not None
    assert first.events["witnesses_stopped"].tolist() == other.events["witnesses_stopped"].tolist()
    assert (first.events["witnesses_stopped"] != "").any()
    assert first.events.equals(again.events)
    np.testing.assert_allclose(first.maps.read().maps, other.maps.read().maps, rtol=1e-3, atol=1e-3)
    # what was made with another mask is not taken for finished
    infer((replace(case[0], notes={}), *case[1:]), tmp_path / "one")
    np.testing.assert_allclose(infer(case, tmp_path / "one").maps.read().maps, other.maps.read().maps, atol=1e-3)


@pytest.mark.parametrize("reversed_from", [10**9, 8])
def test_what_was_measured_of_an_event_is_read_and_predicted_once(make_case, tmp_path, monkeypatch, reversed_from):
    case = make_case(coupled_series(21, 3, reversed_from=reversed_from))
    reads, read = [], EventSet.read
    monkeypatch.setattr(EventSet, "read", lambda *given: reads.append(given) or read(*given))
    result = infer(case, tmp_path / "one")
    stopped = (result.events["witnesses_stopped"] != "").to_numpy().reshape(3, 7).any(axis=1)
    assert len(reads) == 3 + stopped.sum()  # once more where a witness was stopped meanwhile
    assert stopped.any() == (reversed_from < 21)
    bundle, maps, events = case
    wanted = close_loop(bundle, maps, events, SETTINGS.closed_loop)
    np.testing.assert_allclose(result.loop.watch.evidence, wanted.watch.evidence, rtol=1e-5, atol=1e-6)
    assert result.loop.codes() == wanted.codes()
    assert result.loop.watch.since == wanted.watch.since


def test_events_are_judged_in_order_of_time_whatever_their_order_in_the_set(make_case, tmp_path):
    series, order = coupled_series(20, 3, reversed_from=4), np.random.default_rng(0).permutation(20)
    starts = 1_200_000_000.5 + 100.0 * np.arange(20)
    sorted_codes = infer(make_case(series), tmp_path / "sorted").loop.codes()
    mixed = infer(make_case(series[order], name="mixed", starts=starts[order]), tmp_path / "other")
    assert [mixed.loop.codes()[row] for row in np.argsort(order)] == sorted_codes
    assert any(sorted_codes)
    assert (mixed.events["witnesses_stopped"] != "").tolist() == [code != "" for code in mixed.loop.codes()]


def test_a_missing_witness_says_nothing(make_case):
    valid = np.ones((20, 3), bool)
    valid[1::4, 1] = False
    bundle, maps, events = make_case(coupled_series(20, 4), valid)
    loop = close_loop(bundle, maps, events, WatchSettings())
    assert loop is not None
    assert loop.watch.counted[:, 0].tolist() == valid[:, 1].tolist()
    assert loop.stopped == []


def test_an_event_without_strain_says_nothing(twin):
    series = torch.from_numpy(coupled_series(4, 4))
    series[1, 0] = 0
    found = measure_gains(twin, [(series[:, 1:], series[:, :1])], 1024.0, WatchSettings())
    assert (found.power[[0, 2, 3], 0] > 100).all()
    assert found.power[1].max() == 0


def test_mergers_in_every_event_stop_nothing(twin):
    """At the time of the glitches, of SNR 8 to 30; before the same events with one witness reversed."""
    usual, series = (torch.from_numpy(coupled_series(60, seed)) for seed in (8, 9))
    series[:, 0] += torch.from_numpy(np.roll(whitened_mergers(60, 1024, 1024.0), -250, axis=-1)).float()
    settings, spans = WatchSettings(), np.arange(60)[:, None] * 10.0 + np.array([0.0, 1.0])
    reference = measure_reference(twin, WITNESSES, [(usual[:, 1:], usual[:, :1])], np.arange(60), 1024.0)
    gains = measure_gains(twin, [(series[:, 1:], series[:, :1])], 1024.0, settings)
    watch = watch_gains(gains, spans, reference, settings)
    assert watch.counted.sum() > 75
    assert not watch.stopped.any()
    assert watch.evidence.max() < 1
    series[:, 1] *= -1
    gains = measure_gains(twin, [(series[:, 1:], series[:, :1])], 1024.0, settings)
    assert watch_gains(gains, spans, reference, settings).reason == ("gain_low", "")


def swinging(num_events, seed):
    """A burst in the first channel whose sign in the strain is the direction in which the second one swings, 0.6 Hz."""
    generator, time = np.random.default_rng(seed), np.arange(2048) / 1024.0
    spectra = np.fft.rfft(generator.standard_normal((num_events, 3, 2048)))
    spectra[..., : round(8.0 * 2)] = 0  # as whitening leaves it
    series = np.fft.irfft(spectra, n=2048)
    phase = 2 * np.pi * generator.uniform(size=(num_events, 2, 1))
    angle = 2 * np.pi * 0.6 * time + phase[:, 0]
    burst = 8 * np.exp(-(((time - 1.0) / 0.1) ** 2)) * np.sin(2 * np.pi * 60.0 * time + phase[:, 1])
    series[:, 0] += burst * np.tanh(3 * np.cos(angle))
    series[:, 1] += burst
    series[:, 2] += SHARE * np.sin(angle)
    return torch.from_numpy(series).float()


def test_a_sign_that_follows_slow_motion_is_ordinary_until_the_slow_channel_is_turned():
    """So it is with scattered light: the twin that knows the direction is right of either, and the other way round."""
    torch.manual_seed(0)
    network = CouplingNet(2, features=4, filter_size=65, slow_context=True)
    set_context(network, [1], [Context(0, 1, None)], 1024.0)
    with torch.no_grad():
        network.filters.zero_()
        network.filters[0, -1, 32] = 5.0
    twin, settings = WaveformTwin(network).eval(), WatchSettings()
    spans = np.arange(30)[:, None] * 10.0 + np.array([0.0, 2.0])

    def gains(series):
        return measure_gains(twin, [(series[:, 1:], series[:, :1])], 1024.0, settings)

    usual, later = swinging(30, 1), swinging(30, 2)
    reference = reference_of(WITNESSES, gains(usual), np.arange(30), settings)
    assert reference.gain[0] == pytest.approx(1.0, abs=0.2)
    assert reference.gain[1] is None  # it shapes what another one foretells, and foretells nothing itself
    assert not watch_gains(gains(later), spans, reference, settings).stopped.any()
    turned = later.clone()
    turned[:, 2] *= -1
    watch = watch_gains(gains(turned), spans, reference, settings)
    assert watch.reason == ("gain_low", "")
    assert 4 <= watch.counted[: watch.since[0] + 1, 0].sum() <= 8


def test_a_network_that_is_no_sum_is_stopped_as_a_whole(make_case, tmp_path):
    class Whole(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, witnesses):
            return self.network(witnesses) + 0.01

    bundle, maps, events = make_case(coupled_series(24, 5, reversed_from=2))
    before = torch.from_numpy(coupled_series(30, 6))
    whole = WaveformTwin(Whole(bundle.twin.network))
    reference = measure_reference(whole, WITNESSES, [(before[:, 1:], before[:, :1])], np.arange(30), 1024.0)
    assert reference.parts == (WHOLE,)
    result = infer((replace(bundle, twin=whole, notes={NOTE: reference.to_dict()}), maps, events), tmp_path / "out")
    stopped = (result.events["witnesses_stopped"] == f"{WHOLE}:gain_low").to_numpy()
    assert stopped[16:].all()
    assert result.events["peak_snr2_predicted"].to_numpy(float)[stopped].max() == 0


def retraining_step(folder, settings=None, **arguments):
    registry = {"name": "twin", "tracking_uri": "sqlite:///none.db", "gate": {"min_groups": 5}}
    given = {"split": {}, "windows": {}, "trainer": {}, "device": "cpu", **arguments}
    step = Retrain(settings or {"buffer": "none"}, registry, str(folder / "retrain"), **given)
    step.cycle.mkdir(parents=True, exist_ok=True)
    return step


def test_retraining_finds_the_change_in_its_buffer_and_names_it(make_case, tmp_path):
    bundle, maps, events = make_case(coupled_series(24, 10, reversed_from=6))
    step = retraining_step(tmp_path)
    pinned(step.cycle).symlink_to(events.folder)
    loop = step.look.coupling(bundle, maps)
    champion = ModelVersion("twin", 1, "sqlite:///none.db", "run")
    finding = Finding(
        champion, decide(DriftReport((), 24), loop.stopped), EventCounts(24, 24), coupling=loop_details(loop, maps)
    )
    status = json.loads(json.dumps(finding.to_status(), allow_nan=False))
    assert (status["decision"], status["reason"]) == ("train", "coupling changed: WITNESS_1 (gain_low)")
    assert status["coupling"]["WITNESS_1"]["now"]["value"] < -0.8
    assert status["coupling"]["WITNESS_2"]["stopped"] is None


@pytest.fixture
def a_champion(make_case, tmp_path):
    """With what it left of 40 validation events and its witnesses' statistics, and the classes of all events."""
    bundle, maps, events = make_case(np.concatenate([coupled_series(40, 11), QUIET]))
    step = retraining_step(tmp_path)
    pinned(step.cycle).symlink_to(events.folder)
    pairs = [(name, ("both", "one", "one")[row % 3]) for row, name in enumerate(events.event_ids[:40])]
    (tmp_path / "labels.csv").write_text("event_id,label\n" + "".join(f"{name},{label}\n" for name, label in pairs))
    left = events_left(bundle, maps, step.look.coupling(bundle, maps), 100.0)
    seen = ExceedanceCount(WITNESSES)
    for batch in maps.batches(16, channels=list(WITNESSES)):
        seen.add(batch.maps, batch.valid)
    notes = {RESIDUAL: left.reference(dict(pairs)).to_dict(), "reference": seen.reference().to_dict()}
    return replace(bundle, notes={**bundle.notes, **notes})


@pytest.mark.parametrize("changed", [True, False])
def test_retraining_notices_that_more_is_left_though_the_gain_is_the_same(
    a_champion, make_case, tmp_path, monkeypatch, changed
):
    """Of what one witness sees a part no longer comes from it; of what the other one sees nothing has changed."""
    new = coupled_series(36, 12)
    if changed:
        generator = np.random.default_rng(13)
        for event in np.flatnonzero(np.arange(36) % 3):
            seen = np.abs(new[event, 1]) > 6
            new[event, 0, seen] += 6 * generator.standard_normal(seen.sum())
    _, maps, events = make_case(np.concatenate([new, QUIET]), name="new")
    step = retraining_step(
        tmp_path,
        {"buffer": str(events.folder), "min_events": 8},
        split={"block_length": 100.0},
        trainer={"pictures": {"labels": [str(tmp_path / "labels.csv")]}},
    )
    champion = ModelVersion("twin", 1, "sqlite:///none.db", "run")
    monkeypatch.setattr("glitchflow_plugin.tracking.versions.find", lambda *_: champion)
    monkeypatch.setattr("glitchflow_plugin.tracking.registry.load", lambda *_: a_champion)
    made = (maps, EventCounts(44, 44), ())
    monkeypatch.setattr("glitchflow_plugin.inference.model_data.make_maps", lambda *_, **__: made)
    monkeypatch.setattr(Processor, "execute", lambda *_: None)
    monkeypatch.setattr(trainer_module, "Trainer", lambda **_: types.SimpleNamespace(execute=lambda _: None))
    summary, status = step.execute(), read_json(tmp_path / "retrain" / "status.json")
    assert {each["kind"] for each in status["residual"]} == {"all", "class", "witness"}
    grown = {(each["kind"], each["name"]) for each in status["residual"] if each["grown"]}
    assert all(each["stopped"] is None for each in status["coupling"].values())
    if changed:
        assert {("class", "one"), ("witness", "WITNESS_1")} <= grown
        assert not {("class", "both"), ("witness", "WITNESS_2")} & grown
        assert status["decision"] == "train"
        assert status["reason"].startswith("more is left: ")
        assert "class one at 8 to 512 Hz (0.30 -> " in status["reason"]
        assert any("More is left than of the champion's validation glitches: class one" in w for w in summary.warnings)
    else:
        assert grown == set()
        wanted = "no channel has drifted, no coupling has changed and of no kind of glitch more is left"
        assert (status["decision"], status["reason"]) == ("keep", wanted)


def test_of_a_champion_that_kept_nothing_of_its_validation_nothing_is_compared(make_case):
    bundle, maps, events = make_case(coupled_series(12, 10))
    loop = close_loop(bundle, maps, events, WatchSettings())
    assert watch_residual(bundle, maps, loop, {}, ResidualSettings(), block_length=100.0) is None
    assert events_left(bundle, maps, replace(loop, power=None), 100.0) is None


def test_there_is_no_loop_without_a_reference_series_or_strain(make_case):
    bundle, maps, events = make_case(coupled_series(6, 7))
    settings = WatchSettings()
    assert close_loop(bundle, maps, events, settings) is not None
    assert close_loop(replace(bundle, notes={}), maps, events, settings) is None
    assert close_loop(bundle, maps, None, settings) is None
    assert close_loop(replace(bundle, model={"name": "unet"}), maps, events, settings) is None
