"""More clips than one cache may have, as parts: python benchmarks/many_clips.py [--clips N].

Parts of boxes without pixels, one row a clip, as small as rows get. Each part's first and last block are written as
extraction writes them; the blocks between are further names of the first one's files, each with a commit record of its
own, so that making the parts takes minutes and not hours. Everything after that is as with any cache: the parts are
listed, opened and read at both ends and around the seams, and a head trains two steps on clips of the first and of the
last part.

Seconds on the clock and of this process, and the most memory that it has had, after each step. Works in a temporary
folder, which needs about 60 bytes and a seventh of a file a clip.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from driver_simulation import peak_mib
from machine import facts, save
from numpy.typing import NDArray
from random_cache import PROTOCOL

from ifcar.cache.arrays import CacheSpec, RowArrays
from ifcar.cache.commits import commit_name, encode_commit, read_commit
from ifcar.cache.manifest import MAX_CLIPS
from ifcar.cache.open import open_cache
from ifcar.cache.parts import write_parts
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Provenance, Split, Status
from ifcar.cache.writer import CacheWriter
from ifcar.pipelines.fit import fit
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

SPEC = CacheSpec.standard(num_frames=2, num_steps=2, num_instances=1)
BATCH, TESTED = 72, 16


def protocol(num_clips: int) -> ProtocolTable:
    """Return a protocol of two batches to train on and some clips to test on, half of them at either end."""
    split = np.full(num_clips, Split.NONE, np.uint8)
    for ends in (split, split[::-1]):
        ends[:BATCH], ends[BATCH : BATCH + TESTED // 2] = Split.TRAIN, Split.TEST
    targets = (np.arange(num_clips) % 3).astype(np.int16)
    targets[split == Split.NONE] = -1
    return ProtocolTable(
        name=PROTOCOL,
        spaces=(LabelSpace(kind="single", classes=tuple("abc"), targets=targets),),
        split=split,
        groups=np.full(num_clips, -1, np.int32),
    )


def rows_of_part(part: int, num_rows: int) -> RowArrays:
    """Return a block's rows, which differ from part to part."""
    arrays = SPEC.empty_rows(num_rows)
    arrays["status"][:] = Status.DONE
    arrays["categories"][:] = 1
    arrays["boxes"][:] = np.random.default_rng(part).uniform(0.1, 0.9, (256, *SPEC.shape("boxes")))[:num_rows]
    return arrays


def write_part(path: Path, part: int, first: int, stop: int, whole: ProtocolTable) -> None:
    """Write the cache of the clips from `first` to `stop`."""
    clips: NDArray[np.int64] = np.arange(first, stop)
    writer = CacheWriter.create(
        path,
        spec=SPEC,
        provenance=Provenance(identity={"dataset": {"name": "random"}}, environment={}),
        clip_ids=[f"{clip:08d}" for clip in range(first, stop)],
        num_views=1,
        protocols=[whole.of_clips(clips)],
    )
    for block in sorted({0, writer.num_blocks - 1}):
        writer.write_block(block, rows_of_part(part, len(writer.rows_of(block))), {})
    record, manifest = read_commit(path / commit_name(0)), writer.stage.manifest
    written = manifest.block_files(0)
    for block in range(1, writer.num_blocks - 1):
        rows, names = writer.rows_of(block), manifest.block_files(block)
        for array, name in names.items():
            os.link(path / written[array], path / name)
        files = {names[array]: record.files[name] for array, name in written.items()}
        own = replace(record, block=block, start=rows.start, stop=rows.stop, files=files)
        (path / commit_name(block)).write_bytes(encode_commit(own))


def check_rows(cache: Path, edges: list[int]) -> None:
    """Compare the rows at the ends of all parts with those that were written."""
    reader = open_cache(cache)
    for part, (first, stop) in enumerate(itertools.pairwise(edges)):
        own = np.array([0, 1, 255, 256, (stop - first) - 1])
        expected = rows_of_part(part, 256)["boxes"][own % 256]
        np.testing.assert_array_equal(reader.read_rows("boxes", first + own), expected)
        assert reader.clip_ids[stop - 1] == f"{stop - 1:08d}"
    assert reader.num_clips == edges[-1]
    reader.close()


def main() -> None:
    """Write, list, open, train, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=MAX_CLIPS + 1000)
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}

    @contextmanager
    def noted(step: str) -> Iterator[None]:
        began, cpu = time.perf_counter(), time.process_time()
        yield
        now = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu, "peak_mib": peak_mib()}
        found[step] = now
        print(step, {name: round(value, 1) for name, value in now.items()}, flush=True)

    edges = [0, given.clips // 2, given.clips]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parts, cache = [root / f"{part}.zarr" for part in range(len(edges) - 1)], root / "all.parts.json"
        with noted("make"):
            whole = protocol(given.clips)
            for part, (first, stop) in enumerate(itertools.pairwise(edges)):
                write_part(parts[part], part, first, stop, whole)
        with noted("list"):
            write_parts(parts, cache).close()
        with noted("open and read"):
            check_rows(cache, edges)
        with noted("train two steps"):
            schedule = ScheduleConfig(kind="paper", epochs=1, batch_size=BATCH)
            config = make_run_config(
                "base", cache, protocol=PROTOCOL, streams="layout", preset="small", schedule=schedule
            )
            result = fit(config, out=root / "run", device="cpu")
        print({own.split: own.n for own in result.run.metrics})
        print(save("many-clips", {**facts(), **vars(given), "bytes_a_row": SPEC.row_bytes(SPEC.names()), **found}))


if __name__ == "__main__":
    main()
