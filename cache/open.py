"""Open a cache, whichever form it has: a `.zarr` folder here or in object storage, HDF5, or a join of caches."""

from __future__ import annotations

from pathlib import Path

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.reader import CacheReader
from ifcar.errors import InputError, MissingDataError

JOIN_SUFFIX = ".join.json"  # of several caches read as one
HDF5_SUFFIXES = (".h5", ".hdf5")


def open_cache(path: Path) -> CacheReader:
    """Open a cache for reading.

    Args:
        path: a `.zarr` folder, its address in object storage, or a file that `export_hdf5` or `join_caches` wrote.

    Raises:
        MissingDataError: there is nothing at `path`.
        InputError: it is no cache, or one of another format version.
        CacheDamageError: metadata, clip ids, protocols or a commit record do not match their checksums.
    """
    path = place_of(path)
    if isinstance(path, Address):
        from ifcar.cache.bucket_reader import BucketReader

        return BucketReader(path)
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


def refuse_address(path: Path, instead: str) -> None:
    """Raise InputError where a path is an address in object storage, which a command does not take; say what does."""
    if isinstance(place := place_of(path), Address):
        raise InputError(f"{place} is an address, and this works on local folders; {instead}")
