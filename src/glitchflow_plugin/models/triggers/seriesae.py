"""A masked autoencoder of irregular series of several channels, and a classifier on its encoder.

Each sample is a token, as in set functions for time series (M. Horn et al., arXiv:1909.12064), so channels need no
common grid and the padding of one hides no sample of another. Some samples are hidden, the encoder sees the others
alone, and a decoder tells the hidden ones from their times and channels (K. He et al., arXiv:2111.06377).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from glitchflow_plugin.errors import ConfigurationError, nearest
from glitchflow_plugin.models.triggers.parts import Bias, Block, Heads, RelativeBias, Tokens, mean_and_spread
from glitchflow_plugin.types.series import SeriesQueries, SeriesSets
from glitchflow_plugin.types.triggers import TriggerAnswers

_WAVES = 6
"""Sines and cosines by which a time is told; each has twice the period of the one before."""


class SeriesScaling(nn.Module):
    """Values in units of their spread over the training data, channel by channel, and times in those of the longest.

    Args:
        num_channels: Channels.
    """

    mean: Tensor
    spread: Tensor
    reach: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("spread", torch.ones(num_channels))
        self.register_buffer("reach", torch.ones(()))

    def fit(self, batches: Iterable[SeriesSets]) -> None:
        """Take weighted mean and standard deviation by channel, in float64, and the largest time."""
        sums = torch.zeros(3, len(self.mean)).double()
        reach = 0.0
        for series in batches:
            there = series.mask & (series.weights > 0)
            channels, values = series.channels[there], series.values[there].double()
            weights = series.weights[there].double()
            sums.index_add_(1, channels, torch.stack([weights, weights * values, weights * values.square()]))
            reach = max(reach, float(series.times[there].abs().max()) if there.any() else 0.0)
        mean, spread = mean_and_spread(*sums)
        self.mean.copy_(mean)
        self.spread.copy_(spread)
        self.reach.fill_(reach or 1.0)

    def forward(self, series: SeriesSets) -> SeriesSets:
        """The same series scaled; 0 where there is no sample."""
        mean, spread = self.mean[self._places(series)], self.spread[self._places(series)]
        scaled = {
            "values": (series.values - mean) / spread,
            "uncertainties": series.uncertainties / spread,
            "times": series.times / self.reach,
            "weights": series.weights,
        }
        return replace(
            series,
            channels=self._places(series),
            **{name: torch.where(series.mask, one, 0.0) for name, one in scaled.items()},
        )

    def _places(self, series: SeriesSets) -> Int[Tensor, "set sample"]:
        return torch.where(series.mask, series.channels, 0)


class Places(nn.Module):
    """What a sample is apart from its value: when, and of which channel.

    Args:
        num_channels: Channels.
        dim: Features.
    """

    def __init__(self, num_channels: int, dim: int) -> None:
        super().__init__()
        self.channel = nn.Embedding(num_channels, dim)
        self.time = nn.Linear(1 + 2 * _WAVES, dim)

    def forward(
        self, times: Float[Tensor, "set sample"], channels: Int[Tensor, "set sample"]
    ) -> Float[Tensor, "set sample feature"]:
        """Features of each scaled time and channel."""
        waves = torch.pi * 2.0 ** torch.arange(_WAVES, device=times.device, dtype=times.dtype)
        angles = times[..., None] * waves
        told = torch.cat([times[..., None], angles.sin(), angles.cos()], dim=-1)
        return self.channel(channels) + self.time(told)


class SeriesEncoder(nn.Module):
    """From series to a summary of each, and tokens that a decoder may look at.

    Args:
        num_channels: Channels.
        dim: Features of a token.
        heads: Heads of attention; divide `dim`.
        layers: Blocks of attention, or layers of the recurrent network.
        kind: `attention`, or `gru`: samples in order of time through a gated recurrent network, in both directions.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        dim: int = 64,
        heads: int = 4,
        layers: int = 2,
        kind: Literal["attention", "gru"] = "attention",
    ) -> None:
        super().__init__()
        if kind not in ("attention", "gru"):
            raise ConfigurationError(
                f"expected an encoder attention or gru, got {kind!r}.{nearest(kind, ('attention', 'gru'))}"
            )
        if dim % heads or dim % 2:
            raise ConfigurationError(f"expected an even dim and heads that divide it, got {dim} and {heads}.")
        self.scaling = SeriesScaling(num_channels)
        self.places = Places(num_channels, dim)
        self.embed = nn.Sequential(nn.Linear(2, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.first = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.bias = RelativeBias(heads, axes=1) if kind == "attention" else None
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers if kind == "attention" else 0))
        self.recurrent = nn.GRU(dim, dim // 2, layers, batch_first=True, bidirectional=True) if kind == "gru" else None

    def forward(self, series: SeriesSets) -> tuple[Float[Tensor, "set feature"], Tokens, Float[Tensor, "set token"]]:
        """Summary of each series, tokens, and the logarithm of what each token counts for; -inf: nothing."""
        series = self.scaling(series)
        told = torch.stack([series.values, series.uncertainties.log1p()], dim=-1)
        tokens = self.embed(told) + self.places(series.times, series.channels)
        if self.recurrent is not None:
            return self._in_order(self.recurrent, series, tokens)
        tokens = torch.cat([self._alone(series), tokens], 1)
        weights = functional.pad(torch.where(series.mask, series.weights, 0.0), (1, 0), value=1.0).log()
        assert self.bias is not None  # noqa: S101 -- of all that are not recurrent
        # counted from 1, since 0 would be a channel that is not known
        bias = self.bias(series.times[..., None], series.channels + 1, 1) + weights[:, None, None]
        for block in self.blocks:
            tokens = block(tokens, bias)
        return tokens[:, 0], tokens, weights

    def _alone(self, series: SeriesSets) -> Tokens:
        return self.first.expand(series.mask.shape[0], 1, -1)

    def _in_order(
        self, recurrent: nn.GRU, series: SeriesSets, tokens: Tokens
    ) -> tuple[Tensor, Tokens, Float[Tensor, "set token"]]:
        """As `forward`; samples that count for nothing are left out, others count alike."""
        there = series.mask & (series.weights > 0)
        order = torch.where(there, series.times, torch.inf).argsort(dim=1, stable=True)
        ordered = torch.cat([self._alone(series), tokens.gather(1, order[..., None].expand_as(tokens))], 1)
        lengths = there.sum(1) + 1
        packed = pack_padded_sequence(ordered, lengths.tolist(), batch_first=True, enforce_sorted=False)
        states, last = recurrent(packed)
        states = pad_packed_sequence(states, batch_first=True, total_length=ordered.shape[1])[0]
        seen = torch.arange(ordered.shape[1], device=there.device) < lengths[:, None]
        return last[-2:].transpose(0, 1).flatten(1), states, torch.where(seen, 0.0, -torch.inf)


class SeriesAutoencoder(nn.Module):
    """Tells samples that it was not shown.

    Args:
        encoder: Of the samples that are shown.
        num_channels: Channels.
        dim: Features of a token, as of the encoder.
        heads: Heads of attention; divide `dim`.
    """

    def __init__(self, encoder: SeriesEncoder, num_channels: int, *, dim: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads
        self.places = Places(num_channels, dim)
        self.norm, self.queries = nn.LayerNorm(dim), nn.Linear(dim, dim)
        self.memory = nn.Linear(dim, 2 * dim)
        self.out = nn.Sequential(nn.Linear(2 * dim, dim), nn.SiLU(), nn.Linear(dim, 1))

    def forward(
        self, shown: SeriesSets, asked: SeriesQueries
    ) -> tuple[Float[Tensor, "set query"], Float[Tensor, "set feature"]]:
        """Values in units of `SeriesScaling`, and the summaries that the encoder made."""
        summary, tokens, weights = self.encoder(shown)
        times = torch.where(asked.mask, asked.times, 0.0) / self.encoder.scaling.reach
        place = self.places(times, torch.where(asked.mask, asked.channels, 0))
        queries, keys, values = (
            one.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for one in (self.queries(self.norm(place)), *self.memory(tokens).chunk(2, dim=-1))
        )
        bias: Bias = weights[:, None, None].to(queries.dtype)
        seen = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        return self.out(torch.cat([place, seen.transpose(1, 2).flatten(-2)], dim=-1))[..., 0], summary


def hide(
    series: SeriesSets, share: float, generator: torch.Generator | None
) -> tuple[SeriesSets, SeriesQueries, Bool[Tensor, "set sample"]]:
    """Draw which samples are hidden.

    Args:
        series: All samples.
        share: Probability of each to be hidden.
        generator: Draws it, on the CPU; None: the one that torch draws all by.

    Returns:
        The series with the others alone: what was hidden is padding, without its value; what is asked; and which
        samples that is.

    Raises:
        ConfigurationError: The share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ConfigurationError(f"expected a share of samples to hide between 0 and 1, got {share}.")
    drawn = torch.rand(series.mask.shape, generator=generator).to(series.mask.device)
    hidden = (drawn < share) & series.mask
    left = {name: getattr(series, name).masked_fill(hidden, 0) for name in ("times", "values", "uncertainties")}
    shown = replace(series, channels=series.channels.masked_fill(hidden, 0), mask=series.mask & ~hidden, **left)
    return shown, SeriesQueries(series.times, series.channels, hidden), hidden


class SeriesClassifier(nn.Module):
    """Glitch or not, its class and ln(1 + SNR), from the summary of an encoder.

    Args:
        encoder: Changed where it is not frozen: give a copy of one that is needed again.
        num_kinds: Classes of glitches.
        dim: Features of the summary.
        frozen: Whether the encoder stays as it is.
    """

    def __init__(self, encoder: SeriesEncoder, num_kinds: int, *, dim: int = 64, frozen: bool = False) -> None:
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        self.heads = Heads(dim, num_kinds, 1)
        encoder.requires_grad_(not frozen)

    @property
    def scaling(self) -> SeriesScaling:
        """Of the encoder."""
        return self.encoder.scaling

    def forward(self, series: SeriesSets) -> TriggerAnswers:
        """Answers for each series; of the channel of a point held out it says nothing."""
        return self.heads(self.encoder(series)[0])
