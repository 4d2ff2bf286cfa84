"""How far one driver and one cache reach: python benchmarks/driver_simulation.py [--blocks 1000000] [--parts …].

driver   the real driver (`drive`, its queue and its count) with simulated actors that take a second a block, each of
         which tells its rows once a second; at every number of actors: blocks/s offered and done, the driver's share of
         the time, and peak memory. The actors' time goes by as fast as nothing happens in it, the driver's is real.
         Nothing is published.
publish  staged blocks of boxes put into place and committed by the real writer on this disk, one after the other.
records  a cache with many commit records: list them, open it (every record's checksum is verified), resume it with all
         blocks committed and with none, and the memory that it takes.
clips    a cache of many clips with nothing extracted: make it and open it.
table    what every start after the first does, and every actor: take the annotations of many clips, of 12 frames and
         two tracks, from the table beside the cache; then make that and open it.
prepare  what the driver and every actor do first: read the annotations of many clips of 12 frames, without pixels.

Every measurement has a process of its own. Works in a temporary folder.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from clips import TINY_FRAMES, write_annotations
from machine import facts, save

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.blocks import StagedBlock
from ifcar.cache.commits import CommitRecord, FileDigest, commit_name, encode_commit
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Provenance, Split, Status
from ifcar.cache.writer import CacheWriter
from ifcar.extract.annotation_writing import write_table
from ifcar.extract.datasets.contract import Clip, Listing
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.engine import BlockTask
from ifcar.extract.tracks import Tracks
from ifcar.pipelines.engines.driver import Event, Joined, RowsDone, Staged, drive
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.preparation import Preparation, prepare
from ifcar.pipelines.extraction.slots import slot_note
from ifcar.pipelines.extraction.sources import annotation_key
from ifcar.pipelines.progress import Silent

ROWS = 256
BLOCK_SEC = 1.0
COUNT_SEC = 1.0
ACTORS = (100, 1000, 4000, 16000)
PARTS = ("driver", "publish", "records", "clips", "prepare", "table")


class SimulatedActors:
    """A `Actors` of actors that each take BLOCK_SEC a block."""

    def __init__(self, number: int) -> None:
        self.driver_sec = self._now = 0.0
        self._began = time.perf_counter()
        self._order = itertools.count()
        self._queues: list[deque[BlockTask]] = [deque() for _ in range(number)]
        self._totals = [0] * number
        self._coming: list[tuple[float, int, int, BlockTask | None]] = []
        self._joining: list[Event] = [Joined(actor=actor, node=f"node{actor // 8}") for actor in range(number)]
        for actor in range(number):
            self._at(COUNT_SEC * (1 + actor / number), actor, None)

    def clock(self) -> float:
        """Return the simulated time, which goes on while the driver works."""
        return self._now + time.perf_counter() - self._began

    def wait(self, seconds: float) -> Sequence[Event]:
        """Return what has happened while the driver worked, or skip to what happens next."""
        worked = time.perf_counter() - self._began
        self.driver_sec += worked
        self._now += worked
        events, self._joining = self._joining, []
        if not events:
            self._now = max(self._now, min(self._coming[0][0], self._now + seconds))
        while self._coming and self._coming[0][0] <= self._now:
            events.append(self._happen(*heapq.heappop(self._coming)))
        self._began = time.perf_counter()
        return events

    def send(self, actor: int, task: BlockTask) -> None:
        """Give an actor one more block."""
        self._queues[actor].append(task)
        if len(self._queues[actor]) == 1:
            self._at(self._now + BLOCK_SEC, actor, task)

    def _happen(self, at: float, _: int, actor: int, task: BlockTask | None) -> Event:
        queue = self._queues[actor]
        if task is None:
            self._at(at + COUNT_SEC, actor, None)
            parts = {queue[0].block: (ROWS // 2, 0)} if queue else {}
            return RowsDone(actor=actor, total=self._totals[actor], blocks=parts)
        queue.popleft()
        self._totals[actor] += ROWS
        if queue:
            self._at(at + BLOCK_SEC, actor, queue[0])
        record = CommitRecord(block=task.block, start=0, stop=ROWS, fingerprint="", files={}, failures=())
        return Staged(actor=actor, staged=StagedBlock(record=record, attempt=""))

    def _at(self, when: float, actor: int, task: BlockTask | None) -> None:
        heapq.heappush(self._coming, (when, next(self._order), actor, task))


class NoWriter:
    """Counts what would be published."""

    path = Path()

    def __init__(self) -> None:
        self.num_published = 0

    def publish_block(self, staged: StagedBlock) -> None:
        """Count it."""
        self.num_published += 1


def driver(num_blocks: int, num_actors: int) -> dict[str, Any]:
    """Drive simulated actors through all blocks."""
    tasks = [BlockTask(block=block, rows=range(block * ROWS, (block + 1) * ROWS)) for block in range(num_blocks)]
    before, actors, writer = peak_mib(), SimulatedActors(num_actors), NoWriter()
    drive(tasks, actors, writer, Silent(), actors.clock)  # type: ignore[arg-type]
    assert writer.num_published == num_blocks
    return {
        "blocks": num_blocks,
        "actors": num_actors,
        "offered_blocks_per_sec": num_actors / BLOCK_SEC,
        "blocks_per_sec": num_blocks / actors.clock(),
        "busy_share": actors.driver_sec / actors.clock(),
        "driver_us_per_block": 1e6 * actors.driver_sec / num_blocks,
        "peak_mib": peak_mib(),
        "peak_mib_before": before,
    }


def publish(num_blocks: int) -> dict[str, Any]:
    """Stage blocks, then publish all of them."""
    writer = new_cache(Path("publish.zarr"), num_blocks)
    arrays = writer.spec.empty_rows(ROWS)
    arrays["status"][:] = Status.DONE
    started = time.perf_counter()
    staged = [writer.stage.stage_block(block, arrays, {}) for block in range(num_blocks)]
    stage_sec = time.perf_counter() - started
    started = time.perf_counter()
    for block in staged:
        writer.publish_block(block)
    seconds = time.perf_counter() - started
    return {
        "blocks": num_blocks,
        "files_per_block": len(staged[0].record.files),
        "publish_ms_per_block": 1000 * seconds / num_blocks,
        "stage_ms_per_block": 1000 * stage_sec / num_blocks,
    }


def records(num_blocks: int) -> dict[str, Any]:
    """Open and resume a cache of many blocks, its records there or not; the blocks' own files never are."""
    path = Path("records.zarr")
    writer = new_cache(path, num_blocks)
    arguments = identity(num_blocks)
    resume_none = seconds_of(lambda: CacheWriter.resume(path, **arguments))
    manifest, size = writer.stage.manifest, 0
    for block in range(num_blocks):
        rows, files = manifest.rows_of(block), manifest.block_files(block).values()
        digests = {name: FileDigest(ROWS, f"{block:064x}") for name in files}
        record = CommitRecord(
            block=block, start=rows.start, stop=rows.stop, fingerprint=manifest.fingerprint, files=digests, failures=()
        )
        data = encode_commit(record)
        size += len(data)
        (path / commit_name(block)).write_bytes(data)
    before = peak_mib()
    list_sec = seconds_of(lambda: sum(1 for _ in os.scandir(path / "commits")))
    open_sec = seconds_of(lambda: open_cache(path))
    return {
        "blocks": num_blocks,
        "bytes_per_record": size / num_blocks,
        "list_sec": list_sec,
        "open_sec": open_sec,
        "kib_per_record": 1024 * (peak_mib() - before) / num_blocks,
        "resume_sec_all_committed": seconds_of(lambda: CacheWriter.resume(path, **arguments)),
        "resume_sec_none_committed": resume_none,
    }


def clips(num_clips: int) -> dict[str, Any]:
    """Make and open a cache of many clips."""
    path = Path("clips.zarr")
    ids = [f"{clip:011d}" for clip in range(num_clips)]
    create_sec = seconds_of(lambda: CacheWriter.create(path, **{**identity(1), "clip_ids": ids, "num_views": 1}))
    return {
        "clips": num_clips,
        "create_sec": create_sec,
        "open_sec": seconds_of(lambda: open_cache(path)),
        "peak_mib": peak_mib(),
    }


def prepared(num_clips: int) -> dict[str, Any]:
    """Prepare the extraction of many clips."""
    Path("data").mkdir()
    write_annotations(Path("data"), num_clips, TINY_FRAMES, 1.0)
    (Path("data") / "videoid2size.json").write_text(json.dumps({str(clip): [32, 24] for clip in range(num_clips)}))
    config = ExtractConfig(dataset="something-else", data_root=Path("data"), backbone="none")
    before = peak_mib()
    seconds = seconds_of(lambda: prepare(config, Silent()))
    return {
        "clips": num_clips,
        "seconds": seconds,
        "us_per_clip": 1e6 * seconds / num_clips,
        "kib_per_clip": 1024 * (peak_mib() - before) / num_clips,
    }


class ManyClips(Sequence[Clip]):
    """Clips that are made when they are asked for."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, item: Any) -> Any:
        if item >= self._number:
            raise IndexError
        return Clip(clip_id=f"{item:011d}", source=None, frame_size=(32, 24))


def tabled(num_clips: int) -> dict[str, Any]:
    """Write a table of many clips with one protocol, and start an extraction from it."""
    write_annotations(Path(), 1, TINY_FRAMES, 1.0)
    numbers = np.arange(num_clips)
    protocol = ProtocolTable(
        name="compositional",
        spaces=(LabelSpace(kind="single", classes=tuple("abc"), targets=(numbers % 3).astype(np.int16)),),
        split=np.where(numbers % 4, Split.TRAIN, Split.TEST).astype(np.uint8),
        groups=np.full(num_clips, -1, np.int32),
    )
    boxes = np.random.default_rng(0).uniform(0, 24, (TINY_FRAMES, 2, 4)).astype(np.float32)
    tracks = Tracks(frames=np.arange(TINY_FRAMES), boxes=boxes, categories=np.array([1, 2], np.uint8))
    config = ExtractConfig(dataset="something-else", data_root=Path(), backbone="none")
    dataset = SomethingElse(Path())
    dataset.num_instances = config.instances
    key = annotation_key(dataset, needs_pixels=False)
    assert key is not None
    table = Path("c.annotations")
    listing = Listing(clips=ManyClips(num_clips), digest="0" * 64)
    write_sec = seconds_of(lambda: write_table(table, key, listing, [protocol], [], lambda clip_id: tracks))
    found, before = list[Preparation](), peak_mib()
    seconds = seconds_of(lambda: found.append(prepare(config, Silent(), table=table)))
    preparation, views = found[0], found[0].views()
    clips = preparation.source.clip_table()
    about = {"protocols": preparation.source.protocols, "segments": clips.segments, "cameras": clips.cameras}
    create_sec = seconds_of(lambda: CacheWriter.create(Path("c.zarr"), **preparation.identity(), **about))
    rows = np.random.default_rng(0).integers(0, num_clips, 1_000).tolist()
    return {
        "clips": num_clips,
        "table_mib": table.stat().st_size / 2**20,
        "write_sec": write_sec,
        "prepare_sec": seconds,
        "slots_sec": seconds_of(lambda: slot_note(preparation.source, config.instances)),
        "create_sec": create_sec,
        "open_sec": seconds_of(lambda: open_cache(Path("c.zarr"))),
        "row_ms": seconds_of(lambda: [views[row] for row in rows]),
        "peak_mib": peak_mib(),
        "peak_mib_before": before,
    }


def identity(num_blocks: int) -> dict[str, Any]:
    """Return a cache without pixels in which every clip is a block."""
    return {
        "spec": CacheSpec.standard(num_frames=8, num_steps=4, num_instances=4),
        "provenance": Provenance(identity={}, environment={}),
        "clip_ids": [f"{clip:011d}" for clip in range(num_blocks)],
        "num_views": ROWS,
        "protocols": [],
    }


def new_cache(path: Path, num_blocks: int) -> CacheWriter:
    """Make an empty cache of so many blocks."""
    return CacheWriter.create(path, **identity(num_blocks))


def seconds_of(function: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def peak_mib() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answer(connection: Connection, function: Callable[..., dict[str, Any]], arguments: Sequence[int]) -> None:
    """Send what a measurement gives."""
    connection.send(function(*arguments))


def measured(function: Callable[..., dict[str, Any]], *arguments: int) -> dict[str, Any]:
    """Run a measurement in a process of its own, print and return what it gives."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=answer, args=(there, function, arguments))
    child.start()
    there.close()
    found: dict[str, Any] = here.recv()
    child.join()
    print(function.__name__, {name: round(value, 3) for name, value in found.items()}, flush=True)
    return found


def main() -> None:
    """Run the parts that were asked for and save them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--blocks", type=int, default=1_000_000, help="of the driver part")
    parser.add_argument("--records", type=int, default=100_000, help="commit records")
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--prepared", type=int, default=50_000, help="clips of the prepare part")
    parser.add_argument("--tabled", type=int, default=1_000_000, help="clips of the table part")
    parser.add_argument("--actors", nargs="+", type=int, default=ACTORS)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    here = facts()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for part in arguments.parts:
            if part == "driver":
                found[part] = [measured(driver, arguments.blocks, actors) for actors in arguments.actors]
            elif part == "publish":
                found[part] = measured(publish, 500)
            elif part == "records":
                found[part] = measured(records, arguments.records)
            elif part == "clips":
                found[part] = measured(clips, arguments.clips)
            elif part == "table":
                found[part] = measured(tabled, arguments.tabled)
            else:
                found[part] = measured(prepared, arguments.prepared)
        os.chdir("/")
    print(save("driver-simulation", {**here, **found}))


if __name__ == "__main__":
    main()
