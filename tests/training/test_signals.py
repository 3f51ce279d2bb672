import numpy as np
import pytest
import torch
from scipy import signal

from glitchflow_plugin.signal.psd import Psd
from glitchflow_plugin.signal.relation import measure_relation
from glitchflow_plugin.training.signals import (
    at_peaks,
    found_snr,
    lost_energy,
    lost_share,
    spread_over,
    whitened_mergers,
)

RATE, SIZE = 1024.0, 6144


def noise(seed, count=20):
    return np.random.default_rng(seed).standard_normal((count, SIZE))


def ringing(series):
    return signal.sosfilt(signal.butter(2, [30, 200], "bandpass", fs=RATE, output="sos"), series)


COPIES = {
    "scaled": lambda strain: -3 * strain,
    "delayed": lambda strain: np.roll(strain, 41, axis=-1),
    "early": lambda strain: np.roll(strain, -41, axis=-1),
    "much delayed": lambda strain: np.roll(strain, 700, axis=-1),
    "filtered": ringing,
    "very noisy": lambda strain: np.roll(strain, 5, axis=-1) + 4 * noise(7),
    "noisy": lambda strain: np.roll(strain, 5, axis=-1) + 2 * noise(7),
    "all of it": lambda strain: np.roll(0.3 * ringing(strain), 200, axis=-1) + 0.1 * noise(8),
}


@pytest.fixture(scope="module")
def mergers():
    return torch.from_numpy(whitened_mergers(3, SIZE, RATE))


@pytest.mark.parametrize("name", COPIES)
def test_a_witness_that_is_made_from_the_strain_gets_the_merger(name, mergers):
    strain = noise(0)
    witness = COPIES[name](strain)
    relation = measure_relation(torch.from_numpy(strain), torch.from_numpy(witness)[:, None], RATE)
    found = relation.copies(mergers)[:, 0].numpy()
    shown = mergers.numpy()
    expected = COPIES[name](np.concatenate([shown] * 7)[:20])[:3] if "noisy" not in name else np.roll(shown, 5, axis=-1)
    if name == "all of it":
        expected = np.roll(0.3 * ringing(shown), 200, axis=-1)
    left = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert left < (0.35 if name == "noisy" else 0.7 if name == "very noisy" else 0.15)


def test_what_has_nothing_to_do_with_the_strain_gets_none(mergers):
    strain, others = torch.from_numpy(noise(0)), torch.from_numpy(np.stack([noise(1), noise(2), 0 * noise(3)], axis=1))
    relation = measure_relation(strain, others, RATE)
    copies = relation.copies(mergers)
    assert copies.square().sum() < 0.01 * mergers.square().sum()
    assert (relation.coherent <= 0.01).all()
    # a tone that both share is no copy of the strain
    hum = 0.1 * torch.sin(2 * torch.pi * 50 * torch.arange(SIZE) / RATE)
    copies = measure_relation(strain + hum, others[:, :1] + hum, RATE).copies(mergers)
    share = (copies[:, 0] * mergers).sum(dim=1) / mergers.square().sum(dim=1)
    assert share.abs().max() < 0.05


def test_events_in_which_a_witness_is_missing_do_not_count(mergers):
    strain = noise(0)
    witness = np.roll(strain, 10, axis=-1)
    witness[::2] = 0
    relation = measure_relation(torch.from_numpy(strain), torch.from_numpy(witness)[:, None], RATE)
    np.testing.assert_allclose(relation.copies(mergers)[:, 0, 100:-100], mergers.roll(10, -1)[:, 100:-100], atol=0.2)


def test_witnesses_that_are_seldom_there_are_heard_first():
    there = np.ones((40, 3), dtype=bool)
    there[:30, 1] = False
    there[30:, 2] = False
    chosen = spread_over(there, 12)
    assert len(set(chosen)) == 12
    assert (there[chosen].sum(axis=0) >= 4).all()
    assert spread_over(np.ones((40, 3), dtype=bool), 12) == list(range(12))
    assert spread_over(there[:2], 12) == [0, 1]


def test_mergers_have_the_snr_that_is_asked_for_whatever_the_spectrum():
    flat = Psd(np.full(10, 1e-46), 100.0)
    for given in ({}, {"detector": "L1"}, {"psd": flat}):
        found = whitened_mergers(5, SIZE, RATE, seed=1, **given)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.geomspace(8, 30, 5))
        loudest = np.abs(found).argmax(axis=1) / RATE
        assert ((loudest > 2) & (loudest < 5)).all()
    # of an event that is shorter than a merger, the end
    assert np.isfinite(whitened_mergers(2, 2048, RATE)).all()


def test_what_is_lost_is_a_share_of_the_snr(mergers):
    np.testing.assert_allclose(lost_share(mergers, 0.3 * mergers), 0.3, rtol=0.01)
    np.testing.assert_allclose(lost_share(mergers, -0.3 * mergers), 0.3, rtol=0.01)
    # late, or a quarter of a period off: an echo, and another phase
    np.testing.assert_allclose(lost_share(mergers, 0.3 * mergers.roll(300, -1)), 0.3, rtol=0.01)
    turned = torch.from_numpy(np.imag(signal.hilbert(mergers.numpy())))
    np.testing.assert_allclose(lost_share(mergers, 0.3 * turned), 0.3, rtol=0.01)
    np.testing.assert_allclose(lost_share(mergers, torch.from_numpy(0.3 * noise(4, 3))), 0, atol=0.2)
    np.testing.assert_allclose(lost_share(mergers, 0 * mergers), 0)
    maps = torch.rand(2, 8, 8) * 100
    np.testing.assert_allclose(lost_energy(maps, maps, 0.51 * maps), 0.3, rtol=1e-5)
    np.testing.assert_allclose(lost_energy(maps, maps, 0 * maps), 0)


def test_the_snr_is_found_at_any_phase_and_near_its_time_alone(mergers):
    own = mergers.norm(dim=-1).numpy()
    turned = torch.from_numpy(np.imag(signal.hilbert(mergers.numpy())))
    for found in (mergers, turned, mergers.roll(20, -1), mergers.roll(-20, -1)):
        np.testing.assert_allclose(found_snr(mergers, found, 51), own, rtol=0.01)
    assert (found_snr(mergers, mergers.roll(600, -1), 51) < 0.5 * own).all()
    # of noise alone the squares have the mean 2 at any one time
    many = np.random.default_rng(5).standard_normal((400, SIZE))
    alone = found_snr(mergers[:1].expand(400, -1), torch.from_numpy(many), 0)
    assert np.mean(np.square(alone)) == pytest.approx(2, abs=0.3)


def test_mergers_are_moved_to_where_the_strain_is_loudest(mergers):
    strain, places = torch.zeros(3, SIZE), (1500, 3000, 5900)
    for row, place in enumerate(places):
        strain[row, place - 1 : place + 2] = 5.0
    moved = at_peaks(mergers, strain, 3)
    for row, place in enumerate(places):
        by = place - round(0.7 * SIZE)
        expected = np.roll(mergers[row].numpy(), by)
        expected[slice(by, None) if by < 0 else slice(0, by)] = 0  # nothing comes in at the other end
        np.testing.assert_array_equal(moved[row].numpy(), expected)
