"""Export a complete cache to one HDF5 file, for tools that do not read Zarr."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np

from ifcar.cache.durable import PARTIAL_SUFFIX, fsync_path
from ifcar.cache.hdf5 import CLIP_ARRAYS, FAILURES, FURTHER, JSON_ATTRIBUTES, PROTOCOLS, write_array, write_texts
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import protocol_arrays, protocol_attributes
from ifcar.cache.reader import CacheReader
from ifcar.cache.single import HDF5_SUFFIXES, JOIN_SUFFIX
from ifcar.errors import InputError


def export_hdf5(cache_path: Path, out_path: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Copy a complete cache into one HDF5 file, which appears whole or not at all.

    Args:
        cache_path: the cache.
        out_path: file to write, ending in .h5 or .hdf5; an older export of the cache is replaced.
        progress: called with (blocks done, blocks in all).

    Raises:
        InputError: the cache is not complete, or `out_path` is a folder, has another ending, or is another file.
        CacheDamageError: a row does not match its checksum.
    """
    out_path = Path(out_path)
    if out_path.suffix not in HDF5_SUFFIXES or out_path.is_dir():
        raise InputError(f"{out_path} is not usable as output, expected a file name ending in .h5 or .hdf5")
    if Path(cache_path).name.endswith(JOIN_SUFFIX):
        raise InputError(f"{cache_path} is a join and has no rows of its own; export the caches that it joins")
    reader = open_cache(cache_path)
    reader.check_complete()
    if out_path.exists() and _fingerprint_in(out_path) != reader.fingerprint:
        raise InputError(f"{out_path}: is there, and is no export of this cache; name another file")
    out_path.parent.mkdir(parents=True, exist_ok=True)
    temporary = out_path.with_name(out_path.name + PARTIAL_SUFFIX)
    try:
        # the newest file format is the one whose metadata has checksums
        with h5py.File(temporary, "w", libver="latest") as file:
            _write_tables(file, reader)
            _write_rows(file, reader, progress)
        fsync_path(temporary)
        temporary.replace(out_path)
    finally:
        temporary.unlink(missing_ok=True)
        reader.close()
    fsync_path(out_path.parent)


def _fingerprint_in(path: Path) -> object:
    """Return the fingerprint of an exported cache, or None of any other file."""
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("fingerprint")
    except OSError:
        return None


def _write_tables(file: h5py.File, reader: CacheReader) -> None:
    for name, value in reader.manifest.attributes().items():
        if name in JSON_ATTRIBUTES:
            file.attrs[name] = json.dumps(value, sort_keys=True)
        elif value is not None:
            file.attrs[name] = value
    for name, texts in reader.clips.arrays().items():
        write_texts(file, CLIP_ARRAYS[name], texts)
    write_texts(file, FAILURES, [json.dumps(asdict(failure)) for failure in reader.failures()])
    protocols = file.create_group(PROTOCOLS)
    for name in reader.protocol_names():
        table = reader.protocol(name)
        group = protocols.create_group(name)
        for key, value in protocol_attributes(table).items():
            if isinstance(value, list):
                write_texts(group, key, [json.dumps(own) for own in value] if key == FURTHER else value)
            else:
                group.attrs[key] = value
        for key, values in protocol_arrays(table).items():
            write_array(group, key, values)


def _write_rows(file: h5py.File, reader: CacheReader, progress: Callable[[int, int], None] | None) -> None:
    manifest = reader.manifest
    for array in reader.spec.arrays:
        length = 1 if array.sharded else min(manifest.rows_per_shard, manifest.num_rows)
        shape = reader.spec.shape(array.name)
        file.create_dataset(
            array.name, (manifest.num_rows, *shape), array.dtype, chunks=(length, *shape), fletcher32=True
        )
    for block in range(manifest.num_blocks):
        rows = manifest.rows_of(block)
        for name in reader.spec.names():
            values = reader.read_rows(name, np.arange(rows.start, rows.stop))
            file[name][rows.start : rows.stop] = values
        if progress:
            progress(block + 1, manifest.num_blocks)
