"""A transformer on points that know their neighbours."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.models.triggers.parts import Tokens
from glitchflow_plugin.models.triggers.pointvit import PointViT
from glitchflow_plugin.types.triggers import POINT_FEATURES, TriggerSets


class PointEdgeTransformer(PointViT):
    """`PointViT` whose tokens hold, beside the trigger itself, how the nearest ones in time and frequency differ.

    The Point-Edge Transformer of V. Mikuni and B. Nachman (OmniLearn, arXiv:2404.16091): features of edges to the k
    nearest neighbours, as of a dynamic graph (arXiv:1801.07829), then attention over the whole set.

    Args:
        num_channels: Channels of the vocabulary, UNKNOWN included.
        num_globals: Globals of a set.
        num_kinds: Classes of glitches.
        dim: Features of a token.
        neighbours: Nearest triggers of each.
        others: Further arguments of `PointViT`.
    """

    def __init__(
        self,
        num_channels: int,
        num_globals: int,
        num_kinds: int,
        *,
        dim: int = 128,
        neighbours: int = 8,
        **others: Any,
    ) -> None:
        super().__init__(num_channels, num_globals, num_kinds, dim=dim, **others)
        if neighbours < 1:
            raise ConfigurationError(f"expected at least 1 of neighbours, got {neighbours}.")
        self.neighbours = neighbours
        self.edges = nn.Sequential(nn.Linear(len(POINT_FEATURES) + dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def tokens(
        self, points: Float[Tensor, "set trigger feature"], channels: Int[Tensor, "set trigger"], sets: TriggerSets
    ) -> tuple[Tokens, None]:
        """A token for each trigger; padding may give anything."""
        own, _ = super().tokens(points, channels, sets)
        nearest, there = nearest_points(points[..., :2], sets.mask, self.neighbours)
        rows = torch.arange(points.shape[0], device=points.device)[:, None, None]
        apart = points[rows, nearest] - points[:, :, None]
        edges = self.edges(torch.cat([apart, self.embed_channel(channels[rows, nearest])], dim=-1))
        count = there.sum(-1, keepdim=True).clamp(min=1)
        return own + torch.where(there[..., None], edges, 0.0).sum(2) / count, None


def nearest_points(
    places: Float[Tensor, "set trigger axis"], mask: Bool[Tensor, "set trigger"], count: int
) -> tuple[Int[Tensor, "set trigger near"], Bool[Tensor, "set trigger near"]]:
    """The nearest triggers of each, itself left out.

    Args:
        places: Scaled time and frequency.
        mask: Where there is a trigger.
        count: Neighbours wanted.

    Returns:
        Index of each neighbour, and whether there is one.
    """
    apart = (places[:, :, None] - places[:, None]).square().sum(-1)
    itself = torch.eye(places.shape[1], dtype=torch.bool, device=places.device)
    apart = apart.masked_fill(~mask[:, None] | itself, torch.inf)
    # as many as are wanted, far away: how many there are does not decide how many are taken
    distances, nearest = functional.pad(apart, (0, count), value=torch.inf).topk(count, dim=-1, largest=False)
    return nearest.clamp(max=places.shape[1] - 1), distances.isfinite()
