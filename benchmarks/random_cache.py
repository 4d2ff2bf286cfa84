"""Caches of random rows, as large as a data set's: for what takes the same time whatever they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Provenance, Split, Status
from ifcar.cache.writer import CacheWriter

PROTOCOL = "random"


def write_cache(path: Path, spec: CacheSpec, *, num_train: int, num_test: int, num_classes: int) -> None:
    """Write rows of which about two thirds of the slots hold an instance; blocks differ in order and offset only."""
    rng = np.random.default_rng(0)
    num_clips = num_train + num_test
    targets = rng.integers(0, num_classes, num_clips).astype(np.int16)
    table = ProtocolTable(
        name=PROTOCOL,
        spaces=(LabelSpace(kind="single", classes=tuple(map(str, range(num_classes))), targets=targets),),
        split=np.repeat(np.array([Split.TRAIN, Split.TEST], np.uint8), (num_train, num_test)),
        groups=np.full(num_clips, -1, np.int32),
    )
    writer = CacheWriter.create(
        path,
        spec=spec,
        provenance=Provenance(identity={"dataset": {"name": "random"}}, environment={}),
        clip_ids=[str(k) for k in range(num_clips)],
        num_views=1,
        protocols=[table],
    )
    drawn = {
        name: rng.random((min(num_clips, len(writer.rows_of(0))), *spec.shape(name)), np.float32)
        for name in spec.names("feature")
    }
    for block in writer.pending_blocks():
        rows = writer.rows_of(block)
        arrays = spec.empty_rows(len(rows))
        arrays["status"][:] = Status.DONE
        arrays["boxes"][:] = rng.random(arrays["boxes"].shape)
        slots = rng.integers(1, 3, (len(rows), 1, spec.num_instances)) * (
            rng.random((len(rows), 1, spec.num_instances)) < 0.67
        )
        slots[:, :, 0] = 1
        arrays["categories"][:] = slots
        for name, values in drawn.items():
            arrays[name][:] = np.roll(values, block, axis=0)[: len(rows)]
        writer.write_block(block, arrays, {})
