"""Write a cache block by block, so that a kill at any moment loses at most the block in flight.

A block is staged (see `ifcar.cache.blocks`), its files are renamed into place, and its commit record is replaced and
flushed. Only the commit record means done.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ifcar.cache.arrays import CacheSpec, RowArrays
from ifcar.cache.blocks import BlockStage, StagedBlock
from ifcar.cache.clips import CAMERAS, IDS, SEGMENTS, ClipTable
from ifcar.cache.commits import CommitRecord, check_commit, commit_name
from ifcar.cache.durable import fsync_path, fsync_tree, remove_files, remove_partials
from ifcar.cache.layout import write_protocol, write_skeleton
from ifcar.cache.manifest import ANEW, Manifest, check_same, new_manifest
from ifcar.cache.protocols import ProtocolTable, check_protocols
from ifcar.cache.schema import Provenance
from ifcar.cache.tables import commit_tables, replace_protocols, same_protocols
from ifcar.cache.zarr_reader import ZarrReader
from ifcar.errors import CacheMismatchError, InputError, MissingDataError

logger = logging.getLogger(__name__)


class CacheWriter:
    """The one writer of a cache; make it with `create` or `resume`. `after_commit` is told of each block's record."""

    def __init__(
        self, path: Path, manifest: Manifest, clip_ids: Sequence[str], commits: Mapping[int, CommitRecord]
    ) -> None:
        self.path = path
        self.spec = manifest.spec
        self.num_blocks = manifest.num_blocks
        self._manifest = manifest
        self.stage = BlockStage(path, manifest, clip_ids)
        self._commits = dict(commits)
        self._reopened: dict[int, CommitRecord] = {}
        self.after_commit: Callable[[CommitRecord], None] = lambda record: None

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        spec: CacheSpec,
        provenance: Provenance,
        clip_ids: Sequence[str],
        num_views: int,
        num_augmented_views: int = 0,
        protocols: Sequence[ProtocolTable],
        segments: Sequence[str] = (),
        cameras: Sequence[str] = (),
        compression: str | None = None,
    ) -> CacheWriter:
        """Make an empty cache; it appears at `path` whole or not at all.

        Args:
            path: the cache's folder, which must be absent or empty.
            spec: the arrays over rows.
            provenance: where the numbers come from.
            clip_ids: id of every clip, in row order.
            num_views: V, plain views of every clip.
            num_augmented_views: A, further views of a clip, for training only.
            protocols: splits, classes and labels over the clips.
            segments: of the clips, "" for one that is its own; none when no clip names one.
            cameras: of the clips, "" for one that is not named; none when no clip names one.
            compression: None, or "zstd" for an archive: smaller, several times slower to read.

        Raises:
            InputError: `path` is in use, or clip ids, views or protocols are not usable.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} exists and is not empty; resume it, remove it or choose another place")
        manifest = new_manifest(spec, provenance, clip_ids, num_views, num_augmented_views, compression)
        clips = _clip_table(clip_ids, segments, cameras)
        check_protocols(protocols, clips, spec.num_instances)
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_name(f".{path.name}.creating")
        shutil.rmtree(building, ignore_errors=True)
        write_skeleton(building, manifest, clips)
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
        num_augmented_views: int = 0,
        protocols: Sequence[ProtocolTable],
        segments: Sequence[str] = (),
        cameras: Sequence[str] = (),
    ) -> CacheWriter:
        """Open a cache to fill the blocks that are not committed.

        What a killed writer left behind is removed. Protocols that differ from the stored ones replace them.

        Raises:
            MissingDataError: there is no cache at `path`.
            CacheMismatchError: the cache was made with other settings, or with other segments or cameras of its clips;
                names what differs.
            CacheDamageError: metadata or a commit record is damaged.
        """
        path = Path(path)
        if not path.is_dir():
            raise MissingDataError(f"there is no cache at {path} to resume; create it first")
        reader = ZarrReader(path)
        compression = reader.manifest.compression
        manifest = new_manifest(spec, provenance, clip_ids, num_views, num_augmented_views, compression)
        check_same(path, reader.manifest, reader.clip_ids, manifest, clip_ids)
        clips = _clip_table(clip_ids, segments, cameras)
        _check_same_clips(path, reader.clips, clips)
        check_protocols(protocols, clips, spec.num_instances)
        _warn_environment(path, reader.environment, provenance.environment)
        writer = cls(path, reader.manifest, clip_ids, reader.commits)
        removed = remove_partials(path)
        if removed:
            logger.info("%s: removed %d files of a killed writer", path, len(removed))
        for block in writer.pending_blocks():
            remove_files(path / name for name in reader.manifest.block_files(block).values())
        if not same_protocols(reader, protocols):
            logger.info("%s: protocols changed, writing them anew", path)
            replace_protocols(path, reader.manifest, protocols)
        reader.close()
        return writer

    def rows_of(self, block: int) -> range:
        """Return the rows of a block."""
        return self._manifest.rows_of(block)

    def block_of(self, row: int) -> int:
        """Return the block that holds a row."""
        return row // self._manifest.rows_per_shard

    def pending_blocks(self) -> list[int]:
        """Return the blocks that are not committed, ascending."""
        return [block for block in range(self.num_blocks) if block not in self._commits]

    def notes(self) -> dict[int, str]:
        """Return what is to be said of rows of committed blocks."""
        return {row: text for block in sorted(self._commits) for row, text in self._commits[block].notes.items()}

    def write_block(
        self,
        block: int,
        arrays: RowArrays,
        failures: Mapping[int, str],
        notes: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Stage all arrays of a block and publish it.

        Args:
            block: a block that is not committed, or that was reopened.
            arrays: see `BlockStage.stage_block`.
            failures: see there.
            notes: see there; those of a reopened block stay.

        Raises:
            InputError: the block is committed already, or an array or a status does not fit.
        """
        self._check_open(block)
        self.publish_block(self.stage.stage_block(block, arrays, failures, notes))

    def publish_block(self, staged: StagedBlock) -> None:
        """Put a staged block's files into place and commit it.

        Raises:
            InputError: the block is committed already, or was staged for another cache.
            MissingDataError: a staged file is not there.
        """
        record = staged.record
        self._check_open(record.block)
        check_commit(self.path / commit_name(record.block), record, self._manifest, record.block)
        for path in staged.files(self.path):
            if not path.is_file():
                raise MissingDataError(f"{path}: was staged and is not there; is the file system the same everywhere?")
        if record.block in self._reopened:
            record = replace(record, notes={**self._reopened[record.block].notes, **record.notes})
            remove_files([self.path / commit_name(record.block)])
        replace(staged, record=record).publish(self.path)
        self._commits[record.block] = record
        self._reopened.pop(record.block, None)
        self.after_commit(record)

    def reopen_block(self, block: int) -> None:
        """Let a committed block be written again; its rows stay as they are until then.

        Raises:
            InputError: the block is not committed.
        """
        if block not in self._commits:
            raise InputError(f"block {block} of {self.path} is not committed; there is nothing to reopen")
        self._reopened[block] = self._commits.pop(block)

    def _check_open(self, block: int) -> None:
        if block in self._commits:
            raise InputError(f"block {block} of {self.path} is committed; call reopen_block first")


def _clip_table(ids: Sequence[str], segments: Sequence[str], cameras: Sequence[str]) -> ClipTable:
    given = {IDS: ids, SEGMENTS: segments, CAMERAS: cameras}
    return ClipTable.of({name: texts for name, texts in given.items() if len(texts)})


def _check_same_clips(path: Path, old: ClipTable, new: ClipTable) -> None:
    """Refuse to go on with a cache whose clips are of other segments or cameras."""
    for name in (SEGMENTS, CAMERAS):
        pairs = zip(old.ids, getattr(old, name), getattr(new, name), strict=True)
        for clip, before, now in pairs:
            if before != now:
                raise CacheMismatchError(
                    f"{path}: clip {clip!r} is of the {name[:-1]} {before!r} in the cache, {now!r} now; {ANEW}"
                )


def _warn_environment(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Say what has changed since; what only one of the two records says nothing."""
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            logger.warning("%s: %s was %r when it was begun, %r now", path, name, old[name], new[name])
