import math
from functools import cache

import numpy as np
import pytest
import torch

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal import QScan, SingleQTransform
from glitchflow_plugin.signal.qtransform import QTransformSettings, q_transform

RATE, SAMPLES = 1024.0, 6144
TIME = np.arange(SAMPLES) / RATE


def series(*shape, seed=0):
    return torch.randn(*shape, SAMPLES, generator=torch.Generator().manual_seed(seed))


def burst(frequency, q, amplitude):
    envelope = np.exp(-((2 * np.pi * frequency * (TIME - 3) / q) ** 2))
    return torch.from_numpy(amplitude * envelope * np.sin(2 * np.pi * frequency * TIME)).float()


@cache
def peers(method):
    from ml4gw.transforms import SingleQTransform as Peer

    arguments, options = (6.0, RATE, (64, 257)), {"q": 12, "interpolation_method": method}
    return SingleQTransform(*arguments, **options, frange=[8, 400]), Peer(*arguments, **options, frange=[8, 400])


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "spline"])
@pytest.mark.parametrize("norm", ["median", "mean", None])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 1)])
def test_same_maps_as_ml4gw(shape, norm, method):
    ours, peer = peers(method)
    data = series(*shape) + burst(100.0, 12.0, 8.0)
    found, expected = ours(data, norm), peer(data, norm).clamp_min(0)
    assert found.shape == expected.shape
    if method == "spline":  # its knots at the end of a row are not those of a periodic series
        found, expected = (maps.flatten(-2).amax(dim=-1) for maps in (found, expected))
    torch.testing.assert_close(
        found, expected, rtol=0.02 if method == "spline" else 2e-3, atol=1e-4 * float(expected.max())
    )


@pytest.mark.parametrize("norm", ["median", "mean", None])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_same_tiles_and_loudest_ones_as_ml4gw(shape, norm):
    ours, peer = peers("bicubic")
    data = series(*shape, seed=1) + burst(60.0, 12.0, 5.0)
    for one in (ours, peer):
        one.compute_qtiles(data, norm)
    assert len(ours.qtiles) == len(peer.qtiles) == len(ours.freqs)
    for found, expected in zip(ours.qtiles, peer.qtiles, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    torch.testing.assert_close(
        ours.interpolate(), ours(data, norm), rtol=1e-4, atol=1e-4 * float(ours(data, norm).max())
    )
    assert torch.equal(ours.freqs, ours.get_freqs())
    torch.testing.assert_close(ours.get_freqs(), peer.get_freqs())
    for called in (True, False):
        if called:
            ours(data, norm)  # a call leaves what is asked for afterwards
        else:
            ours.compute_qtiles(data, norm)
        for band in (None, [40.0, 90.0], [100.0, 300.0]):
            for dimension in ("both", "neither", "channel", "batch"):
                found = ours.get_max_energy(fsearch_range=band, dimension=dimension)
                expected = peer.get_max_energy(fsearch_range=band, dimension=dimension)
                assert found.shape == expected.shape
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_without_series_there_is_nothing_to_tell():
    transform = SingleQTransform(6.0, RATE, (64, 257), frange=[8, 400])
    assert transform.qtiles is None
    for asked in (transform.get_max_energy, transform.interpolate):
        with pytest.raises(RuntimeError, match="compute_qtiles"):
            asked()


@pytest.mark.parametrize("duration", [1.0, 2.0, 5.5])
@pytest.mark.parametrize("rate", [2048.0, 4096.0])
@pytest.mark.parametrize("q", [12, 100])
def test_band_left_out_is_that_of_ml4gw(q, rate, duration):
    from ml4gw.transforms import SingleQTransform as Peer

    ours, peer = (one(duration, rate, (32, 65), q, [0, math.inf]) for one in (SingleQTransform, Peer))
    assert ours.frange == pytest.approx(peer.frange)
    torch.testing.assert_close(ours.freqs, peer.freqs)
    data = torch.randn(int(duration * rate), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours(data), peer(data).clamp_min(0), rtol=5e-3, atol=2e-3)


def test_it_is_the_q_transform_with_a_logarithmic_axis():
    data = series(2)
    found = SingleQTransform(6.0, RATE, (64, 257), frange=[8, 400], interpolation_method="spline")(data)[0]
    torch.testing.assert_close(found, q_transform(data, RATE, QTransformSettings(log_frequency=True)))


def test_scan_tries_the_q_of_ml4gw_and_takes_one_for_the_batch_or_each_its_own():
    from ml4gw.transforms import QScan as Peer

    arguments = (6.0, RATE, (64, 257), [4, 32], [30, 250])
    assert QScan(*arguments).qs == pytest.approx(Peer(*arguments).qs)
    data = series(2) + torch.stack([burst(100.0, 5.0, 5.0), burst(100.0, 30.0, 9.0)])
    together, apart = QScan(*arguments)(data), QScan(*arguments, each=True)(data)
    planes = torch.stack([one(data) for one in QScan(*arguments).q_transforms])
    assert any(torch.equal(together, maps) for maps in planes)
    peaks = torch.stack([one.maps_and_peaks(data)[1].amax(dim=-1) for one in QScan(*arguments).q_transforms])
    best = peaks.argmax(dim=0).tolist()
    assert best[0] < best[1]
    torch.testing.assert_close(apart[0], planes[best[0], 0])
    torch.testing.assert_close(apart[1], planes[best[1], 1])


def test_scan_looks_only_where_it_is_told():
    data = series(1, seed=3) + burst(200.0, 30.0, 20.0) + burst(50.0, 5.0, 6.0)
    scan = QScan(6.0, RATE, (64, 257), [4, 32], [20, 250])
    planes = [one(data) for one in scan.q_transforms]
    low, high = scan(data, fsearch_range=[30, 70]), scan(data, fsearch_range=[150, 250])
    chosen = [next(i for i, maps in enumerate(planes) if torch.equal(maps, found)) for found in (low, high)]
    assert chosen[0] < chosen[1]


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigurationError, match="interpolation_method"):
        SingleQTransform(6.0, RATE, (64, 257), interpolation_method="nearest")
    with pytest.raises(ConfigurationError, match="Nyquist"):
        SingleQTransform(6.0, RATE, (64, 257), frange=[8, 500])
    with pytest.raises(ConfigurationError, match="norm must be one of"):
        SingleQTransform(6.0, RATE, (64, 257), frange=[8, 400])(series(1), norm="max")
    with pytest.raises(ConfigurationError, match="6144 samples"):
        SingleQTransform(6.0, RATE, (64, 257), frange=[8, 400])(torch.zeros(10))
    with pytest.raises(ConfigurationError, match="three dimensions"):
        SingleQTransform(6.0, RATE, (64, 257), frange=[8, 400])(torch.zeros(1, 1, 1, SAMPLES))
    with pytest.raises(ConfigurationError, match="dimension must be one of"):
        SingleQTransform(6.0, RATE, (64, 257), frange=[8, 400]).get_max_energy(dimension="time")
    with pytest.raises(DataError, match="NaN"):
        SingleQTransform(6.0, RATE, (64, 257), frange=[8, 400])(torch.full((SAMPLES,), math.nan))
    with pytest.raises(ConfigurationError, match="no Q of"):
        QScan(0.1, 256.0, (8, 9), [40, 64])


def test_planes_that_do_not_fit_are_left_out_with_a_warning():
    with pytest.warns(UserWarning, match=r"Q of 5\.66 left out.*322"):
        scan = QScan(6.0, RATE, (64, 257), frange=[8, 400])
    assert [round(one.q, 1) for one in scan.q_transforms] == [11.3, 22.6, 45.3]
    assert scan(series(2)).shape == (2, 64, 257)


def test_gradients_flow_as_through_ml4gw():
    data = series(2).requires_grad_()
    transform = SingleQTransform(6.0, RATE, (16, 33), frange=[8, 400])
    maps = transform(data)
    torch.testing.assert_close(maps.detach(), transform(data.detach()), rtol=1e-4, atol=1e-5)
    maps.sum().backward()
    assert data.grad.isfinite().all()
    assert data.grad.abs().max() > 0


def test_no_series_give_no_maps():
    assert SingleQTransform(6.0, RATE, (64, 257), frange=[8, 400]).maps_and_peaks(series(0))[0].shape == (0, 64, 257)
