from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from torch.nn import functional

from glitchflow_plugin.training.filter_start import FOLDS, choose_laws, choose_span, fit_filters, folds_of, sums_by_fold


def laws(witness):
    return torch.stack([witness, witness * witness.abs()], dim=2)


def batches(strain_of, num_events=40):
    """Two witnesses of bursts, and what `strain_of` makes of them, in noise."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_events // 8):
        witnesses = torch.zeros(8, 2, 2048)
        loudness = torch.rand(8, 2, 1, generator=generator) + 0.5
        witnesses[..., 900:1000] = loudness * torch.randn(8, 2, 100, generator=generator)
        strain = strain_of(witnesses).sum(dim=1, keepdim=True)
        yield laws(witnesses), strain + 0.1 * torch.randn(strain.shape, generator=generator)


def fitted(strain_of, groups=None):
    folds = folds_of(np.arange(40) if groups is None else groups)
    sums = sums_by_fold(batches(strain_of), folds, filter_size=65)
    chosen = choose_laws(sums, num_laws=2)
    return chosen, fit_filters(reduce(add, sums), chosen)


def test_a_law_is_taken_where_it_holds_and_nowhere_else():
    def strain(witnesses):
        return torch.stack([0.5 * witnesses[:, 0], (witnesses[:, 1] * witnesses[:, 1].abs()).roll(5, dims=-1)], dim=1)

    chosen, filters = fitted(strain)
    assert chosen.tolist() == [[True, False], [True, True]]
    assert filters[0, 1].abs().max() == 0
    assert filters[0, 0].argmax() == 32
    assert filters[1, 1].argmax() == 32 + 5
    assert filters[1, 1, 37] > 0.7


def test_a_witness_that_is_context_has_a_law_only_where_that_is_better():
    folds = folds_of(np.arange(40))

    def chosen(strain_of):
        return choose_laws(sums_by_fold(batches(strain_of), folds, filter_size=65), num_laws=2, context=[1])

    assert chosen(lambda witnesses: witnesses * torch.tensor([1.0, 0.0])[:, None]).tolist() == [
        [True, False],
        [False] * 2,
    ]
    assert chosen(lambda witnesses: witnesses).tolist() == [[True, False], [True, False]]


def test_the_unit_of_a_channel_does_not_matter():
    _, filters = fitted(lambda witnesses: witnesses)
    folds = folds_of(np.arange(40))
    scaled = ((1e3 * series, strain) for series, strain in batches(lambda witnesses: witnesses))
    sums = sums_by_fold(scaled, folds, filter_size=65)
    torch.testing.assert_close(1e3 * fit_filters(reduce(add, sums), torch.tensor([[True, False]] * 2)), filters)


def test_events_of_a_group_are_left_out_together():
    groups = np.repeat(np.arange(10), 4)
    folds = folds_of(groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(10))
    assert set(folds) == set(range(FOLDS))


def test_with_few_groups_nothing_but_the_linear_law_is_tried():
    def strain(witnesses):
        return witnesses * witnesses.abs()

    chosen, _ = fitted(strain, groups=np.arange(40) % 3)
    assert chosen.tolist() == [[True, False], [True, False]]
    assert fitted(strain)[0].all()


@pytest.mark.parametrize(("decay", "noise", "shortened"), [(5.0, 40.0, True), (100.0, 1.0, False)])
def test_responses_are_as_long_as_events_tell(decay, noise, shortened):
    response = torch.zeros(257)
    response[128:] = torch.exp(-torch.arange(129) / decay) * torch.cos(0.3 * torch.arange(129))
    generator = torch.Generator().manual_seed(0)
    witnesses = torch.randn(20, 1, 2048, generator=generator)
    strain = functional.conv1d(witnesses, response.flip(0)[None, None], padding=128)
    strain += noise * torch.randn(strain.shape, generator=generator)
    found = sums_by_fold([(witnesses[:, :, None], strain)], folds_of(np.arange(20)), filter_size=257)
    span = choose_span(found, num_laws=1)
    assert (span is not None) == shortened
    if shortened:
        chosen = torch.ones(1, 1, dtype=torch.bool)
        limited, free = (fit_filters(reduce(add, found), chosen, one)[0, 0] for one in (span, None))
        assert (limited - response).norm() < 0.9 * (free - response).norm()
