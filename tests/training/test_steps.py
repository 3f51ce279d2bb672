import copy

import pytest
import torch
from torch import nn

from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.training.steps import (
    Stepper,
    build_optimizer,
    is_out_of_memory,
    moving_average,
    parameter_groups,
    warm_up,
)


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))


@pytest.fixture
def batch():
    return torch.randn(7, 2, 8, 8), torch.randn(7, 1, 8, 8)


def make(network, losses=None, **changes):
    def squares(x, y):
        return (network(x) - y).square().mean(dim=(1, 2, 3))

    optimizer = build_optimizer(network.parameters(), "sgd", rate=0.1, momentum=0.0)
    keywords = {"gradient_clip": 1e9, **changes}
    return Stepper((losses or (lambda f: f))(squares), lambda x: x, network, optimizer, **keywords)


def too_large(limit, error):
    """Losses that run out of memory above some number of windows."""

    def wrap(losses):
        def limited(x, y):
            if len(x) > limit:
                raise error
            return losses(x, y)

        return limited

    return wrap


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_a_batch_in_pieces_gives_the_same_step(network, batch, error, caplog):
    other = copy.deepcopy(network)
    total = make(network).step(*batch)
    stepper = make(other, too_large(2, error))
    in_pieces = stepper.step(*batch)
    # 7 -> 4 -> 2
    assert stepper.piece_size == 2
    torch.testing.assert_close(total, in_pieces)
    for wanted, found in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(wanted, found, rtol=1e-5, atol=1e-7)
    assert caplog.text.count("pieces of") == 2
    stepper.step(*batch)
    assert caplog.text.count("pieces of") == 2


def test_a_single_window_that_does_not_fit_is_an_error(network, batch):
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(DataError, match="a single window does not fit"):
        make(network, too_large(0, MemoryError())).step(*batch)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_what_other_processes_wait_for_is_not_repeated(network, batch):
    stepper = make(network, too_large(2, MemoryError()), world_size=2)
    with pytest.raises(DataError, match="others cannot repeat"):
        stepper.step(*batch)
    assert stepper.piece_size is None
    # pieces before the last one concern nobody else: 7 = 3 + 3 + 1
    stepper = make(network, too_large(2, MemoryError()), world_size=2, piece_size=3)
    stepper.step(*batch)
    assert stepper.piece_size == 2


def test_other_errors_pass(network, batch):
    with pytest.raises(RuntimeError, match="shapes differ"):
        make(network, too_large(0, RuntimeError("shapes differ"))).step(*batch)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_processes_learn_together_what_one_would(network, batch):
    """Average the gradients of two unequal shares, as DDP does."""
    alone = copy.deepcopy(network)
    make(alone).step(*batch)
    gradients = []
    for rank in range(2):
        mine = copy.deepcopy(network)
        x, y = (part[rank::2] for part in batch)
        make(mine, world_size=2).step(x, y, len(x), 7)
        gradients.append([each.grad for each in mine.parameters()])
    for parameter, first, second in zip(alone.parameters(), *gradients, strict=True):
        torch.testing.assert_close((first + second) / 2, parameter.grad)


def test_windows_that_do_not_count_change_nothing(network, batch):
    other = copy.deepcopy(network)
    total = make(network).step(batch[0][:5], batch[1][:5])
    for piece_size in (None, 3):
        twin = copy.deepcopy(other)
        assert make(twin, piece_size=piece_size).step(*batch, 5, 5) == pytest.approx(float(total))
        for wanted, found in zip(network.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(wanted, found, rtol=1e-5, atol=1e-7)
    still = copy.deepcopy(other)
    assert make(still, world_size=2).step(batch[0][:1], batch[1][:1], 0, 1) == 0
    assert all(torch.equal(a, b) for a, b in zip(still.parameters(), other.parameters(), strict=True))


def test_gradients_are_clipped(network, batch):
    stepper = make(network, gradient_clip=1e-3)
    stepper.step(*batch)
    norm = torch.stack([each.grad.norm() for each in network.parameters()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_the_average_follows_the_weights(network, batch):
    average = moving_average(network, 0.9)
    stepper = make(network, average=average)
    expected = None
    for step in range(6):
        stepper.step(*batch)
        now = network[0].weight.detach().clone()
        # the decay itself once (1 + n) / (10 + n) has grown beyond it
        decay = min(0.9, (1 + step) / (10 + step))
        expected = now if expected is None else decay * expected + (1 - decay) * now
    torch.testing.assert_close(average.module[0].weight, expected)
    assert not any(each.requires_grad for each in average.parameters())
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        moving_average(network, 1.0)


def test_the_rate_rises_and_is_then_left_alone(network):
    optimizer = build_optimizer(network.parameters(), "adamw", rate=0.2)
    rates = []
    for step in range(6):
        warm_up(optimizer, 0.2, step, 4)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2])
    warm_up(optimizer, 7.0, 0, 0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["adadelta", "adam", "adamw", "rmsprop", "sgd"])
def test_optimisers_take_the_steps_of_torch(network, batch, name):
    other = copy.deepcopy(network)
    ours = build_optimizer(network.parameters(), name, rate=1e-2, weight_decay=0.1)
    kinds = {each.__name__.lower(): each for each in (torch.optim.Adadelta, torch.optim.Adam, torch.optim.AdamW)}
    kinds |= {"rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}
    momentum = {"momentum": 0.9} if name in ("rmsprop", "sgd") else {}
    plain = kinds[name](other.parameters(), lr=1e-2, weight_decay=0.1, foreach=False, **momentum)
    for _ in range(3):
        for each, optimizer in ((network, ours), (other, plain)):
            optimizer.zero_grad()
            (each(batch[0]) - batch[1]).square().mean().backward()
            optimizer.step()
    for wanted, found in zip(other.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(wanted, found, rtol=1e-4, atol=1e-6)


def test_an_unknown_optimiser_is_refused(network):
    with pytest.raises(ConfigurationError, match="adamw"):
        build_optimizer(network.parameters(), "adamax", rate=1.0)


def test_parameters_that_a_network_names_learn_at_a_rate_of_their_own(network):
    network.relative_rates = {"0.weight": 0.1}
    optimizer = build_optimizer(parameter_groups(network, 0.2), "adamw", rate=0.2)
    first, second = optimizer.param_groups
    assert (first["lr"], second["lr"]) == pytest.approx((0.2, 0.02))
    assert [id(one) for one in second["params"]] == [id(network[0].weight)]
    assert len(first["params"]) == 3
    warm_up(optimizer, 0.2, step=0, steps=4)
    assert (first["lr"], second["lr"]) == pytest.approx((0.05, 0.005))
    again = build_optimizer(parameter_groups(network, 0.2), "adamw", rate=0.2)
    again.load_state_dict(optimizer.state_dict())
    warm_up(again, 0.2, step=1, steps=4)
    assert [group["lr"] for group in again.param_groups] == pytest.approx([0.1, 0.01])


def test_a_network_without_such_parameters_has_one_group_as_before(network):
    former = build_optimizer(network.parameters(), "adamw", rate=0.2).state_dict()
    assert build_optimizer(parameter_groups(network, 0.2), "adamw", rate=0.2).state_dict() == former
