"""STRG on Charades' 800 nodes: python benchmarks/strg_charades.py [--clips 8] [--rounds 5] [--device cuda] [--small].

Preset full at the size of Wang and Gupta 2018: 32 frames, 16 steps, 50 proposals a frame, appearance max-pooled to one
bin of 2048 channels, 157 classes, 8 clips a step. Arithmetic of one clip's forward pass, beside that of the backbone
(`i3d_r50`) on 32 × 224 × 224, a multiplication and an addition counted as one, as the paper's 153 GFLOP and 158 with
the graphs are. Then, for each number of proposals, memory and time of a training step: what the backward pass keeps,
counted without running it, and medians over rounds in fp32.

--small takes 2 clips, 5 and 10 proposals and 2 rounds: it shows that the command works.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from machine import interleaved, median, save
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ifcar.cache.arrays import CacheSpec
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.heads.contract import Head, InstanceBatch
from ifcar.heads.strg import STRG, STRGConfig

CHARADES = CacheSpec.standard(num_frames=32, num_steps=16, num_instances=50, channels=2048, pooled_size=1)
NUM_CLASSES = 157


def make_batch(num_clips: int, spec: CacheSpec) -> InstanceBatch:
    """Return random clips of which every proposal slot is filled."""
    b, t, n, s = num_clips, spec.num_frames, spec.num_instances, spec.num_steps
    centres, sizes = 0.2 + 0.6 * torch.rand(b, 1, n, 2), 0.1 + 0.3 * torch.rand(b, 1, n, 2)
    boxes = torch.cat([centres + 0.02 * torch.randn(b, t, n, 2), sizes.expand(b, t, n, 2)], dim=-1)
    return InstanceBatch(
        {
            "boxes": boxes,
            "categories": torch.full((b, t, n), 2, dtype=torch.uint8),
            "instance_features": torch.rand(b, s, n, spec.channels, 1, 1).half(),
            "frame_features": torch.rand(b, s, spec.channels).half(),
        }
    )


def loss_of(head: Head, batch: InstanceBatch) -> Tensor:
    """Return the loss of many labels, none of which is there."""
    logits = head(batch).logits
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def multiply_adds(call: Callable[[], object]) -> float:
    """Return what torch counts for a call, in 10⁹ multiply-adds."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() / 2e9


def forward_costs() -> dict[str, float]:
    """Return the 10⁹ multiply-adds of backbone, of the whole head and of its graphs alone, for one clip."""
    backbone = build_backbone(resolve_backbone("i3d_r50", num_frames=CHARADES.num_frames, spatial_stride=32)).eval()
    with torch.device("meta"):
        head = STRG(STRGConfig.full(), CHARADES, NUM_CLASSES).eval()
        batch = make_batch(1, CHARADES)
        video = torch.zeros(1, 3, 32, 224, 224)
    joint = head.joint(batch)
    nodes = joint.features.flatten(1, 2)
    return {
        "backbone": multiply_adds(lambda: backbone.to("meta")(video)),
        "head": multiply_adds(lambda: head(batch)),
        "graphs": multiply_adds(lambda: head.reasoning(nodes, joint)),
    }


def kept_bytes(num_clips: int, spec: CacheSpec) -> int:
    """Return what the backward pass of a training step keeps, weights and cached features left out."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.device("meta"):
        head = STRG(STRGConfig.full(), spec, NUM_CLASSES).train()
        batch = make_batch(num_clips, spec)
        own = {tensor.untyped_storage()._cdata for tensor in (*head.parameters(), *head.buffers())}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss_of(head, batch)
    return sum(size for key, size in kept.items() if key not in own)


def make_step(num_clips: int, spec: CacheSpec, device: str) -> Callable[[], None]:
    """Return a function that does one training step on the same clips."""
    torch.manual_seed(0)
    head = STRG(STRGConfig.full(), spec, NUM_CLASSES).to(device).train()
    batch = make_batch(num_clips, spec).to(torch.device(device))
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(head, batch).backward()
        optimizer.step()

    return step


def main() -> None:
    """Count, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    clips, rounds = (2, 2) if options.small else (options.clips, options.rounds)
    costs = forward_costs()
    share = {name: costs[name] / costs["backbone"] for name in ("head", "graphs")}
    print(
        f"one clip forward: backbone {costs['backbone']:.1f}, head {costs['head']:.2f} (+{share['head']:.1%}), "
        f"of it graphs {costs['graphs']:.2f} (+{share['graphs']:.1%}) × 10⁹ multiply-adds"
    )
    specs = [replace(CHARADES, num_instances=n) for n in ((5, 10) if options.small else (10, 25, 50))]
    steps = {str(spec.num_instances): make_step(clips, spec, options.device) for spec in specs}
    seconds = {name: median(values) for name, values in interleaved(steps, rounds, options.device).items()}
    rows = []
    print("| proposals a frame | nodes | row in the cache, MiB | kept for the backward pass, MiB | s a step |")
    print("|---|---|---|---|---|")
    for spec in specs:
        row = spec.row_bytes(spec.names()) / 2**20
        kept, taken = kept_bytes(clips, spec) / 2**20, seconds[str(spec.num_instances)]
        nodes = spec.num_steps * spec.num_instances
        rows.append({"nodes": nodes, "row_mib": row, "kept_mib": kept, "step_sec": taken})
        print(f"| {spec.num_instances} | {nodes} | {row:.2f} | {kept:,.0f} | {taken:.2f} |")
    if not options.small:
        print(save("strg_charades", {"clips": clips, "rounds": rounds, "gmac": costs, "rows": rows}, options.device))


if __name__ == "__main__":
    main()
