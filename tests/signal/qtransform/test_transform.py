from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError
from glitchflow_plugin.signal.qtransform import (
    QFrame,
    QTransformSettings,
    Spectrum,
    axes,
    check_settings,
    highest_frequency,
    lowest_frequency,
    planes,
    q_scan,
    q_transform,
    q_transform_relative,
)

RATE, SAMPLES = 1024.0, 6144
DURATION = SAMPLES / RATE


def sine_gaussian(frequency, centre, amplitude, q=12.0):
    time = np.arange(SAMPLES) / RATE
    envelope = np.exp(-((2 * np.pi * frequency * (time - centre) / q) ** 2))
    return amplitude * envelope * np.sin(2 * np.pi * frequency * (time - centre))


def white_noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal((*shape, SAMPLES))


def gwpy_map(series, rate, settings, norm="median"):
    """gwpy's map on our columns; its own rows, since it leaves out the upper end of a linear axis."""
    from gwpy.timeseries import TimeSeries

    duration = len(series) / rate
    span = settings.frequency_high - settings.frequency_low
    rows = settings.num_frequencies if settings.log_frequency else span / (settings.num_frequencies - 1)
    made = TimeSeries(series, sample_rate=rate, t0=0).q_transform(
        qrange=(settings.q, settings.q),
        frange=(settings.frequency_low, settings.frequency_high),
        logf=settings.log_frequency,
        fres=rows,
        tres=duration / settings.num_times,
        whiten=False,
        norm=norm,
        outseg=(0, duration),
    )
    return made.value.T[: settings.num_frequencies, : settings.num_times]


@pytest.mark.parametrize("log_frequency", [False, True])
@pytest.mark.parametrize(
    ("rate", "duration", "odd", "q", "band"),
    [
        (1024.0, 6, 0, 12.0, (8.0, 400.0)),
        (1024.0, 6, 1, 12.0, (8.0, 400.0)),
        (256.0, 2, 0, 4.0, (20.0, 60.0)),
        (256.0, 2, 1, 64.0, (30.0, 110.0)),
        (4096.0, 8, 0, 4.0, (10.0, 1000.0)),
        (4096.0, 8, 1, 64.0, (20.0, 1500.0)),
        (16384.0, 2, 1, 20.0, (30.0, 6000.0)),
        (16384.0, 4, 0, 8.0, (20.0, 5000.0)),
        pytest.param(16384.0, 64, 1, 30.0, (10.0, 2000.0), marks=pytest.mark.slow),
    ],
)
def test_same_map_as_gwpy(rate, duration, odd, q, band, log_frequency):  # noqa: PLR0917
    samples = int(rate * duration) + odd
    time = np.arange(samples) / rate
    loud = np.sqrt(band[0] * band[1])
    envelope = np.exp(-((2 * np.pi * loud * (time - duration / 3) / q) ** 2))
    series = np.random.default_rng(1).standard_normal(samples) + 6 * envelope * np.sin(2 * np.pi * loud * time)
    settings = QTransformSettings(q=q, frequency_low=band[0], frequency_high=band[1], log_frequency=log_frequency)
    expected = gwpy_map(series, rate, settings)
    found = q_transform(torch.from_numpy(series), rate, settings).numpy()[: len(expected)]
    # Behind the last tile of the lowest row gwpy extrapolates; below zero no energy lies.
    lowest = settings.rows(samples, rate, q)[0]
    compared = np.arange(settings.num_times) / settings.num_times <= 1 - 1 / lowest.num_tiles
    difference = np.abs(found - expected.clip(0))[:, compared]
    assert np.all(difference <= 1e-3 * (1 + expected.clip(0)[:, compared]))


def test_behind_the_last_tile_the_map_is_that_of_the_tiles_where_gwpy_extrapolates():
    settings = QTransformSettings(frequency_low=16.0, norm="none")
    # Below its lowest centre a map keeps the value of that row.
    row = settings.rows(SAMPLES, RATE, 12.0)[0]
    _, times = axes(DURATION, settings)
    behind = times > DURATION * (1 - 1 / row.num_tiles)
    bins = np.arange(len(row.window)) - len(row.window) // 2
    ours, theirs = [], []
    for seed in range(30, 50):
        series = white_noise(seed)
        # The truth at any time, from the Fourier series of the row's amplitude.
        spectrum = 2 * np.fft.rfft(series, norm="forward")[row.first_bin :][: len(row.window)] * row.window
        waves = np.exp(2j * np.pi * times[behind][:, None] * bins / DURATION)
        truth = np.abs(waves @ spectrum / row.num_tiles) ** 2
        typical = np.median(np.abs(np.fft.ifft(spectrum, row.num_tiles)) ** 2)
        ours.append(np.abs(q_transform(torch.from_numpy(series), RATE, settings)[0, behind].numpy() - truth) / typical)
        theirs.append(np.abs(gwpy_map(series, RATE, settings, norm=False)[0, behind] - truth) / typical)
    assert np.max(ours) < 0.02
    assert np.max(theirs) > 10 * np.max(ours)


def test_peak_of_a_matched_sine_gaussian_is_half_its_snr_squared():
    # The noise has a mean energy of 1 with two degrees of freedom, hence SNR²/2 for a template that fits; the window is
    # no Gaussian, which costs a few per cent.
    settings = QTransformSettings(norm="white", num_frequencies=400, num_times=2000)
    for frequency in (40.0, 100.0, 250.0):
        signal = sine_gaussian(frequency, 3.0, 3.0)
        peak = q_transform(torch.from_numpy(signal), RATE, settings).max().item()
        assert 0.9 < peak / (np.sum(signal**2) / 2) < 1.0


def test_pure_tone_has_its_amplitude_in_every_tile_of_the_row_one_bin_below():
    # gwpy's convention, which is kept: a row named f looks at f + 1 / T.
    settings = QTransformSettings(norm="none")
    row = settings.rows(SAMPLES, RATE, 12.0)[25]
    time = np.arange(SAMPLES) / RATE
    tone = torch.from_numpy(3.0 * np.sin(2 * np.pi * (row.frequency + 1 / DURATION) * time))
    found = next(
        group[list(names).index(row.frequency)] for group, names in tiles_by_row(tone) if row.frequency in names
    )
    expected = (3.0 * row.window.max() / row.num_tiles) ** 2
    np.testing.assert_allclose(found.abs().square().numpy(), expected, rtol=1e-9)


def test_delta_has_the_height_of_the_summed_window():
    settings = QTransformSettings()
    row = settings.rows(SAMPLES, RATE, 12.0)[-1]
    series = torch.zeros(SAMPLES, dtype=torch.float64)
    series[SAMPLES // 2] = 5.0
    tiles = tiles_by_row(series)[-1][0][-1].abs().square().numpy()
    assert tiles.argmax() == row.num_tiles // 2
    assert tiles.max() == pytest.approx((2 * 5.0 / SAMPLES * row.window.sum() / row.num_tiles) ** 2, rel=1e-9)


def tiles_by_row(series):
    frame = QFrame(SAMPLES, RATE, QTransformSettings())
    return list(zip(frame(series), frame.frequencies, strict=True))


@pytest.mark.parametrize("norm", ["median", "mean", "white", "none"])
def test_compiled_loops_and_pytorch_give_the_same(norm):
    settings = QTransformSettings(norm=norm)
    series = torch.from_numpy(white_noise(31, 5) + sine_gaussian(60.0, 3.0, 5.0))
    series[3] = 0
    compiled = q_transform(series, RATE, settings)
    same = q_transform(series.requires_grad_(), RATE, settings)
    torch.testing.assert_close(compiled, same.detach(), rtol=1e-4, atol=1e-5)


def test_threads_and_the_size_of_the_workspace_change_no_bit(monkeypatch):
    series = torch.from_numpy(white_noise(32, 12))
    plain = q_transform(series, RATE, QTransformSettings())
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            assert torch.equal(q_transform(series, RATE, QTransformSettings()), plain)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(planes, "WORKSPACE", 1)
    assert torch.equal(q_transform(series, RATE, QTransformSettings()), plain)


def test_energy_at_the_peak_grows_with_the_square_of_the_amplitude():
    # The energy over the median is the power SNR² of the matched tile: 4 times for twice the amplitude.
    noise = white_noise(2)
    quiet, loud = (
        q_transform(torch.from_numpy(noise + sine_gaussian(100.0, 3.0, a)), RATE, QTransformSettings()).max().item()
        for a in (8.0, 16.0)
    )
    assert loud / quiet == pytest.approx(4.0, rel=0.1)


def test_white_noise_has_median_one_and_the_exponential_law():
    maps = q_transform(torch.from_numpy(white_noise(3, 64)), RATE, QTransformSettings()).numpy()
    by_row = np.median(maps, axis=(0, 2))
    np.testing.assert_allclose(by_row, 1.0, atol=0.05)
    assert maps.mean() == pytest.approx(1 / np.log(2), rel=0.01)
    for energy in (1, 2, 4, 6):
        assert (maps > energy).mean() == pytest.approx(2.0**-energy, rel=0.06)


def test_pure_tone_fills_its_row_evenly_and_no_other():
    # Over the median of its own row a steady line is 1 everywhere: lines do not look like glitches.
    time = np.arange(SAMPLES) / RATE
    series = 0.01 * white_noise(4) + np.sin(2 * np.pi * 100.0 * time)
    settings = QTransformSettings()
    frequencies, _ = axes(DURATION, settings)
    found = q_transform(torch.from_numpy(series), RATE, settings).numpy()
    row = np.abs(frequencies - 100.0).argmin()
    np.testing.assert_allclose(found[row], 1.0, atol=0.1)


def test_zeros_stay_zero_beside_other_series():
    series = torch.from_numpy(np.stack([white_noise(5), np.zeros(SAMPLES)]))
    maps = q_transform(series, RATE, QTransformSettings())
    assert maps[1].eq(0).all()
    assert maps[0].max() > 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_samples_are_refused(bad):
    series = white_noise(6)
    series[100] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        q_transform(torch.from_numpy(series), RATE, QTransformSettings())


@pytest.mark.parametrize("scale", [1e37, 1e-40])
def test_extreme_scales_are_no_trouble(scale):
    single = torch.from_numpy(white_noise(7)).to(torch.float32)
    found = q_transform(single * scale, RATE, QTransformSettings())
    torch.testing.assert_close(found, q_transform(single, RATE, QTransformSettings()), rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    "wrong", [torch.tensor(1.0), torch.zeros(SAMPLES, dtype=torch.int64), "series"], ids=["scalar", "integers", "text"]
)
def test_shapes_and_types_are_checked_while_tests_of_this_room_run(wrong):
    with pytest.raises(TypeCheckError):
        q_transform(wrong, RATE, QTransformSettings())


@pytest.mark.usefixtures("unchecked")
def test_what_has_no_map_is_refused():
    with pytest.raises(DataError, match="do not fit float32 with norm none"):
        q_transform(torch.from_numpy(1e-21 * white_noise(7)), RATE, QTransformSettings(norm="none"))
    with pytest.raises(DataError, match="real series"):
        Spectrum.of(torch.zeros(1, SAMPLES, dtype=torch.complex64))
    with pytest.raises(DataError, match="time"):
        q_transform(torch.tensor(1.0), RATE, QTransformSettings())
    assert q_transform(torch.zeros(3, 0, SAMPLES), RATE, QTransformSettings()).shape == (3, 0, 64, 257)


def test_scale_of_the_series_does_not_matter():
    # Strain is of the order of 1e-21, whose square float32 cannot hold.
    series = torch.from_numpy(white_noise(7) + sine_gaussian(80.0, 3.0, 3.0))
    plain = q_transform(series, RATE, QTransformSettings())
    torch.testing.assert_close(q_transform(series * 1e-21, RATE, QTransformSettings()), plain, rtol=1e-4, atol=1e-5)
    single = q_transform(series.to(torch.float32), RATE, QTransformSettings())
    torch.testing.assert_close(single, plain, rtol=1e-2, atol=1e-3)


def test_batch_axes_are_kept_and_do_not_mix():
    series = torch.from_numpy(white_noise(8, 3, 2))
    settings = QTransformSettings(num_frequencies=10, num_times=33)
    maps = q_transform(series, RATE, settings)
    assert maps.shape == (3, 2, 10, 33)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps[2, 1], q_transform(series[2, 1], RATE, settings))


def test_more_series_than_one_chunk_give_the_same_maps():
    series = torch.from_numpy(white_noise(9, 260))
    settings = QTransformSettings(num_frequencies=4, num_times=9)
    torch.testing.assert_close(q_transform(series, RATE, settings)[259], q_transform(series[259], RATE, settings))


def test_each_series_takes_the_plane_with_its_loudest_tile():
    settings = QTransformSettings(q=(6.0, 24.0), frequency_high=300.0)
    series = torch.from_numpy(
        white_noise(10, 2) + np.stack([sine_gaussian(100.0, 3.0, 6.0, q=5.0), sine_gaussian(100.0, 3.0, 4.0, q=30.0)])
    )
    best = q_transform(series, RATE, settings)
    planes = [q_transform(series, RATE, QTransformSettings(q=q, frequency_high=300.0)) for q in (6.0, 24.0)]
    torch.testing.assert_close(best[0], planes[0][0])
    torch.testing.assert_close(best[1], planes[1][1])
    assert q_scan(series, RATE, settings)[1].tolist() == [6.0, 24.0]


def test_window_past_nyquist_is_refused_with_the_frequency_that_fits():
    with pytest.raises(
        ConfigurationError, match=r"past the Nyquist frequency.*highest frequency that fits is 400\.9 Hz"
    ):
        q_transform(torch.from_numpy(white_noise(11)), RATE, QTransformSettings(frequency_high=500.0))


@pytest.mark.parametrize("q", [4.0, 12.0, 40.0])
@pytest.mark.parametrize("samples", [2048, 6144, 6145])
def test_highest_frequency_keeps_every_bin_below_nyquist_without_clipping(q, samples):
    from ml4gw.transforms.qtransform import QTile

    frequency = np.floor(highest_frequency(samples, RATE, q) * samples / RATE) * RATE / samples
    tile = QTile(q, torch.tensor(frequency), samples / RATE, RATE, 0.2)
    assert tile.indices.diff().eq(1).all()  # a clipped index would repeat the last bin
    assert tile.indices.max() <= samples // 2
    higher = QTile(q, torch.tensor(frequency * 1.02 + 1), samples / RATE, RATE, 0.2)
    assert not higher.indices.diff().eq(1).all()


def test_short_series_and_large_q_are_refused_with_what_fits():
    with pytest.raises(ConfigurationError, match=r"needs series of at least .* s, got 0\.5 s"):
        check_settings(512, RATE, QTransformSettings(frequency_high=300.0))
    with pytest.raises(ConfigurationError, match="take q of at most"):
        check_settings(SAMPLES, RATE, QTransformSettings(q=200.0))
    with pytest.raises(ConfigurationError, match="at least 32 samples"):
        check_settings(10, RATE, QTransformSettings())
    lowest = lowest_frequency(SAMPLES, RATE, 12.0)
    check_settings(SAMPLES, RATE, QTransformSettings(frequency_low=lowest))


def test_q_that_the_message_names_fits():
    settings = QTransformSettings(frequency_low=20.0)
    with pytest.raises(ConfigurationError) as caught:
        check_settings(1024, RATE, settings.__class__(q=60.0, frequency_low=20.0))
    fitting = float(str(caught.value).split("take q of at most ")[1].split()[0])
    check_settings(1024, RATE, QTransformSettings(q=fitting - 0.1, frequency_low=20.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"q": 2.0},
        {"q": ()},
        {"q": (12.0, float("nan"))},
        {"frequency_low": 0.0},
        {"frequency_low": 500.0},
        {"num_times": 1},
        {"mismatch": 0.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        QTransformSettings(**wrong)


def test_misspelt_setting_fails():
    with pytest.raises(TypeError, match="qq"):
        QTransformSettings(qq=12.0)


@pytest.mark.parametrize("damaged", [{"norm": "medium"}, {"q": None}, {"frequency_low": "8"}, {"qs": 12}])
def test_recipe_that_is_none_of_this_version(damaged):
    with pytest.raises(FormatError, match="Make it again"):
        QTransformSettings.from_recipe(damaged)


def test_axes_cover_the_range_and_the_duration():
    frequencies, times = axes(6.0, QTransformSettings())
    assert (frequencies[0], frequencies[-1], len(frequencies)) == (8.0, 400.0, 64)
    np.testing.assert_allclose(np.diff(frequencies), 392 / 63)
    np.testing.assert_allclose(times, np.arange(257) * 6 / 257)
    logarithmic, _ = axes(6.0, QTransformSettings(log_frequency=True))
    np.testing.assert_allclose(np.diff(np.log(logarithmic)), np.log(50) / 63)
    assert frequencies.dtype == times.dtype == np.float64


def test_first_and_last_moments_wrap_around():
    # Documented edge effect: the transform sees the series as periodic.
    series = torch.from_numpy(white_noise(12) + sine_gaussian(30.0, 0.02, 12.0))
    energy = q_transform(series, RATE, QTransformSettings()).numpy()
    assert energy[:, :3].max() > 100
    assert energy[:, -2:].max() > 20


class TestRelative:
    """Energies in the unit of another series."""

    SETTINGS = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=128)

    def test_the_series_itself_gives_its_own_map_up_to_the_edges(self):
        series = torch.randn(3, 3072)
        series[1, -20:] += 30
        series[2, :5] -= 30
        torch.testing.assert_close(
            q_transform_relative(series, series, 1024.0, self.SETTINGS),
            q_transform(series, 1024.0, self.SETTINGS),
            rtol=1e-4,
            atol=1e-4,
        )

    @pytest.mark.parametrize("norm", ["median", "mean", "white", "none"])
    def test_twice_the_amplitude_is_four_times_the_energy(self, norm):
        settings = replace(self.SETTINGS, norm=norm)
        series = torch.randn(2, 3072)
        torch.testing.assert_close(
            q_transform_relative(2 * series, series, 1024.0, settings),
            4 * q_transform(series, 1024.0, settings),
            rtol=1e-3,
            atol=4e-3,
        )

    def test_noise_that_is_added_shows(self):
        measured, added = torch.randn(4, 3072), torch.randn(4, 3072)
        grown = q_transform_relative(measured + added, measured, 1024.0, self.SETTINGS).sum()
        # its own medians would hide it
        assert float(q_transform(measured + added, 1024.0, self.SETTINGS).sum() / grown) < 0.6
        assert float(grown / q_transform(measured, 1024.0, self.SETTINGS).sum()) == pytest.approx(2.0, rel=0.1)

    def test_several_q_take_that_of_the_reference(self):
        settings = replace(self.SETTINGS, q=(8.0, 16.0))
        times = torch.arange(3072) / 1024
        tone = 30 * torch.exp(-(((times - 1.5) / 0.3) ** 2)) * torch.sin(2 * torch.pi * 100 * times)
        reference = torch.stack([torch.randn(3072) + tone, torch.randn(3072)])
        torch.testing.assert_close(
            q_transform_relative(reference, reference, 1024.0, settings),
            q_transform(reference, 1024.0, settings),
            rtol=1e-3,
            atol=1e-3,
        )

    @pytest.mark.parametrize("norm", ["median", "mean", "white", "none"])
    def test_the_compiled_way_gives_what_pytorch_gives(self, norm):
        settings = replace(self.SETTINGS, norm=norm)
        series, reference = torch.randn(3, 3072), 5 * torch.randn(3, 3072)
        compiled = q_transform_relative(series, reference, 1024.0, settings)
        graded = q_transform_relative(series.requires_grad_(), reference, 1024.0, settings)
        torch.testing.assert_close(compiled, graded.detach(), rtol=1e-4, atol=1e-5)

    def test_some_columns_are_those_of_all(self):
        series, reference = torch.randn(2, 3072), torch.randn(2, 3072)
        whole = q_transform_relative(series, reference, 1024.0, self.SETTINGS)
        some = q_transform_relative(series, reference, 1024.0, self.SETTINGS, columns=(50, 61))
        torch.testing.assert_close(some, whole[..., 50:61], rtol=1e-5, atol=1e-5)

    def test_a_silent_reference_gives_silence(self):
        assert q_transform_relative(torch.randn(1, 3072), torch.zeros(1, 3072), 1024.0, self.SETTINGS).max() == 0

    def test_other_shapes_are_refused(self):
        with pytest.raises(ConfigurationError, match="of one shape"):
            q_transform_relative(torch.zeros(2, 3072), torch.zeros(3, 3072), 1024.0, self.SETTINGS)


class TestNotPeriodic:
    """Zeros beyond both ends: the same tiles, without what happens at the other end."""

    SETTINGS = QTransformSettings(norm="white")

    @staticmethod
    def burst(frequency, time, duration, num_samples=SAMPLES):
        since = torch.arange(num_samples) / RATE - time
        return 20 * torch.exp(-((since / duration) ** 2)) * torch.sin(2 * torch.pi * frequency * since)

    @pytest.mark.parametrize("num_samples", [SAMPLES, 6000, 6145, 6146, 5999])
    @pytest.mark.parametrize("norm", ["white", "none"])
    def test_far_from_the_edges_nothing_changes(self, num_samples, norm):
        settings = replace(self.SETTINGS, norm=norm)
        bursts = torch.stack(
            [self.burst(frequency, 2.9, 0.05, num_samples) for frequency in (10, 47.3, 200, 380)]
            + [self.burst(33.0, 1.7, 0.4, num_samples)]
        )
        periodic = q_transform(bursts, RATE, settings)
        alone = q_transform(bursts, RATE, settings, periodic=False)
        assert alone.shape == periodic.shape
        largest = periodic.amax(dim=(1, 2), keepdim=True)
        assert float(((alone - periodic) / largest).abs().max()) < 5e-4

    @pytest.mark.parametrize("time", [5.999, 5.95, 5.7, 0.001, 0.05, 0.3])
    @pytest.mark.parametrize(("frequency", "duration"), [(9, 0.15), (12, 0.02), (60, 0.02), (390, 0.004)])
    def test_one_end_does_not_show_at_the_other(self, time, frequency, duration):
        burst = self.burst(frequency, time, duration)[None]
        other = slice(0, 64) if time > 3 else slice(-64, None)
        alone = q_transform(burst, RATE, self.SETTINGS, periodic=False)
        assert float(alone[..., other].max() / alone.max()) < 1e-4
        if frequency < 20 and abs(time - 3) > 2.9:
            assert float(q_transform(burst, RATE, self.SETTINGS)[..., other].max() / alone.max()) > 0.01

    def test_several_q_and_a_common_unit(self):
        settings = replace(self.SETTINGS, q=(8.0, 16.0), frequency_high=300.0)
        burst = torch.stack([self.burst(20, 5.9, 0.3), self.burst(100, 3.0, 0.02)])
        alone = q_transform(burst, RATE, settings, periodic=False)
        assert float(alone[0, :, :64].max() / alone[0].max()) < 1e-4
        torch.testing.assert_close(alone[1], q_transform(burst[1], RATE, settings), rtol=1e-3, atol=1e-3)

    def test_with_gradients_it_is_the_same(self):
        series = torch.randn(2, SAMPLES, requires_grad=True)
        differentiable = q_transform(series, RATE, self.SETTINGS, periodic=False)
        torch.testing.assert_close(
            differentiable.detach(),
            q_transform(series.detach(), RATE, self.SETTINGS, periodic=False),
            rtol=1e-4,
            atol=1e-4,
        )
        differentiable.sum().backward()
        assert torch.isfinite(series.grad).all()
