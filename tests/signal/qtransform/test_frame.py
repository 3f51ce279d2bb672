import numpy as np
import pytest
import torch

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.signal.qtransform import QFrame, QTransformSettings, axes

RATE, SAMPLES = 1024.0, 6144
TIME = np.arange(SAMPLES) / RATE


def noise(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def burst(frequency, centre, amplitude=5.0, q=12.0):
    envelope = np.exp(-((2 * np.pi * frequency * (TIME - centre) / q) ** 2))
    return torch.from_numpy(amplitude * envelope * np.sin(2 * np.pi * frequency * (TIME - centre)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize(
    "case",
    [
        (6144, 1024.0, 12.0, (8.0, 400.0)),
        (6145, 1024.0, 12.0, (8.0, 400.0)),
        (512, 256.0, 4.0, (20.0, 60.0)),
        (4096, 256.0, 64.0, (20.0, 110.0)),
        (32768, 16384.0, 30.0, (60.0, 6000.0)),
    ],
)
def test_inverse_is_exact_within_the_band(case, dtype, tolerance):
    samples, rate, q, band = case
    frame = QFrame(samples, rate, QTransformSettings(q=q, frequency_low=band[0], frequency_high=band[1]))
    series = noise(2, 3, samples, dtype=dtype)
    expected = frame.band_limited(series)
    found = frame.inverse(frame(series))
    assert found.dtype == dtype
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    outside = (frequency < band[0]) | (frequency > band[1])
    assert torch.fft.rfft(found)[..., outside].abs().max() < 1e-3 * torch.fft.rfft(found).abs().max()


def test_frame_operator_is_far_from_zero_in_the_whole_band():
    low, high = QFrame(SAMPLES, RATE, QTransformSettings()).bounds
    assert high / low < 4


def test_energies_are_those_of_gwpy():
    from gwpy.signal.qtransform import QPlane
    from gwpy.timeseries import TimeSeries

    series = noise(SAMPLES, seed=1)
    spectrum = TimeSeries(series.numpy(), sample_rate=RATE).fft().value
    expected = [tile.transform(spectrum, norm=False, epoch=0).value for tile in QPlane(12.0, (8.0, 400.0), 6.0, RATE)]
    found = [row for group in QFrame(SAMPLES, RATE, QTransformSettings())(series) for row in group]
    assert len(found) == len(expected)
    for row, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(row.abs().square().numpy(), reference, rtol=1e-9, atol=1e-12 * reference.max())


def test_phase_of_a_tile_is_that_of_the_signal():
    frame = QFrame(SAMPLES, RATE, QTransformSettings())
    phases = []
    for phase in (0.0, 1.0):
        centre = frame.frequencies[-1][0] + 1 / 6.0  # a row's window is centred one bin above its name
        tone = torch.from_numpy(np.cos(2 * np.pi * centre * TIME + phase))
        phases.append(frame(tone)[-1][0].angle())
    np.testing.assert_allclose(phases[0], 0.0, atol=1e-9)
    np.testing.assert_allclose(phases[1], 1.0, atol=1e-9)


def test_a_glitch_is_taken_out_by_its_tiles_and_the_rest_stays():
    frame = QFrame(SAMPLES, RATE, QTransformSettings())
    background, glitch = noise(SAMPLES, seed=2), burst(60.0, 3.0)
    frequencies, times = axes(6.0, QTransformSettings())
    mask = torch.zeros(64, 257, dtype=torch.float64)
    near = (np.abs(np.log2(frequencies / 60.0)) < 0.7)[:, None] & (np.abs(times - 3.0) < 0.2)[None]
    mask[torch.from_numpy(near)] = 1
    gains = frame.sample(mask, frequencies)
    removed = frame.inverse(tuple(t * g for t, g in zip(frame(background + glitch), gains, strict=True)))
    kept = frame.inverse(tuple(t * (1 - g) for t, g in zip(frame(background + glitch), gains, strict=True)))
    whole = frame.band_limited(background + glitch)
    torch.testing.assert_close(removed + kept, whole)
    # What is taken out is the glitch and the noise below it; far from it nothing is touched.
    residual = removed - glitch
    assert residual.square().sum() < 0.15 * glitch.square().sum()
    far = torch.from_numpy(np.abs(TIME - 3.0) > 1.0)
    assert removed[far].square().sum() < 1e-3 * whole[far].square().sum()


def test_inverse_of_changed_tiles_is_the_nearest_series():
    # What is left of the tiles is orthogonal to the tiles of every series, in the weights that the docstring names.
    settings = QTransformSettings(frequency_low=16.0, frequency_high=90.0)
    frame = QFrame(1024, 256.0, settings)
    generator = torch.Generator().manual_seed(3)
    tiles = tuple(torch.randn(*shape, dtype=torch.complex128, generator=generator) for shape in frame.shapes)
    nearest = frame.inverse(tiles)
    torch.testing.assert_close(frame.inverse(frame(nearest)), nearest)
    heights = iter(float(row.window.max()) for row in settings.rows(1024, 256.0, 12.0))
    weights = [
        torch.tensor([[size / next(heights) ** 2] for _ in range(rows)], dtype=torch.float64)
        for rows, size in frame.shapes
    ]
    for seed in range(3):
        other = frame(frame.band_limited(noise(1024, seed=seed)))
        products = [
            (weight * (tile - fitted) * test.conj()).real
            for weight, tile, fitted, test in zip(weights, tiles, frame(nearest), other, strict=True)
        ]
        total, size = (torch.cat([p.flatten() for p in products]).sum(), sum(p.abs().sum() for p in products))
        assert abs(total) < 1e-10 * size


def test_gradients_flow_both_ways():
    frame = QFrame(256, 128.0, QTransformSettings(q=6.0, frequency_low=12.0, frequency_high=40.0))
    series = noise(256).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: torch.cat([t.flatten() for t in frame(x)]), (series,))
    tiles = tuple(t.detach().requires_grad_() for t in frame(series))
    assert torch.autograd.gradcheck(lambda *t: frame.inverse(t), tiles)


def test_whole_numbers_are_series_too():
    frame = QFrame(SAMPLES, RATE, QTransformSettings())
    counts = (1000 * noise(SAMPLES)).to(torch.int64)
    for found, expected in zip(frame(counts), frame(counts.to(torch.float32)), strict=True):
        torch.testing.assert_close(found, expected)


def test_what_does_not_belong_to_the_frame_is_refused():
    frame = QFrame(SAMPLES, RATE, QTransformSettings())
    with pytest.raises(DataError, match="expected series of 6144 samples, got 100"):
        frame(torch.zeros(100))
    with pytest.raises(DataError, match="NaN"):
        frame(torch.full((SAMPLES,), torch.nan))
    with pytest.raises(DataError, match="another frame's"):
        frame.inverse((torch.zeros(1, 8, dtype=torch.complex64),))
    with pytest.raises(DataError, match="map of 64 rows"):
        frame.sample(torch.zeros(3, 257), np.linspace(8, 400, 64))
    with pytest.raises(ConfigurationError, match="one Q"):
        QFrame(SAMPLES, RATE, QTransformSettings(q=(8.0, 12.0)))
