"""Read a cache that was exported to one HDF5 file, through the same interface as a Zarr cache.

File layout: arrays over rows at the root under their names; `clip_ids`, and `clip_segments` and `clip_cameras` where
clips name them; `protocols/NAME/` with split, targets,
groups, classes, group_names; `failures`, one JSON text each; the manifest as root attributes, mappings as JSON.
Every data set has a Fletcher-32 checksum a chunk, and the file's metadata has checksums of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ifcar.cache.clips import CAMERAS, IDS, SEGMENTS, ClipTable
from ifcar.cache.commits import FailedRow
from ifcar.cache.damage import Damage, DamageKind, VerifyReport
from ifcar.cache.manifest import parse_manifest
from ifcar.cache.protocols import ProtocolTable, array_names, build_protocol
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Status
from ifcar.errors import CacheDamageError, InputError

CLIP_ARRAYS: Mapping[str, str] = {IDS: "clip_ids", SEGMENTS: "clip_segments", CAMERAS: "clip_cameras"}
FAILURES = "failures"
PROTOCOLS = "protocols"
FURTHER = "further"  # label spaces of a protocol, one JSON text each
JSON_ATTRIBUTES = ("spec", "identity", "environment")
# absent attributes mean None: HDF5 has no such value
OPTIONAL_ATTRIBUTES = ("compression",)


class HDF5Reader(CacheReader):
    """A complete cache in one HDF5 file.

    Args:
        path: a file that `export_hdf5` wrote.

    Raises:
        InputError: the file is no export of a cache.
        CacheDamageError: it does not open, or attributes and clip ids do not match the fingerprint.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise CacheDamageError(f"{path} does not open as HDF5 ({error}); export it again") from error
        try:
            attributes: dict[str, Any] = dict.fromkeys(OPTIONAL_ATTRIBUTES)
            attributes |= dict(self._file.attrs)
            for name in JSON_ATTRIBUTES:
                if name in attributes:
                    attributes[name] = json.loads(attributes[name])
            manifest = parse_manifest(path, attributes)
            super().__init__(path, manifest, self._read_clips())
            self._failures = [FailedRow(**json.loads(text)) for text in read_texts(self._file[FAILURES])]
        except (OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
            self._file.close()
            if isinstance(error, (InputError, CacheDamageError)):
                raise
            raise CacheDamageError(f"{path} is damaged ({error}); export it again") from error

    def protocol_names(self) -> list[str]:
        """Return the names of the stored protocols, sorted."""
        return sorted(self._file[PROTOCOLS])

    def failures(self) -> list[FailedRow]:
        """Return every failed row, in row order."""
        return list(self._failures)

    def committed_rows(self) -> NDArray[np.bool_]:
        """Return (R,) True: only complete caches are exported."""
        return np.ones(self.num_rows, dtype=np.bool_)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_clips(self) -> ClipTable:
        stored = {name: key for name, key in CLIP_ARRAYS.items() if name == IDS or key in self._file}
        return ClipTable.of({name: read_texts(self._file[key]) for name, key in stored.items()})

    def _load_protocol(self, name: str) -> ProtocolTable:
        try:
            group = self._file[PROTOCOLS][name]
            attributes = dict(group.attrs)
            for key in ("classes", "group_names"):
                attributes[key] = read_texts(group[key])
            if FURTHER in group:
                attributes[FURTHER] = [json.loads(text) for text in read_texts(group[FURTHER])]
            return build_protocol(name, attributes, {key: read_array(group[key]) for key in array_names(attributes)})
        except (OSError, KeyError, RuntimeError) as error:
            raise CacheDamageError(f"{self.path}: protocol {name!r} is damaged ({error}); export again") from error

    def _load_table(self, name: str) -> NDArray[Any]:
        table = np.empty((self.num_rows, *self.spec.shape(name)), self.spec.array(name).dtype)
        self._read(name, 0, table)
        return table

    def _fill(self, name: str, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        for position, row in enumerate(rows.tolist()):
            self._read(name, row, out[position : position + 1])

    def _read(self, name: str, start: int, out: NDArray[Any]) -> None:
        try:
            self._file[name].read_direct(out, np.s_[start : start + len(out)])
        except (OSError, KeyError, RuntimeError, TypeError) as error:
            what = self.describe_row(start) if len(out) == 1 else f"one of rows {start} to {start + len(out) - 1}"
            raise CacheDamageError(
                f"{self.path}: {name}, {what} is not readable ({error}); export the cache again"
            ) from error


def write_array(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    """Store an array over clips; text as fixed-length UTF-8, whose checksums cover the text itself."""
    if values.dtype == object:
        encoded = [text.encode() for text in values.ravel()]
        length = max([1, *map(len, encoded)])
        values = np.array(encoded, dtype=h5py.string_dtype("utf-8", length)).reshape(values.shape)
    checked: dict[str, Any] = {"chunks": values.shape, "fletcher32": True} if values.size else {}
    group.create_dataset(name, data=values, **checked)


def read_array(dataset: h5py.Dataset) -> NDArray[Any]:
    """Return what `write_array` stored."""
    values: NDArray[Any] = dataset[...]
    if values.dtype.kind in "biu":
        return values
    return np.array(read_texts(dataset), dtype=object).reshape(values.shape)


def write_texts(group: h5py.Group, name: str, texts: list[str]) -> None:
    """Store a list of texts."""
    write_array(group, name, np.array(texts, dtype=object))


def read_texts(dataset: h5py.Dataset) -> list[str]:
    """Return stored texts as a list."""
    return [bytes(text).decode() for text in dataset[...].ravel()]


def verify_hdf5(path: Path, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Read every row of an export.

    Args:
        path: the file.
        progress: called with (arrays done, arrays in all).

    Raises:
        InputError: the file is no export of a cache.
    """
    try:
        reader = HDF5Reader(path)
    except CacheDamageError as error:
        damage = Damage(kind=DamageKind.METADATA, path=path.name, problem=str(error))
        return VerifyReport(path=path, metadata_usable=False, damages=(damage,))
    damages: list[Damage] = []
    names = reader.spec.names()
    for done, name in enumerate(names, start=1):
        damages += _damaged_rows(reader, name)
        if progress:
            progress(done, len(names))
    try:
        for name in reader.protocol_names():
            reader.protocol(name)
        failed = {failure.row for failure in reader.failures()}
        if set(np.flatnonzero(reader.status() == Status.FAILED).tolist()) != failed:
            text = "rows with status 2 (failed) differ from the listed failures"
            damages.append(Damage(kind=DamageKind.STATUS, path=path.name, problem=text))
    except (CacheDamageError, KeyError, RuntimeError) as error:
        damages.append(Damage(kind=DamageKind.METADATA, path=path.name, problem=str(error)))
    rows, num_failed = reader.num_rows, len(reader.failures())
    reader.close()
    return VerifyReport(path=path, num_rows=rows, num_rows_checked=rows, num_failed=num_failed, damages=tuple(damages))


def _damaged_rows(reader: HDF5Reader, name: str) -> list[Damage]:
    damages = []
    if not reader.spec.array(name).sharded:
        try:
            reader.table(name)
        except CacheDamageError as error:
            damages.append(Damage(kind=DamageKind.ROW, path=name, problem=str(error), array=name))
        return damages
    for row in range(reader.num_rows):
        try:
            reader.read_rows(name, np.array([row]))
        except CacheDamageError as error:
            damages.append(Damage.of_row(name, str(error), name, row, (reader.clip_ids, reader.rows_per_clip)))
    return damages
