"""A transformer on the points of a set, each by itself, beside the set's globals."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glitchflow_plugin.models.triggers.parts import Block, RelativeBias, Tokens, TriggerNetwork, without_padding
from glitchflow_plugin.types.triggers import POINT_FEATURES, TriggerSets


class PointViT(TriggerNetwork):
    """Each trigger is a token, as a patch is for a vision transformer (arXiv:2010.11929).

    A class token gathers what the heads read, another token holds the globals. There are no places in a sequence:
    attention knows the relative ones in time, frequency, SNR and channel.

    Args:
        num_channels: Channels of the vocabulary, UNKNOWN included.
        num_globals: Globals of a set.
        num_kinds: Classes of glitches.
        dim: Features of a token.
        heads: Heads of attention.
        layers: Blocks.
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
        layers: int = 8,
        unknown_share: float = 0.02,
    ) -> None:
        super().__init__(num_channels, num_globals, num_kinds, dim=dim, unknown_share=unknown_share)
        self.embed = nn.Sequential(nn.Linear(len(POINT_FEATURES), dim), nn.SiLU(), nn.Linear(dim, dim))
        self.embed_channel = nn.Embedding(num_channels, dim)
        self.embed_globals = nn.Linear(2 * num_globals, dim)
        self.class_token = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.bias = RelativeBias(heads)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))

    def tokens(
        self, points: Float[Tensor, "set trigger feature"], channels: Int[Tensor, "set trigger"], sets: TriggerSets
    ) -> Tokens:
        """A token for each trigger; padding may give anything."""
        del sets
        return self.embed(points) + self.embed_channel(channels)

    def features(self, sets: TriggerSets) -> Float[Tensor, "set feature"]:
        """The class token after all blocks."""
        points, channels = self.scaling.points(sets), self.known_channels(sets)
        others = torch.stack(
            [self.class_token.expand(len(sets), -1), self.embed_globals(self.scaling.globals(sets))], dim=1
        )
        tokens = torch.cat([others, self.tokens(points, channels, sets)], dim=1)
        bias = without_padding(self.bias(points, channels, others.shape[1]), sets.mask)
        for block in self.blocks:
            tokens = block(tokens, bias)
        return tokens[:, 0]
