from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.inference._reference import measure_reference
from torch.utils.data import DataLoader

from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.data.series_dataset import SeriesDataset
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, FormatError
from glitchflow_plugin.models.coupling import CouplingNet
from glitchflow_plugin.models.wiener import WienerFilter, WienerSums
from glitchflow_plugin.preprocessing.ingest import ingest
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.preprocessing.truth import read_glitch_truth
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.signal.slow import SHARE
from glitchflow_plugin.simulation.detector import simulate
from glitchflow_plugin.simulation.settings import SimulationSettings
from glitchflow_plugin.training import waveform
from glitchflow_plugin.training.baseline import BaselineSettings
from glitchflow_plugin.training.configuration import TrainingConfiguration
from glitchflow_plugin.training.filter_start import FOLDS, choose_laws
from glitchflow_plugin.training.network import network_in_training
from glitchflow_plugin.training.processes import OneProcess
from glitchflow_plugin.training.waveform import WaveformLearner, WaveformLoss

SMALL = {"name": "coupling", "features": 4, "frame_size": 64, "filter_size": 65}


@pytest.fixture
def make_learner(make_coupled_events):
    def make(model=SMALL, **changes):
        training_set, events = make_coupled_events(**changes)
        return WaveformLearner(training_set, events, model)

    return make


def batches_of(learner):
    return lambda part: DataLoader(learner.dataset(part), batch_size=4)


def perfect(learner):
    """The true coupling as a twin."""
    network = WienerFilter(2, filter_size=65)
    with torch.no_grad():
        network.filters[0, 32 + 8] = 0.5
    return learner.twin(network).eval()


def test_items_are_whole_events_of_one_part(make_learner):
    learner = make_learner()
    seen = []
    for part in PARTS:
        dataset = learner.dataset(part)
        assert set(dataset.event_ids) == set(learner.training_set.split.part(part).event_ids)
        seen += list(dataset.event_ids)
        witnesses, strain = dataset[0]
        row = learner.events.event_ids.index(dataset.event_ids[0])
        stored = learner.events.read([row]).series[0]
        np.testing.assert_array_equal(strain[0], stored[0])
        np.testing.assert_array_equal(witnesses, stored[1:3])
        assert dataset.gps_start[0] == learner.events.gps_start[row]
    assert len(seen) == len(set(seen)) == 16


def test_a_witness_that_is_not_valid_is_silent(make_learner):
    valid = np.ones((16, 4), dtype=bool)
    valid[:, 2] = False
    learner = make_learner(valid=valid)
    witnesses, _ = learner.dataset("train")[0]
    assert witnesses[1].abs().max() == 0
    assert witnesses[0].abs().max() > 0


def test_calibration_knows_the_groups_of_the_split(make_learner):
    learner = make_learner(num_events=40)
    validation = learner.training_set.split.validation
    labels = ["blip", "tomte", "", "blip"] * len(validation)
    labelled = replace(validation, group=tuple(labels[: len(validation)]))
    split = replace(learner.training_set.split, validation=labelled)
    learner = replace(learner, training_set=replace(learner.training_set, split=split))
    twin = learner.twin(learner.network()).eval()
    learner.calibrate(twin, batches_of(learner))
    found, names = twin.summary_groups.tolist(), learner.dataset("validation").event_ids
    wanted = dict(zip(labelled.event_ids, labelled.group_numbers(100.0), strict=True))
    pairs = {(number, wanted[str(name)]) for number, name in zip(found, names, strict=True)}
    assert len(pairs) == len(set(found)) == len(set(wanted.values())) < len(found)


@pytest.mark.parametrize("model", [SMALL, {"name": "wiener", "filter_size": 65}])
def test_a_review_says_what_each_look_by_itself_would_say(make_learner, model):
    valid = np.ones((24, 4), dtype=bool)
    valid[::5, 2] = False
    learner = make_learner(model, num_events=24, valid=valid)
    cpu, batches = torch.device("cpu"), batches_of(learner)
    twin, again = learner.twin(learner.network()).eval(), learner.twin(learner.network()).eval()
    again.load_state_dict(twin.state_dict())
    predictions, gain = [], getattr(twin.network, "gain", None)  # of each prediction the network asks once how strong
    counter = None if gain is None else gain.register_forward_hook(lambda *_: predictions.append(None))
    review = learner.review(twin, batches, threshold=16.0)
    if counter is not None:
        counter.remove()
    if model is SMALL:
        # each batch as it is, without one of the two witnesses and without both
        assert len(predictions) == 3 * len(batches("validation"))
    learner.calibrate(again, batches)
    for (name, found), wanted in zip(twin.named_buffers(), again.buffers(), strict=True):
        assert found.equal(wanted) or (found.isnan() == wanted.isnan()).all(), name
    judged = learner.judge(again, batches("validation"), again, device=cpu, threshold=16.0)
    assert review.results.figures() == judged.figures()
    groups = learner.validation_groups()
    assert review.gains == measure_reference(again, learner.witnesses, batches("validation"), groups, 1024.0)
    maps = learner.maps
    rows = [maps.row_of[name] for name in review.ranks]
    assert sorted(review.ranks) == sorted(learner.dataset("validation").event_ids)
    found = learner.predictor(again)(maps.read(rows, [maps.target, *learner.witnesses]))
    np.testing.assert_allclose(np.stack(list(review.ranks.values())), found.loudest, rtol=1e-4, atol=1e-4)
    # and what is left is what inference says of the same events
    left, own = review.left, [maps.row_of[name] for name in review.left.event_ids]
    found = learner.predictor(again)(maps.read(own, [maps.target, *learner.witnesses]))
    np.testing.assert_allclose(left.power, found.power, rtol=1e-4)
    assert left.groups.tolist() == groups.tolist()


def test_the_loss_is_the_share_of_excess_power_that_is_left(make_learner):
    learner = make_learner()
    assert learner.noise_power == pytest.approx(3072, rel=0.05)
    noise = torch.randn(1, 1, 3072)
    noise *= (learner.noise_power / noise.square().sum()).sqrt()
    glitch = torch.zeros(1, 1, 3072)
    glitch[..., 1000:1100] = 30.0
    glitch -= noise * (glitch * noise).sum() / noise.square().sum()  # no cross term
    power = float(glitch.square().sum())
    left = learner.share_left(
        torch.cat([0 * glitch, glitch, 0.5 * glitch, -glitch]), (noise + glitch).expand(4, -1, -1)
    )
    wanted = [1.0, 1 - power / (power + 1000), 1 - 0.75 * power / (power + 1000), 1 + 3 * power / (power + 1000)]
    assert left.tolist() == pytest.approx(wanted, rel=1e-3)
    # in quiet strain an added power of the floor counts as much as missing a loud glitch
    added = noise.roll(100, dims=-1)
    added -= noise * (added * noise).sum() / noise.square().sum()
    added *= 1000**0.5 / added.square().sum().sqrt()
    assert float(learner.share_left(added, noise)) == pytest.approx(2.0, rel=1e-2)


def test_a_perfect_twin_removes_what_a_zero_one_leaves(make_learner):
    learner = make_learner()
    twin = perfect(learner)
    cpu = torch.device("cpu")
    judged = {
        name: learner.judge(predict, batches_of(learner)("train"), twin, device=cpu, threshold=16.0)
        for name, predict in {"perfect": twin, "zero": lambda x: torch.zeros_like(x[:, :1])}.items()
    }
    assert judged["zero"].loss == pytest.approx(1.0)
    # it passes on a quarter of the witness's noise, which quiet events do not forgive
    assert judged["perfect"].loss < 0.98
    figures = judged["perfect"].figures()
    # nor does the score: that noise is power added, and no credit is given for taking noise away
    assert figures["cleaned_share_snr2_16"] > 0.4 > judged["zero"].figures()["cleaned_share_snr2_16"]
    assert figures["balanced_veto_accuracy_snr2_16"] > 0.9
    assert figures["net_power_removed"] > 0.1 > judged["zero"].figures()["net_power_removed"]
    # one row an event
    assert len(judged["perfect"].statistics) == len(learner.dataset("train"))


def test_the_linear_rival_finds_a_linear_coupling(make_learner):
    learner = make_learner(num_events=24)
    baseline = learner.baseline(perfect(learner), batches_of(learner))
    assert baseline.representation == "waveform"
    assert baseline.validation["loss"] < 0.95
    scores = learner.test_scores(perfect(learner), baseline, threshold=16.0)
    assert set(scores) == {"model", "linear", "zero"}
    removed = {name: score.metrics()["net_power_removed"].value for name, score in scores.items()}
    # the filter is optimal, and the rule passes the witness's noise on in full
    assert removed["linear"] > removed["model"] > removed["zero"] == pytest.approx(0.0, abs=1e-6)


def test_no_filter_has_less_loss_on_training_events_than_the_linear_rival(make_learner):
    learner = make_learner(num_events=24)
    batches = batches_of(learner)
    rival = replace(learner, baseline_settings=BaselineSettings(ridges=(1e-6,))).baseline(perfect(learner), batches)

    def loss(twin):
        found = [learner.share_left(twin(witnesses), strain) for witnesses, strain in batches("train")]
        return float(torch.cat(found).mean().detach())

    equal = WienerSums(len(learner.witnesses), 65)
    for witnesses, strain in batches("train"):
        equal.add(witnesses, strain)
    assert loss(rival.twin) < loss(equal.solve(1e-6))
    generator = torch.Generator().manual_seed(0)
    best = loss(rival.twin)
    filters = rival.twin.network.filters
    kept = filters.detach().clone()
    with torch.no_grad():
        for _ in range(10):
            filters.copy_(kept + 0.02 * kept.abs().max() * torch.randn(kept.shape, generator=generator))
            assert loss(rival.twin) > best


def test_losses_of_a_network_that_says_how_sure_it_is(make_learner):
    learner = make_learner()
    network = learner.network()
    assert isinstance(network, CouplingNet)
    twin = learner.twin(network)
    witnesses, strain = next(iter(batches_of(learner)("train")))
    losses = learner.losses(network, twin, witnesses, strain)
    assert losses.shape == (4,)
    losses.mean().backward()
    assert network.spread.weight.grad.abs().max() > 0
    assert network.filters.grad.abs().max() > 0


def test_the_bundle_says_what_it_looks_at(make_learner):
    # the recipe of an event set that Data-processor makes says rate and length
    learner = make_learner(recipe={"sample_rate": 1024.0, "duration": 3.0})
    twin = learner.twin(learner.network())
    bundle = learner.bundle(twin, learner.baseline(twin, batches_of(learner)), {}, {})
    assert bundle.representation == "waveform"
    assert bundle.input_shape == (2, 3072)
    assert learner.examples(twin, learner.dataset("train"), title="train events", threshold=16.0).axes


def test_event_sets_that_do_not_fit_are_refused(make_learner, make_event_set):
    learner = make_learner()
    series = np.random.default_rng(0).standard_normal((2, 4, 3072)).astype(np.float32)
    with pytest.raises(FormatError, match="were not made of the event set"):
        replace(learner, events=make_event_set(series, name="other", recipe={"another": 1}))
    few = make_event_set(series, name="few")
    with pytest.raises(FormatError, match=r"lacks \d+ events of the training set"):
        SeriesDataset(learner.training_set, few, "train", learner.witnesses)
    raw = make_event_set(series, name="raw", units="as recorded")
    with pytest.raises(FormatError, match=r"processing\.whiten: true"):
        SeriesDataset(learner.training_set, raw, "train", learner.witnesses)
    with pytest.raises(ChannelMismatchError, match="NOBODY"):
        SeriesDataset(learner.training_set, EventSet.open(learner.events.folder), "train", ("NOBODY",))


@pytest.mark.parametrize("wrong", [{"floor": 0.0}, {"variance": -1.0}])
def test_a_loss_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"Correct training\.yaml"):
        WaveformLoss(**wrong)


def test_training_begins_at_the_filters_that_explain_most(make_learner):
    chance = make_learner(num_events=24)
    fitted = replace(chance, model={**SMALL, "fitted_start": True})

    def loss(learner):
        network = learner.network().eval()
        learner.initialise(network)
        with torch.no_grad():
            return float(torch.cat([learner.share_left(network(x), y) for x, y in batches_of(learner)("train")]).mean())

    assert loss(chance) == pytest.approx(1.0, abs=0.02)
    assert loss(fitted) < 0.95
    first, second = fitted.network(), fitted.network()
    for network in (first, second):
        fitted.initialise(network)
    assert torch.equal(first.filters[:, 0], second.filters[:, 0])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A small simulation, its event set and its training set."""
    root = tmp_path_factory.mktemp("simulated")
    families = {"blip": {"snr": [20.0, 30.0]}}
    content = {"num_events": 16, "duration": 8.0, "families": families, "mergers": {"fraction": 0.0}, "seed": 3}
    made = simulate(built(SimulationSettings, content, "simulate"), root / "set")
    processing = {"minf": 8.0, "maxf": 400.0, "sr": 1024.0, "len": 3.0, "whiten": True}
    wanted = {"path": str(made.folder), "target": "V1:Hrec_hoft", "processing": processing}
    events = ingest([wanted], None, root / "events")
    transform = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=128)
    witness = made.truth().families["blip"]
    maps = make_spectrograms(events, witness, transform, root / "maps", device="cpu")
    split = Splitter({"block_length": 1.0}, str(maps.folder), str(root / "training")).execute(maps)
    return made, events, Processor({}, str(maps.folder), str(root / "training")).execute(split)


def test_where_the_truth_is_known_the_glitch_alone_is_learnt(simulated, tmp_path):
    made, events, training_set = simulated
    measured = WaveformLearner(training_set, events, SMALL)
    learner = replace(measured, truth=made.folder)
    windows, plain = learner.training_windows(), learner.dataset("train")
    assert list(windows.event_ids) == list(plain.event_ids)
    witnesses, strain = next(iter(DataLoader(windows, batch_size=len(windows))))
    as_before = next(iter(DataLoader(plain, batch_size=len(plain))))
    assert strain.shape[1] == 2
    assert torch.equal(strain[:, :1], as_before[1])
    assert torch.equal(witnesses, as_before[0])
    known = read_glitch_truth(made.folder, events.recipe, list(windows.event_ids), windows.gps_start)
    np.testing.assert_allclose(strain[:, 1], known.strain, atol=1e-4)
    # the glitch itself loses its own power, and nothing else does
    glitch, worth = strain[:, 1:], learner.worth(strain[:, :1])
    left = learner.losses(lambda _: glitch, learner.twin(WienerFilter(1, filter_size=65)), witnesses, strain)
    torch.testing.assert_close(left, 1 - glitch.square().sum(dim=(1, 2)) / worth)
    # what judges, and the rival, see the strain as it was measured
    assert learner.dataset("validation")[0][1].shape[0] == 1
    for nowhere in (None, tmp_path):
        assert replace(learner, truth=nowhere).training_windows()[0][1].shape[0] == 1
    # whoever resumes must learn the same
    assert measured.origin().items() < learner.origin().items()


def test_glitches_that_memory_has_no_room_for_are_not_learnt_alone(simulated, caplog):
    made, events, training_set = simulated
    learner = WaveformLearner(training_set, events, SMALL, cache_mib=0.05, truth=made.folder)
    assert learner.training_windows()[0][1].shape[0] == 1
    assert "training.config.cache_mib allows 0" in caplog.text


def test_an_event_that_the_truth_does_not_know_is_learnt_as_measured(simulated):
    made, events, training_set = simulated
    learner = WaveformLearner(training_set, events, SMALL, truth=made.folder)
    windows = learner.training_windows()
    windows.glitches = {name: alone for name, alone in windows.glitches.items() if name != str(windows.event_ids[0])}
    strain = windows[0][1]
    assert torch.equal(strain[0], strain[1])
    assert not torch.equal(*windows[1][1])


@pytest.mark.parametrize(("share", "laws"), [(1.0, "all"), (0.1, "linear"), (0.0, "none")])
def test_a_start_of_little_memory_tries_fewer_laws(make_learner, caplog, monkeypatch, share, laws):
    learner = make_learner({**SMALL, "fitted_start": True}, num_events=40)
    network = learner.network()
    before, tried = network.filters.detach().clone(), []
    monkeypatch.setattr(waveform, "choose_laws", lambda *given: tried.append(given[1]) or choose_laws(*given))
    needed = (FOLDS + 1) * WienerSums.mebibytes(2 * network.num_laws, 65)
    replace(learner, start_mib=share * needed).initialise(network)
    assert tried == {"all": [network.num_laws], "linear": [1], "none": []}[laws]
    assert ("training.config.start_mib" in caplog.text) == (laws != "all")
    assert network.filters.equal(before) == (laws == "none")
    if laws == "linear":
        assert network.filters[:, 1:].equal(before[:, 1:])
        assert int(network.filters[0, 0].argmax()) == 32 + 8


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_of_several_processes_fits_the_start_for_all(make_learner, monkeypatch, rank):
    class Second(OneProcess):
        size = 2

        def broadcast(self, tensors):
            sent.extend(tensors)

    sent, fitted = [], []
    monkeypatch.setattr(WaveformLearner, "initialise", lambda *given: fitted.append(given))
    processes, config = Second(), TrainingConfiguration(optim_lr=1e-3, ema=0.9)
    processes.rank = rank
    made = network_in_training(make_learner(), config, torch.device("cpu"), processes)
    assert len(fitted) == (rank == 0)
    known = made.network.state_dict().values()
    assert all(each.equal(wanted) for each, wanted in zip(sent, known, strict=True))


def test_a_witness_follows_a_channel_whose_slow_motion_is_kept(make_coupled_events, make_event_set, caplog):
    slow = {"minf": 8.0, "maxf": 400.0, "slow": {"location": 0.0, "scale": 1.0, "highest": 4.0}}
    training_set, events = make_coupled_events(num_events=40, recipe={"channels": {"WITNESS_2": slow}})
    series = events.read().series
    place = np.sin(2 * np.pi * 0.5 * np.arange(3072) / 1024 + np.linspace(0, 20, 40)[:, None])
    series[:, 0] += 0.4 * np.roll(series[:, 1], 8, axis=1) * place
    spectra = np.fft.rfft(series[:, 2])
    spectra[:, :24] = 0  # below 8 Hz, as whitening leaves it
    series[:, 2] = np.fft.irfft(spectra, 3072) + SHARE * place
    events = make_event_set(series, name="modulated", recipe={"channels": {"WITNESS_2": slow}})
    model = {**SMALL, "frame_size": 128, "fitted_start": True, "slow_context": True}
    learner = WaveformLearner(training_set, events, model)
    network = learner.network()
    with caplog.at_level("INFO"):
        learner.initialise(network)
    assert "WITNESS_1 follows the place of WITNESS_2" in caplog.text
    assert network.place.count_nonzero() == 1
    assert network.place[0, 1] > 0
