from dataclasses import replace

import numpy as np
import pytest
from tests.streaming import _streams as data

from glitchflow_plugin.products.clean_strain import CleanStrain
from glitchflow_plugin.products.folder import BlockRecord, Manifest, ProductFile
from glitchflow_plugin.products.noise_file import noise_path, read_noise
from glitchflow_plugin.signal.noise_change import NoiseChanges, noise_changes
from glitchflow_plugin.streaming.noise import keep_noise, tell_noise
from glitchflow_plugin.streaming.noise_figures import noise_metrics
from glitchflow_plugin.streaming.subtraction import subtract

SPAN = (data.GPS, data.GPS + data.LENGTH)
BLOCK = BlockRecord(*SPAN, "", files=(ProductFile("any.h5", 1, ""),))


def measured(recorded, folder, **settings):
    """What the figures of a run are, where the model cleans all data in one block."""
    found = subtract(recorded, data.model(), SPAN, SPAN, replace(data.SETTINGS, **settings))
    keep_noise(folder, SPAN, CleanStrain(recorded[data.STRAIN], found.glitch, np.zeros(0, np.int32)), found.quiet)
    return found


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cleaned")
    return folder, measured(data.recordings(), folder)


def test_a_glitch_that_was_cleaned_is_no_quiet_time(cleaned):
    _, found = cleaned
    for gps in data.GLITCHES:
        assert not found.quiet[round(512 * (gps - 0.5)) : round(512 * (gps + 0.5))].any()
    away = np.min(np.abs(np.arange(len(found.quiet))[:, None] / 512 - data.GLITCHES), axis=1) > 3
    assert np.mean(found.quiet[away & found.analysed]) > 0.9


def test_the_noise_of_quiet_time_stays_and_figures_and_picture_say_so(cleaned):
    folder, _ = cleaned
    told = tell_noise(folder, Manifest({}, data.STRAIN, "clean", (BLOCK,)))
    assert told.metrics["quiet_asd_change"].value == pytest.approx(0, abs=1e-3)
    assert told.metrics["quiet_power_change"].value == pytest.approx(0, abs=2e-3)
    assert "inspiral_range_change" not in told.metrics  # strain of 2048 Hz does not reach high enough
    assert 5 < told.details["noise"]["quiet_segments"] < 40
    assert len(told.details["noise"]["asd_change"]) == 7  # up to 1024 Hz
    assert (folder / "images" / "noise.png").stat().st_size > 10_000


def test_what_is_wrongly_taken_in_quiet_time_is_told(tmp_path):
    """Of three glitches of the witness the strain knows nothing."""
    recorded = data.recordings()
    strain = recorded[data.STRAIN]
    alone = strain.series - data.LEVEL * data.glitch(2048.0)
    quiet_strain = {**recorded, data.STRAIN: replace(strain, series=alone)}
    found = measured(quiet_strain, tmp_path, agreement=False)
    assert found.glitch.any()
    assert found.quiet[round(512 * 20.3)]
    metrics, details = noise_metrics(read_noise(noise_path(tmp_path, *SPAN)))
    assert metrics["quiet_power_change"].value > 0.02
    worst = max(details["power_change"], key=lambda band: details["power_change"][band][0])
    assert worst == "40-80 Hz"  # where the glitches are


def test_a_folder_without_what_is_known_of_the_noise_says_nothing(tmp_path, cleaned):
    assert not tell_noise(tmp_path, Manifest({}, data.STRAIN, "clean", (BLOCK,))).metrics
    path = noise_path(tmp_path, *SPAN)
    path.parent.mkdir(parents=True)
    path.write_bytes(noise_path(cleaned[0], *SPAN).read_bytes()[:5000])
    assert read_noise(path) is None
    assert not tell_noise(tmp_path, Manifest({}, data.STRAIN, "clean", (BLOCK,))).outputs


def test_ranges_of_few_pieces_have_no_interval_and_no_quiet_time_no_figure():
    rate, rng = 4096.0, np.random.default_rng(3)
    clean = 1e-23 * rng.standard_normal(round(64 * rate))
    strain, quiet = clean.copy(), np.ones(64, dtype=bool)
    strain[round(10 * rate) : round(10.1 * rate)] *= 30
    quiet[10] = False
    pieces = [NoiseChanges.of(one) for one in noise_changes(strain, clean, quiet, 1_400_000_000.0, rate)]
    metrics, _ = noise_metrics(pieces[0].and_then(pieces[1]))
    before, after = (metrics[f"inspiral_range_{when}_mpc"] for when in ("before", "after"))
    assert before.value < 0.95 * after.value
    assert metrics["inspiral_range_change"].value > 0.03
    assert after.low is None  # two pieces are too few
    nowhere = NoiseChanges.of(next(noise_changes(strain, clean, np.zeros(64, bool), 1_400_000_000.0, rate)))
    told, _ = noise_metrics(nowhere)
    assert "quiet_asd_change" not in told
    assert "inspiral_range_after_mpc" in told
