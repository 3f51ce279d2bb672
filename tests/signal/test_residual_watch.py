"""When more is left of glitches than was: changes that are found, and those that are none."""

import json

import numpy as np
import pytest

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.signal.residual_watch import (
    Noise,
    ResidualReference,
    ResidualSettings,
    by_group,
    by_kind,
    compare_residuals,
    residual_reference,
    shares_left,
)

BANDS = ((8.0, 64.0), (8.0, 16.0), (16.0, 32.0), (32.0, 64.0))
CLASSES = ("blip", "tomte", "whistle")
SETTINGS = ResidualSettings()


def glitches(generator, groups, *, factor=None, events=2):
    """Skewed shares about 0.2 that differ by group and band; of classes in `factor` so many times as much is left."""
    number = np.repeat(np.arange(groups), events)
    named = np.array(CLASSES, dtype=object)[number % len(CLASSES)]
    usual = generator.lognormal(-1.6, 0.5, (groups, 1)) * generator.lognormal(0, 0.3, (groups, len(BANDS)))
    shares = usual[number] * generator.lognormal(0, 0.3, (len(number), len(BANDS)))
    shares *= np.array([(factor or {}).get(name, 1.0) for name in named])[:, None]
    shares[generator.uniform(size=shares.shape) < 0.2] = np.nan
    return by_kind(shares, number, {"all": ["glitches"] * len(number), "class": named})


def reference_of(generator, groups=45):
    return residual_reference(BANDS, glitches(generator, groups), Noise(np.full(4, 100.0), np.full(4, 10.0)))


def test_a_share_is_told_of_what_shows_before_cleaning():
    noise = Noise(np.array([100.0, 50.0]), np.array([10.0, 10.0]))
    power = np.array([[[300.0, 140.0], [90.0, 60.0]], [[300.0, 80.0], [250.0, 650.0]]])
    np.testing.assert_array_equal(shares_left(power, noise), [[0.2, np.nan], [-0.1, 3.0]])
    assert np.isnan(shares_left(np.zeros((1, 2, 2)), noise)).all()  # no strain
    # a band that the data do not have
    assert np.isnan(shares_left(np.zeros((1, 2, 2)), Noise(np.zeros(2), np.zeros(2)))).all()
    assert Noise.of(np.ones((4, 2))) is None


def test_events_of_one_group_are_one_value():
    shares = np.array([[0.1, np.nan], [0.5, np.nan], [0.3, 0.4], [np.nan, 0.2]])
    np.testing.assert_allclose(by_group(shares, np.array([7, 7, 3, 3])), [[0.3, 0.3], [0.3, np.nan]])


def test_a_class_of_which_twice_as_much_is_left_is_noticed_and_named():
    generator = np.random.default_rng(0)
    reference = reference_of(generator, 90)
    report = compare_residuals(glitches(generator, 75, factor={"tomte": 2.0}), reference, SETTINGS)
    grown = {(each.kind, each.name) for each in report.changes if each.grown}
    assert grown == {("class", "tomte")}
    (said,) = report.grown
    assert said.startswith("class tomte at 8 to ")
    best = min((each for each in report.changes if each.grown), key=lambda each: each.p_value)
    assert best.now / best.before == pytest.approx(2.0, rel=0.3)
    assert (best.groups_before, best.groups) >= (20, 20)


def test_a_class_doubles_unnoticed_in_few_cases_and_nothing_is_noticed_in_ordinary_events():
    found, alarms = 0, 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        reference = reference_of(generator, 90)
        found += bool(compare_residuals(glitches(generator, 75, factor={"tomte": 2.0}), reference, SETTINGS).grown)
        alarms += bool(compare_residuals(glitches(generator, 75), reference, SETTINGS).grown)
    assert found >= 24
    assert alarms <= 1  # one in 2.6 trials of 30 at the most


def test_the_rate_of_false_alarms_is_the_one_that_is_set():
    """By the ranks alone, whatever is left: at a level of 0.2 at most so many, also with events that are no cases."""
    settings = ResidualSettings(max_ratio=1.0000001, least_left=1e-6, significance=0.2)
    alarms = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        new = glitches(generator, 24, events=int(generator.integers(1, 6)))
        alarms += bool(compare_residuals(new, reference_of(generator, 30), settings).grown)
    assert 0 < alarms < 0.2 * 100


def test_a_little_more_is_no_reason_however_sure():
    reference = ResidualReference(BANDS, {("all", "glitches"): tuple((0.2, 0.01, 0.2, None) for _ in range(100))})
    new = {("all", "glitches"): np.tile([0.29, 0.07, 0.31, 0.9], (100, 1)) + 1e-6 * np.arange(100)[:, None]}
    changes = compare_residuals(new, reference, SETTINGS).changes
    assert [each.grown for each in changes] == [False, False, True]
    assert all(each.p_value < 1e-10 for each in changes)
    few = {kind: rows[:4] for kind, rows in new.items()}
    assert compare_residuals(few, reference, SETTINGS).changes == ()


def test_what_is_kept_is_bounded_and_survives_json():
    reference = reference_of(np.random.default_rng(1), 999)
    assert len(reference.shares(("all", "glitches"))) == 200
    assert ResidualReference.from_dict(json.loads(json.dumps(reference.to_dict(), allow_nan=False))) == reference
    assert reference.shares(("class", "unheard of")).shape == (0, 4)


@pytest.mark.parametrize(
    "change",
    [{"bands": [[8.0]]}, {"noise": [[1.0], [1.0]]}, {"left": [{"kind": "all", "name": "x", "left": [[0.1]]}]}],
)
def test_what_is_no_reference_is_refused(change):
    content = {**reference_of(np.random.default_rng(1)).to_dict(), **change}
    with pytest.raises(FormatError, match="Train the model again"):
        ResidualReference.from_dict(content)
