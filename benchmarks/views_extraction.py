"""What the streams of toybox-views cost to extract: python benchmarks/views_extraction.py [--clips 48] [--data-root D].

For pictures and for sound, with the data set's defaults and with the options of docs/results.md: CPU milliseconds a
clip of decoding and of the backbone, in one thread, and CPU seconds of the whole set. Decoding and backbone go on at
once, so that two idle cores take about half of the sum. Other work on the machine makes CPU seconds more too.
Random weights: what a backbone computes does not change what that takes. Renders the set on first use.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from ifcar.extract.backbones.catalog import build_backbone
from ifcar.extract.extractor import EngineOptions, FeatureExtractor
from ifcar.pipelines.extraction.backbones import backbone_of
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.preparation import cache_spec, view_policy
from ifcar.pipelines.extraction.sources import read_source
from ifcar.pipelines.progress import Silent

CLIPS = {"pictures": 2880, "sound": 960}  # 240 recordings of four windows, by three cameras and by one
BATCH = 8


def configs(root: Path | None) -> dict[str, ExtractConfig]:
    """Return each stream's extraction with the data set's defaults."""
    pictures = ExtractConfig(dataset="toybox-views", data_root=root, grid=True, pooled="none", weights="random:0")
    sound = ExtractConfig(
        dataset="toybox-views",
        data_root=root,
        grid=True,
        backbone="vggish",
        weights="random:0",
        cameras=("ego",),
        frames=4,
    )
    return {"pictures": pictures, "sound": sound}


def smaller(config: ExtractConfig) -> ExtractConfig:
    """Return the options of docs/results.md."""
    low = replace(config, precision="bf16")
    return low if config.backbone == "vggish" else replace(low, frames=8, crop=64)


def cost(config: ExtractConfig, num_clips: int) -> tuple[float, float]:
    """Return CPU milliseconds a clip of decoding and of the backbone."""
    source = read_source(config, Silent(), needs_pixels=True)
    policy, spec = view_policy(config), backbone_of(config)
    views = source.views(policy, spec.reads)
    shape = cache_spec(config, policy, spec, source.arrays())
    extractor = FeatureExtractor(
        build_backbone(spec).eval(), shape, config.pooled, EngineOptions(batch_size=BATCH, precision=config.precision)
    )
    extractor([views[row] for row in range(BATCH)])  # once without a clock
    spent = [0.0, 0.0]
    for first in range(BATCH, BATCH + num_clips, BATCH):
        marks = [time.process_time()]
        batch = [views[row] for row in range(first, first + BATCH)]
        marks.append(time.process_time())
        extractor(batch)
        marks.append(time.process_time())
        spent = [total + after - before for total, before, after in zip(spent, marks, marks[1:], strict=False)]
    decoding, network = (1000 * total / num_clips for total in spent)
    return decoding, network


def main() -> None:
    """Print a line a stream and options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48, help="to measure on; a multiple of 8")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| stream | options | decoding, ms a clip | backbone, ms a clip | clips | CPU-s |\n|---|---|---|---|---|---|")
    for stream, config in configs(options.data_root).items():
        for name, own in (("defaults", config), ("docs/results.md", smaller(config))):
            decoding, network = cost(own, options.clips)
            total = (decoding + network) * CLIPS[stream] / 1000
            print(
                f"| {stream} | {name} | {decoding:.1f} | {network:.1f} | {CLIPS[stream]:,} | {total:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
