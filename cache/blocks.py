"""Stage the blocks of a cache: encode a block's arrays and write them beside their final names.

A block's life: its files are written and flushed under names of one attempt → the cache's one writer renames them into
place → it replaces the commit record and flushes it. Any number of processes may stage, even the same block at the same
time, since attempts share no name; only the writer publishes, so that what a process believed dead still writes is
never read and never committed.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import CacheSpec, RowArrays
from ifcar.cache.commits import CommitRecord, FailedRow, FileDigest, commit_name, encode_commit
from ifcar.cache.durable import PARTIAL_SUFFIX, fsync_path, remove_files, write_atomic, write_flushed
from ifcar.cache.layout import encode_block, read_clips, read_manifest
from ifcar.cache.manifest import Manifest, check_fingerprint, check_same, new_manifest
from ifcar.cache.schema import Provenance, Status
from ifcar.cache.zarr_reader import ZarrReader
from ifcar.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedBlock:
    """A block whose files are written and wait to be published.

    Args:
        record: the commit record that they will have.
        attempt: tells this attempt's files from those of others.
    """

    record: CommitRecord
    attempt: str

    def files(self, root: Path) -> dict[Path, Path]:
        """Return staged path → final path of every file."""
        return {staged_path(root, name, self.attempt): root / name for name in self.record.files}

    def publish(self, root: Path) -> None:
        """Put the files into place, then commit them; only the one writer of the cache may."""
        files = self.files(root)
        for path, place in files.items():
            path.replace(place)
            logger.debug("block %d: %s in place", self.record.block, place.parent.name)
        for folder in sorted({place.parent for place in files.values()}):
            fsync_path(folder)
        logger.debug("block %d: flushed", self.record.block)
        write_atomic(root / commit_name(self.record.block), encode_commit(self.record))
        logger.debug("block %d: committed", self.record.block)

    def discard(self, root: Path) -> None:
        """Remove the files, when another attempt was published."""
        remove_files(self.files(root))


class BlockStage:
    """Writes blocks beside their place in a cache; changes nothing that a reader sees.

    Args:
        path: the cache's folder.
        manifest: what the cache is.
        clip_ids: id of every clip.
    """

    def __init__(self, path: Path, manifest: Manifest, clip_ids: Sequence[str]) -> None:
        self.path, self.spec = path, manifest.spec
        self.manifest = manifest
        self._clip_ids = list(clip_ids)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        spec: CacheSpec,
        provenance: Provenance,
        clip_ids: Sequence[str],
        num_views: int,
        num_augmented_views: int = 0,
    ) -> BlockStage:
        """Open a cache that another process writes, to stage blocks for it.

        Raises:
            MissingDataError: there is no cache at `path`.
            CacheMismatchError: the cache was made with other settings; names each that differs.
            CacheDamageError: its metadata is damaged.
        """
        stored, ids = read_manifest(path), read_clips(path).ids
        check_fingerprint(path, stored, ids)
        wanted = new_manifest(spec, provenance, clip_ids, num_views, num_augmented_views, stored.compression)
        check_same(path, stored, ids, wanted, clip_ids)
        return cls(path, stored, clip_ids)

    def rows_of(self, block: int) -> range:
        """Return the rows of a block."""
        return self.manifest.rows_of(block)

    def read_block(self, block: int) -> dict[str, NDArray[Any]]:
        """Return every array of a committed block, so that some rows can be replaced.

        Raises:
            InputError: the block is not committed.
            CacheDamageError: a row does not match its checksum.
        """
        rows = np.arange(self.rows_of(block).start, self.rows_of(block).stop)
        with closing(ZarrReader(self.path, blocks=[block])) as reader:
            if block not in reader.commits:
                raise InputError(f"block {block} of {self.path} is not committed; there is nothing to read")
            return {name: reader.read_rows(name, rows) for name in self.spec.names()}

    def stage_block(
        self,
        block: int,
        arrays: RowArrays,
        failures: Mapping[int, str],
        notes: Mapping[int, str] = MappingProxyType({}),
    ) -> StagedBlock:
        """Write all arrays of a block under the names of a new attempt.

        Args:
            block: block number.
            arrays: every array of the spec, with all rows of the block.
            failures: row number in the cache → why it failed; `status` must be FAILED exactly there, and NOT_WANTED of
                augmented views only.
            notes: row number in the cache → what is to be said of it.

        Raises:
            InputError: an array or a status does not fit.
        """
        rows = self.rows_of(block)
        check_block(self.manifest, rows, arrays, failures)
        has_gaps = bool((arrays["status"] == Status.NOT_WANTED).any())
        attempt, digests = secrets.token_hex(8), {}
        try:
            for name, file in sorted(self.manifest.block_files(block).items(), key=lambda item: item[1]):
                # a file of zeros alone is stored all the same: there is one for every array of a block
                sparse = has_gaps and self.spec.array(name).sharded and arrays[name].any()
                data = encode_block(self.path, name, Path(file).name, rows, arrays[name], stores_empty=not sparse)
                digests[file] = FileDigest(len(data), hashlib.sha256(data).hexdigest())
                write_flushed(staged_path(self.path, file, attempt), data)
                logger.debug("block %d: %s staged", block, name)
        except BaseException:
            remove_files(staged_path(self.path, file, attempt) for file in self.manifest.block_files(block).values())
            raise
        views = self.manifest.rows_per_clip
        record = CommitRecord(
            block=block,
            start=rows.start,
            stop=rows.stop,
            fingerprint=self.manifest.fingerprint,
            files=digests,
            failures=tuple(
                FailedRow(row, self._clip_ids[row // views], row % views, failures[row]) for row in sorted(failures)
            ),
            notes=dict(notes),
        )
        return StagedBlock(record=record, attempt=attempt)


def staged_path(root: Path, name: str, attempt: str) -> Path:
    """Return where one attempt writes a block's file, given its final path relative to the cache."""
    return root / f"{name}.{attempt}{PARTIAL_SUFFIX}"


def check_block(manifest: Manifest, rows: range, arrays: RowArrays, failures: Mapping[int, str]) -> None:
    """Check that a block's arrays and failures fit the cache and each other.

    Raises:
        InputError: names the array or the row.
    """
    try:
        manifest.spec.check(arrays, len(rows))
    except InputError as error:
        raise InputError(f"rows {rows.start}…{rows.stop - 1}: {error}") from error
    for row in failures:
        if row not in rows:
            raise InputError(f"failed row {row} is not in the block's rows {rows.start}…{rows.stop - 1}")
    for row, status in zip(rows, arrays["status"].tolist(), strict=True):
        if fault := manifest.status_fault(row, status, failed=row in failures):
            raise InputError(f"row {row} has status {status}, expected {fault}")
