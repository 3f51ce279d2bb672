import numpy as np
import pytest

pytestmark = pytest.mark.slow


def test_mergers_chirp_upwards_and_end():
    from glitchflow_plugin.simulation.mergers import merger_bank

    bank = merger_bank(4096.0)
    assert np.isfinite(bank.polarisations).all()
    waveform, parameters = bank.draw(np.random.default_rng(1))
    assert waveform.shape == bank.polarisations.shape[-1:]
    assert parameters["mass_1"] >= parameters["mass_2"]
    for plus, cross in bank.polarisations:
        loudness = np.hypot(plus, cross)
        assert loudness.argmax() / 4096.0 == pytest.approx(bank.merger_offset, abs=0.02)
        late = slice(int((bank.merger_offset - 0.04) * 4096), int(bank.merger_offset * 4096))
        early = slice(int((bank.merger_offset - 0.4) * 4096), int((bank.merger_offset - 0.3) * 4096))
        crossings = [
            np.count_nonzero(np.diff(np.sign(plus[part]))) / (part.stop - part.start) for part in (early, late)
        ]
        assert crossings[1] > 1.3 * crossings[0]
        assert loudness[-200:].max() < 1e-3 * loudness.max()
