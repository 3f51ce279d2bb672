import numpy as np

from glitchflow_plugin.signal.families import redundant_families


def test_noisy_copies_are_one_family_and_other_causes_their_own():
    rng = np.random.default_rng(0)
    causes = rng.random((3, 200)) < 0.2
    copies = np.repeat(causes, 4, axis=0) & (rng.random((12, 200)) < 0.95)
    score = np.arange(12.0)
    family, representative = redundant_families(copies, np.ones_like(copies), score, 0.5)
    assert family.tolist() == [3] * 4 + [2] * 4 + [1] * 4
    assert np.flatnonzero(representative).tolist() == [3, 7, 11]


def test_gaps_in_the_data_do_not_part_copies():
    rng = np.random.default_rng(1)
    cause = rng.random(300) < 0.3
    known = np.ones((2, 300), dtype=bool)
    known[1, 100:] = False
    family, _ = redundant_families(np.stack([cause, cause]) & known, known, np.array([1.0, 2.0]), 0.9)
    assert family.tolist() == [1, 1]


def test_overlap_is_the_mean_jaccard_index():
    one, other = np.zeros(10, bool), np.zeros(10, bool)
    one[:6], other[3:9] = True, True  # 3 of 9
    both = np.stack([one, other])
    assert redundant_families(both, np.ones_like(both), np.ones(2), 3 / 9)[0].tolist() == [1, 1]
    assert redundant_families(both, np.ones_like(both), np.ones(2), 0.34)[0].tolist() == [1, 2]


def test_one_channel_and_silent_channels():
    assert redundant_families(np.ones((1, 3), bool), np.ones((1, 3), bool), np.ones(1), 0.5)[0].tolist() == [1]
    silent = np.zeros((2, 3), bool)
    assert redundant_families(silent, ~silent, np.ones(2), 0.5)[0].tolist() == [1, 2]
