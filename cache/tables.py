"""The files outside blocks (metadata, clip ids, protocols): their record, and replacing the protocols."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr

from ifcar.cache.commits import COMMITS, TABLES_RECORD, TablesRecord, digest_files, encode_tables
from ifcar.cache.durable import fsync_path, fsync_tree, list_files, write_atomic
from ifcar.cache.layout import CLIPS, PROTOCOLS, write_protocol
from ifcar.cache.manifest import Manifest
from ifcar.cache.protocols import ProtocolTable, protocol_arrays, protocol_attributes
from ifcar.cache.zarr_reader import ZarrReader


def commit_tables(root: Path, manifest: Manifest, *, protocols_complete: bool = True) -> None:
    """Record size and checksum of every file that belongs to no block.

    Args:
        root: the cache's folder.
        manifest: its manifest.
        protocols_complete: False to leave the protocols out while they are being replaced.
    """
    metadata = {"zarr.json", *(f"{name}/zarr.json" for name in (COMMITS, *manifest.spec.names()))}
    folders = (f"{CLIPS}/", f"{PROTOCOLS}/") if protocols_complete else (f"{CLIPS}/",)
    names = [name for name in list_files(root) if name in metadata or name.startswith(folders)]
    record = TablesRecord(manifest.fingerprint, digest_files(root, names), protocols_complete)
    write_atomic(root / TABLES_RECORD, encode_tables(record))


def replace_protocols(root: Path, manifest: Manifest, protocols: Sequence[ProtocolTable]) -> None:
    """Write the protocols anew; a kill on the way leaves a record that says so, and the next resume repeats it."""
    commit_tables(root, manifest, protocols_complete=False)
    shutil.rmtree(root / PROTOCOLS, ignore_errors=True)
    zarr.open_group(root, mode="r+", zarr_format=3).create_group(PROTOCOLS)
    for table in protocols:
        write_protocol(root, table)
    fsync_tree(root / PROTOCOLS)
    fsync_path(root)
    commit_tables(root, manifest)


def same_protocols(reader: ZarrReader, protocols: Sequence[ProtocolTable]) -> bool:
    """Return whether a cache holds exactly these protocols."""
    if not reader.protocols_complete or reader.protocol_names() != sorted(table.name for table in protocols):
        return False
    for table in protocols:
        stored = reader.protocol(table.name)
        arrays = protocol_arrays(stored)
        if protocol_attributes(stored) != protocol_attributes(table) or any(
            not np.array_equal(arrays[name], values) for name, values in protocol_arrays(table).items()
        ):
            return False
    return True
