"""Send a cache into object storage: what the bucket lacks, every byte checked, each commit record after its files.

The order is the one in which a reader may rely on it. A block's record follows its files, and the record of the files
outside blocks comes last: where that is missing, the push is not finished, and no reader takes the cache. Whatever
stops a push, the same command goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_EXCEPTION, Executor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeVar

from ifcar.cache.addresses import Address
from ifcar.cache.bucket import PARALLEL, Bucket, expected_tag, whole_tag
from ifcar.cache.commits import TABLES_RECORD, CommitRecord, FileDigest, commit_name, encode_commit, parse_tables
from ifcar.cache.layout import parse_root
from ifcar.cache.zarr_reader import ZarrReader
from ifcar.errors import CacheDamageError, CacheMismatchError, InputError, MissingDataError

Progress = Callable[[int, int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")
ROOT = "zarr.json"
BLOCKS_AT_ONCE = 4  # whose files are in memory
logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Moved:
    """What was sent or fetched.

    Args:
        blocks: of the cache that are committed now at both places.
        files: that went over the network.
        size_bytes: of these.
        kept: blocks that only the other place has.
    """

    blocks: int = 0
    files: int = 0
    size_bytes: int = 0
    kept: int = 0


def push_cache(cache: Path, address: Address, progress: Progress | None = None) -> Moved:
    """Send a cache's committed blocks and all files outside blocks.

    Args:
        cache: a `.zarr` folder.
        address: where to.
        progress: called with (blocks done, blocks in all).

    Raises:
        MissingDataError: there is no cache, or no such bucket.
        InputError: the address takes no objects, or a conflict with another process.
        CacheMismatchError: another cache lies there.
        CacheDamageError: a file here is not the one that was committed; it is not sent.
    """
    if address.is_read_only:
        raise InputError(f"{address}: a web server takes no objects; push to s3://, gs:// or az://")
    if not cache.is_dir():
        what = "is no .zarr cache, and only such a folder is pushed" if cache.exists() else "is not there"
        raise MissingDataError(f"{cache}: {what}; `ifcar list caches` shows those that there are")
    reader = ZarrReader(cache)
    reader.protocol_names()  # refuses one whose protocols were being replaced
    bucket = Bucket(address)
    push = Push(cache, bucket)
    before = bucket.get_tagged(TABLES_RECORD)
    claim(bucket, reader.fingerprint, (cache / ROOT).read_bytes())
    with ThreadPoolExecutor(PARALLEL) as pool:
        push.blocks(pool, reader.commits.values(), progress)
        push_tables(pool, push, bucket, cache, before)
        others = set(range(reader.manifest.num_blocks)).difference(reader.commits)
        kept = everything(pool, lambda block: bucket.head(commit_name(block)) is not None, sorted(others))
    push.moved.blocks, push.moved.kept = len(reader.commits), sum(kept)
    return push.moved


def push_tables(pool: Executor, push: Push, bucket: Bucket, cache: Path, before: tuple[bytes, str] | None) -> None:
    """Send the files outside blocks, then their record, and delete those that an earlier record names alone.

    Args:
        pool: threads that send.
        push: of the cache.
        bucket: where to.
        cache: the folder.
        before: the record that is there, and its tag; None: there is none.
    """
    data = (cache / TABLES_RECORD).read_bytes()
    files = parse_tables(data, cache / TABLES_RECORD).files
    everything(pool, lambda item: push.file(*item), files.items())
    if before is None:
        bucket.put_record(TABLES_RECORD, data, None)
    elif before[0] != data:
        bucket.put_record(TABLES_RECORD, data, before[1])
        for name in parse_tables(before[0], bucket.address / TABLES_RECORD).files.keys() - files.keys():
            bucket.delete(name)
    logger.debug("push: all records sent")


def claim(bucket: Bucket, fingerprint: str, root: bytes) -> None:
    """Put a cache's root metadata at an address that is free, or find the same cache there.

    Raises:
        CacheMismatchError: another cache lies there.
    """
    found = bucket.get(ROOT)
    if found is None:
        bucket.put_record(ROOT, root, None)
        return
    there = parse_root(bucket.address, found).fingerprint
    if there != fingerprint:
        raise CacheMismatchError(
            f"{bucket.address}: another cache lies there (fingerprint {there[:12]}…, this has {fingerprint[:12]}…); "
            "push to another name"
        )


class Push:
    """Sends files of one cache; safe to use from several threads.

    Args:
        cache: the folder.
        bucket: where to.
    """

    def __init__(self, cache: Path, bucket: Bucket) -> None:
        self.moved = Moved()
        self._cache, self._bucket = cache, bucket
        self._lock = Lock()

    def blocks(self, pool: Executor, records: Collection[CommitRecord], progress: Progress | None) -> None:
        """Send committed blocks that the bucket lacks, each record after the block's files."""
        with ThreadPoolExecutor(BLOCKS_AT_ONCE) as blocks:
            everything(blocks, counted(lambda record: self.block(pool, record), len(records), progress), records)

    def block(self, pool: Executor, record: CommitRecord) -> None:
        """Send one block, unless its record is there and each of its files has the size that it states."""
        name, data = commit_name(record.block), encode_commit(record)
        there = self._bucket.get_tagged(name)
        same = there is not None and there[0] == data
        if there is not None and not same:  # it was computed anew: no reader may take new files for the old ones
            self._bucket.delete(name)
        check = self._has_size if same else self._has_bytes
        everything(pool, lambda item: self.file(*item, check), record.files.items())
        if not same:
            self._bucket.put_record(name, data, None)
        logger.debug("push: block %d committed", record.block)

    def file(
        self, name: str, digest: FileDigest, is_there: Callable[[str, FileDigest], bytes | bool] | None = None
    ) -> None:
        """Send one file, when it is not there, as what its record says."""
        found = (is_there or self._has_bytes)(name, digest)
        if found is True:
            return
        data = found or self._read(name, digest)
        self._bucket.put(name, data)
        with self._lock:
            self.moved.files += 1
            self.moved.size_bytes += digest.size
        logger.debug("push: %s sent", name)

    def _has_size(self, name: str, digest: FileDigest) -> bool:
        facts = self._bucket.head(name)
        return facts is not None and facts.size == digest.size

    def _has_bytes(self, name: str, digest: FileDigest) -> bytes | bool:
        """Return True where the store names the MD5 of these bytes; else the bytes, when they were read for that."""
        facts = self._bucket.head(name)
        if facts is None or facts.size != digest.size:
            return False
        data = self._read(name, digest)
        return True if facts.tag in (expected_tag(data), whole_tag(data)) else data

    def _read(self, name: str, digest: FileDigest) -> bytes:
        path = self._cache / name
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise CacheDamageError(f"{path} is missing; run `ifcar cache verify`") from error
        if hashlib.sha256(data).hexdigest() != digest.sha256:
            raise CacheDamageError(f"{path} is not what was committed; run `ifcar cache verify`")
        return data


def everything(pool: Executor, do: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do something with all items at a time; after a first error begin no other, and raise it once all have ended."""
    futures = [pool.submit(do, item) for item in items]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:  # after Ctrl-C as well
        for future in futures:
            future.cancel()
        wait(futures)
    ended = [future for future in futures if not future.cancelled()]
    for future in ended:
        future.result()
    return [future.result() for future in ended]


def counted(do: Callable[[Item], None], total: int, progress: Progress | None) -> Callable[[Item], None]:
    """Return the function that also tells `progress` how many of `total` items threads have done."""
    lock, done = Lock(), 0

    def do_and_tell(item: Item) -> None:
        nonlocal done
        do(item)
        with lock:
            done += 1
            if progress:
                progress(done, total)

    return do_and_tell
