"""Read rows straight from shard files: index from the file's end, `preadv` into the output, every CRC-32C checked.

A shard holds one chunk a row, each the row's bytes (or their zstd frame) and a CRC-32C, then the index:
`rows_per_shard` pairs (offset, nbytes) of little-endian uint64 and a CRC-32C. Chunks that were never
written have both set to 2⁶⁴ − 1; as in every Zarr array, such a row is zeros.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ifcar.errors import CacheDamageError

CRC_BYTES = 4
MAX_OPEN_SHARDS = 256
# rows that lie side by side are read by one call up to this size: beyond it a row has left the processor's
# cache before its checksum is computed
MERGE_BYTES = 1 << 20
_MERGE_ROWS = 500
_MISSING = np.uint64(2**64 - 1)


class Shard:
    """One open shard file and its verified index: offset and size of every chunk, 0 where it was never written.

    `follows` is True for a chunk as large as the one before it that starts where that one ends.

    Args:
        path: the shard's file.
        rows_per_shard: entries in the index.
        size: size in bytes that the commit record gives.

    Raises:
        CacheDamageError: the file is gone, has another size, or its index does not match its checksum.
    """

    remedy = "; run `ifcar cache repair`, then the same `ifcar extract` again"

    def __init__(self, path: Path, rows_per_shard: int, size: int) -> None:
        self.path = path
        self.descriptor = -1
        length = rows_per_shard * 16 + CRC_BYTES
        found = self._open(length)
        if found != size or size < length:
            raise CacheDamageError(f"{path} has {found} bytes, expected {size}{self.remedy}")
        index = os.pread(self.descriptor, length, size - length)
        if google_crc32c.value(index[:-CRC_BYTES]) != int.from_bytes(index[-CRC_BYTES:], "little"):
            raise CacheDamageError(f"{path}: the shard's index does not match its checksum{self.remedy}")
        pairs = np.frombuffer(index, dtype="<u8", count=rows_per_shard * 2).reshape(-1, 2)
        present = pairs[:, :1] != _MISSING
        offsets, sizes = np.where(present, pairs, 0).astype(np.int64).T
        follows = (offsets[1:] == offsets[:-1] + sizes[:-1]) & (sizes[1:] == sizes[:-1])
        # lists: a row looks up one of each, where an array's element would cost as much as the rest of the row
        self.offsets: list[int] = offsets.tolist()
        self.sizes: list[int] = sizes.tolist()
        self.follows: list[bool] = [False, *follows.tolist()]

    def _open(self, index_bytes: int) -> int:
        """Open the file, whose last bytes are the index, as `descriptor`; return its size."""
        try:
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise CacheDamageError(f"{self.path} is missing though its block is committed{self.remedy}") from error
        return os.fstat(self.descriptor).st_size

    def __del__(self) -> None:
        # closed with its last user, so a shard dropped from the pool stays usable in a thread that reads it
        if self.descriptor >= 0:
            os.close(self.descriptor)


class ShardPool:
    """Open shards of a cache, the least recently used dropped first.

    Args:
        root: the cache's folder.
        rows_per_shard: rows in a block.
        max_open: file descriptors held at most.
    """

    def __init__(self, root: Path, rows_per_shard: int, max_open: int = MAX_OPEN_SHARDS) -> None:
        self._root = root
        self._rows_per_shard = rows_per_shard
        self._max_open = max_open
        self._shards: OrderedDict[str, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, size: int) -> Shard:
        """Return the open shard at a path relative to the cache, opening it if needed."""
        with self._lock:
            shard = self._shards.get(name)
            if shard is None:
                shard = self._shards[name] = self._open(name, size)
                if len(self._shards) > self._max_open:
                    self._shards.popitem(last=False)
            else:
                self._shards.move_to_end(name)
            return shard

    def fetch(self, shards: Mapping[int, Shard], rows: list[int]) -> None:
        """Wait until rows of these shards, by block, can be read; those of files always can."""

    def advise(self, spans: Mapping[Shard, list[tuple[int, int]]]) -> None:
        """Tell whoever fetches bytes which spans (offset, size) of shards will be read soon."""
        if not hasattr(os, "posix_fadvise"):
            return
        for shard, own in spans.items():
            for offset, size in own:
                os.posix_fadvise(shard.descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def _open(self, name: str, size: int) -> Shard:
        return Shard(self._root / name, self._rows_per_shard, size)

    def clear(self) -> None:
        """Drop every shard."""
        with self._lock:
            self._shards.clear()


@dataclass(kw_only=True, eq=False, repr=False)
class ShardedArray:
    """Rows of one sharded array.

    Args:
        name: the array's name.
        row_bytes: size of a row.
        rows_per_shard: rows in a block.
        compressed: True where chunks are zstd frames.
        files: block → (path relative to the cache, size), for committed blocks.
        pool: open shards.
        describe: row number → text for messages, with the clip id.
    """

    name: str
    row_bytes: int
    rows_per_shard: int
    compressed: bool
    files: Mapping[int, tuple[str, int]]
    pool: ShardPool
    describe: Callable[[int], str]
    _merge_rows: int = field(init=False)

    def __post_init__(self) -> None:
        self._merge_rows = max(1, min(_MERGE_ROWS, MERGE_BYTES // max(1, self.row_bytes)))

    def read(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Fill `out` with rows of committed blocks, in the order asked for.

        Args:
            rows: (n,) row numbers, any order, doubles allowed.
            out: (n, …) C-contiguous array of the stored type.

        Raises:
            CacheDamageError: names the first damaged row.
        """
        if not len(rows):
            return
        flat = out.reshape(len(rows), -1).view(np.uint8)
        blocks = rows // self.rows_per_shard
        used, first = np.unique(blocks, return_index=True)
        shards = {block: self._shard(block, int(rows[at])) for block, at in zip(used.tolist(), first, strict=True)}
        read = self._read_zstd if self.compressed else self._read_plain
        numbers = rows.tolist()
        self.pool.fetch(shards, numbers)
        read(numbers, flat, shards)

    def advise(self, rows: NDArray[np.int64]) -> None:
        """Tell the operating system which rows will be read soon; it fetches many at once, where `read` waits for each.

        Rows of blocks that are not committed are passed over.

        Raises:
            CacheDamageError: a shard cannot be opened.
        """
        spans: dict[Shard, list[tuple[int, int]]] = {}
        for row in rows.tolist():
            block, local = divmod(row, self.rows_per_shard)
            if block in self.files:
                shard = self._shard(block, row)
                if size := shard.sizes[local]:  # to the system 0 means to the file's end
                    spans.setdefault(shard, []).append((shard.offsets[local], size))
        self.pool.advise(spans)

    def check_row(self, row: int) -> str | None:
        """Return what is wrong with a row's chunk, or None.

        Raises:
            CacheDamageError: the shard's index is unusable.
        """
        shard = self._shard(row // self.rows_per_shard, row)
        if not shard.sizes[row % self.rows_per_shard]:
            return None
        try:
            self._read_chunk(shard, row)
        except CacheDamageError as error:
            return str(error)
        return None

    def _shard(self, block: int, row: int) -> Shard:
        try:
            return self.pool.get(*self.files[block])
        except CacheDamageError as error:
            raise CacheDamageError(f"{self.name}, {self.describe(row)}: {error}") from error

    def _read_plain(self, rows: list[int], flat: NDArray[np.uint8], shards: Mapping[int, Shard]) -> None:
        """Read rows in the order asked for: a fresh `flat` is then first written, and so mapped, from start to end."""
        size = self.row_bytes + CRC_BYTES
        trailers = np.empty((len(rows), CRC_BYTES), np.uint8)
        found: list[int] = []
        begin = 0
        while begin < len(rows):
            block, local = divmod(rows[begin], self.rows_per_shard)
            shard = shards[block]
            if not shard.sizes[local]:
                flat[begin], trailers[begin] = 0, 0
                found.append(0)
                begin += 1
                continue
            if shard.sizes[local] != size:
                self._read_chunk(shard, rows[begin])
                raise self._damage(shard, rows[begin], "has a chunk of another size")
            end = begin + self._run_length(rows, begin, local, shard)
            buffers = [part for k in range(begin, end) for part in (flat[k], trailers[k])]
            if os.preadv(shard.descriptor, buffers, shard.offsets[local]) != size * (end - begin):
                for k in range(begin, end):
                    chunk = np.frombuffer(self._read_chunk(shard, rows[k]), np.uint8)
                    flat[k], trailers[k] = chunk[:-CRC_BYTES], chunk[-CRC_BYTES:]
            found += map(google_crc32c.value, buffers[::2])
            begin = end
        wrong = np.flatnonzero(np.array(found, dtype=np.uint32) != trailers.view("<u4")[:, 0])
        if wrong.size:
            row = rows[wrong[0]]
            raise self._damage(shards[row // self.rows_per_shard], row, "does not match its checksum")

    def _run_length(self, rows: list[int], begin: int, local: int, shard: Shard) -> int:
        """Return how many rows from `begin` on, at least 1, lie side by side in the shard and go into one call."""
        most = min(len(rows) - begin, self.rows_per_shard - local, self._merge_rows)
        length = 1
        while length < most and rows[begin + length] == rows[begin] + length and shard.follows[local + length]:
            length += 1
        return length

    def _read_zstd(self, rows: list[int], flat: NDArray[np.uint8], shards: Mapping[int, Shard]) -> None:
        decoder = Zstd()
        for row, target in zip(rows, flat, strict=True):
            shard = shards[row // self.rows_per_shard]
            if not shard.sizes[row % self.rows_per_shard]:
                target[:] = 0
                continue
            frame = self._read_chunk(shard, row)[:-CRC_BYTES]
            try:
                decoder.decode(frame, target)
            except (RuntimeError, ValueError) as error:
                raise self._damage(shard, row, f"does not decompress ({error})") from error

    def _read_chunk(self, shard: Shard, row: int) -> bytes:
        """Read one chunk, its checksum included, in as many calls as it takes, and verify it."""
        local = row % self.rows_per_shard
        offset, size = shard.offsets[local], shard.sizes[local]
        parts, missing = [], size
        while missing and (part := os.pread(shard.descriptor, missing, offset + size - missing)):
            parts.append(part)
            missing -= len(part)
        chunk = b"".join(parts)
        if missing or size <= CRC_BYTES:
            raise self._damage(shard, row, f"ends after {len(chunk)} bytes, expected {size}")
        if google_crc32c.value(chunk[:-CRC_BYTES]) != int.from_bytes(chunk[-CRC_BYTES:], "little"):
            raise self._damage(shard, row, "does not match its checksum")
        if not self.compressed and size != self.row_bytes + CRC_BYTES:
            raise self._damage(shard, row, f"has {size} bytes, expected {self.row_bytes + CRC_BYTES}")
        return chunk

    def _damage(self, shard: Shard, row: int, problem: str) -> CacheDamageError:
        return CacheDamageError(f"{self.name}, {self.describe(row)} {problem} ({shard.path}){shard.remedy}")
