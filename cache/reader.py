"""Read a cache: rows in any order with every checksum verified, row tables, protocols, failures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import ArraySpec, CacheSpec
from ifcar.cache.clips import ClipTable
from ifcar.cache.commits import FailedRow
from ifcar.cache.lacking import lacking
from ifcar.cache.manifest import Manifest, check_fingerprint, describe_row
from ifcar.cache.protocols import ProtocolTable
from ifcar.errors import CacheMismatchError, InputError, nearest_of


class CacheReader(ABC):
    """What a cache holds at the moment it was opened; safe to use from several threads.

    Args:
        path: where the cache is.
        manifest: its root attributes.
        clips: the table of clips.
    """

    def __init__(self, path: Path, manifest: Manifest, clips: ClipTable) -> None:
        check_fingerprint(path, manifest, clips.ids)
        self.path = path
        self.manifest = manifest
        self.spec = manifest.spec
        self.num_clips = manifest.num_clips
        self.num_views = manifest.num_views
        self.rows_per_clip = manifest.rows_per_clip
        self.num_rows = manifest.num_rows
        self.fingerprint = manifest.fingerprint
        self.identity: dict[str, Any] = dict(manifest.provenance.identity)
        self.environment: dict[str, Any] = dict(manifest.provenance.environment)
        self.clips, self.clip_ids = clips, clips.ids
        self._arrays = {array.name: array for array in manifest.spec.arrays}
        self._tables: dict[str, NDArray[Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.path,))

    def stream_identities(self) -> dict[str, dict[str, Any]]:
        """Return the identity of the cache behind each stream of a join; empty where this is one cache."""
        return {}

    @abstractmethod
    def protocol_names(self) -> list[str]:
        """Return the names of the stored protocols, sorted."""

    @abstractmethod
    def failures(self) -> list[FailedRow]:
        """Return every failed row of the committed blocks, in row order."""

    @abstractmethod
    def committed_rows(self) -> NDArray[np.bool_]:
        """Return (R,) True for rows of committed blocks."""

    @abstractmethod
    def close(self) -> None:
        """Release open files; the reader must not be used afterwards."""

    @abstractmethod
    def _load_protocol(self, name: str) -> ProtocolTable: ...

    @abstractmethod
    def _load_table(self, name: str) -> NDArray[Any]: ...

    @abstractmethod
    def _fill(self, name: str, rows: NDArray[np.int64], out: NDArray[Any]) -> None: ...

    def identity_of(self, stream: str) -> dict[str, Any]:
        """Return the identity of the cache behind a stream: of a cache by itself its own."""
        return self.identity

    def cameras_of(self, stream: str) -> set[str]:
        """Return the named cameras whose clips a stream takes: of a cache by itself those of all clips."""
        return {*self.clips.cameras} - {""}

    def cameras_behind(self, stream: str) -> set[str]:
        """Return the named cameras of all clips of a stream's cache, of which the stream may take some."""
        return self.cameras_of(stream)

    def shuffled_streams(self) -> list[str]:
        """Return the streams of a join that show other recordings; none where this is one cache."""
        return []

    def spec_of(self, protocol: str) -> CacheSpec:
        """Return what a head for a protocol is built for: a join's spec with the protocol's label spaces, else `spec`.

        Raises:
            InputError: a join has no such protocol.
        """
        return self.spec

    def protocol(self, name: str) -> ProtocolTable:
        """Return a protocol table.

        Raises:
            InputError: there is no such protocol; names the nearest one.
        """
        known = self.protocol_names()
        if name not in known:
            raise InputError(f"{self.path} has no protocol {name!r}{nearest_of(name, known)}")
        return self._load_protocol(name)

    def status(self) -> NDArray[np.uint8]:
        """Return (R,) values of `Status`; rows of uncommitted blocks are PENDING whatever the array says."""
        return self.table("status")

    def is_complete(self) -> bool:
        """Return whether every block is committed; failed rows count as complete."""
        return bool(self.committed_rows().all())

    def check_complete(self) -> None:
        """Check that every block is committed.

        Raises:
            InputError: rows are missing; says how many.
        """
        if missing := int((~self.committed_rows()).sum()):
            raise InputError(
                f"{self.path} lacks {missing} of {self.num_rows} rows; run the same `ifcar extract` to finish it"
            )

    def table(self, name: str) -> NDArray[Any]:
        """Return a whole row table, (R, …); rows of uncommitted blocks are empty.

        Raises:
            CacheMismatchError: the cache has no such array.
            InputError: it is a sharded array; read its rows instead.
            CacheDamageError: a chunk does not match its checksum.
        """
        if self._array(name).sharded:
            raise InputError(f"{name} is a sharded array and may not fit in memory; use read_rows")
        return self._table(name).copy()

    def read_rows(self, name: str, rows: NDArray[np.int64], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read rows of an array, every checksum verified.

        Args:
            name: name of an array over rows.
            rows: (n,) row numbers, any order, doubles allowed.
            out: (n, …) C-contiguous array of the stored type to fill, or None for a new one.

        Returns:
            (n, …) the rows in the order asked for; `out` when it was given.

        Raises:
            CacheMismatchError: the cache has no such array.
            InputError: a row is outside the cache or not committed, or `out` does not fit.
            CacheDamageError: a row does not match its checksum; names array, row and clip id.
        """
        array = self._array(name)
        rows = self._check_rows(rows)
        shape, dtype = (len(rows), *self.spec.shape(name)), np.dtype(array.dtype)
        if out is None:
            out = np.empty(shape, dtype=dtype)
        elif out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise InputError(f"{name}: out is {out.dtype} {out.shape}, expected C-contiguous {dtype} {shape}")
        if array.sharded:
            self._fill(name, rows, out)
        else:
            np.take(self._table(name), rows, axis=0, out=out)
        return out

    def advise(self, name: str, rows: NDArray[np.int64]) -> None:  # noqa: B027  (a hint: doing nothing is right)
        """Tell the operating system which rows of a sharded array will be read soon, and return at once.

        Args:
            name: name of a sharded array.
            rows: (n,) row numbers; ascending ones are fetched fastest.
        """

    def rows_of(self, clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of these clips (n,), (n, V + A): plain views first, then augmented ones."""
        return clips[:, None] * self.rows_per_clip + np.arange(self.rows_per_clip)

    def array_bytes(self, name: str) -> int:
        """Return the size in bytes of a whole array in memory."""
        return self.num_rows * self.spec.row_bytes([name])

    def describe_row(self, row: int) -> str:
        """Return a row's number, clip id and view as text for messages."""
        return describe_row(row, self.clip_ids, self.rows_per_clip)

    def _array(self, name: str) -> ArraySpec:
        if name not in self._arrays:
            raise CacheMismatchError(f"{self.path} has {lacking(name, self.spec.names())}")
        return self._arrays[name]

    def _check_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = np.asarray(rows)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise InputError(f"rows are {rows.dtype} {rows.shape}, expected a list of row numbers")
        rows = rows.astype(np.int64, copy=False)
        outside = rows[(rows < 0) | (rows >= self.num_rows)]
        if outside.size:
            raise InputError(f"row {outside[0]} is not in {self.path}, expected 0 to {self.num_rows - 1}")
        pending = rows[~self.committed_rows()[rows]]
        if pending.size:
            raise InputError(
                f"{self.path}: {self.describe_row(int(pending[0]))} is not extracted yet; "
                "run the same `ifcar extract` again to finish the cache"
            )
        return rows

    def _table(self, name: str) -> NDArray[Any]:
        if name not in self._tables:
            self._tables[name] = self._load_table(name)
        return self._tables[name]
