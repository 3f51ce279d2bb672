import torch

from glitchflow_plugin.inference.veto import loudest_by_column


def test_each_column_has_the_largest_energy_of_its_rows():
    predicted = torch.rand(3, 8, 5, generator=torch.Generator().manual_seed(1)) * 40
    assert torch.equal(loudest_by_column(predicted), predicted.max(dim=1).values)


def test_pixels_that_are_not_looked_at_say_nothing():
    predicted = torch.full((2, 3, 4), 50.0)
    inside = torch.tensor([[False, True, True, False], [False, False, True, False], [False, False, False, False]])
    predicted[1, 0, 1] = 20.0
    assert loudest_by_column(predicted, inside).tolist() == [[0, 50, 50, 0], [0, 20, 50, 0]]
