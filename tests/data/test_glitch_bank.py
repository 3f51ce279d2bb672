import h5py
import numpy as np
import pytest

from glitchflow_plugin.data.glitch_bank import read_glitch_bank
from glitchflow_plugin.errors import FormatError, NoEventsError

RATE = 1024.0
DEVIATION = 48.0


@pytest.fixture
def bank(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "bank.h5"
    time = np.arange(round(2 * RATE)) / RATE - 1.0
    with h5py.File(path, "w") as file:
        file.attrs.update({"sample_rate": RATE, "duration": 14.0, "glitch_window": [6.0, 8.0]})
        for detector in ("L1", "H1"):
            for label in ("Tomte", "Blip"):
                for index in range(2):
                    group = file.create_group(f"{detector}/{label}/{index}")
                    loud = DEVIATION * 3.0 * (index + 1) * np.exp(-0.5 * (time / 0.01) ** 2)
                    strain = rng.normal(0.0, DEVIATION, round(14 * RATE))
                    strain[round(6 * RATE) : round(8 * RATE)] += loud
                    strain[:100] = 1e6  # the filter's edge
                    group["strain"], group["deepextractor"] = strain.astype("f4"), loud.astype("f4")
                    group.attrs["snr"] = 10.0 * (index + 1)
    return path


def test_glitches_come_sorted_in_units_of_the_noise(bank):
    glitches = read_glitch_bank(bank)
    assert [one.name for one in glitches[:3]] == ["H1/Blip/0", "H1/Blip/1", "H1/Tomte/0"]
    assert len(glitches) == 8
    first = glitches[0]
    assert (first.sample_rate, first.listed_snr, first.waveform.size) == (RATE, 10.0, 2048)
    assert first.waveform.max() == pytest.approx(3.0, rel=0.05)
    assert first.snr == pytest.approx(3.0 * np.sqrt(0.01 * np.sqrt(np.pi) * RATE), rel=0.05)


def test_the_choice_by_class_detector_index_and_snr(bank):
    chosen = read_glitch_bank(bank, classes=["Blip"], detectors=["L1"], indices=[1])
    assert [one.name for one in chosen] == ["L1/Blip/1"]
    training, inference = ({one.name for one in read_glitch_bank(bank, indices=indices)} for indices in ([0], [1]))
    assert not training & inference
    assert {one.index for one in read_glitch_bank(bank, min_snr=18.0)} == {1}


def test_an_empty_choice_tells_what_there_is(bank):
    with pytest.raises(NoEventsError, match="Tomte"):
        read_glitch_bank(bank, classes=["Koi_Fish"])


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["a/b"] = np.zeros(3)
    for wrong in (path, tmp_path / "missing.h5"):
        with pytest.raises(FormatError, match="IFO/CLASS/INDEX"):
            read_glitch_bank(wrong)


def test_the_snr_of_measured_glitches_is_near_what_gravity_spy_lists(real_data):
    glitches = read_glitch_bank(real_data / "o3_glitches" / "O3a.hdf5")
    assert len(glitches) == 30
    ratios = [one.snr / one.listed_snr for one in glitches if one.label in ("Blip", "Tomte")]
    assert 0.9 < np.median(ratios) < 1.4
