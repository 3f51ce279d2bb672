"""Common ground of the networks of triggers: scaling by data-set statistics, attention with relative places, heads."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.types.triggers import POINT_FEATURES, UNKNOWN, TriggerAnswers, TriggerSets

_SMALLEST_SPREAD = 1e-6
"""Of the root mean square: what spreads less does not move, but for rounding."""

Tokens = Float[Tensor, "set token feature"]
Bias = Float[Tensor, "set head token token"]


def mean_and_spread(
    count: Float[Tensor, " feature"], first: Float[Tensor, " feature"], second: Float[Tensor, " feature"]
) -> tuple[Float[Tensor, " feature"], Float[Tensor, " feature"]]:
    """Mean and standard deviation of numbers in any unit; 1 for those that do not move.

    Args:
        count: How many there are, or the sum of their weights, float64.
        first: Their sum, by weight.
        second: That of their squares.

    >>> mean_and_spread(*torch.tensor([[2.0, 2.0, 0.0], [2e-23, 6.0, 0.0], [4e-46, 18.0, 0.0]], dtype=float))[1]
    tensor([1.0000e-23, 1.0000e+00, 1.0000e+00], dtype=torch.float64)
    """
    there = torch.where(count > 0, count, 1.0)
    mean, square = first / there, second / there
    spread = (square - mean.square()).clamp(min=0).sqrt()
    return mean, torch.where(spread > _SMALLEST_SPREAD * square.sqrt(), spread, 1.0)


class Scaling(nn.Module):
    """Points and globals in units of their spread over the training data; what is missing becomes 0.

    A normalisation of each set or point would erase how loud and how many they are.

    Args:
        num_globals: Globals of a set.
    """

    point_mean: Tensor
    point_spread: Tensor
    global_mean: Tensor
    global_spread: Tensor

    def __init__(self, num_globals: int) -> None:
        super().__init__()
        for name, size in (("point", len(POINT_FEATURES)), ("global", num_globals)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_spread", torch.ones(size))

    def fit(self, batches: Iterable[TriggerSets]) -> None:
        """Take mean and standard deviation over all valid numbers of some batches, in float64."""
        sums = [torch.zeros(3, len(POINT_FEATURES)).double(), torch.zeros(3, len(self.global_mean)).double()]
        for sets in batches:
            points = sets.points[sets.mask]
            for total, values, valid in (
                (sums[0], points, points.isfinite()),
                (sums[1], sets.globals_, sets.globals_valid),
            ):
                kept = torch.where(valid, values, 0).double()
                total.add_(torch.stack([valid.double().sum(0), kept.sum(0), kept.square().sum(0)]))
        for name, (count, first, second) in zip(("point", "global"), sums, strict=True):
            mean, spread = mean_and_spread(count, first, second)
            getattr(self, f"{name}_mean").copy_(mean)
            getattr(self, f"{name}_spread").copy_(spread)

    def points(self, sets: TriggerSets) -> Float[Tensor, "set trigger feature"]:
        """Scaled points, 0 where there is no trigger, or a number of it is not known."""
        scaled = (sets.points - self.point_mean) / self.point_spread
        return torch.where(sets.mask[..., None] & scaled.isfinite(), scaled, 0.0)

    def globals(self, sets: TriggerSets) -> Float[Tensor, "set both"]:
        """Scaled globals, 0 where they are unknown, and beside them which are known."""
        scaled = (sets.globals_ - self.global_mean) / self.global_spread
        return torch.cat([torch.where(sets.globals_valid, scaled, 0.0), sets.globals_valid.to(scaled.dtype)], dim=-1)


class Heads(nn.Module):
    """One linear head for each task: glitch or not, its class, ln(1 + SNR), the channel of a point held out.

    Args:
        dim: Features in.
        num_kinds: Classes.
        num_channels: Channels of the vocabulary, UNKNOWN included.
    """

    def __init__(self, dim: int, num_kinds: int, num_channels: int) -> None:
        super().__init__()
        self.sizes = (1, num_kinds, 1, num_channels)
        self.norm = nn.LayerNorm(dim)
        self.all = nn.Linear(dim, sum(self.sizes))

    def forward(self, features: Float[Tensor, "set feature"]) -> TriggerAnswers:
        """Answers of all tasks."""
        glitch, kind, snr, channel = self.all(self.norm(features)).split(self.sizes, dim=-1)
        return TriggerAnswers(glitch[:, 0], kind, snr[:, 0], channel)


class TriggerNetwork(nn.Module, ABC):
    """A network from sets of triggers to answers.

    Args:
        num_channels: Channels of the vocabulary, UNKNOWN included.
        num_globals: Globals of a set.
        num_kinds: Classes of glitches.
        dim: Features of a token.
        unknown_share: Share of the triggers whose channel is hidden while it learns, so that UNKNOWN has a meaning.
    """

    def __init__(
        self, num_channels: int, num_globals: int, num_kinds: int, *, dim: int, unknown_share: float = 0.02
    ) -> None:
        super().__init__()
        if not 0 <= unknown_share < 1:
            raise ConfigurationError(f"expected unknown_share of at least 0 and below 1, got {unknown_share}.")
        self.num_channels, self.unknown_share = num_channels, unknown_share
        self.scaling = Scaling(num_globals)
        self.heads = Heads(dim, num_kinds, num_channels)

    @abstractmethod
    def features(self, sets: TriggerSets) -> Float[Tensor, "set feature"]:
        """What the heads read."""

    def forward(self, sets: TriggerSets) -> TriggerAnswers:
        """Answers for each set, whatever the order of its triggers and the padding after them."""
        return self.heads(self.features(sets))

    def known_channels(self, sets: TriggerSets) -> Int[Tensor, "set trigger"]:
        """Channels, those outside of the vocabulary as UNKNOWN; while it learns, some hidden at random."""
        channels = torch.where(sets.channels < self.num_channels, sets.channels, UNKNOWN)
        if not self.training:
            return channels
        hidden = torch.rand(channels.shape, device=channels.device) < self.unknown_share
        return torch.where(hidden, UNKNOWN, channels)


class RelativeBias(nn.Module):
    """What attention adds for the relative place of two triggers, by head; 0 from and to other tokens.

    Args:
        heads: Heads.
        axes: What a place is made of: the first of a point's features; 3: dt, log f and log SNR.
    """

    def __init__(self, heads: int, axes: int = 3) -> None:
        super().__init__()
        self.axes = axes
        # how far apart along each axis, its size, and whether both points are of one known channel
        self.weights = nn.Linear(2 * axes + 1, heads, bias=False)
        nn.init.zeros_(self.weights.weight)

    def forward(
        self, points: Float[Tensor, "set trigger feature"], channels: Int[Tensor, "set trigger"], others: int
    ) -> Bias:
        """Bias over `others` tokens and the triggers after them, from scaled points."""
        place = points[..., : self.axes]
        apart = place[:, :, None] - place[:, None]
        same = (channels[:, :, None] == channels[:, None]) & (channels[:, None] != UNKNOWN)
        bias = self.weights(torch.cat([apart, apart.abs(), same[..., None].to(apart.dtype)], dim=-1))
        return functional.pad(bias.permute(0, 3, 1, 2), (others, 0, others, 0))


Projection = Callable[[int, int], nn.Module]
"""Makes what maps tokens of one size, and their context, to another."""


class PlainLinear(nn.Linear):
    """A linear map that pays its context no attention."""

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Map tokens."""
        return super().forward(tokens)


class Block(nn.Module):
    """Attention and two layers, each added to its input after a normalisation (arXiv:2002.04745).

    Args:
        dim: Features of a token.
        heads: Heads; divide `dim`.
        projection: Makes the maps to queries, keys and values, and into the two layers.
    """

    def __init__(self, dim: int, heads: int, projection: Projection = PlainLinear) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigurationError(f"expected heads that divide dim, got {heads} and {dim}.")
        self.heads = heads
        self.norm_attention, self.norm_layers = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.into = projection(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.wide, self.narrow = projection(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, tokens: Tokens, bias: Bias, context: Tensor | None = None) -> Tokens:
        """Tokens of the same shape; `bias` is -inf at keys that are padding."""
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.into(self.norm_attention(tokens), context).chunk(3, dim=-1)
        )
        seen = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
        tokens = tokens + self.out(seen.transpose(1, 2).flatten(-2))
        return tokens + self.narrow(functional.silu(self.wide(self.norm_layers(tokens), context)))


def without_padding(bias: Bias, mask: Bool[Tensor, "set trigger"]) -> Bias:
    """The bias with -inf at keys where there is no trigger; other tokens stand before the triggers."""
    others = bias.shape[-1] - mask.shape[-1]
    seen = functional.pad(mask, (others, 0), value=True)
    return bias.masked_fill(~seen[:, None, None], -torch.inf)


class SetTransformer(TriggerNetwork):
    """A transformer on the triggers of a set, behind a class token, which the heads read, and one of the globals.

    What a token is, and in which context it is mapped, is for those that derive from it to say.
    """

    def add_blocks(
        self, num_globals: int, *, dim: int, heads: int, layers: int, projection: Projection = PlainLinear
    ) -> None:
        """Add all that comes after the tokens of the triggers.

        Args:
            num_globals: Globals of a set.
            dim: Features of a token.
            heads: Heads of attention.
            layers: Blocks.
            projection: As for `Block`.
        """
        self.embed_globals = nn.Linear(2 * num_globals, dim)
        self.class_token = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.bias = RelativeBias(heads)
        self.blocks = nn.ModuleList(Block(dim, heads, projection) for _ in range(layers))

    @abstractmethod
    def tokens(
        self, points: Float[Tensor, "set trigger feature"], channels: Int[Tensor, "set trigger"], sets: TriggerSets
    ) -> tuple[Tokens, Tensor | None]:
        """A token for each trigger, and the context of all tokens, if any; padding may give anything."""

    def features(self, sets: TriggerSets) -> Float[Tensor, "set feature"]:
        """The class token after all blocks."""
        points, channels = self.scaling.points(sets), self.known_channels(sets)
        embedded = self.embed_globals(self.scaling.globals(sets))
        others = torch.stack([self.class_token.expand_as(embedded), embedded], dim=1)
        tokens, context = self.tokens(points, channels, sets)
        tokens = torch.cat([others, tokens], dim=1)
        bias = without_padding(self.bias(points, channels, others.shape[1]), sets.mask)
        for block in self.blocks:
            tokens = block(tokens, bias, context)
        return tokens[:, 0]
