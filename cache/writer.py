"""Write a cache block by block, so that a kill at any moment loses at most the block in flight.

A block's life: stale files removed → arrays written by zarr → files and folders flushed → commit record
replaced into place and flushed. Only the commit record means done.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ifcar.cache.commits import CommitRecord, Failure, commit_name, digest_files, encode_commit
from ifcar.cache.durable import (
    fsync_files,
    fsync_path,
    fsync_tree,
    remove_files,
    remove_partials,
    write_atomic,
)
from ifcar.cache.layout import STORE_EMPTY, check_protocols, write_protocol, write_skeleton
from ifcar.cache.manifest import Manifest, check_same, new_manifest
from ifcar.cache.schema import CacheSpec, ProtocolTable, Provenance, Status
from ifcar.cache.tables import commit_tables, replace_protocols, same_protocols
from ifcar.cache.zarr_reader import ZarrReader
from ifcar.errors import InputError, MissingDataError

logger = logging.getLogger(__name__)


class CacheWriter:
    """The one writer of a cache; make it with `create` or `resume`."""

    def __init__(
        self, path: Path, manifest: Manifest, clip_ids: Sequence[str], commits: Mapping[int, CommitRecord]
    ) -> None:
        self.path = path
        self.spec = manifest.spec
        self.num_blocks = manifest.num_blocks
        self._manifest = manifest
        self._clip_ids = list(clip_ids)
        self._commits = dict(commits)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        spec: CacheSpec,
        provenance: Provenance,
        clip_ids: Sequence[str],
        num_views: int,
        protocols: Sequence[ProtocolTable],
        compression: str | None = None,
    ) -> CacheWriter:
        """Make an empty cache; it appears at `path` whole or not at all.

        Args:
            path: the cache's folder, which must be absent or empty.
            spec: dimensions of the rows.
            provenance: where the numbers come from.
            clip_ids: id of every clip, in row order.
            num_views: V, rows a clip.
            protocols: splits, classes and labels over the clips.
            compression: None, or "zstd" for an archive: smaller, several times slower to read.

        Raises:
            InputError: `path` is in use, or clip ids, views or protocols are not usable.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} exists and is not empty; resume it, remove it or choose another place")
        manifest = new_manifest(spec, provenance, clip_ids, num_views, compression)
        check_protocols(protocols, len(clip_ids))
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_name(f".{path.name}.creating")
        shutil.rmtree(building, ignore_errors=True)
        write_skeleton(building, manifest, clip_ids)
        for table in protocols:
            write_protocol(building, table)
        commit_tables(building, manifest)
        fsync_tree(building)
        building.rename(path)
        fsync_path(path.parent)
        return cls(path, manifest, clip_ids, {})

    @classmethod
    def resume(
        cls,
        path: Path,
        *,
        spec: CacheSpec,
        provenance: Provenance,
        clip_ids: Sequence[str],
        num_views: int,
        protocols: Sequence[ProtocolTable],
    ) -> CacheWriter:
        """Open a cache to fill the blocks that are not committed.

        What a killed writer left behind is removed. Protocols that differ from the stored ones replace them.

        Raises:
            MissingDataError: there is no cache at `path`.
            CacheMismatchError: the cache was made with other settings; names each that differs.
            CacheDamageError: metadata or a commit record is damaged.
        """
        path = Path(path)
        if not path.is_dir():
            raise MissingDataError(f"there is no cache at {path} to resume; create it first")
        reader = ZarrReader(path)
        manifest = new_manifest(spec, provenance, clip_ids, num_views, reader.manifest.compression)
        check_same(path, reader.manifest, reader.clip_ids, manifest, clip_ids)
        check_protocols(protocols, len(clip_ids))
        _warn_environment(path, reader.environment, provenance.environment)
        writer = cls(path, reader.manifest, clip_ids, reader.commits)
        removed = remove_partials(path)
        if removed:
            logger.info("%s: removed %d files of a killed writer", path, len(removed))
        for block in writer.pending_blocks():
            writer._remove_block_files(block)
        if not same_protocols(reader, protocols):
            logger.info("%s: protocols changed, writing them anew", path)
            replace_protocols(path, reader.manifest, protocols)
        reader.close()
        return writer

    def rows_of(self, block: int) -> range:
        """Return the rows of a block."""
        return self._manifest.rows_of(block)

    def pending_blocks(self) -> list[int]:
        """Return the blocks that are not committed, ascending."""
        return [block for block in range(self.num_blocks) if block not in self._commits]

    def failed_rows(self) -> dict[int, str]:
        """Return the reason of every failed row in a committed block."""
        commits = (self._commits[block] for block in sorted(self._commits))
        return {failure.row: failure.reason for commit in commits for failure in commit.failures}

    def write_block(self, block: int, arrays: Mapping[str, NDArray[Any]], failures: Mapping[int, str]) -> None:
        """Write all arrays of a block and commit it.

        Args:
            block: a block that is not committed.
            arrays: every array of the spec, with all rows of the block.
            failures: row number in the cache → why it failed; `status` must be FAILED exactly there.

        Raises:
            InputError: the block is committed already, or an array or a status does not fit.
        """
        rows = self.rows_of(block)
        if block in self._commits:
            raise InputError(f"block {block} of {self.path} is committed; call reopen_block first")
        self._check_block(rows, arrays, failures)
        # a file left by a killed writer would be merged with the new rows, or fail to decode
        self._remove_block_files(block)
        with zarr.config.set(STORE_EMPTY):
            group = zarr.open_group(self.path, mode="r+", zarr_format=3)
            for name in self.spec.arrays():
                group[name][rows.start : rows.stop] = arrays[name]  # type: ignore[index]
        files = self._manifest.block_files(block).values()
        fsync_files(self.path / name for name in files)
        views = self._manifest.num_views
        record = CommitRecord(
            block=block,
            start=rows.start,
            stop=rows.stop,
            fingerprint=self._manifest.fingerprint,
            files=digest_files(self.path, files),
            failures=tuple(
                Failure(row, self._clip_ids[row // views], row % views, failures[row]) for row in sorted(failures)
            ),
        )
        write_atomic(self.path / commit_name(block), encode_commit(record))
        self._commits[block] = record

    def reopen_block(self, block: int) -> dict[str, NDArray[Any]]:
        """Take back a block's commit and return its rows, so that some can be replaced and written again.

        Args:
            block: a committed block.

        Returns:
            Every array of the spec with the block's rows, checksums verified.

        Raises:
            InputError: the block is not committed.
            CacheDamageError: a row does not match its checksum.
        """
        rows = np.arange(self.rows_of(block).start, self.rows_of(block).stop)
        if block not in self._commits:
            raise InputError(f"block {block} of {self.path} is not committed; there is nothing to reopen")
        reader = ZarrReader(self.path)
        arrays = {name: reader.read_rows(name, rows) for name in self.spec.arrays()}
        reader.close()
        remove_files([self.path / commit_name(block)])
        del self._commits[block]
        return arrays

    def _remove_block_files(self, block: int) -> None:
        remove_files(self.path / name for name in self._manifest.block_files(block).values())

    def _check_block(self, rows: range, arrays: Mapping[str, NDArray[Any]], failures: Mapping[int, str]) -> None:
        specs = self.spec.arrays()
        if set(arrays) != set(specs):
            missing, extra = sorted(set(specs) - set(arrays)), sorted(set(arrays) - set(specs))
            raise InputError(f"rows {rows.start}…{rows.stop - 1}: missing arrays {missing}, unknown arrays {extra}")
        for name, spec in specs.items():
            shape, found = (len(rows), *spec.shape), arrays[name]
            if found.shape != shape or found.dtype != np.dtype(spec.dtype):
                raise InputError(
                    f"rows {rows.start}…{rows.stop - 1}: {name} is {found.dtype} {found.shape}, "
                    f"expected {spec.dtype} {shape}"
                )
        expected = np.full(len(rows), Status.DONE, dtype=np.uint8)
        for row in failures:
            if row not in rows:
                raise InputError(f"failed row {row} is not in the block's rows {rows.start}…{rows.stop - 1}")
            expected[row - rows.start] = Status.FAILED
        wrong = np.flatnonzero(arrays["status"] != expected)
        if wrong.size:
            raise InputError(
                f"row {rows.start + wrong[0]} has status {arrays['status'][wrong[0]]}, expected "
                f"{expected[wrong[0]]}: status must be 2 (failed) exactly for rows with a reason, else 1 (done)"
            )


def _warn_environment(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            logger.warning("%s: %s was %r when it was begun, %r now", path, name, old.get(name), new.get(name))
