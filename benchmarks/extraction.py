"""Extraction against the backbone alone: python benchmarks/extraction.py [--device cuda] [--small] [--scale].

backbone    one batch of views from memory through i3d_r50: the plain eager fp32 loop, folded fp32, folded bf16, and on
            a GPU both compiled: interleaved, medians.
end to end  `ifcar extract` on toybox videos (decode, backbone, RoIAlign, write), against the same backbone fed from
            memory with the same batch size, precision and threads.
--scale     seconds a clip and peak memory at 1,000 and 10,000 small clips.

Works in a temporary folder; toybox is rendered there first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts, interleaved, matmul_rate, median, save, synchronise
from torch.utils.flop_counter import FlopCounterMode

from ifcar.extract.backbones.catalog import build_backbone
from ifcar.extract.backbones.fold import folded
from ifcar.extract.weights import load_weights
from ifcar.pipelines.extract import extract
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.sources import ExtractConfig

FRAMES = 8


def backbone_times(device: str, batch: int, crop: int, rounds: int) -> dict[str, Any]:
    """Time one batch on every form of the backbone."""
    plain = build_backbone("i3d_r50", num_frames=FRAMES, spatial_stride=16).eval()
    load_weights(plain, "random:0")
    plain = plain.to(device)
    fp32 = folded(plain).to(device).to(memory_format=torch.channels_last_3d)
    bf16 = folded(plain).to(device, torch.bfloat16).to(memory_format=torch.channels_last_3d)
    pixels = torch.randint(0, 256, (batch, FRAMES, crop, crop, 3), dtype=torch.uint8, device=device)
    video = plain.normalise(pixels)
    sides = {
        "plain eager fp32": (plain, video.contiguous()),
        "folded, channels_last_3d, fp32": (fp32, video),
        "folded, channels_last_3d, bf16": (bf16, video.to(torch.bfloat16)),
    }
    if device.startswith("cuda"):
        sides |= {f"{name}, compiled": (torch.compile(net), v) for name, (net, v) in list(sides.items())[1:]}
    with torch.inference_mode():
        reference = plain(sides["plain eager fp32"][1])
        errors = {n: float((net(v).float() - reference).norm() / reference.norm()) for n, (net, v) in sides.items()}
        calls = {name: (lambda net=net, v=v: net(v)) for name, (net, v) in sides.items()}
        seconds = interleaved(calls, rounds, device)
        with FlopCounterMode(display=False) as counter:
            plain(video)
    flops = counter.get_total_flops() / batch
    base = median(seconds["plain eager fp32"])
    rates = {d: matmul_rate(getattr(torch, d), device) for d in ("float32", "bfloat16")}
    rows = []
    for name, values in seconds.items():
        rate = batch / median(values)
        peak = rates["bfloat16" if "bf16" in name else "float32"]
        rows.append(
            {
                "form": name,
                "clips_per_sec": rate,
                "speedup": base / median(values),
                "gflop_per_sec": rate * flops / 1e9,
                "share_of_matmul": rate * flops / peak,
                "relative_error": errors[name],
                "seconds": values,
            }
        )
    return {"batch": batch, "crop": crop, "gflop_per_clip": flops / 1e9, "matmul_flop_per_sec": rates, "rows": rows}


def end_to_end(device: str, precision: str, batch: int, crop: int, clips: int, workers: int | None) -> dict[str, Any]:
    """Time `extract` on toybox videos against the backbone alone, before and after it."""
    net = build_backbone("i3d_r50", num_frames=FRAMES, spatial_stride=16).eval()
    load_weights(net, "random:0")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    net = folded(net).to(device, dtype).to(memory_format=torch.channels_last_3d)
    pixels = torch.randint(0, 256, (batch, FRAMES, crop, crop, 3), dtype=torch.uint8, device=device)

    def alone() -> float:
        with torch.inference_mode():
            net(net.normalise(pixels).to(dtype))
            synchronise(device)
            started = time.perf_counter()
            for _ in range(max(1, clips // batch)):
                net(net.normalise(pixels).to(dtype))
            synchronise(device)
        return (time.perf_counter() - started) / (max(1, clips // batch) * batch)

    options: dict[str, Any] = {
        "dataset": "toybox", "crop": crop, "batch_size": batch, "precision": precision, "device": device,
        "workers": workers, "overwrite": True, "out": Path("bench.zarr"),
    }  # fmt: skip
    extract(ExtractConfig(**options, limit=batch), Silent())
    before = alone()
    started = time.perf_counter()
    extract(ExtractConfig(**options, limit=clips), Silent())
    whole = (time.perf_counter() - started) / clips
    after = alone()
    backbone = (before + after) / 2
    return {
        "precision": precision, "crop": crop, "batch": batch, "clips": clips,
        "clips_per_sec": 1 / whole, "backbone_clips_per_sec": 1 / backbone, "ratio": backbone / whole,
        "backbone_before_after": [before, after],
    }  # fmt: skip


def scale(num_clips: int) -> dict[str, Any]:
    """Extract many clips, which share a few short videos, in a process of its own."""
    code = f"import extraction; extraction.scale_child({num_clips})"
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    out: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return out


def scale_child(num_clips: int) -> None:
    """Make the clips as links to one folder of frames with boxes of their own, and extract them without pixels."""
    root = Path("scale") / str(num_clips)
    write_clips(root, num_clips)
    started = time.perf_counter()
    extract(
        ExtractConfig(
            dataset="something-else", data_root=root, out=root / "c.zarr", weights="random:0", crop=32, pooled="7-max"
        ),
        Silent(),
    )
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    result = {"clips": num_clips, "ms_per_clip": 1000 * seconds / num_clips, "peak_mib": peak, "worker_mib": workers}
    print(json.dumps(result))


def write_clips(root: Path, num_clips: int) -> None:
    """Write Something-Else files of `num_clips` clips of 12 frames, all linked to the same pictures."""
    from PIL import Image

    shared = root / "frames" / "shared"
    shared.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(shared / f"{k + 1:04d}.jpg")
    with (root / "annotations.json").open("w") as file:
        file.write("{")
        for clip in range(num_clips):
            (root / "frames" / str(clip)).symlink_to("shared")
            records = []
            for k in range(12):
                x, y = rng.integers(0, 10, 2).tolist()
                box = {"x1": x, "y1": y, "x2": x + 12, "y2": y + 10}
                hand = {"x1": 1, "y1": 12, "x2": 9, "y2": 20}
                labels = [{"standard_category": "0000", "box2d": box}, {"standard_category": "hand", "box2d": hand}]
                records.append({"name": f"{clip}/{k + 1:04d}.jpg", "labels": labels})
            file.write((", " if clip else "") + json.dumps(str(clip)) + ": " + json.dumps(records))
        file.write("}")


def main() -> None:
    """Run the parts that were asked for, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="64-pixel crops, few rounds: does it run?")
    parser.add_argument("--scale", action="store_true", help="also 1,000 against 10,000 clips")
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    device, cpu = arguments.device, arguments.device == "cpu"
    crop = 64 if arguments.small else 224
    batch, clips = (4, 24) if cpu else (64, 486)
    here = facts(device)
    content: dict[str, Any] = {"backbone": backbone_times(device, batch, crop, 3 if cpu else 10)}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        content["end_to_end"] = [
            end_to_end(device, precision, batch, crop, clips, arguments.workers) for precision in ("fp32", "bf16")
        ]
        if arguments.scale:
            content["scale"] = [scale(n) for n in ((200, 2000) if arguments.small else (1000, 10_000))]
        os.chdir("/")
    print(f"{here}\n\n| form | clips/s | × eager fp32 | GFLOP/s | of matmul | error |\n|---|---|---|---|---|---|")
    for row in content["backbone"]["rows"]:
        print(
            f"| {row['form']} | {row['clips_per_sec']:.2f} | {row['speedup']:.2f} | {row['gflop_per_sec']:.0f} | "
            f"{row['share_of_matmul']:.2f} | {row['relative_error']:.1e} |"
        )
    for row in content["end_to_end"]:
        rates = f"{row['clips_per_sec']:.2f} clips/s, {row['ratio']:.3f} of the backbone alone"
        print(f"end to end {row['precision']}: {rates}")
    for row in content.get("scale", ()):
        print(f"{row['clips']} clips: {row['ms_per_clip']:.2f} ms a clip, peak {row['peak_mib']:.0f} MiB")
    print(save("extraction" + ("-small" if arguments.small else ""), {**here, **content}, device))


if __name__ == "__main__":
    main()
