"""Writes and flushes as recorded, cut off after every step: a commit record that survives implies its data."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_cases import SPEC, block_arrays, create_writer, fill, resume_writer
from fixtures.power import Disk

from ifcar.cache.damage import DamageKind
from ifcar.cache.open import open_cache
from ifcar.cache.verify import verify_cache

CLIPS = 270


@cache
def written(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return all rows as one of the two writings has them; made once, and read after every step."""
    return block_arrays(range(CLIPS), seed=seed)[0]


def assert_what_is_committed_is_there(survivors: Path) -> None:
    path = survivors / "c.zarr"
    if not path.exists():
        return
    report = verify_cache(path)
    assert {damage.kind for damage in report.damages} <= {DamageKind.STRAY}, report.damages
    reader = open_cache(path)
    rows = np.flatnonzero(reader.committed_rows())
    stored = {name: reader.read_rows(name, rows) for name in SPEC.names()}
    for block in np.unique(rows // 256):
        mine = rows // 256 == block
        assert any(all(np.array_equal(stored[n][mine], w[n][rows[mine]]) for n in stored) for w in map(written, (0, 1)))


@pytest.mark.slow
def test_committed_block_survives_power_loss_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    disk = Disk(root, tmp_path / "survivors", assert_what_is_committed_is_there)
    with monkeypatch.context() as patch:
        disk.install(patch)
        fill(create_writer(root / "c.zarr", CLIPS))
        writer = resume_writer(root / "c.zarr", CLIPS)
        writer.reopen_block(0)
        arrays, failures = block_arrays(range(256), seed=1)
        writer.write_block(0, arrays, failures)
    assert disk.num_checks > 150
    disk.survive()
    assert open_cache(disk.scratch / "c.zarr").is_complete()


def is_staged(descriptor: int) -> bool:
    """Return whether an open file is one of a block's, and neither a folder nor a commit record."""
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return path.is_file() and path.parent.name != "commits"


@pytest.mark.slow
def test_data_flushed_after_the_commit_record_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: without flushes of the staged files it does."""
    root = tmp_path / "disk"
    root.mkdir()
    disk = Disk(root, tmp_path / "survivors", assert_what_is_committed_is_there)
    with monkeypatch.context() as patch:
        disk.install(patch)
        writer = create_writer(root / "c.zarr", CLIPS)
        patch.setattr(os, "fsync", lambda descriptor: None if is_staged(descriptor) else disk.fsync(descriptor))
        with pytest.raises(AssertionError):
            writer.write_block(0, *block_arrays(range(256)))
