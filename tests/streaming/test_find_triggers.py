"""The trigger finder against matched filtering, gwpy's tables, and what noise has of loud tiles."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.triggers.store import open_triggers
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.signal.qtransform.loud_tiles import Tiles, loud_tiles, q_planes, tile_band
from glitchflow_plugin.signal.qtransform.settings import QTransformSettings
from glitchflow_plugin.signal.qtransform.significance import expected_excursions
from glitchflow_plugin.signal.qtransform.tiling import tile_rows
from glitchflow_plugin.signal.tile_clusters import LoudTiles, cluster_tiles
from glitchflow_plugin.streaming.blocks import find_segments, plan_blocks, with_sources
from glitchflow_plugin.streaming.find_triggers import FinderJob, find_triggers
from glitchflow_plugin.streaming.trigger_search import SearchSettings, search_channel

RATE, START = 512, 1_400_000_000
SETTINGS = SearchSettings(q=(4.0, 32.0), band=(20.0, 200.0), margin=2, block_length=32)


def sine_gaussian(times: np.ndarray, at: float, frequency: float, q: float, snr: float) -> np.ndarray:
    """In white noise of unit variance, of an optimal SNR."""
    wave = np.exp(-((2 * np.pi * frequency * (times - at) / q) ** 2)) * np.sin(2 * np.pi * frequency * (times - at))
    return wave * snr / np.sqrt(np.sum(wave**2))


def tiles_of(channel: Channel, span: tuple[float, float], settings: SearchSettings) -> LoudTiles:
    """All loud tiles."""
    return LoudTiles.joined([placed(one, origin) for origin, one in search_channel(channel, span, settings, "cpu")])


def placed(tiles: Tiles, origin: int) -> LoudTiles:
    """Tiles with GPS times; amplitudes are not looked at here."""
    times = origin + np.round(tiles.times * 1e9).astype(np.int64)
    return LoudTiles(times, tiles.frequencies, tiles.qs, tiles.snrs, tiles.snrs)


@pytest.mark.parametrize("in_frequency", [False, True])
def test_recovers_injected_sine_gaussians_in_coloured_noise(in_frequency: bool) -> None:
    rng = np.random.default_rng(1)
    size = RATE * 256
    times = np.arange(size) / RATE
    injected = [(6 + 8 * i, rng.uniform(30, 180), rng.uniform(5, 25), 8 + 4 * (i % 3)) for i in range(30)]
    white = rng.standard_normal(size)
    signals = sum(sine_gaussian(times, *one) for one in injected)
    response = 1e-21 * (1 + (60 / np.maximum(np.fft.rfftfreq(size, 1 / RATE), 5)) ** 4)
    coloured = np.fft.irfft(np.fft.rfft(white + signals) * response)
    matched = [
        np.sqrt(
            np.dot(white + signals, sine_gaussian(times, at, f, q, 1)) ** 2
            + np.dot(white + signals, np.imag(_analytic(sine_gaussian(times, at, f, q, 1)))) ** 2
        )
        for at, f, q, _ in injected
    ]
    tiles = tiles_of(Channel("X", coloured, float(START), RATE), (START, START + 256), SETTINGS)
    loudest = cluster_tiles(tiles, 0.1, in_frequency=in_frequency).loudest
    ns, f, snr = loudest.times, loudest.frequencies, loudest.snrs
    near = [np.argmin(np.abs(ns / 1e9 - START - one[0]) - snr / 1e3) for one in injected]
    delays = np.array([ns[i] / 1e9 - START - one[0] for i, one in zip(near, injected, strict=True)])
    assert np.mean(np.abs(delays) < 0.05) == 1, "efficiency at SNR 8 and more"
    assert np.sqrt(np.mean(delays**2)) < 0.01, "s"
    relative = np.array([f[i] / one[1] - 1 for i, one in zip(near, injected, strict=True)])
    assert np.median(np.abs(relative)) < 0.05
    ratio = np.array([snr[i] / rho for i, rho in zip(near, matched, strict=True)])
    assert abs(np.mean(ratio) - 1) < 0.05, "bias of the SNR against matched filtering with the true waveform"


def _analytic(wave: np.ndarray) -> np.ndarray:
    spectrum = np.fft.fft(wave)
    spectrum[len(wave) // 2 :] = 0
    return np.fft.ifft(2 * spectrum)


def test_tiles_are_those_of_gwpy() -> None:
    from gwpy.signal.qtransform import QTiling
    from gwpy.timeseries import TimeSeries

    rng = np.random.default_rng(2)
    series = rng.standard_normal(16 * RATE)
    series += sine_gaussian(np.arange(len(series)) / RATE, 8.0, 80.0, 12.0, 20.0)
    q = 12.0
    tiling = QTiling(16, RATE, qrange=(q, q), frange=(20, 150))
    peer = next(iter(tiling)).transform(TimeSeries(series, sample_rate=RATE).fft().value, norm=False, epoch=0)
    table = peer.table(snrthresh=0)
    found = loud_tiles(
        torch.as_tensor(series, dtype=torch.float32), RATE, (q,), (20, 150), mismatch=0.2, threshold=6, within=(0, 16)
    )
    # gwpy leaves the division by the mean energy in noise to who knows it.
    mean = {row.frequency: row.white_energy / len(series) for row in tile_rows(len(series), RATE, q, (20, 150))}
    energies = np.array(
        [e / mean[min(mean, key=lambda one: abs(one - f))] for f, e in table.iterrows("frequency", "energy")]
    )
    best, loudest = int(np.argmax(found.snrs)), int(np.argmax(energies))
    assert found.snrs[best] == pytest.approx(np.sqrt(2 * energies[loudest]), rel=1e-4)
    assert found.frequencies[best] == pytest.approx(table["frequency"][loudest], abs=1 / 16)
    assert found.times[best] == pytest.approx(table["time"][loudest], abs=0.02)
    assert len(found.snrs) == np.sum(energies >= 18)


def test_noise_has_as_many_loud_places_as_computed() -> None:
    rng, size, qs = np.random.default_rng(3), 64 * RATE, q_planes(4, 32, 0.2)
    bands = [tile_band(q, RATE, (20, 200)) for q in qs]
    level, seen, expected = 4.8, 0, 0.0
    for _ in range(12):
        noise = torch.as_tensor(rng.standard_normal(size), dtype=torch.float32)
        for q, band in zip(qs, bands, strict=True):
            found = loud_tiles(noise, RATE, (q,), band, mismatch=0.2, threshold=level, within=(0, 64))
            seen += len(cluster_tiles(placed(found, 0), 0.0))
            settings = QTransformSettings(q=q, frequency_low=band[0], frequency_high=band[1], norm="white")
            expected += float(expected_excursions(np.array([level**2 / 2]), size, RATE, settings)[0])
    assert abs(seen - expected) < 3.5 * np.sqrt(expected)


def write_data(folder: Path, seconds: int = 96) -> list[DatasetSettings]:
    """Two channels of different rates and one that is broken, with a gap, in continuous HDF5."""
    rng = np.random.default_rng(4)
    folder.mkdir()
    for name, rate in (("X1:FAST", RATE), ("X1:SLOW", RATE // 2), ("X1:BROKEN", RATE)):
        series = rng.standard_normal(seconds * rate)
        for at in (15.99, 31.999, 40.0, 63.9, 80.0):  # at seams of windows and of blocks
            series += sine_gaussian(np.arange(len(series)) / rate, at, 60.0, 9.0, 25.0)
        series[50 * rate : 52 * rate] = np.nan
        with h5py.File(folder / f"{name[3:]}-{START}-{seconds}.hdf5", "w") as file:
            data = file.create_dataset(name, data=series * (name != "X1:BROKEN"))
            data.attrs.update({"x0": float(START), "dx": 1 / rate, "xunit": "s", "unit": "", "name": name})
    return DatasetSettings.listed([{"path": str(folder), "format": "hdf5"}])


def run(datasets: list[DatasetSettings], folder: Path, settings: SearchSettings, workers: int = 1) -> dict[str, bytes]:
    channels = ("X1:FAST", "X1:SLOW", "X1:BROKEN", "X1:ABSENT")
    blocks = plan_blocks(find_segments(datasets, channels[0], None), settings.block_length)
    opened, catalogue = with_sources(datasets, blocks, channels, settings.around)
    job = FinderJob(folder, channels, settings, "cpu", catalogue.fingerprint)
    found = find_triggers(job, opened, EngineSettings(workers=workers))
    assert "X1:ABSENT" in found.broken
    assert found.broken["X1:BROKEN"] == {"constant": len(blocks)}
    assert found.searched["X1:FAST"] == pytest.approx(94)
    assert found.manifest.channels.get("X1:BROKEN", 0) == 0
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


def test_triggers_do_not_depend_on_blocks_or_engine(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    first = run(data, tmp_path / "a", SETTINGS)
    assert run(data, tmp_path / "b", replace(SETTINGS, block_length=96)) == first
    assert run(data, tmp_path / "a", replace(SETTINGS, cluster_tiles=7)) == first, "joined a few at once"
    apart = replace(SETTINGS, cluster_in_frequency=True)
    assert run(data, tmp_path / "b", replace(apart, block_length=96)) == run(data, tmp_path / "a", apart) != first
    assert run(data, tmp_path / "a", SETTINGS) == first, "again"
    table = open_triggers(tmp_path / "a").to_table()
    rows = table.to_pylist()
    loud = sorted(row["time"] / 1e9 - START for row in rows if row["channel"] == "X1:FAST" and row["snr"] > 12)
    assert loud == pytest.approx([15.99, 31.999, 40.0, 63.9, 80.0], abs=0.02)


def test_refuses_blocks_that_cut_windows() -> None:
    with pytest.raises(ConfigurationError, match="multiple of stride"):
        SearchSettings(block_length=100)


def test_each_channel_gets_its_own_tiles_beside_one_that_has_none(tmp_path: Path) -> None:
    rng, times = np.random.default_rng(0), np.arange(64 * RATE) / RATE
    loud = sine_gaussian(times, 20.0, 60.0, 9.0, 25.0)
    names = ("X1:A", "X1:SILENT", "X1:B")
    with h5py.File(tmp_path / f"X-SIM-{START}-64.hdf5", "w") as file:
        for name in names:
            series = rng.uniform(-1, 1, len(times)) if name == "X1:SILENT" else rng.standard_normal(len(times)) + loud
            data = file.create_dataset(name, data=series)
            data.attrs.update({"x0": float(START), "dx": 1 / RATE, "xunit": "s", "unit": "", "name": name})
    datasets = DatasetSettings.listed([{"path": str(tmp_path), "format": "hdf5"}])
    settings = replace(SETTINGS, snr=8.0)
    blocks = plan_blocks(find_segments(datasets, names[0], None), 32)
    opened, catalogue = with_sources(datasets, blocks, names, settings.around)
    job = FinderJob(tmp_path / "out", names, settings, "cpu", catalogue.fingerprint)
    found = find_triggers(job, opened, EngineSettings(workers=1))
    assert dict(found.manifest.channels) == {"X1:A": 1, "X1:B": 1}
    assert found.searched["X1:SILENT"] == 64
