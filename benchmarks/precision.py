"""Relative error of features from float16 storage and bf16: python benchmarks/precision.py [WEIGHTS].

With a weights file it measures i3d_inception at 224 pixels, without one i3d_r50 with random weights at 112.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.backbones.random_init import synthetic_videos
from ifcar.extract.backbones.spec import INSTANCES
from ifcar.extract.weights import load_weights


def relative_error(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Return ‖value − exact‖ / ‖exact‖."""
    return float((value.float() - exact).norm() / exact.norm())


def main() -> None:
    """Measure and print."""
    name, weights, frames, size = "i3d_r50", "random:0", 8, 112
    if len(sys.argv) > 1:
        name, weights, frames, size = "i3d_inception", sys.argv[1], 32, 224
    backbone = build_backbone(resolve_backbone(name, num_frames=frames, spatial_stride=16))
    load_weights(backbone, weights, Path("weights"))
    videos = backbone.normalise(synthetic_videos(2, frames, size, torch.Generator().manual_seed(0)))
    with torch.inference_mode():
        exact = backbone(videos)[INSTANCES]
        with torch.autocast("cpu", torch.bfloat16):
            bf16 = backbone(videos)[INSTANCES]
    print(f"{name}, {weights}, {frames}×{size}×{size}: largest value {float(exact.abs().max()):.2f}")
    print(f"float16 storage: {relative_error(exact.half(), exact):.2e}")
    print(f"bf16:            {relative_error(bf16, exact):.2e}")


if __name__ == "__main__":
    main()
