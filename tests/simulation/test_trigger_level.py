import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from glitchflow_plugin.data.triggers.store import TRUTH_NAME, open_triggers
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.simulation.trigger_level import (
    TriggerLevelSettings,
    drawn_blocks,
    simulate_triggers,
)

SMALL = {"duration": 20_000.0, "gps_start": 1_400_000_000, "families": ("whistle", "blip"), "seed": 3}


def all_rows(folder):
    return open_triggers(folder).to_table()


def test_the_same_seed_gives_the_same_store_and_another_gives_another(tmp_path):
    made = [
        simulate_triggers(TriggerLevelSettings(**{**SMALL, "seed": seed}), tmp_path / name).fingerprint
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert made[0] == made[1] != made[2]


def test_the_strain_has_a_trigger_for_each_glitch_of_the_truth_and_chance_at_its_rate(tmp_path):
    settings = TriggerLevelSettings(**SMALL, day_night=0.0)
    simulate_triggers(settings, tmp_path)
    truth, rows = pq.read_table(tmp_path / TRUTH_NAME), all_rows(tmp_path)
    strain = rows.filter(pc.equal(rows["channel"].cast("string"), settings.strain))
    assert len(truth) > 100
    assert set(truth["time"].to_pylist()) <= set(strain["time"].to_pylist())
    chance, expected = len(strain) - len(truth), settings.chance_rate * settings.duration
    assert abs(chance - expected) < 5.0 * np.sqrt(expected)  # Poisson
    assert rows["time"].to_numpy().max() < (settings.gps_start + settings.duration) * NANOSECONDS


def test_without_families_that_couple_no_witness_foretells_the_strain(tmp_path):
    settings = TriggerLevelSettings(**SMALL, unwitnessed=1.0, bystander_rate=0.0, chance_rate=0.0, line_rate=0.0)
    simulate_triggers(settings, tmp_path)
    assert set(all_rows(tmp_path)["channel"].to_pylist()) == {settings.strain}


def test_the_rate_follows_the_hour():
    settings = TriggerLevelSettings(duration=86_400.0, gps_start=1_400_025_600, day_night=0.9, families=("blip",))
    assert settings.gps_start % 86_400 == 0
    when = np.concatenate([rows["time"].to_numpy() for rows, _ in drawn_blocks(settings)])
    first_half = (when // NANOSECONDS - settings.gps_start < 43_200).mean()
    assert first_half == pytest.approx(0.5 + 0.9 / np.pi, abs=0.03)  # integral of the sine over half a day


def test_unknown_families_are_refused():
    with pytest.raises(ConfigurationError, match="expected families among"):
        TriggerLevelSettings(families=("blop",))
