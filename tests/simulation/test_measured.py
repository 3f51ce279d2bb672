"""Measured strain as background, measured glitches as source."""

import h5py
import numpy as np
import pytest
from scipy import signal

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation.instrument import Detector
from glitchflow_plugin.simulation.noise import coloured_noise, optimal_snr
from glitchflow_plugin.simulation.settings import SimulationSettings

RATE = 4096.0
PLAIN = {"duration": 8.0, "mergers": {"fraction": 0.0}, "gap_fraction": 0.0, "no_glitch_fraction": 0.0}
PLAIN |= {"no_witness_fraction": 0.0, "witness_transient_rate": 0.0, "distractor_rate": 0.0}


@pytest.fixture
def bank(tmp_path):
    """Two classes with two waveforms each, told apart by their frequency."""
    rng = np.random.default_rng(1)
    path = tmp_path / "bank.h5"
    time = np.arange(round(2 * RATE)) / RATE - 1.0
    with h5py.File(path, "w") as file:
        file.attrs.update({"sample_rate": RATE, "duration": 14.0, "glitch_window": [6.0, 8.0]})
        for label, base in (("Blip", 100.0), ("Tomte", 40.0)):
            for index in range(2):
                group = file.create_group(f"H1/{label}/{index}")
                loud = 200.0 * np.exp(-0.5 * (time / 0.03) ** 2) * np.sin(2 * np.pi * base * (index + 1) * time)
                group["strain"] = rng.normal(0.0, 48.0, round(14 * RATE))
                group["deepextractor"] = loud
                group.attrs["snr"] = 20.0
    return path


@pytest.fixture
def gwosc(tmp_path):
    """Ten times noisier than Advanced Virgo, in the layout of the open-science centre."""
    path = tmp_path / "V-V1_GWOSC.hdf5"
    level = 1e-22
    strain = coloured_noise(np.random.default_rng(2), lambda f: np.full(f.shape, level), RATE, round(32 * RATE))
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("strain/Strain", data=strain)
        dataset.attrs.update({"Npoints": strain.size, "Xstart": 1_000_000_000, "Xspacing": 1.0 / RATE})
        dataset.attrs.update({"Xunits": "second", "Yunits": "", "Xlabel": "GPS time", "Ylabel": "Strain"})
        file["meta/GPSstart"], file["meta/Duration"] = 1_000_000_000, 32
        file["meta/Detector"], file["meta/Observatory"] = "V1", "V"
    return path


def test_each_class_of_a_bank_gets_a_witness(bank):
    detector = Detector(built(SimulationSettings, {"bank": {"path": str(bank)}, **PLAIN}, "simulate"))
    assert detector.witnesses_by_family == {"Blip": ("V1:BANK-BLIP_WIT",), "Tomte": ("V1:BANK-TOMTE_WIT",)}
    for index in range(4):
        event, truth = detector.event(index)
        (glitch,) = truth.glitches
        (name,) = glitch.witnesses
        assert name == f"V1:BANK-{glitch.label.upper()}_WIT"
        assert truth.group == glitch.parameters["bank"]
        assert truth.group.startswith(f"H1/{glitch.label}/")
        assert event.group == truth.group
        assert 15.0 <= glitch.snr <= 80.0
        assert glitch.witness_snr[name] > 10.0
        strain = truth.glitch_strain(RATE)
        psd = detector.noises[0].psd
        assert optimal_snr(strain, psd, RATE) == pytest.approx(glitch.snr, rel=0.01)
        assert event.channels[name].sample_rate == 2048.0


def test_training_and_inference_can_use_different_waveforms(bank):
    groups = []
    for indices in ([0], [1]):
        detector = Detector(
            built(SimulationSettings, {"bank": {"path": str(bank), "indices": indices}, **PLAIN}, "simulate")
        )
        groups.append({detector.event(number)[1].group for number in range(6)})
    assert groups == [{"H1/Blip/0", "H1/Tomte/0"}, {"H1/Blip/1", "H1/Tomte/1"}]


def test_a_bank_keeps_its_own_snr_if_asked(bank):
    detector = Detector(built(SimulationSettings, {"bank": {"path": str(bank), "snr": None}, **PLAIN}, "simulate"))
    own = {one.name: one.snr for source in detector.sources for one in source.waveforms}
    for number in range(3):
        _, truth = detector.event(number)
        assert truth.glitches[0].snr == pytest.approx(own[truth.group])


def test_transients_in_bank_witnesses_leave_the_strain_alone(bank):
    settings = {**PLAIN, "no_glitch_fraction": 1.0, "witness_transient_rate": 2.0}
    event, truth = Detector(built(SimulationSettings, {"bank": {"path": str(bank)}, **settings}, "simulate")).event(0)
    alone, _ = Detector(
        built(SimulationSettings, {"bank": {"path": str(bank)}, **settings, "witness_transient_rate": 0.0}, "simulate")
    ).event(0)
    assert {one.reason for one in truth.transients} == {"out of band"}
    np.testing.assert_array_equal(event.channels["V1:Hrec_hoft"].series, alone.channels["V1:Hrec_hoft"].series)


def test_stretches_of_measured_strain_lie_under_the_glitches(gwosc):
    background = {"files": [str(gwosc)], "exclude": [[1_000_000_012.0, 1_000_000_014.0]]}
    detector = Detector(
        built(SimulationSettings, {"background": background, "families": {"blip": {}}, **PLAIN}, "simulate")
    )
    starts = set()
    for number in range(6):
        event, truth = detector.event(number)
        name, start = truth.background.split("@")
        assert name == gwosc.name
        first = float(start) - 1_000_000_000.0
        assert first + 8.0 <= 12.0 or first >= 14.0
        starts.add(start)
        source = detector.noises[0].measured.strain
        row = round(first * RATE)
        noise = event.channels["V1:Hrec_hoft"].series - truth.glitch_strain(RATE)
        added = np.abs(truth.glitch_strain(RATE)).max()
        np.testing.assert_allclose(noise, source[row : row + noise.size], atol=2e-4 * added)
        (glitch,) = truth.glitches
        # flat noise: SNR² = 2 ∫ h² dt / S
        expected = np.sqrt(2.0 * np.sum(glitch.waveform**2) / RATE) / 1e-22
        assert glitch.snr == pytest.approx(expected, rel=0.1)
    assert len(starts) > 3


def test_gaussian_noise_with_the_spectrum_of_measured_strain(gwosc):
    background = {"files": str(gwosc), "mode": "gaussian"}
    detector = Detector(built(SimulationSettings, {"background": background, "families": {}, **PLAIN}, "simulate"))
    event, truth = detector.event(0)
    assert truth.background == gwosc.name
    frequency, density = signal.welch(event.channels["V1:Hrec_hoft"].series, RATE, nperseg=4096)
    band = (frequency > 20.0) & (frequency < 1500.0)
    assert np.sqrt(density[band].mean()) == pytest.approx(1e-22, rel=0.05)


def test_a_background_without_a_free_stretch_is_refused(gwosc):
    background = {"files": [str(gwosc)], "exclude": [[1_000_000_002.0, 1_000_000_030.0]]}
    with pytest.raises(ConfigurationError, match="gaussian"):
        Detector(built(SimulationSettings, {"background": background, **PLAIN}, "simulate"))


@pytest.mark.slow
def test_real_glitches_on_real_strain(real_data):
    settings = {
        **PLAIN,
        "duration": 16.0,
        "ifo": "H1",
        "bank": {"path": str(real_data / "o3_glitches" / "O3a.hdf5"), "indices": [0, 1]},
        "background": {
            "files": [str(real_data / "gwosc" / "H-H1_GWOSC_16KHZ_R1-1186741846-32.hdf5")],
            "exclude": [[1186741861.0, 1186741862.0]],
        },
    }
    detector = Detector(built(SimulationSettings, settings, "simulate"))
    assert len(detector.sources) == 5
    labels = set()
    for number in range(8):
        event, truth = detector.event(number)
        (glitch,) = truth.glitches
        labels.add(glitch.label)
        assert glitch.witness_snr[glitch.witnesses[0]] > 8.0
        assert all(np.isfinite(channel.series).all() for channel in event.channels.values())
    assert len(labels) >= 4


@pytest.mark.parametrize("mode", ["stretch", "gaussian", None])
@pytest.mark.parametrize("with_bank", [True, False])
def test_the_group_is_the_waveform_else_the_stretch_of_strain_else_the_event(bank, gwosc, mode, with_bank):
    changed = {"bank": {"path": str(bank)}} if with_bank else {}
    changed |= {"background": {"files": [str(gwosc)], "mode": mode}} if mode else {}
    detector = Detector(built(SimulationSettings, {**PLAIN, "no_glitch_fraction": 0.5, **changed}, "simulate"))
    made = [detector.event(index) for index in range(6)]
    assert {bool(truth.glitches) for _, truth in made} == {True, False}
    for event, truth in made:
        beneath = gwosc.name if mode == "stretch" else event.event_id
        expected = truth.glitches[0].parameters["bank"] if with_bank and truth.glitches else beneath
        assert event.group == truth.group == expected
