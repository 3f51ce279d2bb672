"""A transformer on the points of a set, each by itself, beside the set's globals."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from glitchflow_plugin.models.triggers.parts import SetTransformer, Tokens
from glitchflow_plugin.types.triggers import POINT_FEATURES, TriggerSets


class PointViT(SetTransformer):
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
        self.add_blocks(num_globals, dim=dim, heads=heads, layers=layers)

    def tokens(
        self, points: Float[Tensor, "set trigger feature"], channels: Int[Tensor, "set trigger"], sets: TriggerSets
    ) -> tuple[Tokens, None]:
        """A token for each trigger; padding may give anything."""
        del sets
        return self.embed(points) + self.embed_channel(channels), None
