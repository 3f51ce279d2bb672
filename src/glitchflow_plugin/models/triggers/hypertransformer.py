"""A transformer whose weights depend on the channel that a trigger is of."""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glitchflow_plugin.models.triggers.parts import PlainLinear, Projection, SetTransformer, Tokens
from glitchflow_plugin.types.triggers import POINT_FEATURES, TriggerSets


class ChannelLinear(nn.Module):
    """A linear map W0 + U diag(h(c)) V of tokens in a context c: low rank, as LoRA (arXiv:2106.09685) with h of a net.

    The map is applied factor by factor, so that gradients reach the hypernetwork h (arXiv:1609.09106) and no weight
    matrix is made for each token.

    Args:
        in_features: Features in.
        out_features: Features out.
        context: Features of the context.
        rank: Rank of what depends on it.
    """

    def __init__(self, in_features: int, out_features: int, *, context: int, rank: int) -> None:
        super().__init__()
        self.static = nn.Linear(in_features, out_features)
        self.reduce = nn.Linear(in_features, rank, bias=False)
        self.hyper = nn.Sequential(nn.Linear(context, context), nn.SiLU(), nn.Linear(context, rank))
        self.expand = nn.Linear(rank, out_features, bias=False)

    def forward(
        self, tokens: Float[Tensor, "set token feature"], context: Float[Tensor, "set token context"]
    ) -> Float[Tensor, "set token other"]:
        """Map each token in its context."""
        return self.static(tokens) + self.expand(self.hyper(context) * self.reduce(tokens))


class HyperTransformer(SetTransformer):
    """Attention over the triggers of all channels about a time, by weights that a hypernetwork makes of the channel.

    Args:
        num_channels: Channels of the vocabulary, UNKNOWN included.
        num_globals: Globals of a set.
        num_kinds: Classes of glitches.
        dim: Features of a token.
        heads: Heads of attention.
        layers: Blocks.
        rank: Rank of what a channel changes of a weight.
        context: How a channel enters: `hyper` by the weights, `one_hot` added to its triggers as one-hot features
            through a linear map, `static` not at all. The latter two are ablations.
        unknown_share: Share of the triggers whose channel is hidden while it learns.
    """

    def __init__(
        self,
        num_channels: int,
        num_globals: int,
        num_kinds: int,
        *,
        dim: int = 128,
        heads: int = 8,
        layers: int = 4,
        rank: int = 16,
        context: Literal["hyper", "one_hot", "static"] = "hyper",
        unknown_share: float = 0.02,
    ) -> None:
        super().__init__(num_channels, num_globals, num_kinds, dim=dim, unknown_share=unknown_share)
        self.context = context
        hyper = context == "hyper"
        projection: Projection = partial(ChannelLinear, context=dim, rank=rank) if hyper else PlainLinear
        self.embed = projection(len(POINT_FEATURES), dim)
        # two more than channels: tokens that are no trigger have contexts of their own
        self.embed_channel = None if context == "static" else nn.Embedding(num_channels + hyper * 2, dim)
        self.add_blocks(num_globals, dim=dim, heads=heads, layers=layers, projection=projection)

    def known_channels(self, sets: TriggerSets) -> Int[Tensor, "set trigger"]:
        """As of any network; where no weight depends on them, none is told from another."""
        channels = super().known_channels(sets)
        return torch.zeros_like(channels) if self.embed_channel is None else channels

    def tokens(
        self, points: Float[Tensor, "set trigger feature"], channels: Int[Tensor, "set trigger"], sets: TriggerSets
    ) -> tuple[Tokens, Tensor | None]:
        """A token for each trigger, and the context of all tokens; padding may give anything."""
        if self.embed_channel is None:
            return self.embed(points), None
        known = self.embed_channel(channels)
        if self.context == "one_hot":
            return self.embed(points) + known, None
        others = self.embed_channel.weight[-2:].expand(sets.mask.shape[0], -1, -1)
        return self.embed(points, known), torch.cat([others, known], dim=1)
