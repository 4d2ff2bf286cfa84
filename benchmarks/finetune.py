"""Throughput of fine-tuning: python benchmarks/finetune.py [--crop 64] [--batch-size 8] [--device cuda].

On rendered toybox clips, in clips a second: decoding alone (views thrown away), the training step alone (the same batch
again and again, fed from memory), and both together as `ifcar finetune` runs them; and both as a share of the slower
alone (what is left where they share no core) and of one after the other. Medians over rounds, in turn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from machine import facts, interleaved, median, save

from ifcar.extract.decoded_views import Decoded
from ifcar.pipelines.finetune.data import load_training
from ifcar.pipelines.finetune.distributed import Group
from ifcar.pipelines.finetune.loop import train_step
from ifcar.pipelines.finetune.run import make_trainer
from ifcar.pipelines.finetune.setting import open_setting
from ifcar.pipelines.finetune.start import i3d_config
from ifcar.pipelines.finetune.trainer import LiveTrainer
from ifcar.pipelines.progress import Silent


def measure(trainer: LiveTrainer, num_steps: int, rounds: int) -> dict[str, float]:
    """Return clips a second of decoding alone, of training alone and of both."""
    size = trainer.plan.batch_size
    batches = list(trainer.sampler.batches(0, num_steps))

    def views() -> Iterator[Decoded]:
        return load_training(trainer.views, trainer.sampler, 0, num_steps, trainer.num_workers)

    kept = [item for item, _ in zip(views(), range(size), strict=False)]

    def decode() -> None:
        for _ in views():
            pass

    def step() -> None:
        for step_batch in batches:
            train_step(trainer, step_batch, iter(kept[: len(step_batch.mine)]))

    def both() -> None:
        decoded = views()
        for step_batch in batches:
            train_step(trainer, step_batch, decoded)

    count = sum(len(step_batch.places) for step_batch in batches)
    seconds = interleaved({"decoding": decode, "training": step, "both": both}, rounds, trainer.group.device.type)
    return {name: count / median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a rendered toybox; default: rendered into a temporary folder")
    parser.add_argument("--backbone", default="i3d_r50")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = i3d_config(
            "toybox",
            data_root=options.data or Path(folder) / "toybox",
            backbone=options.backbone,
            weights="random:0",
            crop=options.crop,
            batch_size=options.batch_size,
            precision=options.precision,
            lr=1e-6,  # the same batch again and again must not diverge
        )
        group = Group(number=0, size=1, device=torch.device(options.device))
        trainer = make_trainer(open_setting(config, group, Silent()), group, options.workers)
        rates = measure(trainer, options.steps, options.rounds)
    for name, rate in rates.items():
        print(f"{name:10} {rate:8.2f} clips/s")
    slower = min(rates["decoding"], rates["training"])
    shared = 1 / (1 / rates["decoding"] + 1 / rates["training"])
    print(f"both, of the slower alone: {rates['both'] / slower:.2f}; of the two one after the other: ", end="")
    print(f"{rates['both'] / shared:.2f}")
    settings = {name: value for name, value in vars(options).items() if name != "data"}
    path = save("finetune", facts(options.device) | {"settings": settings, "clips_per_sec": rates}, options.device)
    print(path)


if __name__ == "__main__":
    main()
