"""A training step of our fast network against the field's first configuration."""

from pathlib import Path

from harness import Subject, Work
from training import candidates, configurations, operations

CHANNELS = 7


def subject(_: Path, device: str, *, quick: bool) -> Subject:
    batch = 2 if quick else 8
    chosen = configurations(quick=quick)
    return Subject(
        item="window",
        setting=f"a step on {batch} windows of 64 x 64 pixels and {CHANNELS} witnesses",
        candidates=candidates(chosen, CHANNELS, batch, device),
        work=Work(multiplications=operations(chosen[0], CHANNELS) / 2),
        notes=(
            "wide: the U-Net of base 64, trained our way; plain: base 64, self-attention over all pixels. "
            "The three are different networks: benchmarks/training.py --quality compares what they learn.",
        ),
    )
