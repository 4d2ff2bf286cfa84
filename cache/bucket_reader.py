"""Read a cache where it lies in object storage, through a bounded cache of blocks on the local disk.

The files outside blocks are fetched when the cache is opened, and kept under the SHA-256 of their record. Commit
records are read anew each time, by name and not from a listing. Rows of shards are read in ranges, ahead of the
training that asks for them.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.addresses import Address
from ifcar.cache.block_cache import BlockCache, CachedObject, block_folder, block_limit
from ifcar.cache.bucket import PARALLEL, Bucket, ObjectFacts
from ifcar.cache.commits import TABLES_RECORD, CommitRecord
from ifcar.cache.pull import fetch, read_remote_commits, read_remote_tables
from ifcar.cache.push import everything
from ifcar.cache.shards import Shard, ShardPool
from ifcar.cache.zarr_reader import ZarrReader
from ifcar.errors import CacheDamageError


class BucketReader(ZarrReader):
    """A cache at an address.

    Args:
        path: the address.

    Raises:
        MissingDataError: there is no cache, or a half-pushed one.
        CacheDamageError: an object is not the one that was committed.
        InputError: the store refuses, or is not to be reached.
    """

    def __init__(self, path: Address) -> None:
        self._bucket = Bucket(path)
        folder = block_folder()
        self._blocks = BlockCache(self._bucket, folder / "blocks", block_limit())
        super().__init__(path, root=_fetch_tables(self._bucket, folder / "tables"))

    def close(self) -> None:
        """Drop what is open, and end the threads that read."""
        super().close()
        self._blocks.close()

    def _read_commits(self, blocks: Iterable[int] | None) -> dict[int, CommitRecord]:
        numbers = range(self.manifest.num_blocks) if blocks is None else blocks
        with ThreadPoolExecutor(PARALLEL) as pool:
            found = read_remote_commits(pool, self._bucket, self.manifest, numbers)
        return {record.block: record for record in found}

    def _open_pool(self) -> ShardPool:
        return _BucketPool(self.path, self.manifest.rows_per_shard, self._bucket, self._blocks)

    def _read_files(self, names: list[str]) -> Iterator[bytes]:
        digests = {name: own.sha256 for record in self.commits.values() for name, own in record.files.items()}
        with ThreadPoolExecutor(PARALLEL) as pool:
            yield from everything(pool, lambda name: self._blocks.whole(name, digests[name]), names)

    def _fill(self, name: str, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        try:
            super()._fill(name, rows, out)
        except CacheDamageError:  # of the copy on this disk, perhaps: only the bucket's own bytes are to be blamed
            assert isinstance(self._pool, _BucketPool)
            for block in np.unique(rows // self.manifest.rows_per_shard).tolist():
                self._pool.forget(self.manifest.block_files(block)[name])
            super()._fill(name, rows, out)


class _BucketShard(Shard):
    """A shard whose bytes are fetched before they are read."""

    remedy = "; delete it there and push the cache again"

    def __init__(self, path: Path, rows_per_shard: int, size: int, found: CachedObject, blocks: BlockCache) -> None:
        self.found, self._blocks = found, blocks
        super().__init__(path, rows_per_shard, size)

    def _open(self, index_bytes: int) -> int:
        size = self.found.facts.size
        if size >= index_bytes:
            for future in self._blocks.fetch(self.found, [(size - index_bytes, index_bytes)]):
                future.result()
        self.descriptor = self.found.descriptor
        return size

    def __del__(self) -> None:
        """Leave the file to those that still write into it; it is closed with the last of them."""


class _BucketPool(ShardPool):
    def __init__(self, root: Path, rows_per_shard: int, bucket: Bucket, blocks: BlockCache) -> None:
        super().__init__(root, rows_per_shard)
        self._bucket, self._blocks = bucket, blocks

    def get(self, name: str, size: int) -> Shard:
        with self._lock:
            shard = self._shards.get(name)
            if isinstance(shard, _BucketShard) and not shard.found.is_kept():
                del self._shards[name]
        return super().get(name, size)

    def forget(self, name: str) -> None:
        """Drop what is here of a shard."""
        with self._lock:
            shard = self._shards.pop(name, None)
        if isinstance(shard, _BucketShard):
            self._blocks.forget(shard.found)

    def fetch(self, shards: Mapping[int, Shard], rows: list[int]) -> None:
        spans: dict[Shard, list[tuple[int, int]]] = {}
        for row in rows:
            block, local = divmod(row, self._rows_per_shard)
            spans.setdefault(shards[block], []).append((shards[block].offsets[local], shards[block].sizes[local]))
        waits = [
            future
            for shard, own in spans.items()
            if isinstance(shard, _BucketShard)
            for future in self._blocks.fetch(shard.found, own)
        ]
        for future in waits:
            future.result()

    def advise(self, spans: Mapping[Shard, list[tuple[int, int]]]) -> None:
        for shard, own in spans.items():
            if isinstance(shard, _BucketShard):
                self._blocks.fetch(shard.found, own)

    def _open(self, name: str, size: int) -> Shard:
        facts = self._bucket.head(name)
        if facts is None:
            raise CacheDamageError(
                f"{self._bucket.where(name)} is missing though its block is committed; push it again"
            )
        try:
            return self._open_here(name, size, facts)
        except CacheDamageError:  # of the copy on this disk, perhaps
            self._blocks.forget(self._blocks.open(name, facts))
            return self._open_here(name, size, facts)

    def _open_here(self, name: str, size: int, facts: ObjectFacts) -> Shard:
        found = self._blocks.open(name, facts)
        return _BucketShard(self._root / name, self._rows_per_shard, size, found, self._blocks)


def _fetch_tables(bucket: Bucket, folder: Path) -> Path:
    """Return a folder that holds the files outside blocks, fetched where they are not there whole."""
    data, tables = read_remote_tables(bucket)
    place = folder / hashlib.sha256(str(bucket.address).encode() + data).hexdigest()
    lacking = [(name, digest) for name, digest in tables.files.items() if _sha256(place / name) != digest.sha256]
    if not lacking and (place / TABLES_RECORD).exists():
        return place
    building = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    try:
        with ThreadPoolExecutor(PARALLEL) as pool:
            contents = everything(pool, lambda item: fetch(bucket, *item), tables.files.items())
        for name, content in zip([*tables.files, TABLES_RECORD], [*contents, data], strict=True):
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            (building / name).write_bytes(content)
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # another process was first, with the same files
            building.rename(place)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return place


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
