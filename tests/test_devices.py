"""Every path that computes on a device, walked on one that is not there: `tests/_pretended.py`.

A tensor made elsewhere than its input, a buffer that is left behind or a result that skips `host` is an error here as
on a GPU. Values are real, so what comes out is compared with what the CPU gives.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests._networks import NETWORKS
from tests._pretended import CALLS, passes, pretended_cuda
from tests._rehearsal import rehearse
from tests._triggers import CHANNELS, GLOBALS, KINDS, Quiet, coupled, learn
from torch._subclasses import FakeTensorMode

import glitchflow_plugin
from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.inference.attribution import AttributionSettings
from glitchflow_plugin.inference.generate import GenerateSettings, generate_glitches
from glitchflow_plugin.inference.leaderboard import HeldOut, LeaderboardSettings, judge_entrant
from glitchflow_plugin.inference.run import InferenceSettings, run_inference
from glitchflow_plugin.inference.subject import Subject
from glitchflow_plugin.inference.transfer_map import TransferSettings
from glitchflow_plugin.inference.what_if import WhatIfSettings
from glitchflow_plugin.inference.what_if_run import Known, run_what_if
from glitchflow_plugin.models.build import MODELS, WAVEFORM_MODELS, build_model, representation
from glitchflow_plugin.models.bundle import pack_baseline, pack_twin
from glitchflow_plugin.models.linear import RidgeSums
from glitchflow_plugin.models.weights import load_twin
from glitchflow_plugin.models.wiener import WienerSums
from glitchflow_plugin.preprocessing.scan import coincidence_examples, scan_channels
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.preprocessing.truth import GlitchTruth
from glitchflow_plugin.signal.intervention import Intervention
from glitchflow_plugin.signal.qtransform import (
    QFrame,
    QScan,
    QTransformSettings,
    SingleQTransform,
    map_p_value,
    q_scan,
    q_transform,
    q_transform_relative,
    tile_p_value,
)
from glitchflow_plugin.streaming.trigger_search import SearchSettings, search_channel
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.evaluation import ZeroTwin
from glitchflow_plugin.training.gate import GateSettings
from glitchflow_plugin.training.judged_events import gate_notes
from glitchflow_plugin.training.run import make_gate
from glitchflow_plugin.training.triggers.learn import answers
from glitchflow_plugin.training.triggers.learner import TriggerLearner
from glitchflow_plugin.training.triggers.losses import TaskWeights
from glitchflow_plugin.training.trust import trust

SOURCE = Path(glitchflow_plugin.__file__).parent
TRANSFORM = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=32, num_times=65)


@pytest.fixture
def cuda():
    with pretended_cuda() as device:
        yield device


def there(values, cuda):
    """On the device, every one of them."""
    return all(value.device == cuda for value in values)


def test_this_run_is_on_the_cpu_whatever_else_there_is():
    assert not torch.cuda.is_available()
    assert choose_device("auto") == "cpu"


# what is pretended


@pytest.mark.parametrize("name", CALLS)
def test_devices_mix_here_where_they_do_in_torchs_own_fake(name):
    call, allowed = CALLS[name]
    with FakeTensorMode():
        assert passes(call, "cuda") is allowed
    with pretended_cuda() as device:
        assert passes(call, device) is allowed


def test_nothing_leaves_the_device_unasked(cuda):
    values = torch.arange(3.0, device=cuda)
    assert (float(values.sum()), values.tolist(), values.cpu().numpy().tolist()) == (3.0, [0, 1, 2], [0, 1, 2])
    for leave in (torch.Tensor.numpy, np.asarray):
        with pytest.raises(TypeError, match="cuda:0"):
            leave(values)
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, generator=torch.Generator(), device=cuda)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_autocast_takes_to_single_precision_on_the_cpu_alone_is_refused(cuda, dtype):
    """The CPU's autocast casts for Fourier transforms and decompositions, CUDA's does not."""
    values = torch.eye(4, device=cuda, dtype=dtype)
    with torch.autocast("cuda", dtype):
        for compute in (torch.fft.rfft, torch.fft.fft, torch.linalg.inv, torch.linalg.cholesky):
            compute(values.float())
            with pytest.raises(RuntimeError, match="not implemented"):
                compute(values)


def test_a_network_learns_there(cuda):
    network = torch.nn.Linear(3, 1)
    weights = network.weight
    network.to(cuda)
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.ones(2, 3, device=cuda)).sum().backward()
    optimiser.step()
    assert network.weight is weights
    assert there([weights, weights.grad, *optimiser.state[weights].values()], cuda)


# signal


@pytest.mark.parametrize("norm", ["median", "mean", "white", "none"])
@pytest.mark.parametrize("q", [8.0, (6.0, 12.0)], ids=["one Q", "two Q"])
def test_q_transform(cuda, norm, q):
    settings = replace(TRANSFORM, q=q, norm=norm)
    series = torch.randn(3, 3072)
    moved = series.to(cuda).requires_grad_()
    for found, expected in (
        (q_transform(moved, 1024.0, settings), q_transform(series, 1024.0, settings)),
        (q_scan(moved, 1024.0, settings)[1], q_scan(series, 1024.0, settings)[1]),
        (
            q_transform_relative(moved * 0.5, moved, 1024.0, settings),
            q_transform_relative(series * 0.5, series, 1024.0, settings),
        ),
        (q_transform(moved[:0], 1024.0, settings), q_transform(series[:0], 1024.0, settings)),
    ):
        assert found.device == cuda
        torch.testing.assert_close(found.detach().cpu(), expected, rtol=1e-4, atol=1e-4)
    q_transform(moved, 1024.0, settings).sum().backward()
    assert moved.grad.device == cuda


@pytest.mark.parametrize(
    "module",
    [
        SingleQTransform(3.0, 1024.0, (32, 65), q=8.0, frange=[20, 350]),
        QScan(3.0, 1024.0, (32, 65), qrange=[4, 12], frange=[40, 200]),
        QScan(3.0, 1024.0, (32, 65), qrange=[4, 12], frange=[40, 200], each=True),
    ],
    ids=["single", "scan", "scan each"],
)
@pytest.mark.parametrize("moved", [True, False], ids=["moved", "never moved"])
def test_q_modules_work_where_the_series_are(cuda, module, moved):
    series = torch.randn(2, 2, 3072)
    expected = module(series, norm="mean")
    found = (module.to(cuda) if moved else module)(series.to(cuda), norm="mean")
    assert found.device == cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_q_frame(cuda):
    frame = QFrame(3072, 1024.0, TRANSFORM)
    series, mask = torch.randn(2, 3072), torch.rand(2, 32, 65)
    tiles = frame(series)
    sampled = frame.sample(mask, np.linspace(20, 350, 32))
    expected = frame.inverse(tuple(one * by for one, by in zip(tiles, sampled, strict=True)))
    frame.to(cuda)
    moved = frame(series.to(cuda))
    by = frame.sample(mask.to(cuda), np.linspace(20, 350, 32))
    found = frame.inverse(tuple(one * each for one, each in zip(moved, by, strict=True)))
    assert there([*moved, *by, found, frame.band_limited(series.to(cuda))], cuda)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_significance(cuda):
    energy = torch.rand(2, 32, 65) * 20
    settings = replace(TRANSFORM, norm="white")
    for law in (tile_p_value, partial(map_p_value, num_samples=3072, sample_rate=1024.0, settings=settings)):
        found = law(energy.to(cuda))
        assert found.device == cuda
        torch.testing.assert_close(found.cpu(), law(energy))


def test_triggers_are_searched_there(cuda):
    generator = np.random.default_rng(0)
    series = generator.standard_normal(40 * 256)
    series[5000:5030] += 8.0
    settings = SearchSettings(q=(4.0, 16.0), band=(20.0, 80.0), margin=2, snr=4.5)
    channel = Channel("X", series, 1_400_000_000.0, 256.0)
    found, expected = (
        list(search_channel(channel, (1_400_000_000, 1_400_000_040), settings, device)) for device in (str(cuda), "cpu")
    )
    assert sum(len(tiles.times) for _, tiles in expected) > 10
    for (origin, tiles), (same, others) in zip(found, expected, strict=True):
        assert origin == same
        for one, other in zip(vars(tiles).values(), vars(others).values(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


# preprocessing


def test_scan_and_spectrograms(cuda, make_event_set, tmp_path):
    generator = np.random.default_rng(0)
    series = generator.standard_normal((8, 3, 3072))
    for event in series:
        start = int(generator.integers(800, 2000))
        burst = 8 * generator.standard_normal(60)
        event[0, start : start + 60] += burst
        event[1, start : start + 60] += burst
    events = make_event_set(series)
    settings = ScanSettings(num_f_bins=32, num_t_bins=65, num_slides=0, threshold_corr=0.0, frange=(20.0, 350.0))
    here = scan_channels(events, settings)
    ranking = scan_channels(events, settings, tmp_path / "spikes", device=cuda)
    assert ranking.channels == here.channels
    np.testing.assert_allclose(ranking.correlation, here.correlation)
    examples, _, _ = coincidence_examples(events, ranking, settings, tmp_path / "spikes", device=cuda)
    assert examples
    maps = [
        make_spectrograms(events, ("WITNESS_1",), TRANSFORM, tmp_path / f"maps-{device}", device=device).read().maps
        for device in ("cpu", cuda)
    ]
    np.testing.assert_allclose(maps[1], maps[0], rtol=1e-4, atol=1e-4)


# networks


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_every_network_is_on_one_device(name, training):
    """By torch's own fake device, which knows the rules of every operation."""
    with FakeTensorMode():
        with torch.device("cuda"):
            network = build_model(name, in_channels=3, window_size=64, **NETWORKS[name]).train(training)
        waves = representation(name) == "waveform"
        predicted = network(
            torch.randn(2, 3, 1024, device="cuda") if waves else torch.randn(2, 3, 64, 64, device="cuda")
        )
        assert predicted.device.type == "cuda"


def judged(trainer):
    return trainer.learner.judge(
        trainer.twin,
        trainer.best_twin().batches("validation"),
        trainer.twin,
        device=torch.device(trainer.device),
        threshold=16.0,
    )


#: What is learnt by default or in closed form; the others have the same learners.
OFTEN = {"coupling", "linear", "unet", "wiener"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OFTEN else pytest.mark.slow) for name in MODELS]
)
def test_a_training_from_the_first_step_to_the_gate(cuda, make_coupled_trainer, name):
    here = make_coupled_trainer(name, "cpu")
    here.execute()
    trainer = make_coupled_trainer(name, cuda)
    trainer.execute()
    assert there([*trainer.twin.parameters(), *trainer.twin.buffers()], cuda)
    found, expected = judged(trainer), judged(here)
    assert found.loss == pytest.approx(expected.loss, rel=2e-3, abs=1e-4)
    np.testing.assert_allclose(found.statistics.total_cleaned, expected.statistics.total_cleaned, rtol=2e-3)

    learner, twin = trainer.learner, trainer.twin
    baseline = learner.baseline(twin, trainer.best_twin().batches)
    bundle = learner.bundle(twin, baseline, {}, {})
    # what is stored leaves the device, and the twin does not
    again = replace(bundle, twin=load_twin(pack_twin(bundle)), baseline=load_twin(pack_baseline(bundle)))
    assert there([*twin.parameters(), *baseline.twin.parameters()], cuda)
    settings = GateSettings(min_groups=5, min_quiet=1, injections=2)
    challenger, champion = (make_gate(trainer.best_twin(), one, settings).decide() for one in (bundle, again))
    assert challenger.figures == pytest.approx(champion.figures, rel=1e-4, abs=1e-6)
    make_gate(trainer.best_twin(), bundle, settings).decide(replace(again, notes=gate_notes(trainer.training_set)))


@pytest.mark.parametrize("name", ["coupling", "unet"])
def test_a_training_goes_on_from_its_checkpoint_with_all_that_it_can(cuda, make_coupled_trainer, name):
    config = {"ema": 0.9, "precision": "bf16", "warmup_epochs": 0.5, "balance": "event"}
    make_coupled_trainer(name, cuda, epochs=1, config=config).execute()
    trainer = make_coupled_trainer(name, cuda, resume=True, config=config)
    trainer.execute()
    assert trainer.current_epoch == 1
    assert there([*trainer.loop.model.average.module.parameters(), *trainer.twin.buffers()], cuda)


@pytest.mark.slow
def test_a_rehearsal_from_training_to_generation(cuda, make_coupled_trainer, coupled, make_registry, tmp_path):
    rehearse(make_coupled_trainer, coupled, make_registry(tmp_path), tmp_path, cuda)


@pytest.fixture
def make_bundle(make_coupled_trainer):
    def make(name, device):
        trainer = make_coupled_trainer(name, device, epochs=1)
        trainer.execute()
        twin = trainer.twin
        return trainer.learner.bundle(
            twin, trainer.learner.baseline(twin, trainer.best_twin().batches), {}, {}
        ), trainer

    return make


@pytest.mark.parametrize(("sums", "shape"), [(WienerSums(2, 65), (3, 2, 512)), (RidgeSums(2, 16), (3, 2, 16, 32))])
def test_closed_forms_take_windows_from_any_device(cuda, sums, shape):
    witnesses, strain = torch.randn(shape), torch.randn(shape)[:, :1]
    sums.add(witnesses, strain)
    sums.add(witnesses.to(cuda), strain.to(cuda))
    assert all(torch.isfinite(each).all() for each in sums.solve(0.1).parameters())


# with a trained network


@pytest.mark.parametrize("name", ["coupling", "wiener", "unet", "linear"])
def test_inference_and_generation_with_and_without_missing_witnesses(cuda, make_bundle, coupled, tmp_path, name):
    training_set, events = coupled
    maps = training_set.open_spectrograms()
    assert not maps.valid.all()
    bundle, _ = make_bundle(name, "cpu")
    settings = InferenceSettings(batch_events=5, replicates=0)
    made = [
        run_inference(bundle, maps, tmp_path / f"{device}", settings, events=events, device=device, progress=False)
        for device in ("cpu", cuda)
    ]
    np.testing.assert_allclose(made[1].maps.read().maps, made[0].maps.read().maps, rtol=1e-3, atol=1e-3)
    assert list(made[0].events.columns) == list(made[1].events.columns)
    if name == "coupling":
        np.testing.assert_allclose(made[1].events["novelty_p"], made[0].events["novelty_p"])
    generated = [
        generate_glitches(
            bundle, maps, tmp_path / f"made-{device}", GenerateSettings(), events=events, device=device, progress=False
        )
        for device in ("cpu", cuda)
    ]
    np.testing.assert_allclose(
        generated[1].spectrograms.read().maps, generated[0].spectrograms.read().maps, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", ["wiener", "linear"])
def test_questions_about_changed_witnesses(cuda, make_bundle, coupled, tmp_path, name):
    training_set, events = coupled
    bundle, _ = make_bundle(name, "cpu")
    bundle = replace(bundle, twin=bundle.baseline)  # which was fitted, and says something
    subject = Subject(bundle, training_set.open_spectrograms(), events if name == "wiener" else None)
    changes = tuple(Intervention(("*",), action) for action in ("swap", "noise"))
    attribution = AttributionSettings(least_snr=1e-3, least_change=1e-3)
    transfer = TransferSettings(frequencies=2, backgrounds=1)
    settings = WhatIfSettings(
        interventions=changes, gains=(2.0,), delays=(0.01,), attribution=attribution, transfer=transfer
    )
    wanted = GenerateSettings(snr=(5.0, 50.0))
    answers = []
    for device in ("cpu", cuda):
        folder = tmp_path / str(device)
        result, _, _ = run_what_if(subject, folder, settings, Known(), device=device, progress=False)
        made = generate_glitches(
            bundle, subject.spectrograms, folder / "made", wanted, events=subject.events, device=device, progress=False
        )
        answers.append((result.answers.table, result.attributions, result.sweeps, result.transfer, made.labels))
    for ours, theirs in zip(*answers, strict=True):
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["coupling", "wiener", "unet", "zero"])
def test_leaderboard(cuda, make_bundle, coupled, name):
    training_set, events = coupled
    maps = training_set.open_spectrograms()
    truth = GlitchTruth(
        event_ids=maps.event_ids,
        strain=np.ones((16, 3072), dtype=np.float32),
        label=("blip",) * 16,
        snr=np.full(16, 20.0),
        witness_snr=np.full(16, 20.0),
        witnesses=(("WITNESS_1",),) * 16,
        has_merger=np.zeros(16, dtype=bool),
    )
    settings = LeaderboardSettings(missing=(1,), batch_events=5)
    bundle, trainer = make_bundle("coupling" if name == "zero" else name, cuda)
    twin = ZeroTwin() if name == "zero" else bundle.twin
    judged = judge_entrant(trainer.learner.predictor(twin), HeldOut(maps, truth), settings)
    assert (judged.power_removed is not None) is (name in WAVEFORM_MODELS)
    if name == "coupling":
        said = trust(bundle.twin, events, ["STRAIN", *bundle.witnesses], batch_events=settings.batch_events, seed=0)
        assert [row["missing"] for row in said["missing"]] == list(range(len(bundle.witnesses)))


def test_what_a_twin_says_of_itself_stays_with_it(cuda, make_bundle):
    bundle, _ = make_bundle("coupling", cuda)
    twin = bundle.twin
    size = twin.summary_references.shape[1]
    references = torch.zeros(19, size)
    references[:, 0] = torch.arange(19.0)
    twin.keep(summary_references=references, summary_mean=torch.zeros(size), summary_covariance=torch.eye(size))
    assert there(twin.buffers(), cuda)
    summary = torch.zeros(1, size, device=cuda)
    summary[0, 0] = 9.5
    assert twin.strangeness(summary).tolist() == [0.5]


# triggers


@pytest.mark.parametrize("name", ["pointvit", "pet", "hypertransformer", "condonly"])
def test_a_network_of_triggers_is_taught_and_asked(cuda, name, tmp_path):
    settings = {"num_channels": CHANNELS, "num_globals": GLOBALS, "num_kinds": KINDS, "dim": 8, "layers": 1}
    learner = TriggerLearner(name, settings, TaskWeights(), coupled(32))
    config = TrainingConfiguration(batch_size=16, precision="float32", ema=0.9)
    taught = [
        learn(learner, coupled(16, 1), config, epochs=1, checkpoints=tmp_path / str(one), tracker=Quiet(), device=one)
        for one in ("cpu", cuda)
    ]
    assert there(taught[1].network.state_dict().values(), cuda)
    told = [
        next(answers(one.network, coupled(16, 1).in_order(), where))[0]
        for one, where in zip(taught, ("cpu", cuda), strict=True)
    ]
    torch.testing.assert_close(told[0].glitch, told[1].glitch, rtol=1e-3, atol=1e-4)


# the rule


def test_tensors_leave_the_device_in_known_places_alone():
    """docs/architecture.md, Devices: one function for results; sums over a data set are gathered on the CPU."""
    allowed = {
        "types/tensors.py": "host itself",
        "signal/qtransform/planes.py": "the compiled path, which is the CPU's",
        "signal/qtransform/device_kernels.py": "asked once whether they work",
        "models/linear.py": "sums in float64",
        "models/wiener.py": "sums in float64",
        "models/triggers/build.py": "weights into a file",
        "models/triggers/bundle.py": "a program into a file",
        "models/weights.py": "weights into a file",
        "training/calibration.py": "pixels drawn from all events",
        "signal/relation.py": "cross spectra of all quiet events",
        "training/triggers/learn.py": "answers about all sets, gathered",
        "training/triggers/learner.py": "answers about validation sets, gathered",
        "inference/classify_triggers.py": "answers, which go into a table",
        "training/checkpoints.py": "states of the CPU's generators",
        "tracking/registry.py": "weights into a file",
        "streaming/run.py": "a model for other processes",
        "signal/waveforms.py": "never on a device",
    }
    found = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if re.search(r"\.cpu\(\)|\.numpy\(\)|\.cuda\(|\.to\(\"c|__array__", path.read_text(encoding="utf-8"))
    }
    assert found <= set(allowed)


def test_a_device_is_chosen_in_the_components_alone():
    found = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if "cuda.is_available" in path.read_text(encoding="utf-8") and "components" not in path.parts
    }
    # states of generators, memory to give back, `glitchflow check`, and kernels that are a GPU's alone
    places = {"training/checkpoints.py", "training/steps.py", "commands/checks.py", "signal/qtransform/planes.py"}
    assert found <= places
