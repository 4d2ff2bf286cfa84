"""Fetch a cache out of object storage into a folder that has the bytes of the one that was pushed.

A block is fetched as one is extracted: its files are staged and compared with its record's SHA-256, put into place,
flushed, and then committed. A killed pull leaves a cache that lacks blocks, and the same command goes on with these.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from ifcar.cache.addresses import Address
from ifcar.cache.blocks import StagedBlock, staged_path
from ifcar.cache.bucket import PARALLEL, Bucket
from ifcar.cache.commits import (
    TABLES_RECORD,
    CommitRecord,
    FileDigest,
    TablesRecord,
    check_commit,
    commit_name,
    digest_problem,
    encode_tables,
    parse_commit,
    parse_tables,
)
from ifcar.cache.durable import fsync_path, fsync_tree, remove_files, remove_partials, write_atomic
from ifcar.cache.layout import PROTOCOLS, parse_root, read_manifest
from ifcar.cache.lock import locked
from ifcar.cache.manifest import Manifest
from ifcar.cache.push import BLOCKS_AT_ONCE, ROOT, Moved, Progress, counted, everything
from ifcar.errors import CacheDamageError, CacheMismatchError, InputError, MissingDataError

logger = logging.getLogger(__name__)


def pull_cache(address: Address, cache: Path, progress: Progress | None = None) -> Moved:
    """Fetch what a local cache lacks of one in object storage.

    Args:
        address: of the cache.
        cache: the folder, which is made where it is not there.
        progress: called with (blocks done, blocks in all).

    Raises:
        MissingDataError: there is no cache, or a half-pushed one.
        InputError: `cache` is something else than a cache.
        CacheMismatchError: another cache lies in the folder.
        CacheDamageError: an object is not the one that was committed; it is not kept.
        LockedError: another process writes the cache.
    """
    bucket = Bucket(address)
    data, tables = read_remote_tables(bucket)
    manifest = read_remote_manifest(bucket, tables)
    pull = _Pull(bucket, cache)
    with locked(cache), ThreadPoolExecutor(PARALLEL) as pool:
        pull_tables(pool, bucket, cache, manifest, tables, data)
        remove_partials(cache)
        found = read_remote_commits(pool, bucket, manifest, range(manifest.num_blocks))
        local = {block for block in range(manifest.num_blocks) if (cache / commit_name(block)).exists()}
        with ThreadPoolExecutor(BLOCKS_AT_ONCE) as blocks:
            everything(blocks, counted(lambda record: pull.block(pool, record), len(found), progress), found)
    pull.moved.blocks = len(found)
    pull.moved.kept = len(local.difference(record.block for record in found))
    return pull.moved


def read_remote_tables(bucket: Bucket) -> tuple[bytes, TablesRecord]:
    """Return the record of the files outside blocks, as bytes and as what it says.

    Raises:
        MissingDataError: there is none, so no cache, or a push that did not come to its end.
        CacheDamageError: it is damaged.
    """
    data = bucket.get(TABLES_RECORD)
    if data is None:
        if bucket.get(ROOT) is not None:
            raise MissingDataError(
                f"{bucket.address} is half pushed: its last record is not there; run the same `ifcar cache push` again"
            )
        raise MissingDataError(f"there is no cache at {bucket.address}; send one there with `ifcar cache push`")
    tables = parse_tables(data, bucket.address / TABLES_RECORD)
    if ROOT not in tables.files or any(not _is_plain(name) for name in tables.files):
        raise CacheDamageError(f"{bucket.address / TABLES_RECORD} names files that no cache has; push the cache anew")
    return data, tables


def read_remote_commit(bucket: Bucket, manifest: Manifest, block: int) -> CommitRecord | None:
    """Return a block's commit record, None where the block is not committed there.

    Raises:
        CacheDamageError: it is damaged, or belongs to another cache or block.
    """
    name = commit_name(block)
    data = bucket.get(name)
    if data is None:
        return None
    return check_commit(bucket.address / name, parse_commit(data, bucket.address / name), manifest, block)


def read_remote_commits(
    pool: Executor, bucket: Bucket, manifest: Manifest, blocks: Iterable[int]
) -> list[CommitRecord]:
    """Return the commit records of those of these blocks that are committed there, see `read_remote_commit`."""
    found = everything(pool, lambda block: read_remote_commit(bucket, manifest, block), blocks)
    return [record for record in found if record is not None]


def read_remote_manifest(bucket: Bucket, tables: TablesRecord) -> Manifest:
    """Return what the cache there is. Raises CacheDamageError when its root metadata are not those of the record."""
    return parse_root(bucket.address, fetch(bucket, ROOT, tables.files[ROOT]))


def fetch(bucket: Bucket, name: str, digest: FileDigest) -> bytes:
    """Return an object whose SHA-256 is the one that a record states.

    Raises:
        CacheDamageError: it is missing, or another.
    """
    data = bucket.get(name)
    if data is None or len(data) != digest.size or hashlib.sha256(data).hexdigest() != digest.sha256:
        raise CacheDamageError(f"{bucket.where(name)} {_fault(None if data is None else len(data), digest)}")
    return data


def _fault(size: int | None, digest: FileDigest) -> str:
    if size is None:
        return "is missing though it was committed; push the cache again"
    what = f"has {size} bytes, expected {digest.size}" if size != digest.size else "is not what was committed"
    return f"{what}; delete it there and push the cache again"


def _is_plain(name: str) -> bool:
    """Return whether a name stays below the cache's folder."""
    return not name.startswith("/") and not {"", ".", ".."}.intersection(name.split("/"))


def pull_tables(
    pool: Executor, bucket: Bucket, cache: Path, manifest: Manifest, tables: TablesRecord, data: bytes
) -> None:
    """Fetch the files outside blocks; a new cache appears with all of them or not at all.

    Args:
        pool: threads that fetch.
        bucket: where from.
        cache: the folder.
        manifest: of the cache in the bucket.
        tables: the record of these files.
        data: its bytes.

    Raises:
        InputError: there is a file, or a folder that is no cache.
        CacheMismatchError: another cache lies there.
    """
    if not cache.exists() or (cache.is_dir() and not any(cache.iterdir())):
        building = cache.with_name(f".{cache.name}.creating")
        shutil.rmtree(building, ignore_errors=True)
        _write_tables(pool, bucket, building, tables.files, data)
        for name in manifest.block_files(0).values():
            (building / name).parent.mkdir(exist_ok=True)
        fsync_tree(building)
        building.replace(cache)
        fsync_path(cache.absolute().parent)
        return
    if not cache.is_dir():
        raise InputError(f"{cache} is a file; pull into a .zarr folder")
    there = read_manifest(cache).fingerprint
    if there != manifest.fingerprint:
        raise CacheMismatchError(
            f"{cache}: another cache lies there (fingerprint {there[:12]}…, {bucket.address} has "
            f"{manifest.fingerprint[:12]}…); pull to another place"
        )
    path = cache / TABLES_RECORD
    if path.exists() and path.read_bytes() == data:
        return
    kept = {name: digest for name, digest in tables.files.items() if not name.startswith(f"{PROTOCOLS}/")}
    write_atomic(path, encode_tables(TablesRecord(tables.fingerprint, kept, protocols_complete=False)))
    shutil.rmtree(cache / PROTOCOLS, ignore_errors=True)
    _write_tables(pool, bucket, cache, tables.files, data)


def _write_tables(pool: Executor, bucket: Bucket, root: Path, files: Mapping[str, FileDigest], record: bytes) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    lacking = [(name, digest) for name, digest in files.items() if digest_problem(root, name, digest)]
    everything(pool, lambda item: write_atomic(root / item[0], fetch(bucket, *item)), lacking)
    for folder in sorted({(root / name).parent for name in files}):
        fsync_path(folder)
    write_atomic(root / TABLES_RECORD, record)


class _Pull:
    """Fetches the files of one cache; safe to use from several threads."""

    def __init__(self, bucket: Bucket, cache: Path) -> None:
        self.moved = Moved()
        self._bucket, self._cache = bucket, cache

    def block(self, pool: Executor, record: CommitRecord) -> None:
        """Fetch one block, unless its record is here and each of its files has the size that it states."""
        path = self._cache / commit_name(record.block)
        if path.exists():
            here = parse_commit(path.read_bytes(), path)
            if here == record and all(_has_size(self._cache / name, own) for name, own in record.files.items()):
                return
            remove_files([path])
        staged = StagedBlock(record=record, attempt=secrets.token_hex(8))
        try:
            everything(pool, lambda item: self._stage(staged, *item), record.files.items())
            staged.publish(self._cache)
        except BaseException:
            staged.discard(self._cache)
            raise

    def _stage(self, staged: StagedBlock, name: str, digest: FileDigest) -> None:
        path = staged_path(self._cache, name, staged.attempt)
        try:
            with path.open("wb") as file:
                size, sha256 = self._bucket.digest(name, copy=file)
        except MissingDataError as error:
            raise CacheDamageError(f"{self._bucket.where(name)} {_fault(None, digest)}") from error
        if sha256 != digest.sha256:
            raise CacheDamageError(f"{self._bucket.where(name)} {_fault(size, digest)}")
        fsync_path(path)
        self.moved.files += 1
        self.moved.size_bytes += size


def _has_size(path: Path, digest: FileDigest) -> bool:
    return path.is_file() and path.stat().st_size == digest.size
