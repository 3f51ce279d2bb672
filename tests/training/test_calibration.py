import pytest
import torch
from torch import nn

from glitchflow_plugin.errors import FormatError, NoEventsError
from glitchflow_plugin.models.bundle import WaveformTwin
from glitchflow_plugin.models.coupling import Explanation
from glitchflow_plugin.models.stft import ShortTimeFourier
from glitchflow_plugin.models.wiener import WienerFilter
from glitchflow_plugin.training.calibration import calibrate, coverage


class Announces(nn.Module):
    """Predicts nothing and announces what the first witness says of the strain's power; the second is the summary."""

    def __init__(self, exaggeration=1.0):
        super().__init__()
        self.transform, self.exaggeration = ShortTimeFourier(32), exaggeration

    def forward(self, witnesses, *, explained=False):
        strain = torch.zeros_like(witnesses[:, :1])
        if not explained:
            return strain
        frames = self.transform.num_frames(witnesses.shape[-1])
        power = witnesses[:, 0, :1, None].expand(-1, self.transform.num_frequencies, frames)
        return Explanation(strain, 1 + self.exaggeration * power, witnesses[:, 1, :3])


def made(num_events, noise=1.0, seed=0):
    """Strain that is noise of variance `noise`, plus, in every second event, white power that the witness tells."""
    torch.manual_seed(seed)
    witnesses = torch.zeros(num_events, 2, 512)
    extra = torch.rand(num_events) * 20 * (torch.arange(num_events) % 2)
    witnesses[:, 0] = extra[:, None]
    witnesses[:, 1] = torch.randn(num_events, 512) @ torch.diag(1 + torch.arange(512.0))
    strain = (noise + extra).sqrt()[:, None, None] * torch.randn(num_events, 1, 512)
    return [(witnesses, strain)]


@pytest.fixture
def twin():
    return WaveformTwin(Announces())


def test_it_finds_noise_and_factor(twin):
    twin.network.exaggeration = 5.0
    calibrate(twin, made(64, noise=0.8), made(64, noise=0.8, seed=1))
    assert float(twin.variance_noise) == pytest.approx(0.8, rel=0.05)
    # 0.8 + extra = a + b (v - 1) with v - 1 = 5 extra
    assert float(twin.variance_factor) == pytest.approx(0.2, rel=0.05)


def test_coverage_is_what_was_announced(twin):
    calibrate(twin, made(64), made(64, seed=1))
    found = coverage(twin, made(64, seed=2))
    # 32 events x 17 rows x 59 frames, each sample in four frames: about 0.01
    assert found.share == pytest.approx(found.probability, abs=0.02)
    assert found.share_loud == pytest.approx(found.probability, abs=0.02)
    assert found.num_loud > 1000


def test_an_overconfident_twin_is_found_out(twin):
    calibrate(twin, made(64), made(64, seed=1))
    twin.variance_factor *= 0.1
    found = coverage(twin, made(64, seed=2))
    assert found.share_loud[2] < 0.75
    assert found.share[2] < 0.9


def test_limits_follow_what_is_left_where_it_is_not_gaussian(twin):
    def heavy(num_events, seed):
        ((witnesses, strain),) = made(num_events, seed=seed)
        # of the predicted events, one in five is left with all its power and the others with little
        torch.manual_seed(seed + 100)
        quiet = torch.rand(num_events) < 0.8
        loud = witnesses[:, 0, :1, None] > 0
        return [(witnesses, torch.where(loud & quiet[:, None, None], torch.randn_like(strain), 2 * strain))]

    calibrate(twin, heavy(200, 0), heavy(400, 1))
    found = coverage(twin, heavy(400, 2))
    assert found.share_loud == pytest.approx(found.probability, abs=0.05)


@pytest.mark.parametrize("highest", [400.0, 200.0, 100.0])
def test_rows_outside_the_band_do_not_count(twin, highest):
    from scipy.signal import butter, sosfiltfilt

    band = butter(10, highest, fs=1024.0, output="sos")

    def limited(seed):
        ((witnesses, _),) = made(64, seed=seed)
        witnesses[:, 0] = 0
        noise = torch.randn(64, 1, 512).numpy()
        return [(witnesses, torch.from_numpy(sosfiltfilt(band, noise).astype("float32")))]

    calibrate(twin, limited(0), limited(1))
    assert float(twin.variance_noise) == pytest.approx(1.0, abs=0.15)


def test_a_missing_witness_is_not_new_by_itself():
    from glitchflow_plugin.models.coupling import CouplingNet

    net = CouplingNet(3, features=4, frame_size=32, filter_size=65).eval()
    twin = WaveformTwin(net)
    torch.manual_seed(1)
    events = [(torch.randn(16, 3, 512), torch.randn(16, 1, 512)) for _ in range(8)]
    calibrate(twin, events[:4], events[4:7])
    series = events[7][0].clone()
    usual = twin.strangeness(twin.explain(series)[2])
    series[:, 1] = 0
    without = twin.strangeness(twin.explain(series)[2])
    assert float(usual.median()) > 0.1
    assert float(without.median()) > 0.1


def test_memory_does_not_grow_with_the_pixels(twin):
    from glitchflow_plugin.training.calibration import _observed

    calibrate(twin, made(8), made(8))
    assert len(_observed(twin, made(8)).power) <= 8 * 1500


def test_what_was_never_seen_is_strange(twin):
    calibrate(twin, made(200), made(200, seed=1))
    novelty = twin.explain(made(200, seed=2)[0][0])[2]
    usual = twin.strangeness(novelty)
    assert float(usual.mean()) == pytest.approx(0.5, abs=0.1)
    assert float(novelty.mean()) == pytest.approx(1.0, abs=0.25)
    strange = made(8)[0][0]
    strange[:, 1, :3] += torch.tensor([8.0, 0.0, 0.0])
    assert float(twin.strangeness(twin.explain(strange)[2]).max()) < 0.05


def test_twins_that_do_not_say_and_empty_data_are_refused(twin):
    with pytest.raises(FormatError, match="Use the model coupling"):
        WaveformTwin(WienerFilter(2)).explain(torch.zeros(1, 2, 512))
    with pytest.raises(NoEventsError, match="training events"):
        calibrate(twin, [], [])
    with pytest.raises(NoEventsError, match="validation events"):
        calibrate(twin, made(4), [])
