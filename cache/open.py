"""Open a cache, whichever form it has: a `.zarr` folder here or in object storage, HDF5, parts, or a join of caches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.parts import PartsReader, open_one
from ifcar.cache.protocols import PREFERRED_PROTOCOL
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.cache.single import JOIN_SUFFIX, open_single
from ifcar.errors import InputError


def open_cache(path: Path | Sequence[Path]) -> CacheReader:
    """Open a cache for reading.

    Args:
        path: a `.zarr` folder, its address in object storage, a file that `export_hdf5`, `write_parts` or
            `join_caches` wrote; or the parts of a cache.

    Raises:
        MissingDataError: there is nothing at `path`.
        InputError: it is no cache, or one of another format version; or parts that are not one cache.
        CacheDamageError: metadata, clip ids, protocols or a commit record do not match their checksums.
    """
    if not isinstance(path, Path):
        return PartsReader(None, [open_single(part) for part in path])
    place = place_of(path)
    if place.name.endswith(JOIN_SUFFIX) and place.is_file():
        # joins cost start-up time that others need not pay
        from ifcar.cache.joined import JoinedReader

        return JoinedReader(place)
    return open_one(place)


def refuse_address(path: Path, instead: str) -> None:
    """Raise InputError where a path is an address in object storage, which a command does not take; say what does."""
    if isinstance(place := place_of(path), Address):
        raise InputError(f"{place} is an address, and this works on local folders; {instead}")


def protocol_to_name(reader: CacheReader) -> str | None:
    """Return a protocol for commands to name, one with training and test clips where there is; None: none needs be."""
    names = reader.protocol_names()
    if PREFERRED_PROTOCOL in names or len(names) < 2:
        return None
    full = (name for name in names if all(len(reader.protocol(name).clips(part)) for part in (Split.TRAIN, Split.TEST)))
    return next(full, names[0])
