"""The floor: what globals alone know, without any trigger."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from glitchflow_plugin.models.triggers.parts import TriggerNetwork
from glitchflow_plugin.types.triggers import TriggerSets


class ConditionsOnly(TriggerNetwork):
    """A residual network on the globals of a set.

    Args:
        num_channels: Channels of the vocabulary, UNKNOWN included.
        num_globals: Globals of a set.
        num_kinds: Classes of glitches.
        dim: Features of a layer.
        layers: Residual layers.
    """

    def __init__(self, num_channels: int, num_globals: int, num_kinds: int, *, dim: int = 128, layers: int = 3) -> None:
        super().__init__(num_channels, num_globals, num_kinds, dim=dim, unknown_share=0.0)
        self.embed = nn.Linear(2 * num_globals, dim)
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim)) for _ in range(layers))

    def features(self, sets: TriggerSets) -> Float[Tensor, "set feature"]:
        """What the residual layers make of the globals."""
        hidden = self.embed(self.scaling.globals(sets))
        for layer in self.layers:
            hidden = hidden + functional.silu(layer(hidden))
        return hidden
