"""Extraction against the backbone alone: python benchmarks/extraction.py [--device cuda] [--small] [--parts …].

backbone    one batch of views from memory through i3d_r50: the plain eager fp32 loop, folded fp32, folded bf16, and on
            a GPU both compiled. The plain loop has a process of its own, with the C library's allocator as it comes.
end-to-end  `extract` on generated videos of Something-Something's kind (427 × 240, 45 frames, VP9): decoding, backbone,
            RoIAlign, writing; once decoding is no further ahead than it stays, against the same backbone fed from
            memory with the same batch size, precision and threads. On a CPU the backbone's share of all CPU seconds
            bounds that ratio.
scale       seconds a clip and peak memory at 1,000 and 10,000 tiny clips, without pixels and with them.

The sides of a comparison are interleaved, medians count. Works in a temporary folder.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from backbones import FRAMES, as_extracted, backbone, flops_a_clip, random_weights, views
from clips import write_folders, write_videos
from machine import facts, interleaved, matmul_rate, median, save, synchronise

from ifcar.devices import choose_device
from ifcar.extract.backbones.spec import INSTANCES
from ifcar.extract.decode_ahead import BATCHES_AHEAD, decode_ahead
from ifcar.heap import keep_freed_memory
from ifcar.pipelines.engines.local import engine_options
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.preparation import prepare
from ifcar.pipelines.progress import Silent

PLAIN = "plain eager fp32"
PARTS = ("backbone", "end-to-end", "scale")


def plain_loop(connection: Connection, device: str, batch: int, crop: int, threads: int) -> None:
    """Run the plain eager fp32 loop whenever asked; answer with seconds, and first with the features."""
    torch.set_num_threads(threads)
    net = backbone(device)
    video = net.normalise(views(device, batch, crop)).contiguous()
    with torch.inference_mode():
        connection.send(net(video)[INSTANCES].cpu().numpy())
        while connection.recv():
            connection.send(interleaved({PLAIN: lambda: net(video)}, 1, device, warm_up=False)[PLAIN][0])


def backbone_times(device: str, batch: int, crop: int, rounds: int) -> dict[str, Any]:
    """Time one batch on every form of the backbone."""
    here, there = multiprocessing.Pipe()
    arguments = (there, device, batch, crop, torch.get_num_threads())
    child = multiprocessing.get_context("spawn").Process(target=plain_loop, args=arguments)
    child.start()
    reference = torch.from_numpy(here.recv())
    net = backbone(device)
    video = net.normalise(views(device, batch, crop))
    forms = {
        f"folded, channels_last_3d, {name}": (as_extracted(net, device, dtype), video.to(dtype))
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    if device.startswith("cuda"):
        forms |= {f"{name}, compiled": (torch.compile(form), v) for name, (form, v) in forms.items()}
    seconds: dict[str, list[float]] = {PLAIN: []} | {name: [] for name in forms}
    errors = {PLAIN: 0.0}
    with torch.inference_mode():
        for name, (form, v) in forms.items():
            errors[name] = float((form(v)[INSTANCES].float().cpu() - reference).norm() / reference.norm())
        for _ in range(rounds):
            here.send(True)
            seconds[PLAIN].append(here.recv())
            for name, (form, v) in forms.items():
                seconds[name] += interleaved({name: lambda form=form, v=v: form(v)}, 1, device, warm_up=False)[name]
        here.send(False)
        child.join()
    flops = flops_a_clip(net, video)
    rates = {d: matmul_rate(getattr(torch, d), device) for d in ("float32", "bfloat16")}
    rows = []
    for name, values in seconds.items():
        rate, peak = batch / median(values), rates["bfloat16" if "bf16" in name else "float32"]
        rows.append(
            {
                "form": name,
                "clips_per_sec": rate,
                "speedup": median(seconds[PLAIN]) / median(values),
                "gflop_per_sec": rate * flops / 1e9,
                "share_of_matmul": rate * flops / peak,
                "relative_error": errors[name],
                "seconds": values,
            }
        )
    return {"batch": batch, "crop": crop, "gflop_per_clip": flops / 1e9, "matmul_flop_per_sec": rates, "rows": rows}


class Clock(Silent):
    """Notes when each batch of the extraction is done."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float, int]] = []

    def advance(self, count: int = 1, note: str = "") -> None:
        """Note the time, the CPU seconds and the number of clips."""
        self.times.append((time.perf_counter(), cpu_seconds(), count))


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def make_config(
    device: str, precision: str, batch: int, crop: int, clips: int, workers: int | None, name: str = "i3d_r50"
) -> ExtractConfig:
    """Return the options of an extraction of the folder `videos`."""
    return ExtractConfig(
        dataset="something-else", data_root=Path("videos"), out=Path(f"{name}-{precision}.zarr"), backbone=name,
        weights=random_weights(name), frames=FRAMES[name], crop=crop, batch_size=batch, precision=precision,
        device=device, workers=workers, limit=clips,
    )  # fmt: skip


def end_to_end(config: ExtractConfig) -> dict[str, Any]:
    """Time `extract`, in a process of its own as from the command line, against the backbone before and after it."""
    device, precision, batch, crop, clips = (
        choose_device(config.device), config.precision, config.batch_size, config.crop, config.limit,
    )  # fmt: skip
    assert crop is not None and clips is not None
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    net = as_extracted(backbone(device, config.backbone), device, dtype)
    pixels = views(device, batch, crop, config.frames)
    num_batches = max(1, clips // batch // 2)

    def alone() -> tuple[float, float]:
        with torch.inference_mode():
            net(net.normalise(pixels).to(dtype))
            synchronise(device)
            started, used = time.perf_counter(), cpu_seconds()
            for _ in range(num_batches):
                net(net.normalise(pixels).to(dtype))
            synchronise(device)
        count = num_batches * batch
        return (time.perf_counter() - started) / count, (cpu_seconds() - used) / count

    before = alone()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=extraction_child, args=(there, config))
    child.start()
    there.close()  # so that a child that dies ends the wait for its answer
    whole, whole_used, decoders_used = here.recv()
    child.join()
    after = alone()
    seconds, used = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    return {
        "precision": precision, "crop": crop, "batch": batch, "clips": clips,
        "clips_per_sec": 1 / whole, "backbone_clips_per_sec": 1 / seconds, "ratio": seconds / whole,
        "cpu_ms_per_clip": 1000 * whole_used, "decoders_cpu_ms_per_clip": 1000 * decoders_used,
        "backbone_cpu_ms_per_clip": 1000 * used, "backbone_share": used / whole_used,
        "backbone_before_after": [before[0], after[0]],
    }  # fmt: skip


def extraction_child(connection: Connection, config: ExtractConfig) -> None:
    """Extract; send what a clip took: seconds, CPU seconds, and the decoders' part of these.

    From the batch on before which no more was decoded ahead than ever after, or that of the first quarter.
    """
    keep_freed_memory()
    clock = Clock()
    extract(config, clock)
    ended, used = time.perf_counter(), cpu_seconds()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert config.limit is not None
    begun = min(BATCHES_AHEAD, len(clock.times) // 4)
    first_time, first_used, _ = clock.times[begun]
    count = config.limit - sum(batch for *_, batch in clock.times[: begun + 1])
    decoders_used = (children.ru_utime + children.ru_stime) / config.limit
    connection.send(((ended - first_time) / count, (used - first_used) / count, decoders_used))


def decode_rate(config: ExtractConfig) -> float:
    """Return the clips a second that the decoders give when nothing but decoding happens, once they are under way."""
    options = engine_options(config, os.cpu_count() or 1)
    begun = BATCHES_AHEAD * options.batch_size
    started, count = 0.0, 0
    for count, _ in enumerate(decode_ahead(prepare(config, Silent()).views(), [range(config.limit or 0)], options), 1):
        started = time.perf_counter() if count == begun else started
    if count <= begun:
        raise ValueError(
            f"{count} clips; expected more than {begun}, {BATCHES_AHEAD} batches, to tell the decoders' rate"
        )
    return (count - begun) / (time.perf_counter() - started)


def scale(num_clips: int, pixels: bool) -> dict[str, Any]:
    """Extract many tiny clips in a process of its own, and return what it took."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=scale_child, args=(there, num_clips, pixels))
    child.start()
    out: dict[str, Any] = here.recv()
    child.join()
    return out


def scale_child(connection: Connection, num_clips: int, pixels: bool) -> None:
    """Make the clips as links to one folder of frames with boxes of their own, and extract them."""
    root = Path("scale") / str(num_clips)
    if not root.exists():
        write_folders(root, num_clips)
    options: dict[str, Any] = (
        {"weights": random_weights("i3d_r50"), "crop": 32, "pooled": "7-max"} if pixels else {"backbone": "none"}
    )
    clock = Clock()
    extract(ExtractConfig(dataset="something-else", data_root=root, out=root / f"{pixels}.zarr", **options), clock)
    seconds = time.perf_counter() - clock.times[0][0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    count = num_clips - clock.times[0][2]
    connection.send(
        {
            "clips": num_clips,
            "pixels": pixels,
            "ms_per_clip": 1000 * seconds / count,
            "peak_mib": peak,
            "worker_mib": workers,
        }
    )


def main() -> None:
    """Run the parts that were asked for, print and save each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--small", action="store_true", help="64-pixel crops, few clips: does it run?")
    parser.add_argument("--clips", type=int, help="clips of the end-to-end part; default: 96, on a GPU 4,096")
    parser.add_argument("--workers", type=int, help="decoding processes")
    arguments = parser.parse_args()
    device, cpu, small = choose_device(arguments.device), arguments.device == "cpu", arguments.small
    crop, batch = 64 if small else 224, 8 if cpu else 64
    clips = arguments.clips or (16 if small else 96 if cpu else 4096)
    here = facts(device)
    print(here)
    suffix = "-small" if small else ""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for part in arguments.parts:
            keep_freed_memory()
            if part == "backbone":
                found = backbone_times(device, batch, crop, 3 if cpu else 10)
                show_backbone(found)
            elif part == "end-to-end":
                write_videos(Path("videos"), clips)
                configs = {p: make_config(device, p, batch, crop, clips, arguments.workers) for p in ("fp32", "bf16")}
                found = {p: end_to_end(config) for p, config in configs.items()}
                show_end_to_end(found)
            else:
                few, many = (200, 2000) if small else (1000, 10_000)
                found = {"rows": [scale(number, pixels) for pixels in (False, True) for number in (few, many)]}
                show_scale(found)
            print(save(f"extraction-{part}{suffix}", {**here, **found}, device))
        os.chdir("/")


def show_backbone(found: dict[str, Any]) -> None:
    """Print a row for every form of the backbone."""
    print("| form | clips/s | × eager fp32 | GFLOP/s | of matmul | error |\n|---|---|---|---|---|---|")
    for row in found["rows"]:
        print(
            f"| {row['form']} | {row['clips_per_sec']:.2f} | {row['speedup']:.2f} | {row['gflop_per_sec']:.0f} | "
            f"{row['share_of_matmul']:.2f} | {row['relative_error']:.1e} |"
        )


def show_end_to_end(found: dict[str, dict[str, Any]]) -> None:
    """Print a line for every precision."""
    for name, row in found.items():
        share = f"{row['ratio']:.3f} of the backbone alone; its share of CPU seconds {row['backbone_share']:.3f}"
        share += f"; decoders {row['decoders_cpu_ms_per_clip']:.0f} CPU ms a clip"
        print(f"end to end {name}: {row['clips_per_sec']:.2f} clips/s, {share}")


def show_scale(found: dict[str, Any]) -> None:
    """Print a line for every number of clips."""
    for row in found["rows"]:
        what = f"{row['clips']} clips {'with' if row['pixels'] else 'without'} pixels"
        print(f"{what}: {row['ms_per_clip']:.2f} ms a clip, peak {row['peak_mib']:.0f} MiB")


if __name__ == "__main__":
    main()
