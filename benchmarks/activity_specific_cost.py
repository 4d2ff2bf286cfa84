"""Parameters and arithmetic of activity-specific features: python benchmarks/activity_specific_cost.py.

Counts only, nothing is timed: the same on every machine. At the paper's size (C = 2048, C′ = 128, T′·H·W = 4·7·7 = 196
positions, one view) beside its Tables 3a, 3b and 4. The paper does not say how it counts. What comes nearest:

- a multiplication and an addition count as one;
- "written out": the three grouped maps of every position, 3 K C C′/n · 196; scores and sums of Attn_O, 2 K C′ · 196,
  and of Attn_A, 2 A K C′; nothing of the correlation;
- "with correlation": W^β and W^γ of Attn_C, 2 A C′², its scores and the correlated descriptors, 2 A² C′, as well. At
  1024 activities this alone is more than the paper's whole figure;
- "as computed": the products that torch runs in this head's forward pass, correlation and all. It applies the maps to
  the K queries and the K averages instead of to the 196 positions, which is the same function.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.activity_specific import ActivitySpecific, ActivitySpecificConfig
from ifcar.heads.contract import InstanceBatch

SPEC = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=1, channels=2048, pooled_size=1, grid_size=(7, 7))
POSITIONS = 4 * 7 * 7
CHARADES = 157
# Table, n, K, activities, millions of parameters, GFLOP a view.
PUBLISHED = [
    ("3a", 1, 64, CHARADES, 50.4, 9.87),
    ("3a", 8, 64, CHARADES, 6.3, 1.24),
    ("3a, 3b, 4", 32, 64, CHARADES, 1.6, 0.32),
    ("3a", 64, 64, CHARADES, 0.8, 0.16),
    ("3b", 32, 16, CHARADES, 0.4, 0.08),
    ("3b", 32, 32, CHARADES, 0.8, 0.16),
    ("3b", 32, 128, CHARADES, 3.2, 0.62),
    ("4", 32, 64, 1024, 1.7, 0.33),
]


def count(config: ActivitySpecificConfig, num_classes: int) -> tuple[int, float]:
    """Return a head's parameters, and the multiply-adds of one view as torch counts them."""
    with torch.device("meta"):
        head = ActivitySpecific(config, SPEC, num_classes).eval()
        batch = InstanceBatch({"grid_features": torch.zeros(1, 4, 2048, 7, 7)})
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            head(batch)
    return sum(p.numel() for p in head.parameters()), counter.get_total_flops() / 2


def written_out(config: ActivitySpecificConfig, num_classes: int, *, correlation: bool) -> int:
    """Return the multiply-adds of one view by the paper's equations, position by position."""
    k, width = config.num_observations, config.descriptor_dim
    maps = 3 * k * SPEC.channels * width // config.num_groups * POSITIONS
    attentions = 2 * k * width * POSITIONS + 2 * num_classes * k * width
    correlations = 2 * num_classes * width**2 + 2 * num_classes**2 * width
    return maps + attentions + correlation * correlations


def main() -> None:
    """Count and print."""
    print(
        "| table | n | K | activities | parameters, M | paper | written out | paper | with correlation | as computed |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for table, num_groups, num_observations, num_classes, parameters, gflop in PUBLISHED:
        config = ActivitySpecificConfig(num_groups=num_groups, num_observations=num_observations)
        own, computed = count(config, num_classes)
        plain, whole = (written_out(config, num_classes, correlation=c) / 1e9 for c in (False, True))
        print(
            f"| {table} | {num_groups} | {num_observations} | {num_classes} | {own / 1e6:.2f} | {parameters} "
            f"| {plain:.3f} | {gflop} | {whole:.3f} | {computed / 1e9:.3f} |"
        )


if __name__ == "__main__":
    main()
