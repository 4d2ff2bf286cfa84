"""Read rows straight from shard files: index from the file's end, `preadv` into the output, every CRC-32C checked.

A shard holds one chunk a row, each the row's bytes (or their zstd frame) and a CRC-32C, then the index:
`rows_per_shard` pairs (offset, nbytes) of little-endian uint64 and a CRC-32C. Chunks that were never
written have both set to 2⁶⁴ − 1.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ifcar.cache.schema import ArraySpec
from ifcar.errors import CacheDamageError

CRC_BYTES = 4
MAX_OPEN_SHARDS = 256
# rows that lie side by side are read by one call up to this size: beyond it a row has left the processor's
# cache before its checksum is computed
MERGE_BYTES = 1 << 20
_MERGE_ROWS = 500
_MISSING = np.uint64(2**64 - 1)


class Shard:
    """One open shard file and its verified index.

    Args:
        path: the shard's file.
        rows_per_shard: entries in the index.
        size: size in bytes that the commit record gives.

    Raises:
        CacheDamageError: the file is gone, has another size, or its index does not match its checksum.
    """

    def __init__(self, path: Path, rows_per_shard: int, size: int) -> None:
        self.path = path
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise CacheDamageError(f"{path} is missing though its block is committed{_REPAIR}") from error
        found = os.fstat(self.descriptor).st_size
        length = rows_per_shard * 16 + CRC_BYTES
        if found != size or size < length:
            raise CacheDamageError(f"{path} has {found} bytes, expected {size}{_REPAIR}")
        index = os.pread(self.descriptor, length, size - length)
        if google_crc32c.value(index[:-CRC_BYTES]) != int.from_bytes(index[-CRC_BYTES:], "little"):
            raise CacheDamageError(f"{path}: the shard's index does not match its checksum{_REPAIR}")
        pairs = np.frombuffer(index, dtype="<u8", count=rows_per_shard * 2).reshape(-1, 2)
        self.present = pairs[:, 0] != _MISSING
        self.offsets = np.where(self.present, pairs[:, 0], 0).astype(np.int64)
        self.sizes = np.where(self.present, pairs[:, 1], 0).astype(np.int64)

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
                shard = self._shards[name] = Shard(self._root / name, self._rows_per_shard, size)
                if len(self._shards) > self._max_open:
                    self._shards.popitem(last=False)
            else:
                self._shards.move_to_end(name)
            return shard

    def clear(self) -> None:
        """Drop every shard."""
        with self._lock:
            self._shards.clear()


class ShardedArray:
    """Rows of one feature array.

    Args:
        name: the array's name.
        spec: shape and type of a row.
        rows_per_shard: rows in a block.
        compressed: True where chunks are zstd frames.
        files: block → (path relative to the cache, size), for committed blocks.
        pool: open shards.
        describe: row number → text for messages, with the clip id.
    """

    def __init__(
        self,
        name: str,
        spec: ArraySpec,
        *,
        rows_per_shard: int,
        compressed: bool,
        files: Mapping[int, tuple[str, int]],
        pool: ShardPool,
        describe: Callable[[int], str],
    ) -> None:
        self.name = name
        self._row_bytes = spec.row_bytes()
        self._rows_per_shard = rows_per_shard
        self._compressed = compressed
        self._files = files
        self._pool = pool
        self._describe = describe
        self._merge_rows = max(1, min(_MERGE_ROWS, MERGE_BYTES // max(1, self._row_bytes)))

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
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        blocks = ascending // self._rows_per_shard
        edges = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(rows)]
        fill = self._fill_zstd if self._compressed else self._fill_plain
        for start, stop in itertools.pairwise(edges):
            shard = self._shard(int(blocks[start]), int(ascending[start]))
            fill(shard, ascending[start:stop], [flat[i] for i in order[start:stop].tolist()])

    def check_row(self, row: int) -> str | None:
        """Return what is wrong with a row's chunk, or None.

        Raises:
            CacheDamageError: the shard's index is unusable.
        """
        shard = self._shard(row // self._rows_per_shard, row)
        try:
            self._read_chunk(shard, row)
        except CacheDamageError as error:
            return str(error)
        return None

    def _shard(self, block: int, row: int) -> Shard:
        try:
            return self._pool.get(*self._files[block])
        except CacheDamageError as error:
            raise CacheDamageError(f"{self.name}, {self._describe(row)}: {error}") from error

    def _fill_plain(self, shard: Shard, rows: NDArray[np.int64], targets: list[NDArray[np.uint8]]) -> None:
        local = rows % self._rows_per_shard
        offsets, size = shard.offsets[local], self._row_bytes + CRC_BYTES
        misfit = np.flatnonzero(shard.sizes[local] != size)
        if misfit.size:
            self._read_chunk(shard, int(rows[misfit[0]]))
            raise self._damage(shard, int(rows[misfit[0]]), "has a chunk of another size")
        trailers = np.empty(len(rows), dtype="<u4")
        ends = list(trailers.view(np.uint8).reshape(-1, CRC_BYTES))
        found: list[int] = []
        starts, begin = offsets.tolist(), 0
        while begin < len(starts):
            end, limit = begin + 1, min(len(starts), begin + self._merge_rows)
            while end < limit and starts[end] == starts[end - 1] + size:
                end += 1
            buffers: list[Any] = [targets[begin], ends[begin]]
            for k in range(begin + 1, end):
                buffers += (targets[k], ends[k])
            if os.preadv(shard.descriptor, buffers, starts[begin]) != size * (end - begin):
                for k in range(begin, end):
                    chunk = np.frombuffer(self._read_chunk(shard, int(rows[k])), np.uint8)
                    targets[k][:], ends[k][:] = chunk[:-CRC_BYTES], chunk[-CRC_BYTES:]
            found += map(google_crc32c.value, targets[begin:end])
            begin = end
        wrong = np.flatnonzero(np.array(found, dtype=np.uint32) != trailers)
        if wrong.size:
            raise self._damage(shard, int(rows[wrong[0]]), "does not match its checksum")

    def _fill_zstd(self, shard: Shard, rows: NDArray[np.int64], targets: list[NDArray[np.uint8]]) -> None:
        decoder = Zstd()
        for row, target in zip(rows.tolist(), targets, strict=True):
            frame = self._read_chunk(shard, row)[:-CRC_BYTES]
            try:
                decoder.decode(frame, target)
            except (RuntimeError, ValueError) as error:
                raise self._damage(shard, row, f"does not decompress ({error})") from error

    def _read_chunk(self, shard: Shard, row: int) -> bytes:
        """Read one chunk, its checksum included, in as many calls as it takes, and verify it."""
        local = row % self._rows_per_shard
        if not shard.present[local]:
            raise self._damage(shard, row, "has no chunk though its block is committed")
        offset, size = int(shard.offsets[local]), int(shard.sizes[local])
        parts, missing = [], size
        while missing and (part := os.pread(shard.descriptor, missing, offset + size - missing)):
            parts.append(part)
            missing -= len(part)
        chunk = b"".join(parts)
        if missing or size <= CRC_BYTES:
            raise self._damage(shard, row, f"ends after {len(chunk)} bytes, expected {size}")
        if google_crc32c.value(chunk[:-CRC_BYTES]) != int.from_bytes(chunk[-CRC_BYTES:], "little"):
            raise self._damage(shard, row, "does not match its checksum")
        if not self._compressed and size != self._row_bytes + CRC_BYTES:
            raise self._damage(shard, row, f"has {size} bytes, expected {self._row_bytes + CRC_BYTES}")
        return chunk

    def _damage(self, shard: Shard, row: int, problem: str) -> CacheDamageError:
        return CacheDamageError(f"{self.name}, {self._describe(row)} {problem} ({shard.path}){_REPAIR}")


_REPAIR = "; run `ifcar cache repair`, then the same `ifcar extract` again"
