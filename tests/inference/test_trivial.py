import numpy as np
import pytest
import torch

from glitchflow_plugin.errors import NoEventsError
from glitchflow_plugin.inference.cases import CaseStatistics, map_statistics
from glitchflow_plugin.inference.score import score_statistics
from glitchflow_plugin.inference.trivial import (
    CLOCK,
    CONSTANT,
    MEAN_MAP,
    TRIVIAL,
    FixedPredictor,
    MeasuredMaps,
    trivial_maps,
    trivial_statistics,
)


def scene(num_events=90, *, spread=12, seed=0):
    """Maps of noise, two in three with a glitch somewhere around the middle, and what an honest, poor twin says."""
    generator = np.random.default_rng(seed)
    shape = (num_events, 32, 128)
    tiles = np.sqrt(0.5 / np.log(2)) * (generator.normal(size=shape) + 1j * generator.normal(size=shape))
    rows, columns = np.mgrid[:32, :128]
    glitch = np.zeros(shape)
    for event in range(num_events):
        if event % 3:
            row, column = generator.integers(6, 26), 64 + generator.normal(0, spread)
            amplitude = generator.uniform(5, 9)
            glitch[event] = amplitude * np.exp(-(((rows - row) / 2) ** 2) - ((columns - column) / 3) ** 2)
    measured = torch.from_numpy(np.abs(tiles + glitch) ** 2)
    # misses every third glitch, has the gain wrong, and hears what is not there in every tenth event
    heard = np.arange(num_events)[:, None, None] % 9 != 1
    said = heard * generator.uniform(0.8, 1.1, (num_events, 1, 1)) * glitch
    said[::10, 3:5, 20:23] += 5.0
    return measured, torch.from_numpy(said**2)


def batches(measured, size=16):
    rows = range(0, len(measured), size)
    return lambda: (
        MeasuredMaps(measured[row : row + size], np.arange(len(measured))[row : row + size]) for row in rows
    )


@pytest.mark.parametrize("spread", [3, 30])
def test_no_trivial_entrant_beats_a_mediocre_honest_twin_in_any_merit(spread):
    measured, said = scene(spread=spread)
    twin = score_statistics(map_statistics(measured, said), replicates=0).merits()
    entrants = dict(trivial_statistics(batches(measured)))
    fixed = trivial_maps([measured])
    busiest = fixed[CLOCK] - fixed[CLOCK].median()
    others = {f"constant {level}": torch.full_like(measured[0], level) for level in (0, 1.44, 2, 2.3, 4, 15.99, 17)}
    # a clock that vetoes the usual time, and the map of glitches without noise, at several gains
    for gain in (0.3, 3, 30):
        others |= {
            f"clock x {gain}": gain * busiest.clamp(min=0),
            f"map x {gain}": gain * (fixed[MEAN_MAP] - 1.44).clamp(min=0),
        }
    # noise that is taken away everywhere does not pay for guesses where glitches are most often
    often = (measured > 16).double().mean(dim=0).flatten()
    for count in (10, 100, 1000):
        guess = torch.full_like(often, 1.44)
        guess[often.topk(count).indices] = 15.99
        others[f"{count} guesses"] = guess.view(measured.shape[1:])
    entrants |= {name: map_statistics(measured, one.expand_as(measured)) for name, one in others.items()}
    for name, statistics in entrants.items():
        scores = score_statistics(statistics, replicates=0)
        for figure, estimate in scores.merits().items():
            assert estimate.value < twin[figure].value, (name, figure)
        assert np.nanmax(scores.veto_balance.value) <= 0.5, name
        assert scores.roc_auc.value <= 0.5, name
        assert scores.net_power_removed.value <= 1e-6, name


def test_the_three_are_means_over_fewer_and_fewer_axes():
    measured, _ = scene(30)
    inside = np.ones((32, 128), bool)
    inside[:, :7] = False
    found = trivial_maps([measured[:11], measured[11:]], inside)
    assert tuple(found) == TRIVIAL
    judged = measured[:, :, 7:]
    torch.testing.assert_close(found[CONSTANT], judged.mean().expand(32, 128))
    torch.testing.assert_close(found[CLOCK][:, 7:], judged.mean(dim=(0, 1)).expand(32, 121))
    torch.testing.assert_close(found[MEAN_MAP], measured.mean(dim=0))


def test_events_are_read_some_at_a_time_and_judged_in_their_order():
    measured, _ = scene(40)
    held = []

    def read():
        for row in range(0, 40, 8):
            held.append(row)
            yield MeasuredMaps(
                measured[row : row + 8], [f"e{n}" for n in range(row, row + 8)], np.arange(row, row + 8) // 4
            )

    found = trivial_statistics(read, 20.0)
    assert held == 2 * list(range(0, 40, 8))
    whole = map_statistics(
        measured,
        trivial_maps([measured])[MEAN_MAP].expand_as(measured),
        [f"e{n}" for n in range(40)],
        20.0,
        groups=np.arange(40) // 4,
    )
    assert isinstance(found[MEAN_MAP], CaseStatistics)
    for name, values in vars(whole).items():
        if name in ("event", "group", "glitch_threshold"):
            np.testing.assert_array_equal(vars(found[MEAN_MAP])[name], values)
        else:
            np.testing.assert_allclose(vars(found[MEAN_MAP])[name], values, err_msg=name)


def test_as_a_predictor_it_says_the_same_of_all(make_set):
    maps = make_set(3)
    batch = maps.read()
    said = torch.arange(batch.maps[0, 0].size, dtype=torch.float64).reshape(batch.maps.shape[2:])
    found = FixedPredictor(said)(batch)
    np.testing.assert_array_equal(found.measured, batch.maps[:, 0])
    for row in range(3):
        np.testing.assert_array_equal(found.predicted[row], said.float())
    np.testing.assert_allclose(found.cleaned, np.abs(batch.maps[:, 0] - said.numpy()), rtol=1e-5, atol=1e-4)


def test_without_events_there_is_nothing_to_judge():
    with pytest.raises(NoEventsError, match="at least one measured map"):
        trivial_statistics(lambda: iter(()))
