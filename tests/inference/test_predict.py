import numpy as np
import pytest
import torch
from torch import nn

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.inference.predict import blank_invalid, predict_maps


class Marker(nn.Module):
    """Passes the first witness through, so that any misplaced column or event shows."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, windows):
        self.calls.append((windows.shape[0], self.training, torch.is_grad_enabled()))
        return windows[:, :1]


def marked_maps(num_events=5, witnesses=2, frequencies=6, num_times=257):
    """Every pixel of the first witness holds its own number."""
    first = torch.arange(num_events * frequencies * num_times, dtype=torch.float32)
    first = first.reshape(num_events, 1, frequencies, num_times)
    return torch.cat([first, torch.zeros(num_events, witnesses - 1, frequencies, num_times)], dim=1)


@pytest.mark.parametrize("num_times", [64, 65, 128, 200, 257])
@pytest.mark.parametrize("stride", [None, 64, 32, 7])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_each_pixel_returns_to_its_event_and_place(num_times, stride, batch_size):
    maps = marked_maps(num_times=num_times)
    predicted = predict_maps(Marker(), maps, batch_size=batch_size, stride=stride)
    assert torch.equal(predicted, maps[:, 0])


def test_batches_are_bounded_and_without_gradients():
    twin = Marker().train()
    predict_maps(twin, marked_maps(num_events=7), batch_size=12)
    assert max(size for size, _, _ in twin.calls) <= 12
    assert sum(size for size, _, _ in twin.calls) == 7 * 5
    assert not any(training or gradients for _, training, gradients in twin.calls)
    assert twin.training  # as it was found


def test_batch_size_does_not_change_the_prediction():
    torch.manual_seed(0)
    twin = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3, padding=1), nn.Softplus())
    maps = torch.rand(6, 2, 64, 257)
    one, many = (predict_maps(twin, maps, batch_size=size) for size in (1, 64))
    torch.testing.assert_close(one, many)
    assert one.shape == (6, 64, 257)


def test_overlap_takes_columns_from_the_middle_of_windows():
    class Edges(nn.Module):
        def forward(self, windows):
            depth = torch.minimum(torch.arange(64), 63 - torch.arange(64))
            return depth.expand(len(windows), 1, windows.shape[2], 64).float()

    maps = torch.zeros(1, 1, 4, 256)
    assert predict_maps(Edges(), maps)[0, 0, 64:192].min() == 0
    assert predict_maps(Edges(), maps, stride=32)[0, 0, 16:240].min() >= 15


def test_the_result_can_be_used_with_gradients():
    predicted = predict_maps(Marker(), marked_maps(num_events=1))
    scale = torch.ones((), requires_grad=True)
    (predicted * scale).sum().backward()
    assert scale.grad is not None


def test_exported_programs_are_accepted():
    program = torch.export.export(nn.Conv2d(2, 1, 3, padding=1).eval(), (torch.rand(2, 2, 6, 64),), strict=False)
    predicted = predict_maps(program.module(), marked_maps(num_events=2, num_times=64), batch_size=2)
    assert predicted.shape == (2, 6, 64)


def test_progress_counts_events():
    done = []
    predict_maps(Marker(), marked_maps(num_events=5), batch_size=10, progress=done.append)
    assert sum(done) == 5


def test_wrong_settings_and_twins_are_refused():
    maps = marked_maps(num_events=1)
    with pytest.raises(ConfigurationError, match="batch_size"):
        predict_maps(Marker(), maps, batch_size=0)
    with pytest.raises(ConfigurationError, match="stride"):
        predict_maps(Marker(), maps, stride=65)
    with pytest.raises(ConfigurationError, match="at least one window"):
        predict_maps(Marker(), maps[..., :10])
    with pytest.raises(DataError, match="must return strain maps"):
        predict_maps(nn.Identity(), maps)


def test_invalid_witnesses_are_silent():
    maps = torch.ones(2, 3, 4, 5)
    valid = np.array([[True, True, True], [True, False, True]])
    blanked = blank_invalid(maps, valid)
    assert blanked.sum(dim=(2, 3)).tolist() == [[20, 20, 20], [20, 0, 20]]
    assert maps.min() == 1  # the caller's maps stay as they are
    assert blank_invalid(maps, np.ones((2, 3), bool)) is maps
