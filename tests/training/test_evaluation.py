import pytest
import torch

from glitchflow_plugin.inference.cases import map_statistics
from glitchflow_plugin.inference.predict import MapPredictor
from glitchflow_plugin.inference.score import score_statistics
from glitchflow_plugin.models.twins import EnergyTwin
from glitchflow_plugin.training.baseline import BaselineSettings, fit_baseline
from glitchflow_plugin.training.evaluation import WindowResults, ZeroTwin, judge_events, judge_windows
from glitchflow_plugin.training.losses import LossSettings, map_loss

CPU = torch.device("cpu")


class Guide(torch.nn.Module):
    """Knows the rule of the maps made for tests: half the first witness, four columns later."""

    def forward(self, witnesses):
        return 0.5 * torch.roll(witnesses[:, :1], 4, dims=-1)


@pytest.fixture
def scaling():
    return EnergyTwin(torch.nn.Identity(), clamp=1e4, witness_scale=[4.0, 4.0], target_scale=4.0)


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    witnesses = 1.5 * torch.rand(12, 2, 64, 64, generator=generator)
    witnesses[::2, 0, 20:30, 20:30] += 300
    strain = Guide()(witnesses) + 0.1 * torch.rand(12, 1, 64, 64, generator=generator)
    return [(witnesses[:5], strain[:5]), (witnesses[5:], strain[5:])]


def test_sums_of_batches_are_those_of_the_whole(batches, scaling):
    twin, loss = Guide(), LossSettings()
    found = judge_windows(twin, batches, scaling, loss, device=CPU)
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    expected = map_loss(scaling.scale_target(twin(x)), scaling.scale_target(y), loss).mean()
    assert found.loss == pytest.approx(float(expected), rel=1e-5)
    reference = score_statistics(map_statistics(y[:, 0], twin(x)[:, 0]), replicates=0).metrics()
    reference = reference["balanced_veto_accuracy_snr2_16"].value
    assert found.figures()["balanced_veto_accuracy_snr2_16"] == reference
    # parts of several processes in any order
    parts = [judge_windows(twin, [batch], scaling, loss, device=CPU) for batch in reversed(batches)]
    assert WindowResults.concatenate(parts).loss == pytest.approx(found.loss)


def test_limits_of_the_figures(batches, scaling):
    zero = judge_windows(ZeroTwin(), batches, scaling, LossSettings(), device=CPU).figures()
    assert zero["cleaned_share_snr2_16"] == 0
    assert zero["balanced_veto_accuracy_snr2_16"] == 0.5
    assert zero["veto_roc_auc"] == 0.5
    good = judge_windows(Guide(), batches, scaling, LossSettings(), device=CPU).figures()
    assert good["cleaned_share_snr2_16"] == 1
    assert good["loss"] < zero["loss"]


def test_the_linear_filter_learns_a_linear_rule(batches, scaling):
    settings = BaselineSettings(lags=(-4, 0), ridges=(1e-6, 1e-1))
    found = fit_baseline(
        lambda: batches, lambda: batches, scaling, settings, LossSettings(), num_witnesses=2, window_size=64
    )
    assert found.representation == "raw"
    assert found.ridge == 1e-6
    assert found.validation["cleaned_share_snr2_16"] == 1
    weight = found.twin.network.weight
    assert weight[25, 0].item() == pytest.approx(0.5, abs=0.02)
    assert weight[25, 1:].abs().max() < 0.05


def test_whole_maps_are_judged_by_event(make_coupled_maps):
    maps = make_coupled_maps(12)
    guide = MapPredictor(Guide(), 2)
    found = judge_events(guide, maps, maps.event_ids[:8], ("GUIDE", "BYSTANDER"), batch_events=3)
    assert found.num_events == 8
    assert found.net_power_removed.value > 0.65
    swapped = judge_events(guide, maps, maps.event_ids[:8], ("BYSTANDER", "GUIDE"))
    assert swapped.net_power_removed.value < found.net_power_removed.value
    assert found.net_power_removed.low < found.net_power_removed.value
