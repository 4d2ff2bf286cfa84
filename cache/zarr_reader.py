"""Read a cache in its `.zarr` folder: commit records, raw shards and row tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ifcar.cache.commits import TABLES_RECORD, CommitRecord, FailedRow, digest_problem, read_commits, read_tables
from ifcar.cache.layout import list_protocols, read_clips, read_manifest, read_protocol
from ifcar.cache.manifest import Manifest
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.shards import CRC_BYTES, ShardedArray, ShardPool
from ifcar.errors import CacheDamageError


class ZarrReader(CacheReader):
    """A cache in its `.zarr` folder.

    Args:
        path: the folder.
        blocks: the blocks to read, as far as they are committed; default: all.
        root: where the files outside blocks are, when that is not the folder itself.
    """

    def __init__(self, path: Path, blocks: Iterable[int] | None = None, root: Path | None = None) -> None:
        self._root = root = path if root is None else root
        manifest = read_manifest(root)
        tables = read_tables(root / TABLES_RECORD)
        for name, digest in tables.files.items():
            problem = digest_problem(root, name, digest)
            if problem:
                raise CacheDamageError(f"{root / name} {problem}; run `ifcar cache verify`")
        super().__init__(path, manifest, read_clips(root))
        self.protocols_complete = tables.protocols_complete
        self.commits = self._read_commits(blocks)
        self._committed = np.zeros(self.num_rows, dtype=np.bool_)
        for record in self.commits.values():
            self._committed[record.start : record.stop] = True
        self._pool = self._open_pool()
        self._sharded = {array.name: self.sharded(array.name) for array in self.spec.arrays if array.sharded}

    def protocol_names(self) -> list[str]:
        """Return the names of the stored protocols, sorted."""
        if not self.protocols_complete:
            raise CacheDamageError(
                f"{self.path}: its protocols were being replaced when the writer stopped; "
                "run the same `ifcar extract` again"
            )
        return list_protocols(self._root)

    def failures(self) -> list[FailedRow]:
        """Return every failed row of the committed blocks, in row order."""
        return [failure for block in sorted(self.commits) for failure in self.commits[block].failures]

    def committed_rows(self) -> NDArray[np.bool_]:
        """Return (R,) True for rows of committed blocks."""
        return self._committed

    def close(self) -> None:
        """Release open files."""
        self._pool.clear()

    def advise(self, name: str, rows: NDArray[np.int64]) -> None:
        """Tell the operating system which rows will be read soon, and return at once."""
        self._sharded[name].advise(rows)

    def sharded(self, name: str) -> ShardedArray:
        """Return the raw rows of a sharded array."""
        paths = {block: self.manifest.block_files(block)[name] for block in self.commits}
        return ShardedArray(
            name=name,
            row_bytes=self.spec.row_bytes([name]),
            rows_per_shard=self.manifest.rows_per_shard,
            compressed=self.manifest.compression is not None,
            files={block: (path, self.commits[block].files[path].size) for block, path in paths.items()},
            pool=self._pool,
            describe=self.describe_row,
        )

    def _load_protocol(self, name: str) -> ProtocolTable:
        return read_protocol(self._root, name)

    def _load_table(self, name: str) -> NDArray[Any]:
        table = self.spec.empty(name, self.num_rows)
        files = [self.manifest.block_files(block)[name] for block in self.commits]
        for record, file, data in zip(self.commits.values(), files, self._read_files(files), strict=True):
            table[record.start : record.stop] = decode_table_block(
                data, self.path / file, self.manifest, name, record.block, self.describe_row
            )
        return table

    def _read_commits(self, blocks: Iterable[int] | None) -> dict[int, CommitRecord]:
        return read_commits(self.path, self.manifest, blocks)

    def _open_pool(self) -> ShardPool:
        return ShardPool(self.path, self.manifest.rows_per_shard)

    def _read_files(self, names: list[str]) -> Iterator[bytes]:
        """Yield files of blocks whole, nothing for one that is missing."""
        return (path.read_bytes() if (path := self.path / name).exists() else b"" for name in names)

    def _fill(self, name: str, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        self._sharded[name].read(rows, out)


def read_table_block(
    root: Path, manifest: Manifest, name: str, block: int, describe: Callable[[int], str]
) -> NDArray[Any]:
    """Read one block of a row table, its checksum verified.

    Args:
        root: the cache's folder.
        manifest: the cache's manifest.
        name: name of a row table.
        block: a committed block.
        describe: row number → text for messages.

    Raises:
        CacheDamageError: the chunk is missing, truncated or does not match its checksum.
    """
    path = root / manifest.block_files(block)[name]
    data = path.read_bytes() if path.exists() else b""
    return decode_table_block(data, path, manifest, name, block, describe)


def decode_table_block(
    data: bytes, path: Path, manifest: Manifest, name: str, block: int, describe: Callable[[int], str]
) -> NDArray[Any]:
    """Return the block of a row table in the bytes of its file, see `read_table_block`."""
    rows = manifest.rows_of(block)
    payload, checksum = data[:-CRC_BYTES], int.from_bytes(data[-CRC_BYTES:], "little")
    expected = manifest.rows_per_shard * manifest.spec.row_bytes([name])
    if len(payload) != expected or google_crc32c.value(payload) != checksum:
        raise CacheDamageError(
            f"{name}, {describe(rows.start)} to {describe(rows.stop - 1)}: the chunk {path} is missing or does "
            "not match its checksum; run `ifcar cache repair`, then the same `ifcar extract` again"
        )
    values = np.frombuffer(payload, dtype=np.dtype(manifest.spec.array(name).dtype).newbyteorder("<"))
    return values.reshape(-1, *manifest.spec.shape(name))[: len(rows)]
