"""Reading from a bucket beside a plain download and beside disk: python benchmarks/object_storage.py [--parts epoch].

Caches of random rows are read from `rclone serve http` on this machine, which answers to ranges as object stores do;
its `serve s3`, which takes the push, does not. `--link N` makes the server give N MiB/s at most, as a network would.

rates   rows as large as `i3d_r50`'s (8 frames, 4 instances, 3×3 bins of 2,048 channels):
        link    every shard's object as a whole, 16 at once, thrown away: the rate of the link.
        plain   the same objects in requests of 8 MiB, 4 at once, as the reader asks for them, thrown away.
        saved   the same, each written to a file in place of its object.
        ranges  every row through the reader, announced 512 ahead and read 72 at a time, with nothing kept before.
        kept    the same again, from what the first reading kept on this disk.
        disk    the same from the local cache.
epoch   one training epoch of SFI at the paper's size (rows of 147 kB, batch 72, `--memory stream`) in this process:
        from disk, from the bucket with nothing kept, and from the bucket once more. Time on the clock, and time of
        this process on all cores, from before the first row is asked for to the last step.

Sides take turns, after one epoch from disk that does not count; the median of the rounds counts. Server, client and
training share one machine, so that on a link without a limit the server's work slows the others down.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

import numpy as np
from machine import facts, save
from random_cache import PROTOCOL, write_cache

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fixtures.buckets import BUCKET, rclone, settings
from fixtures.flops import PAPER_BATCH, PAPER_CLASSES, PAPER_SPEC

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.arrays import CacheSpec
from ifcar.cache.block_cache import FOLDER, READERS, REQUEST_BYTES
from ifcar.cache.bucket import PARALLEL, Bucket, ObjectFacts
from ifcar.cache.open import open_cache
from ifcar.cache.push import push_cache
from ifcar.cache.reader import CacheReader
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

SPEC = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=4, channels=2048, pooled_size=3, grid_size=None)
BATCH, AHEAD = PAPER_BATCH, 512
NAME, PAPER_NAME = "c.zarr", "paper.zarr"
PARTS = ("rates", "epoch")
PAIRS = [
    ("plain", "link"),
    ("ranges", "link"),
    ("saved", "link"),
    ("ranges", "saved"),
    ("kept", "disk"),
    ("epoch disk", "epoch cold"),
    ("epoch disk", "epoch kept"),
    ("epoch disk cpu", "epoch cold cpu"),
    ("epoch disk cpu", "epoch kept cpu"),
]
Note = Callable[[str, float], None]


def link(address: Address, num_blocks: int) -> int:
    """Download all shards and return their bytes."""
    bucket = Bucket(address)
    names = [f"instance_features/c.{block}.0.0.0.0.0" for block in range(num_blocks)]
    with ThreadPoolExecutor(PARALLEL) as pool:
        return sum(pool.map(lambda name: sum(len(part) for part in bucket.stream(name)), names))


def plain(address: Address, num_blocks: int, folder: Path | None = None) -> int:
    """Download all shards in ranges, as many at once as the reader asks for, into files or nowhere; return bytes."""
    bucket = Bucket(address)
    with ExitStack() as files, ThreadPoolExecutor(READERS) as pool:
        spans = []
        for block in range(num_blocks):
            name = f"instance_features/c.{block}.0.0.0.0.0"
            facts = bucket.head(name)
            assert facts is not None
            file = None if folder is None else files.enter_context((folder / str(block)).open("wb", buffering=0))
            spans += [(name, start, facts, file) for start in range(0, facts.size, REQUEST_BYTES)]

        def get(name: str, start: int, facts: ObjectFacts, file: FileIO | None) -> int:
            data = bucket.get_range(name, start, min(start + REQUEST_BYTES, facts.size), facts.tag)
            return len(data) if file is None else os.pwrite(file.fileno(), data, start)

        return sum(pool.map(lambda span: get(*span), spans))


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


class Epoch(Silent):
    """Times the training of a run, without what comes before and after it."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def start(self, title: str, total: int, *, done: int = 0, after: int = 0) -> None:
        """Begin to count where training does."""
        if title.endswith(" fit"):
            self.seconds, self.cpu_seconds = -time.perf_counter(), -time.process_time()

    def finish(self) -> None:
        """Stop where training does."""
        if self.seconds < 0:
            self.seconds += time.perf_counter()
            self.cpu_seconds += time.process_time()


def epoch(cache: Path, out: Path) -> Epoch:
    """Train SFI for one epoch, and return the seconds of that."""
    shutil.rmtree(out, ignore_errors=True)
    schedule = ScheduleConfig(kind="paper", epochs=1, batch_size=BATCH)
    config = make_run_config("sfi", cache, protocol=PROTOCOL, aux_weight=5.0, schedule=schedule)
    timed = Epoch()
    fit(config, timed, out=out, device="cpu", memory="stream")
    assert timed.seconds > 0
    return timed


def address_of(text: str) -> Address:
    """Return a text as an address."""
    place = place_of(text)
    assert isinstance(place, Address)
    return place


def measure_rates(root: Path, ports: tuple[int, int], num_clips: int, rounds: int, note: Note) -> None:
    """Push a cache and read it, in every way."""
    local, kept = root / NAME, Path(os.environ[FOLDER])
    write_cache(local, SPEC, num_train=num_clips - num_clips // 6, num_test=num_clips // 6, num_classes=PAPER_CLASSES)
    target = address_of(f"s3://{BUCKET}/{NAME}")
    address = address_of(f"http://127.0.0.1:{ports[1]}/{BUCKET}/{NAME}")
    note("push", rate(lambda: push_cache(local, target).size_bytes))
    num_blocks = -(-num_clips // 256)
    for _ in range(rounds):
        shutil.rmtree(kept, ignore_errors=True)
        note("link", rate(lambda: link(address, num_blocks)))
        note("plain", rate(lambda: plain(address, num_blocks)))
        with tempfile.TemporaryDirectory(dir=root) as folder:
            note("saved", rate(lambda folder=folder: plain(address, num_blocks, Path(folder))))
        note("ranges", reading(address))
        note("kept", reading(address))
        note("disk", reading(local))


def measure_epochs(root: Path, port: int, num_clips: int, rounds: int, note: Note) -> None:
    """Train from disk and from the bucket; the server gives the very files that are read from disk."""
    local, kept = root / "s3" / BUCKET / PAPER_NAME, Path(os.environ[FOLDER])
    write_cache(local, PAPER_SPEC, num_train=num_clips, num_test=BATCH, num_classes=PAPER_CLASSES)
    address = address_of(f"http://127.0.0.1:{port}/{BUCKET}/{PAPER_NAME}")
    epoch(local, root / "run")
    for _ in range(rounds):
        shutil.rmtree(kept, ignore_errors=True)
        for name, cache in (("disk", local), ("cold", address), ("kept", address)):
            timed = epoch(cache, root / "run")
            note(f"epoch {name}", timed.seconds)
            note(f"epoch {name} cpu", timed.cpu_seconds)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=768, help="of the rates")
    parser.add_argument("--train", type=int, default=14 * BATCH, help="clips of the epoch")
    parser.add_argument("--link", type=int, default=0, help="MiB/s of the server at most; 0: what it gives")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    limit = ["--bwlimit", f"{given.link}M"] if given.link else []
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)
        print(f"{name:16} {value:8.1f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with rclone(root / "s3") as port, rclone(root / "s3", "http", *limit) as web:
            os.environ |= {**settings(port), FOLDER: str(root / "blocks")}
            if "rates" in given.parts:
                measure_rates(root, (port, web), given.clips, given.rounds, note)
            if "epoch" in given.parts:
                measure_epochs(root, web, given.train, given.rounds, note)
    median = {name: statistics.median(values) for name, values in found.items()}
    ratios = {f"{one} / {two}": median[one] / median[two] for one, two in PAIRS if one in median}
    for name, value in ratios.items():
        print(f"{name:32} {value:.2f}")
    save(
        "_".join(["object_storage", *given.parts, *([f"link{given.link}"] if given.link else [])]),
        {**facts(), **vars(given), "measured": found, "median": median, "ratios": ratios},
    )


if __name__ == "__main__":
    main()
