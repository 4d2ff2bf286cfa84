"""Open a cache, whichever form it has: a `.zarr` folder, one HDF5 file, or a join of several caches."""

from __future__ import annotations

import re
from pathlib import Path

from ifcar.cache.reader import CacheReader
from ifcar.errors import InputError, MissingDataError

JOIN_SUFFIX = ".join.json"  # of several caches read as one
HDF5_SUFFIXES = (".h5", ".hdf5")


def open_cache(path: Path) -> CacheReader:
    """Open a cache for reading.

    Args:
        path: a `.zarr` folder, or a file that `export_hdf5` or `join_caches` wrote.

    Raises:
        MissingDataError: there is nothing at `path`.
        InputError: it is no cache, or one of another format version.
        CacheDamageError: metadata, clip ids, protocols or a commit record do not match their checksums.
    """
    path = Path(path)
    refuse_address(path)
    if not path.exists():
        raise MissingDataError(f"there is no cache at {path}; make one with `ifcar extract`")
    # zarr and h5py cost start-up time; only the one that is needed is imported
    if path.is_dir():
        from ifcar.cache.zarr_reader import ZarrReader

        return ZarrReader(path)
    if path.name.endswith(JOIN_SUFFIX):
        from ifcar.cache.joined import JoinedReader

        return JoinedReader(path)
    if path.suffix in HDF5_SUFFIXES:
        from ifcar.cache.hdf5 import HDF5Reader

        return HDF5Reader(path)
    raise InputError(f"{path} is not a cache: expected a .zarr folder or a file ending in .h5, .hdf5 or .join.json")


def refuse_address(path: Path) -> None:
    """Raise InputError where a path was an address, as s3://BUCKET/NAME, of which `Path` keeps one slash only."""
    if (scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])", str(path))) and not path.exists():
        address = f"{scheme[1]}://{str(path)[scheme.end() :]}"
        raise InputError(f"{address} is an address, and caches lie in local folders; copy it, or name a local path")
