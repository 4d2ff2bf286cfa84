"""Small caches with known contents for the cache's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Provenance, Status
from ifcar.cache.writer import CacheWriter

SPEC = CacheSpec.standard(num_frames=4, num_steps=2, num_instances=2, channels=3, pooled_size=2, grid_size=(2, 3))
CLIPS_OF_THREE_BLOCKS = 256 * 2 + 40
IDENTITY = {"dataset": "toybox", "backbone": {"name": "i3d_r50", "weights": "random:0"}, "crop": [224, 224]}
PROVENANCE = Provenance(identity=IDENTITY, environment={"numpy": "2"})


def clip_names(count: int) -> list[str]:
    return [f"clip-{i:04d}" for i in range(count - 1)] + ["clip-é"]


def protocols(count: int) -> list[ProtocolTable]:
    rng = np.random.default_rng(7)
    single = ProtocolTable(
        name="compositional",
        spaces=(
            LabelSpace(
                kind="single", classes=("push", "pull", "pick up"), targets=rng.integers(-1, 3, count).astype(np.int16)
            ),
        ),
        split=rng.integers(0, 3, count).astype(np.uint8),
        groups=rng.integers(-1, 2, count).astype(np.int32),
        group_names=("cup", "box"),
        group_kind="object",
    )
    multi = ProtocolTable(
        name="5-shot",
        spaces=(LabelSpace(kind="multi", classes=("a", "b"), targets=rng.integers(0, 2, (count, 2)).astype(np.uint8)),),
        split=np.zeros(count, np.uint8),
        groups=np.full(count, -1, np.int32),
    )
    return [single, multi]


def block_arrays(
    rows: range, spec: CacheSpec = SPEC, seed: int = 0
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[int, str]]:
    """Return a block's arrays, a function of the row numbers alone; row 5 fails and row 7 is all zeros."""
    arrays = spec.empty_rows(len(rows))
    failures = {row: f"no frames in {row}.webm" for row in rows if row == 5}
    for i, row in enumerate(rows):
        arrays["status"][i] = Status.FAILED if row in failures else Status.DONE
        if row in failures or row == 7:
            continue
        rng = np.random.default_rng((seed, row))
        for name, values in arrays.items():
            if name != "status":
                values[i] = (rng.random(values.shape[1:]) * 100).astype(values.dtype)
    return arrays, failures


def create_writer(path: Path, clips: int, views: int = 1, **options: Any) -> CacheWriter:
    keywords = {"spec": SPEC, "provenance": PROVENANCE, "clip_ids": clip_names(clips), "num_views": views}
    return CacheWriter.create(path, **{**keywords, "protocols": protocols(clips), **options})


def resume_writer(path: Path, clips: int, views: int = 1, **options: Any) -> CacheWriter:
    keywords = {"spec": SPEC, "provenance": PROVENANCE, "clip_ids": clip_names(clips), "num_views": views}
    return CacheWriter.resume(path, **{**keywords, "protocols": protocols(clips), **options})


def fill(writer: CacheWriter) -> None:
    for block in writer.pending_blocks():
        writer.write_block(block, *block_arrays(writer.rows_of(block), writer.spec))


def make_cache(path: Path, clips: int, views: int = 1, **options: Any) -> Path:
    fill(create_writer(path, clips, views, **options))
    return path
