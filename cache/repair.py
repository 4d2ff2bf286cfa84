"""Drop what verification finds damaged, so that extraction computes just that."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ifcar.cache.commits import TABLES_RECORD, commit_name
from ifcar.cache.damage import DamageKind
from ifcar.cache.durable import list_files, remove_files, write_atomic
from ifcar.cache.layout import PROTOCOLS, read_clips, read_manifest, write_skeleton
from ifcar.cache.lock import locked
from ifcar.cache.manifest import Manifest
from ifcar.cache.open import refuse_address
from ifcar.cache.parts import part_places
from ifcar.cache.single import HDF5_SUFFIXES, PARTS_SUFFIX
from ifcar.cache.tables import commit_tables
from ifcar.cache.verify import check_form, verify_cache
from ifcar.errors import CacheDamageError, InputError, MissingDataError


def repair_cache(path: Path) -> dict[Path, list[int]]:
    """Drop damaged blocks and stray files, and write damaged metadata anew, so that extraction mends the cache.

    Damaged protocols are marked as such; the next `extract` writes them again.

    Args:
        path: a `.zarr` folder, or a file that lists parts.

    Returns:
        The blocks dropped, ascending, of the cache or of each part.

    Raises:
        InputError: `path` is an HDF5 export or an address, or a damaged part is; then nothing was dropped.
        CacheDamageError: clip ids or attributes are damaged, which only the fingerprint could give back.
        LockedError: another process writes the cache.
    """
    check_form(path)
    if not path.name.endswith(PARTS_SUFFIX):
        _check_repairable(path)
        with locked(path):
            return {path: _repair(path)}
    places, found = part_places(path), dict[Path, list[int]]()
    for place in places:  # before the first part is changed
        try:
            _check_repairable(place)
        except InputError:
            if not verify_cache(place).ok:
                raise
            found[place] = []
    return {place: found[place] if place in found else repair_cache(place)[place] for place in places}


def _check_repairable(path: Path) -> None:
    """Raise InputError for a cache that is not a folder on this machine, MissingDataError for one that is nowhere."""
    refuse_address(path, "pull the cache, repair it here, and push it again")
    if path.suffix in HDF5_SUFFIXES:
        raise InputError(f"{path} is an export and cannot be repaired; export it again")
    if not path.exists():
        raise MissingDataError(f"there is no cache at {path}; make one with `ifcar extract`")


def _repair(path: Path) -> list[int]:
    report = verify_cache(path)
    if not report.metadata_usable:
        raise CacheDamageError(
            f"{path}: attributes or clip ids are damaged beyond repair ({report.damages[0]}); "
            "restore zarr.json and clips/ from a copy, or extract anew with --overwrite"
        )
    manifest = read_manifest(path)
    dropped = report.damaged_blocks()
    for block in dropped:
        remove_files([path / commit_name(block)])
        remove_files(path / name for name in manifest.block_files(block).values())
    remove_files(path / damage.path for damage in report.damages if damage.kind is DamageKind.STRAY)
    broken = [damage.path for damage in report.damages if damage.kind is DamageKind.METADATA]
    if broken:
        sound = not any(name == TABLES_RECORD or name.startswith(PROTOCOLS) for name in broken)
        _rewrite_metadata(path, manifest, protocols_complete=sound)
    return dropped


def _rewrite_metadata(path: Path, manifest: Manifest, *, protocols_complete: bool) -> None:
    """Write metadata and ids from the fingerprinted attributes, then record their checksums."""
    clips = read_clips(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        fresh = Path(folder, "cache")
        write_skeleton(fresh, manifest, clips)
        for name in sorted(list_files(fresh)):
            if not name.startswith(f"{PROTOCOLS}/"):
                write_atomic(path / name, (fresh / name).read_bytes())
    if not protocols_complete:
        shutil.rmtree(path / PROTOCOLS, ignore_errors=True)
    commit_tables(path, manifest, protocols_complete=protocols_complete)
