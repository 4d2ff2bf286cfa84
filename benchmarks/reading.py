"""Random batches from a cache: python benchmarks/reading.py [--rows 2048] [--rounds 40].

72 random rows of 147 kB a batch: the raw-shard reader with every checksum verified, np.memmap on the same bytes without
any, and zarr's own oindex; hot (in the page cache) and cold (dropped from it before every batch). Interleaved, medians.
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

import numpy as np
import zarr
from machine import facts, median, save

from ifcar.cache.reader import CacheReader, open_cache
from ifcar.cache.schema import CacheSpec, Provenance, Status, zeros_for_rows
from ifcar.cache.writer import CacheWriter

SPEC = CacheSpec(num_frames=8, num_steps=4, num_instances=4, channels=512, pooled_size=3)
BATCH, NAME = 72, "instance_features"


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
    shape = (num_rows, *SPEC.arrays()[NAME].shape)
    plain = np.memmap(path.with_suffix(".raw"), np.float16, "w+", shape=shape)
    rng = np.random.default_rng(0)
    for block in writer.pending_blocks():
        rows = writer.rows_of(block)
        arrays = zeros_for_rows(SPEC, len(rows))
        arrays[NAME][:] = rng.standard_normal(arrays[NAME].shape, np.float32)
        arrays["status"][:] = Status.DONE
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
    """Return the seconds of every batch; all sides read the same rows of a round, in turn."""
    rng = np.random.default_rng(1)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        rows = rng.choice(num_rows, BATCH, replace=False)
        for name, side in sides.items():
            if before is not None:
                before()
            started = time.perf_counter()
            side(rows)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=40)
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
        path, shape = root / "c.raw", mapped.pop().shape  # unmapped: pages that are mapped cannot be dropped
        sides = {"np.memmap": lambda rows: np.memmap(path, np.float16, "r", shape=shape)[rows], **sides}
        cold = measure(sides, arguments.rows, max(5, arguments.rounds // 4), lambda: drop_pages(root))
    here = facts()
    content: dict[str, Any] = {"rows": arguments.rows, "batch": BATCH, "row_bytes": SPEC.arrays()[NAME].row_bytes()}
    print(f"{here}\n\n| | hot ms | × memmap | cold ms | × memmap |\n|---|---|---|---|---|")
    for name in hot:
        line = [f"{1000 * median(hot[name]):.2f}", f"{median(hot[name]) / median(hot['np.memmap']):.2f}"]
        if name in cold:
            line += [f"{1000 * median(cold[name]):.2f}", f"{median(cold[name]) / median(cold['np.memmap']):.2f}"]
        print(f"| {name} | " + " | ".join(line) + " |")
    print(save("reading", {**here, **content, "hot_seconds": hot, "cold_seconds": cold}))


if __name__ == "__main__":
    main()
