"""Extract into object storage: each block that is committed here is sent, committed there, and its shards removed here.

A local folder is the writer's, with the files outside blocks, the commit records and the row tables of all blocks, and
the shards of those alone that the bucket does not have yet. It can be lost: what the bucket has is fetched again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from ifcar.cache.addresses import Address
from ifcar.cache.block_cache import block_folder
from ifcar.cache.bucket import PARALLEL, Bucket, ConflictError
from ifcar.cache.commits import TABLES_RECORD, CommitRecord, commit_name, encode_commit, parse_commit
from ifcar.cache.durable import fsync_path, remove_files, write_atomic
from ifcar.cache.manifest import Manifest
from ifcar.cache.pull import (
    fetch,
    pull_tables,
    read_remote_commit,
    read_remote_commits,
    read_remote_manifest,
    read_remote_tables,
)
from ifcar.cache.push import ROOT, Push, claim, everything, push_tables
from ifcar.cache.writer import CacheWriter
from ifcar.errors import InputError

logger = logging.getLogger(__name__)


class Outbox:
    """What goes to an address.

    Args:
        address: of the cache.

    Raises:
        InputError: the address takes no objects.
    """

    def __init__(self, address: Address) -> None:
        if address.is_read_only:
            raise InputError(f"{address}: a web server takes no objects; extract to s3://, gs:// or az://")
        self.address, self._bucket = address, Bucket(address)
        digest = hashlib.sha256(str(address).encode()).hexdigest()[:16]
        self.folder = block_folder() / "out" / digest / address.name
        self._there: dict[int, CommitRecord] = {}
        self._pool = ThreadPoolExecutor(PARALLEL)

    def receive(self) -> None:
        """Bring the folder to what the bucket has, shards left out; blocks that wait here to be sent stay.

        Raises:
            CacheMismatchError: the folder holds another cache than the address.
            CacheDamageError: an object is not the one that was committed.
        """
        if self._bucket.get(TABLES_RECORD) is None:
            return
        data, tables = read_remote_tables(self._bucket)
        manifest = read_remote_manifest(self._bucket, tables)
        pull_tables(self._pool, self._bucket, self.folder, manifest, tables, data)
        records = read_remote_commits(self._pool, self._bucket, manifest, range(manifest.num_blocks))
        self._there = {record.block: record for record in records}
        everything(self._pool, lambda record: self._receive(manifest, record), self._there.values())
        fsync_path(self.folder)

    def attach(self, writer: CacheWriter) -> None:
        """Send what the writer has, and from now on each block that it commits.

        Raises:
            CacheMismatchError: another cache lies at the address.
            InputError: another process writes there.
        """
        manifest = writer.stage.manifest
        before = self._bucket.get_tagged(TABLES_RECORD)
        claim(self._bucket, manifest.fingerprint, (self.folder / ROOT).read_bytes())
        push_tables(self._pool, Push(self.folder, self._bucket), self._bucket, self.folder, before)
        for block in range(manifest.num_blocks):
            path = self.folder / commit_name(block)
            if path.exists():
                self._send(manifest, parse_commit(path.read_bytes(), path))
        writer.after_commit = lambda record: self._send(manifest, record)

    def restore(self, manifest: Manifest, blocks: Collection[int]) -> None:
        """Fetch the shards of blocks of which some rows are to be computed anew."""
        for block in blocks:
            record = self._there[block]
            lacking = [name for name in _shards(manifest, record) if not (self.folder / name).exists()]
            for name in lacking:
                write_atomic(self.folder / name, fetch(self._bucket, name, record.files[name]))

    def close(self) -> None:
        """End the threads that send."""
        self._pool.shutdown(cancel_futures=True)

    def _receive(self, manifest: Manifest, record: CommitRecord) -> None:
        path = self.folder / commit_name(record.block)
        shards = _shards(manifest, record)
        if path.exists():
            here = parse_commit(path.read_bytes(), path)
            if here == record or all((self.folder / name).exists() for name in shards):
                return
            remove_files([path])
        for name, digest in record.files.items():
            if name not in shards:
                write_atomic(self.folder / name, fetch(self._bucket, name, digest))
        write_atomic(path, encode_commit(record))

    def _send(self, manifest: Manifest, record: CommitRecord) -> None:
        if self._there.get(record.block) != record:
            found = read_remote_commit(self._bucket, manifest, record.block)
            if found not in (None, record, self._there.get(record.block)):
                raise ConflictError(
                    f"{self._bucket.where(commit_name(record.block))}: another process extracts there; let one at a "
                    "time write, and run the same command again"
                )
            Push(self.folder, self._bucket).block(self._pool, record)
            self._there[record.block] = record
        remove_files(self.folder / name for name in _shards(manifest, record))
        logger.debug("block %d: sent", record.block)


def _shards(manifest: Manifest, record: CommitRecord) -> list[str]:
    files = manifest.block_files(record.block)
    return [name for array, name in files.items() if manifest.spec.array(array).sharded]
