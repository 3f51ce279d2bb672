import numpy as np
import pytest
import torch
from torch import nn

from glitchflow_plugin.errors import FormatError, NoEventsError
from glitchflow_plugin.models.coupling import Explanation
from glitchflow_plugin.models.stft import ShortTimeFourier
from glitchflow_plugin.models.twins import PROBABILITIES, WaveformTwin
from glitchflow_plugin.models.wiener import WienerFilter
from glitchflow_plugin.training.calibration import calibrate, coverage, leave_out, upper_quantiles


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
    witnesses[:, 0, 0], witnesses[:, 0, 1:] = extra, 1.0
    witnesses[:, 1] = torch.randn(num_events, 512) @ torch.diag(1 + torch.arange(512.0))
    strain = (noise + extra).sqrt()[:, None, None] * torch.randn(num_events, 1, 512)
    return [(witnesses, strain)]


@pytest.fixture
def twin():
    return WaveformTwin(Announces())


def test_it_finds_noise_and_factor(twin):
    twin.network.exaggeration = 5.0
    calibrate(twin, made(64, noise=0.8), made(64, noise=0.8, seed=1))
    assert float(twin.variance_noise[0]) == pytest.approx(0.8, rel=0.05)
    # 0.8 + extra = a + b (v - 1) with v - 1 = 5 extra
    assert float(twin.variance_factor[0]) == pytest.approx(0.2, rel=0.05)


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
        witnesses[:, 0, 0] = 0
        noise = torch.randn(64, 1, 512).numpy()
        return [(witnesses, torch.from_numpy(sosfiltfilt(band, noise).astype("float32")))]

    calibrate(twin, limited(0), limited(1))
    # the row at the edge of the band holds less
    assert float(twin.variance_noise[0]) == pytest.approx(1.0, abs=0.2)


def uneven(num_events, seed):
    """As `made`, where of what is announced as loud less is left, and of what is faint more."""
    ((witnesses, strain),) = made(num_events, seed=seed)
    told = witnesses[:, 0, 0]
    truly = torch.where(told > 7, 0.3 * told, 2.0 * told)
    generator = torch.Generator().manual_seed(seed)
    return [(witnesses, (1 + truly).sqrt()[:, None, None] * torch.randn(strain.shape, generator=generator))]


def test_limits_hold_for_the_faint_and_the_loud(twin):
    calibrate(twin, uneven(300, 0), uneven(300, 1))
    found = coverage(twin, uneven(300, 2))
    pairs = zip(found.by_loudness, found.num_by_loudness, strict=True)
    told = [shares for shares, pixels in pairs if pixels > 20_000]
    assert len(told) >= 4
    for shares in told:
        assert shares == pytest.approx(found.probability, abs=0.04)
    # one number for all of them holds for none
    pooled = torch.ones_like(twin.limits[:, :2])
    pooled[:] = twin.limits[:, [0, 4]]
    twin.keep(loudness=torch.tensor([2.0]), limits=pooled)
    off = coverage(twin, uneven(300, 2))
    pairs = zip(off.by_loudness, off.num_by_loudness, strict=True)
    assert max(abs(shares[0] - 0.5) for shares, pixels in pairs if pixels) > 0.1


def test_a_missing_witness_is_not_new_by_itself():
    from glitchflow_plugin.models.coupling import CouplingNet

    net = CouplingNet(3, features=4, frame_size=32, filter_size=65).eval()
    twin = WaveformTwin(net)
    torch.manual_seed(1)
    events = [(torch.randn(16, 3, 512), torch.randn(16, 1, 512)) for _ in range(8)]
    calibrate(twin, events[:4], events[4:7])
    series = events[7][0].clone()
    usual = twin.strangeness(twin.explain(series).summary)
    series[:, 1] = 0
    without = twin.strangeness(twin.explain(series).summary)
    assert float(usual.median()) > 0.1
    assert float(without.median()) > 0.1


@pytest.fixture(scope="module")
def correlated():
    """Twin of a random encoder, calibrated on six witnesses that see one disturbance, and a way to make more events."""
    from glitchflow_plugin.models.coupling import CouplingNet

    torch.manual_seed(3)
    net = CouplingNet(6, features=4, frame_size=32, filter_size=65).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    twin = WaveformTwin(net)

    def events(number, seed):
        generator = torch.Generator().manual_seed(seed)
        loudness = 3 * torch.rand(number, 1, 1, generator=generator)
        burst = loudness * torch.randn(number, 1, 512, generator=generator)
        burst[..., :200] = burst[..., 300:] = 0
        gains = torch.linspace(0.5, 2, 6)[None, :, None]
        witnesses = gains * burst + torch.randn(number, 6, 512, generator=generator)
        strain = burst + torch.randn(number, 1, 512, generator=generator)
        return [(witnesses, strain)]

    calibrate(twin, events(300, 0), events(200, 1))
    return twin, events


@pytest.mark.parametrize("missing", range(7))
def test_missing_witnesses_change_neither_the_level_of_novelty_nor_the_coverage(correlated, missing):
    twin, events = correlated
    ((witnesses, strain),) = events(400, 2)
    shown, _ = leave_out(witnesses, missing, torch.Generator().manual_seed(missing))
    assert ((shown.abs().amax(dim=-1) == 0).sum(dim=1) == missing).all()
    with torch.no_grad():
        p_values = twin.strangeness(twin.explain(shown).summary)
    # of 400 events, and of 200 references: 0.019
    share = 1.0 if missing == 6 else 0.05
    assert float((p_values <= share).double().mean()) == pytest.approx(share, abs=0.05)
    found = coverage(twin, [(witnesses, strain)], missing)
    assert found.share == pytest.approx(found.probability, abs=0.02)


def test_a_loud_witness_is_strange_whichever_others_are_missing(correlated):
    twin, events = correlated
    ((witnesses, _),) = events(20, 4)
    for missing in (0, 2, 4):
        shown, _ = leave_out(witnesses, missing, torch.Generator().manual_seed(0))
        with torch.no_grad():
            p_values = twin.strangeness(twin.explain(50 * shown).summary)
        assert float(p_values.max()) < 0.05


def test_too_few_references_give_no_p_value(twin):
    calibrate(twin, made(64), made(18, seed=1))
    assert twin.strangeness(twin.explain(made(4, seed=2)[0][0]).summary).isnan().all()


def test_references_are_events_that_have_the_same_witnesses(correlated):
    twin, events = correlated
    ((witnesses, _),) = events(4, 5)
    summary = twin.explain(witnesses).summary
    references = twin.summary_references.clone()
    try:
        # all but ten lack the first witness
        twin.summary_references[10:, :4] = torch.nan
        assert twin.strangeness(summary).isnan().all()
        summary[:, :4] = torch.nan
        assert not twin.strangeness(summary).isnan().any()
    finally:
        twin.keep(summary_references=references)


def unequal(num_groups, rng):
    """Group of each event: most have one event, some many."""
    sizes = np.where(rng.random(num_groups) < 0.6, 1, rng.integers(10, 60, num_groups))
    return np.repeat(np.arange(num_groups), sizes)


@pytest.mark.parametrize("common", [0.0, 3.0])
def test_level_of_novelty_holds_for_groups_of_unequal_size_and_strong_common_effects(common):
    rng, ungrouped, grouped = np.random.default_rng(5), [], []
    twin = WaveformTwin(Announces(), summary_size=1)
    for _ in range(400):
        groups = unequal(25, rng)
        usual = common * rng.standard_normal(25)[groups] + rng.standard_normal(len(groups))
        own = common * rng.standard_normal((20, 1)) + rng.standard_normal((20, 1))  # of twenty further groups
        twin.keep(summary_references=torch.from_numpy(usual[:, None]))
        for found, numbers in ((ungrouped, np.arange(len(groups))), (grouped, groups)):
            twin.keep(summary_groups=torch.from_numpy(numbers))
            found.append(twin.strangeness(torch.from_numpy(own)).numpy())
    for level in (0.05, 0.1, 0.3):
        # 8000 p-values, in twenties that share their references: about 0.01
        share = (np.array(grouped) <= level).mean()
        assert level - 1 / 26 - 0.015 < share < level + 0.01, level
    # taken for independent, events of some large groups decide
    broken = (np.array(ungrouped) <= 0.05).mean() > 0.07
    assert broken == (common > 0)


def test_fewer_groups_than_a_p_value_needs_give_none(twin):
    ((witnesses, strain),) = made(60, seed=1)
    summary = twin.explain(made(4, seed=2)[0][0]).summary
    for num_groups in (18, 19):
        calibrate(twin, made(64), [(witnesses, strain)], np.arange(60) % num_groups)
        assert twin.strangeness(summary).isnan().all() == (num_groups < 19)


@pytest.mark.parametrize("common", [0.0, 1.0])
@pytest.mark.parametrize("num_groups", [20, 60])
def test_limits_cover_other_groups_whatever_their_sizes(common, num_groups):
    rng, found = np.random.default_rng(6), []
    for _ in range(300):
        groups = np.repeat(unequal(num_groups, rng), 40)
        sizes = np.bincount(groups)
        ratios = np.exp(common * rng.standard_normal(num_groups))[groups] * rng.exponential(size=len(groups))
        limits = upper_quantiles(ratios, 1 / sizes[groups], groups)
        others = np.exp(common * rng.standard_normal((2000, 1))) * rng.exponential(size=(2000, 1))
        found.append((others < limits).mean(axis=0))
    coverage_found = np.mean(found, axis=0)
    # not less than announced, and not much more where pixels are independent
    assert (coverage_found > np.array(PROBABILITIES) - 0.012).all(), coverage_found
    assert (coverage_found < np.array(PROBABILITIES) + (0.05 if common else 0.01)).all(), coverage_found


def test_a_large_group_has_one_voice(twin):
    # sixty events in which little is left are one group; thirty others of one event each leave nine times as much
    torch.manual_seed(0)
    witnesses = torch.zeros(90, 2, 512)
    witnesses[:, 0, 0], witnesses[:, 0, 1:], witnesses[:, 1] = 10.0, 1.0, torch.randn(90, 512)
    strain = torch.where(torch.arange(90) < 60, 1.0, 3.0)[:, None, None] * torch.randn(90, 1, 512)
    groups = np.concatenate([np.zeros(60, int), np.arange(1, 31)])
    found = []
    for numbers in (None, groups):
        calibrate(twin, made(64), [(witnesses, strain)], numbers)
        found.append(float(twin.explain(witnesses[:1]).variance.mean()))
    # (60 + 30 x 9) / 90, and (1 + 30 x 9) / 31
    assert found == pytest.approx([3.67, 8.74], rel=0.1)


def test_memory_does_not_grow_with_the_pixels(twin):
    from glitchflow_plugin.training.calibration import observed

    calibrate(twin, made(8), made(8))
    assert len(observed(twin, made(8), 0).power) <= 8 * 1500


def test_what_was_never_seen_is_strange(twin):
    calibrate(twin, made(200), made(200, seed=1))
    summary = twin.explain(made(200, seed=2)[0][0]).summary
    usual, novelty = twin.strangeness(summary), twin.novelty(summary)
    assert float(usual.mean()) == pytest.approx(0.5, abs=0.1)
    assert float(novelty.mean()) == pytest.approx(1.0, abs=0.25)
    strange = made(8)[0][0]
    strange[:, 1, :3] += torch.tensor([8.0, 0.0, 0.0])
    assert float(twin.strangeness(twin.explain(strange).summary).max()) < 0.05
    # references that lie elsewhere are compared with at once
    twin.keep(summary_references=100 + twin.summary_references)
    assert float(twin.strangeness(summary).min()) == 1.0
    with torch.no_grad():
        twin.summary_references -= 100
    twin.keep(summary_groups=twin.summary_groups // 100)
    assert twin.strangeness(summary).isnan().all()


def test_twins_that_do_not_say_and_empty_data_are_refused(twin):
    with pytest.raises(FormatError, match="Use the model coupling"):
        WaveformTwin(WienerFilter(2)).explain(torch.zeros(1, 2, 512))
    with pytest.raises(NoEventsError, match="training events"):
        calibrate(twin, [], [])
    with pytest.raises(NoEventsError, match="validation events"):
        calibrate(twin, made(4), [])


class Sums(nn.Module):
    """Adds up the witnesses that are loud; its summary is the logarithm of each one's power."""

    def __init__(self):
        super().__init__()
        self.transform = ShortTimeFourier(32)

    def contributions(self, witnesses):
        return witnesses * (witnesses.square().mean(dim=-1, keepdim=True) > 2)

    def forward(self, witnesses, *, explained=False):
        strain = self.contributions(witnesses).sum(dim=1, keepdim=True)
        if not explained:
            return strain
        variance = torch.ones(len(witnesses), 17, self.transform.num_frames(witnesses.shape[-1]))
        power = witnesses.square().mean(dim=-1).log()
        return Explanation(strain, variance, torch.where(power.isfinite(), power, torch.nan))


def sometimes_loud(number, seed):
    """Three witnesses, of which one is 3 to 6 times as loud in every third event."""
    generator = torch.Generator().manual_seed(seed)
    witnesses = torch.randn(number, 3, 256, generator=generator)
    loud = torch.arange(0, number, 3)
    which = torch.randint(0, 3, (len(loud),), generator=generator)
    witnesses[loud, which] *= 3 + 3 * torch.rand(len(loud), 1, generator=generator)
    return witnesses, torch.randn(number, 1, 256, generator=generator)


@pytest.mark.parametrize("missing", [(), (0,), (0, 2)])
def test_what_is_new_is_told_of_quiet_and_of_loud_events(missing):
    twin = WaveformTwin(Sums())
    calibrate(twin, [sometimes_loud(300, 0)], [sometimes_loud(300, 1)])
    witnesses, _ = sometimes_loud(1200, 2)
    witnesses[:, list(missing)] = 0
    explained = twin.explain(witnesses)
    loud = explained.strain.square().sum(dim=(1, 2)) > 0
    p_values = twin.strangeness(explained.summary, explained.strain)
    for events in (loud, ~loud):
        # 300 events a class or more (of one witness: 133), as many references as that over four
        for level in (0.1, 0.3, 0.6):
            assert float((p_values[events] <= level).double().mean()) == pytest.approx(level, abs=0.13)
    # compared with all, what is quiet would never be new
    alike = twin.strangeness(explained.summary)
    assert float((alike[~loud] <= 0.1).double().mean()) < 0.03
