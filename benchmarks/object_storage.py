"""Reading from a bucket beside a plain download and beside disk: python benchmarks/object_storage.py [--clips 768].

A cache of random rows as large as `i3d_r50`'s (8 frames, 4 instances, 3×3) is read from `rclone serve
http` on this machine, which answers to ranges as object stores do; its `serve s3`, which takes the push, does not.
`--link N` makes the server give N MiB/s at most, as a network would.

link    every shard's object as a whole, 16 at once, thrown away: the rate of the link.
ranges  every row through the reader, announced 512 ahead and read 72 at a time, with nothing kept before.
kept    the same again, from what the first reading kept on this disk.
disk    the same from the local cache.
epochs  `ifcar fit-head sfi --memory stream`, preset paper, one epoch and its test: from disk, from the cold bucket, and
        from the bucket once more; whole commands.

Sides take turns; the median of the rounds counts. Server, client and training share one machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from machine import facts, save
from random_cache import write_cache

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fixtures.buckets import BUCKET, rclone, settings

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.arrays import CacheSpec
from ifcar.cache.block_cache import FOLDER
from ifcar.cache.bucket import PARALLEL, Bucket
from ifcar.cache.open import open_cache
from ifcar.cache.push import push_cache
from ifcar.cache.reader import CacheReader

SPEC = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=4, channels=2048, pooled_size=3, grid_size=None)
BATCH, AHEAD = 72, 512
NAME = "c.zarr"


def link(address: Address, num_blocks: int) -> int:
    """Download all shards and return their bytes."""
    bucket = Bucket(address)
    names = [f"instance_features/c.{block}.0.0.0.0.0" for block in range(num_blocks)]
    with ThreadPoolExecutor(PARALLEL) as pool:
        return sum(pool.map(lambda name: sum(len(part) for part in bucket.stream(name)), names))


def read_all(reader: CacheReader) -> int:
    """Read every row as training does, and return the bytes."""
    rows = np.arange(reader.num_rows)
    out = np.empty((BATCH, *SPEC.shape("instance_features")), np.float16)
    for start in range(0, len(rows), BATCH):
        reader.advise("instance_features", rows[start : start + AHEAD])
        part = rows[start : start + BATCH]
        reader.read_rows("instance_features", part, out[: len(part)])
    return len(rows) * SPEC.row_bytes(["instance_features"])


def rate(do: Callable[[], int]) -> float:
    """Return MB/s."""
    began = time.perf_counter()
    return do() / (time.perf_counter() - began) / 1e6


def reading(cache: Path) -> float:
    """Return MB/s of a cache that is open."""
    reader = open_cache(cache)
    found = rate(lambda: read_all(reader))
    reader.close()
    return found


def epoch(cache: str | Path, out: Path) -> float:
    """Return the seconds of a training of one epoch."""
    shutil.rmtree(out, ignore_errors=True)
    words = ["fit-head", "sfi", "--cache", str(cache), "--schedule", "stretched", "--epochs", "1", "--memory", "stream"]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "from ifcar.cli import main; main()", *words, "--out", str(out)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def address_of(text: str) -> Address:
    """Return a text as an address."""
    place = place_of(text)
    assert isinstance(place, Address)
    return place


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=768)
    parser.add_argument("--link", type=int, default=0, help="MiB/s of the server at most; 0: what it gives")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=("rates", "epochs"), default=["rates", "epochs"])
    given = parser.parse_args()
    limit = ["--bwlimit", f"{given.link}M"] if given.link else []
    with tempfile.TemporaryDirectory() as folder:
        root, kept = Path(folder), Path(folder, "blocks")
        local = root / NAME
        test = given.clips // 6
        write_cache(local, SPEC, num_train=given.clips - test, num_test=test, num_classes=174)
        with rclone(root / "s3") as port, rclone(root / "s3", "http", *limit) as web:
            os.environ |= {**settings(port), FOLDER: str(kept)}
            target = address_of(f"s3://{BUCKET}/{NAME}")
            address = address_of(f"http://127.0.0.1:{web}/{BUCKET}/{NAME}")
            found: dict[str, list[float]] = {"push": [rate(lambda: push_cache(local, target).size_bytes)]}
            num_blocks = -(-given.clips // 256)

            def note(name: str, value: float) -> None:
                found.setdefault(name, []).append(value)
                print(f"{name:12} {value:8.1f}", flush=True)

            for _ in range(given.rounds if "rates" in given.parts else 0):
                shutil.rmtree(kept, ignore_errors=True)
                note("link", rate(lambda: link(address, num_blocks)))
                note("ranges", reading(address))
                note("kept", reading(address))
                note("disk", reading(local))
            for _ in range(given.rounds if "epochs" in given.parts else 0):
                shutil.rmtree(kept, ignore_errors=True)
                note("epoch disk", epoch(local, root / "run"))
                note("epoch cold", epoch(address, root / "run"))
                note("epoch kept", epoch(address, root / "run"))
        median = {name: statistics.median(values) for name, values in found.items()}
        pairs = [("ranges", "link"), ("kept", "disk"), ("epoch disk", "epoch cold"), ("epoch disk", "epoch kept")]
        ratios = {f"{one} / {two}": median[one] / median[two] for one, two in pairs if one in median}
        for name, value in ratios.items():
            print(f"{name:24} {value:.2f}")
        save(
            "_".join(["object_storage", *given.parts, *([f"link{given.link}"] if given.link else [])]),
            {**facts(), **vars(given), "measured": found, "median": median, "ratios": ratios},
        )


if __name__ == "__main__":
    main()
