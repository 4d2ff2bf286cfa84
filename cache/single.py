"""Open one cache by itself, and name the caches that a file beside them lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.reader import CacheReader
from ifcar.errors import CacheMismatchError, InputError, MissingDataError

HDF5_SUFFIXES = (".h5", ".hdf5")
PARTS_SUFFIX, JOIN_SUFFIX = ".parts.json", ".join.json"  # of what lists caches: of other clips, of the same moments
FILE_SUFFIXES = (*HDF5_SUFFIXES, PARTS_SUFFIX, JOIN_SUFFIX)


def open_single(path: Path) -> CacheReader:
    """Open a `.zarr` folder, its address in object storage, or an exported HDF5 file, see `ifcar.cache.open`."""
    path = place_of(path)
    # zarr, h5py and object storage cost start-up time, or a package; only the one that is needed is imported
    if isinstance(path, Address):
        from ifcar.cache.bucket_reader import BucketReader

        return BucketReader(path)
    if not path.exists():
        raise MissingDataError(f"there is no cache at {path}; make one with `ifcar extract`")
    if path.is_dir():
        from ifcar.cache.zarr_reader import ZarrReader

        return ZarrReader(path)
    if path.suffix in HDF5_SUFFIXES:
        from ifcar.cache.hdf5 import HDF5Reader

        return HDF5Reader(path)
    if path.name.endswith((PARTS_SUFFIX, JOIN_SUFFIX)):
        raise InputError(f"{path} lists caches; expected one cache by itself: name those that it lists")
    raise InputError(f"{path} is not a cache: expected a .zarr folder or a file ending in {', '.join(FILE_SUFFIXES)}")


def listed(cache: Path, file: Path) -> str:
    """Return what a file that lists a cache calls its place: an address, or a path from the file's folder."""
    place = place_of(cache)
    return str(place) if isinstance(place, Address) else os.path.relpath(place.absolute(), file.absolute().parent)


def place_listed(file: Path, entry: Mapping[str, Any]) -> Path:
    """Return where a cache is that a file lists, see `listed`."""
    place = place_of(str(entry["cache"]))
    return place if isinstance(place, Address) else file.parent / place


def open_listed(
    file: Path, what: str, entry: Mapping[str, Any], remedy: str, open_one: Callable[[Path], CacheReader]
) -> CacheReader:
    """Open a cache that a file lists.

    Args:
        file: that lists it.
        what: the cache is there, for messages.
        entry: its "cache", as `listed` names it, and "fingerprint".
        remedy: what to do where it is not the one that was listed.
        open_one: opens it.

    Raises:
        MissingDataError: there is none.
        CacheMismatchError: it is another.
    """
    place = place_listed(file, entry)
    if not place.exists():
        raise MissingDataError(f"{file}: {what}: there is no cache at {place}; {remedy}")
    reader = open_one(place)
    if reader.fingerprint != entry["fingerprint"]:
        reader.close()
        raise CacheMismatchError(f"{file}: {what}: {place} is another cache than is listed; {remedy}")
    return reader


def check_listing_gives_way(path: Path, key: str) -> None:
    """Raise InputError where something is there that is no list of caches which begins with this key."""
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if f'"{key}"'.encode() in file.read(64):
                return
    raise InputError(f"{path}: is there and is something else; name another file")
