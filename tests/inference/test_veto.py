import torch

from glitchflow_plugin.inference.veto import veto_flags


def test_flag_depends_on_the_largest_predicted_pixel():
    predicted = torch.zeros(2, 3, 8, 8)
    predicted[1, 2, 4, 4] = 16.5
    predicted[0, 0, 4, 4] = 16.0
    flags = veto_flags(predicted, 16.0)
    assert flags.shape == (2, 3)
    assert flags.nonzero().tolist() == [[1, 2]]


def test_lower_thresholds_flag_more():
    predicted = torch.rand(50, 8, 8, generator=torch.Generator().manual_seed(1)) * 40
    counts = [int(veto_flags(predicted, threshold).sum()) for threshold in (0.0, 20.0, 39.0, 40.0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 50
    assert counts[-1] == 0
