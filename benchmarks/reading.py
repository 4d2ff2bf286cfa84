"""Random batches from a cache: python benchmarks/reading.py [--rows N] [--rounds N] [--stream-rows N] [--device cuda].

random      72 random rows of 147 kB a batch: the raw-shard reader with every checksum verified, np.memmap on the same
            bytes without any, and zarr's own oindex; hot (in the page cache) and cold (dropped from it before every
            batch). Every side reads rows of its own, interleaved, medians. The floor is the bytes over the rate of a
            copy plus the bytes over the rate of the checksum.
streaming   an epoch in shard order read ahead from a cold page cache while a head trains on it, against the same
            training step on a batch that is in memory. The epoch is a seventh of Something-Else's, so that the wait
            for its first rows counts for more than it would there.

Works in a temporary folder, which needs about 150 kB a row, twice.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
import zarr
from machine import facts, median, save, synchronise

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Provenance, Status
from ifcar.cache.writer import CacheWriter
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import InstanceBatch
from ifcar.heap import keep_freed_memory
from ifcar.pipelines.feed.batches import BatchReader
from ifcar.pipelines.feed.order import draw_order

SPEC = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=4, channels=512, pooled_size=3)
BATCH, NAME, NUM_CLASSES = 72, "instance_features", 174


def write(path: Path, num_rows: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Write a cache of random rows and the same rows as a plain file; return the file's memmap."""
    writer = CacheWriter.create(
        path,
        spec=SPEC,
        provenance=Provenance(identity={"dataset": {"name": "random"}, "backbone": {"name": "i3d_r50"}}),
        clip_ids=[str(k) for k in range(num_rows)],
        num_views=1,
        protocols=[],
    )
    shape = (num_rows, *SPEC.shape(NAME))
    plain = np.memmap(path.with_suffix(".raw"), np.float16, "w+", shape=shape)
    rng = np.random.default_rng(0)
    for block in writer.pending_blocks():
        rows = writer.rows_of(block)
        arrays = SPEC.empty_rows(len(rows))
        arrays[NAME][:] = rng.standard_normal(arrays[NAME].shape, np.float32)
        arrays["status"][:] = Status.DONE
        arrays["boxes"][:] = rng.random(arrays["boxes"].shape)
        arrays["categories"][:] = 1 + (np.arange(SPEC.num_instances) > 0)
        plain[rows.start : rows.stop] = arrays[NAME]
        writer.write_block(block, arrays, {})
    plain.flush()
    return np.memmap(path.with_suffix(".raw"), np.float16, "r", shape=shape)


def drop_pages(root: Path) -> None:
    """Drop every file below `root` from the page cache."""
    os.sync()
    for path in root.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def measure(
    sides: dict[str, Callable[[np.ndarray[Any, np.dtype[np.int64]]], object]],
    num_rows: int,
    rounds: int,
    before: Callable[[], None] | None,
) -> dict[str, list[float]]:
    """Return the seconds of every batch; the sides read in turn, no rows that another has just brought into a cache."""
    rng = np.random.default_rng(1)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            rows = rng.choice(num_rows, BATCH, replace=False)
            if before is not None:
                before()
            started = time.perf_counter()
            side(rows)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def floor_seconds(mapped: np.ndarray[Any, np.dtype[np.float16]], rounds: int) -> dict[str, float]:
    """Return the seconds that copying a batch's bytes from memory takes, and checksumming them in a core's cache."""
    rng, row_bytes = np.random.default_rng(2), mapped[0].nbytes
    target, text = np.empty_like(mapped[:BATCH]), rng.integers(0, 256, row_bytes, np.uint8)
    copies, sums = [], []
    for _ in range(rounds):
        first = int(rng.integers(0, len(mapped) - BATCH + 1))
        started = time.perf_counter()
        np.copyto(target, mapped[first : first + BATCH])
        copied = time.perf_counter()
        for _ in range(BATCH):
            google_crc32c.value(text)
        copies.append(copied - started)
        sums.append(time.perf_counter() - copied)
    return {"copy": median(copies), "checksum": median(sums)}


def streaming(path: Path, preset: str, device: str, num_batches: int | None) -> dict[str, Any]:
    """Train on batches streamed from a cold cache, None: all, and on one that stays in memory; return rows a second."""
    keep_freed_memory()
    kind, reader = HEADS.get("sfi"), open_cache(path)
    torch.manual_seed(0)
    head = kind(kind.presets[preset], SPEC, NUM_CLASSES).to(device)
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3, momentum=0.9)
    targets = torch.arange(BATCH, device=device) % NUM_CLASSES

    def step(batch: InstanceBatch) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(head(batch).logits, targets).backward()
        optimizer.step()
        synchronise(device)

    numbers = np.arange(reader.num_rows)
    shards = numbers // reader.manifest.rows_per_shard
    order = draw_order("shards", shards, 0, np.random.default_rng(0))
    parts = [order[k * BATCH : (k + 1) * BATCH] for k in range(len(order) // BATCH)][:num_batches]
    arrays = kind.reads(kind.presets[preset])
    kept = BatchReader(reader, arrays, parts[0], torch.device(device), "ram").batch(parts[0])
    step(kept)
    drop_pages(path)
    batches = BatchReader(reader, arrays, numbers, torch.device(device), "stream")
    streamed, alone = [], []
    batches.expect(parts)
    for part in parts:
        started = time.perf_counter()
        step(batches.batch(part))
        streamed.append(time.perf_counter() - started)
    for _ in parts:
        started = time.perf_counter()
        step(kept)
        alone.append(time.perf_counter() - started)
    reader.close()
    rows = len(parts) * BATCH
    rates = {"streamed_rows_per_sec": rows / sum(streamed), "compute_rows_per_sec": rows / sum(alone)}
    return {"preset": preset, "batches": len(parts), **rates, "ratio": sum(alone) / sum(streamed)}


def streamed_alone(path: Path, device: str) -> float:
    """Return rows a second of an epoch that is streamed from a cold cache and not looked at."""
    reader = open_cache(path)
    drop_pages(path)
    numbers = np.arange(reader.num_rows)
    batches = BatchReader(reader, (NAME,), numbers, torch.device(device), "stream")
    order = draw_order("shards", numbers // reader.manifest.rows_per_shard, 0, np.random.default_rng(0))
    parts = np.array_split(order, len(order) // BATCH)
    started = time.perf_counter()
    batches.expect(parts)
    for part in parts:
        batches.batch(part)
    synchronise(device)
    reader.close()
    return len(order) / (time.perf_counter() - started)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--stream-rows", type=int, default=8192)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        mapped = [write(root / "c.zarr", arguments.rows)]
        reader: CacheReader = open_cache(root / "c.zarr")
        array: Any = zarr.open_group(root / "c.zarr", mode="r")[NAME]
        np.testing.assert_array_equal(reader.read_rows(NAME, np.arange(5)), mapped[0][:5])
        sides: dict[str, Callable[[np.ndarray[Any, np.dtype[np.int64]]], object]] = {
            "np.memmap": lambda rows: mapped[0][rows],
            "raw-shard reader": lambda rows: reader.read_rows(NAME, rows),
        }
        hot = measure(sides, arguments.rows, arguments.rounds, None)
        hot |= measure({"zarr oindex": lambda rows: array.oindex[rows]}, arguments.rows, 5, None)
        floor = floor_seconds(mapped[0], arguments.rounds)
        path, shape = root / "c.raw", mapped.pop().shape  # unmapped: pages that are mapped cannot be dropped
        sides["np.memmap"] = lambda rows: np.memmap(path, np.float16, "r", shape=shape)[rows]
        cold = measure(sides, arguments.rows, max(5, arguments.rounds // 4), lambda: drop_pages(root))
        reader.close()
        write(root / "stream.zarr", arguments.stream_rows)
        alone = streamed_alone(root / "stream.zarr", arguments.device)
        sizes = {"small": None, "paper": None if arguments.device.startswith("cuda") else 10}
        streams = [streaming(root / "stream.zarr", name, arguments.device, count) for name, count in sizes.items()]
    here = facts(arguments.device)
    content: dict[str, Any] = {
        "rows": arguments.rows,
        "stream_rows": arguments.stream_rows,
        "batch": BATCH,
        "row_bytes": SPEC.row_bytes([NAME]),
    }
    print(f"{here}\n\n| | hot ms | × memmap | cold ms | × memmap |\n|---|---|---|---|---|")
    for name in hot:
        line = [f"{1000 * median(hot[name]):.2f}", f"{median(hot[name]) / median(hot['np.memmap']):.2f}"]
        if name in cold:
            line += [f"{1000 * median(cold[name]):.2f}", f"{median(cold[name]) / median(cold['np.memmap']):.2f}"]
        print(f"| {name} | " + " | ".join(line) + " |")
    parts = f"copy {1000 * floor['copy']:.2f} + checksums {1000 * floor['checksum']:.2f}"
    print(
        f"| floor: {parts} | {1000 * sum(floor.values()):.2f} | {sum(floor.values()) / median(hot['np.memmap']):.2f} |"
    )
    print(f"streamed from a cold cache, no head: {alone:,.0f} rows/s")
    for row in streams:
        rates = f"{row['streamed_rows_per_sec']:,.0f} rows/s streamed, {row['compute_rows_per_sec']:,.0f} in memory"
        print(f"sfi, {row['preset']}: {rates}, ratio {row['ratio']:.2f}")
    content |= {"hot_seconds": hot, "cold_seconds": cold, "floor_seconds": floor}
    content |= {"streamed_rows_per_sec_without_head": alone, "streaming": streams}
    print(save("reading", {**here, **content}, arguments.device))


if __name__ == "__main__":
    main()
