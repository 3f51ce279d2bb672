import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.linear import LinearFilter, RidgeSums, lagged_features

LAGS = (-1, 0, 3)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    witnesses = torch.rand(6, 2, 5, 20, generator=generator)
    features = lagged_features(witnesses, LAGS)
    weight = torch.rand(5, 6, generator=generator)
    strain = torch.einsum("wkft,fk->wft", features, weight)[:, None] + 0.5
    return witnesses, strain, weight


def test_lags_look_back_and_ahead_and_repeat_the_edge():
    witness = torch.arange(5.0).reshape(1, 1, 1, 5)
    found = lagged_features(witness, (-2, 0, 1))[0, :, 0]
    assert found.tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [1, 2, 3, 4, 4]]


def test_a_linear_coupling_is_found_exactly(data):
    witnesses, strain, weight = data
    sums = RidgeSums(2, 5, LAGS)
    sums.add(witnesses[:4], strain[:4])
    sums.add(witnesses[4:], strain[4:])
    found = sums.solve(ridge=0.0)
    torch.testing.assert_close(found.weight.detach(), weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found(witnesses), strain, rtol=1e-3, atol=1e-3)


def test_the_ridge_is_that_of_scikit_learn(data):
    witnesses, strain, _ = data
    strain = strain + torch.randn(strain.shape, generator=torch.Generator().manual_seed(1))
    sums = RidgeSums(2, 5, LAGS)
    sums.add(witnesses, strain)
    found = sums.solve(ridge=0.1)
    features = lagged_features(witnesses.double(), LAGS)
    for row in range(5):
        x = features[:, :, row].permute(0, 2, 1).reshape(-1, 6).numpy()
        y = strain[:, 0, row].reshape(-1).double().numpy()
        # scikit-learn centres the features; the plain problem with an unpunished constant has the same solution
        reference = Ridge(alpha=0.1 * (x**2).sum(axis=0).mean() + 1e-9).fit(x, y)
        np.testing.assert_allclose(found.weight[row].detach().numpy(), reference.coef_, rtol=1e-4, atol=1e-5)
        assert found.bias[row].item() == pytest.approx(reference.intercept_, rel=1e-4)


def test_silent_witnesses_leave_the_mean():
    sums = RidgeSums(1, 4, (0,))
    sums.add(torch.zeros(3, 1, 4, 10), torch.full((3, 1, 4, 10), 2.0))
    torch.testing.assert_close(sums.solve(0.1)(torch.zeros(1, 1, 4, 10)), torch.full((1, 1, 4, 10), 2.0))


def test_it_never_predicts_negative_energy():
    network = LinearFilter(1, 4, (0,))
    with torch.no_grad():
        network.weight.fill_(-1)
    assert (network(torch.rand(1, 1, 4, 4)) == 0).all()


def test_errors_say_what_is_missing():
    with pytest.raises(ConfigurationError, match="at least one lag"):
        LinearFilter(1, 4, ())
    with pytest.raises(ConfigurationError, match="0 samples"):
        RidgeSums(1, 4).solve(0.1)
