import numpy as np
import pytest

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.signal.qtransform.tiling import tile_rows


@pytest.mark.parametrize(("num_samples", "sample_rate"), [(6144, 1024.0), (6145, 1024.0), (4 * 16384, 16384.0)])
@pytest.mark.parametrize(("q", "band"), [(4.0, (40.0, 150.0)), (12.0, (8.0, 350.0)), (64.0, (60.0, 400.0))])
def test_rows_are_those_of_gwpy(num_samples, sample_rate, q, band):
    from gwpy.signal.qtransform import QPlane

    rows = tile_rows(num_samples, sample_rate, q, band)
    expected = list(QPlane(q, band, num_samples / sample_rate, sample_rate))
    assert [row.frequency for row in rows] == [tile.frequency for tile in expected]
    for row, tile in zip(rows, expected, strict=True):
        assert row.num_tiles == tile.ntiles
        np.testing.assert_array_equal(row.first_bin + np.arange(len(row.window)), tile.get_data_indices())
        np.testing.assert_allclose(row.window, tile.get_window(), rtol=1e-12)


def test_window_of_a_row_is_centred_one_bin_above_its_name():
    # As in gwpy, which counts bins from one there.
    row = tile_rows(6144, 1024.0, 12.0, (8.0, 400.0))[20]
    middle = row.first_bin + np.average(np.arange(len(row.window)), weights=row.window)
    assert middle / 6.0 - row.frequency == pytest.approx(1 / 6.0)


def test_tiles_in_white_noise_have_one_mean_energy():
    energies = [row.white_energy for row in tile_rows(6144, 1024.0, 12.0, (40.0, 400.0))]
    np.testing.assert_allclose(energies, energies[0], rtol=0.02)


def test_slots_put_the_middle_of_the_window_at_zero_frequency():
    row = tile_rows(6144, 1024.0, 12.0, (8.0, 400.0))[0]
    placed = np.zeros(row.num_tiles)
    placed[row.slots] = row.window
    assert placed.argmax() == 0
    np.testing.assert_allclose(placed[1:], placed[1:][::-1], atol=1e-12)


def test_mismatch_with_fewer_tiles_than_bins_is_refused():
    with pytest.raises(ConfigurationError, match="smaller mismatch"):
        tile_rows(6144, 1024.0, 12.0, (8.0, 400.0), 0.99)
