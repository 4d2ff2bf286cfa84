"""The Zarr side of a cache: its groups and arrays, clip ids and protocol tables, written and read by zarr-python."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from ifcar.cache.clips import CAMERAS, IDS, SEGMENTS, ClipTable
from ifcar.cache.commits import COMMITS
from ifcar.cache.manifest import MAX_CLIPS, Manifest, parse_manifest
from ifcar.cache.protocols import ProtocolTable, array_names, build_protocol, protocol_arrays, protocol_attributes
from ifcar.data_files import subfolders
from ifcar.errors import CacheDamageError, InputError, MissingDataError

PROTOCOLS = "protocols"
CLIPS = "clips"
STORE_EMPTY = {"array.write_empty_chunks": True}
# "c.3.0.0" instead of "c/3/0/0": one folder an array, so one fsync makes a block's names durable
_FLAT_KEYS: Any = {"name": "default", "separator": "."}
_ZSTD_LEVEL = 3
MAX_TARGETS, MAX_TARGET_AXES = 1 << 30, 3


def write_skeleton(root: Path, manifest: Manifest, clips: ClipTable) -> None:
    """Write a cache's groups, empty arrays over rows and the table of clips into an empty folder.

    Args:
        root: folder to fill.
        manifest: what the cache is.
        clips: the table.
    """
    with zarr.config.set(STORE_EMPTY):
        group = zarr.open_group(root, mode="w", zarr_format=3, attributes=manifest.attributes())
        # an empty array and not a group: zarr warns of files in a group that are no nodes, also in `tree()`
        commits = group.create_array(COMMITS, shape=(0,), dtype="uint8")
        commits.attrs["holds"] = "commit records, one JSON file a block of rows; no array values"
        group.create_group(PROTOCOLS)
        table = group.create_group(CLIPS)
        for name, texts in clips.arrays().items():
            _write_whole(table, name, np.array(texts, dtype=object))
        for array in manifest.spec.arrays:
            shape = manifest.spec.shape(array.name)
            block = (manifest.rows_per_shard, *shape)
            zstd = [ZstdCodec(level=_ZSTD_LEVEL)] if manifest.compression and array.sharded else []
            group.create_array(
                array.name,
                shape=(manifest.num_rows, *shape),
                dtype=array.dtype,
                chunks=(1, *shape) if array.sharded else block,
                shards=block if array.sharded else None,
                compressors=[*zstd, Crc32cCodec()],
                chunk_key_encoding=_FLAT_KEYS,
            )


def encode_block(
    root: Path, name: str, key: str, rows: range, values: NDArray[Any], *, stores_empty: bool = True
) -> memoryview:
    """Return the bytes of the file that holds a block of an array over rows, encoded by zarr.

    Args:
        root: the cache's folder.
        name: the array's name.
        key: name of the block's file.
        rows: the block's rows.
        values: (len(rows), …) of the array's type.
        stores_empty: store rows of zeros too; else a shard has no chunk of theirs, which reads as zeros.
    """
    metadata = (root / name / "zarr.json").read_bytes()
    stored: dict[str, Buffer] = {"zarr.json": default_buffer_prototype().buffer.from_bytes(metadata)}
    with zarr.config.set({"array.write_empty_chunks": stores_empty}):
        array = zarr.open_array(MemoryStore(stored), mode="r+", zarr_format=3)
        array[rows.start : rows.stop] = values
    return np.asarray(stored[key].as_numpy_array()).data.cast("B")


def write_protocol(root: Path, table: ProtocolTable) -> None:
    """Write one protocol table as the group `protocols/NAME`, which must not exist."""
    with zarr.config.set(STORE_EMPTY):
        group = zarr.open_group(root, mode="r+", zarr_format=3).create_group(f"{PROTOCOLS}/{table.name}")
        group.attrs.put(protocol_attributes(table))
        for name, values in protocol_arrays(table).items():
            _write_whole(group, name, values)


def _write_whole(group: zarr.Group, name: str, values: NDArray[Any]) -> None:
    """Write an array over clips, numbers or text, as one chunk."""
    stored = group.create_array(
        name,
        shape=values.shape,
        dtype="string" if values.dtype == object else values.dtype,
        chunks=tuple(max(1, size) for size in values.shape),
        compressors=[Crc32cCodec()],
        chunk_key_encoding=_FLAT_KEYS,
    )
    stored[...] = values


def read_manifest(root: Path) -> Manifest:
    """Read a cache's manifest from its root attributes.

    Raises:
        MissingDataError: there is no such folder.
        InputError: the folder is no cache, or one of an unknown format version.
        CacheDamageError: the metadata does not parse.
    """
    if not root.is_dir():
        raise MissingDataError(f"there is no cache at {root}; make one with `ifcar extract`")
    metadata = root / "zarr.json"
    if not metadata.is_file():
        raise InputError(f"{root} is not a cache: it holds no zarr.json; expected a folder made by `ifcar extract`")
    return parse_root(root, metadata.read_bytes())


def parse_root(root: Path, data: bytes) -> Manifest:
    """Return the manifest in the bytes of a cache's root `zarr.json`, see `read_manifest`."""
    metadata = root / "zarr.json"
    try:
        attributes = json.loads(data)["attributes"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CacheDamageError(f"{metadata} does not parse ({error!r}); run `ifcar cache verify`") from error
    if not isinstance(attributes, dict):
        raise CacheDamageError(f"{metadata} has no attributes; run `ifcar cache verify`")
    return parse_manifest(root, attributes)


def read_clips(root: Path) -> ClipTable:
    """Read the table of clips."""
    folder = root / CLIPS
    try:
        names = [name for name in (IDS, SEGMENTS, CAMERAS) if name == IDS or (folder / name).is_dir()]
        opened = {name: zarr.open_array(folder / name, mode="r", zarr_format=3) for name in names}
        return ClipTable.of({name: [str(text) for text in _values(array)] for name, array in opened.items()})
    except Exception as error:
        raise CacheDamageError(f"{folder} is not readable ({error}); run `ifcar cache verify`") from error


def read_protocol(root: Path, name: str) -> ProtocolTable:
    """Read one protocol table."""
    folder = root / PROTOCOLS / name
    try:
        opened = zarr.open_group(folder, mode="r", zarr_format=3)
        attributes = dict(opened.attrs)
        return build_protocol(name, attributes, {key: _values(opened[key]) for key in array_names(attributes)})
    except Exception as error:
        raise CacheDamageError(f"{folder} is not readable ({error}); run `ifcar cache verify`") from error


def list_protocols(root: Path) -> list[str]:
    """Return the names of the stored protocols, sorted."""
    return [folder.name for folder in subfolders(root / PROTOCOLS)]


def _values(array: Any) -> NDArray[Any]:
    """Return an array over clips whole, when its metadata claims no more than a cache can hold."""
    if not 1 <= array.ndim <= MAX_TARGET_AXES or array.shape[0] > MAX_CLIPS or math.prod(array.shape) > MAX_TARGETS:
        raise ValueError(f"it claims the shape {array.shape}")
    values = np.asarray(array[...])
    return values if values.dtype.kind in "biu" else np.array(values.tolist(), dtype=object)
