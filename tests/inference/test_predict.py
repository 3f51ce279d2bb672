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


def test_a_strain_twin_predicts_and_subtracts(make_event_set, tmp_path):
    """A witness that is the strain's own glitch, a quarter period apart: only a subtraction with phase removes it."""
    from glitchflow_plugin.inference.predict import SeriesPredictor
    from glitchflow_plugin.models.twins import WaveformTwin
    from glitchflow_plugin.models.wiener import WienerFilter
    from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
    from glitchflow_plugin.signal.qtransform import QTransformSettings

    times = np.arange(3072) / 1024
    generator = np.random.default_rng(0)
    glitch = 12 * np.exp(-(((times - 1.5) / 0.05) ** 2)) * np.sin(2 * np.pi * 128 * times)
    series = generator.standard_normal((3, 2, 3072))
    series[:2, 0] += glitch
    series[:2, 1] = np.roll(glitch, -2)  # a quarter of 8 samples earlier
    valid = np.array([[True, True], [True, False], [True, True]])
    events = make_event_set(series, valid)
    settings = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=128)
    maps = make_spectrograms(events, ("WITNESS_1",), settings, tmp_path / "maps")
    network = WienerFilter(1, filter_size=9)
    with torch.no_grad():
        network.filters[0, 4 + 2] = 1.0
    predictor = SeriesPredictor(WaveformTwin(network), events, "STRAIN", ("WITNESS_1",), settings)
    batch = maps.read(channels=["STRAIN", "WITNESS_1"])
    found = predictor(batch)
    np.testing.assert_allclose(found.measured, batch.maps[:, 0], atol=1e-4)
    # median-normalised noise adds about 1.4 on average, and a cross term
    peak = found.measured[0].max()
    assert peak > 200
    assert abs(found.predicted[0].max() / peak - 1) < 0.2
    assert found.cleaned[0].max() < 20
    # without its witness, or without a glitch, nothing is taken away
    assert found.predicted[1].max() == 0
    torch.testing.assert_close(found.cleaned[1], found.measured[1], rtol=1e-5, atol=1e-5)
    alone = predictor(maps.read(channels=["WITNESS_1"]))
    assert alone.measured.abs().max() == 0
    torch.testing.assert_close(alone.predicted, found.predicted)


def test_the_expected_residual_lies_where_the_prediction_is(make_event_set, tmp_path):
    from glitchflow_plugin.inference.predict import SeriesPredictor
    from glitchflow_plugin.models.coupling import CouplingNet
    from glitchflow_plugin.models.twins import WaveformTwin
    from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
    from glitchflow_plugin.signal.qtransform import QTransformSettings

    times = np.arange(3072) / 1024
    series = np.random.default_rng(0).standard_normal((1, 2, 3072))
    series[:, 1] += 20 * np.exp(-(((times - 1.2) / 0.05) ** 2)) * np.sin(2 * np.pi * 160 * times)
    events = make_event_set(series)
    settings = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=128)
    maps = make_spectrograms(events, ("WITNESS_1",), settings, tmp_path / "maps")
    network = CouplingNet(1, features=4, frame_size=64, filter_size=65)
    with torch.no_grad():
        network.filters.zero_()
        network.filters[0, 0, 32] = 5.0  # what passes the gate is the prediction
    twin = WaveformTwin(network, summary_size=4, num_references=1)
    found = SeriesPredictor(twin, events, "STRAIN", ("WITNESS_1",), settings)(maps.read())
    row, column = np.unravel_index(int(found.expected_residual[0].argmax()), (64, 128))
    assert maps.frequencies[row] == pytest.approx(160, abs=20)
    assert maps.times[column] == pytest.approx(1.2, abs=0.05)
    # elsewhere noise is left, whose mean is 1 / ln 2
    assert float(found.expected_residual[0].median()) == pytest.approx(1 / np.log(2), rel=0.05)
    assert found.strangeness.shape == (1,)
