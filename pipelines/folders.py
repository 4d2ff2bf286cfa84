"""Where things lie by default: data/, caches/, runs/ and weights/ under the current directory, or as IFCAR_… says."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Literal

from ifcar.cache.addresses import place_of
from ifcar.cache.single import PARTS_SUFFIX
from ifcar.data_files import entries
from ifcar.errors import CacheMismatchError, InputError

Kind = Literal["data", "caches", "runs", "weights"]


def folder(kind: Kind) -> Path:
    """Return the folder of a kind of files; IFCAR_DATA, IFCAR_CACHES, IFCAR_RUNS and IFCAR_WEIGHTS override."""
    return Path(os.environ.get(f"IFCAR_{kind.upper()}") or kind)


def file_name(text: str) -> str:
    """Return text from data as the name of a file that stays in its folder and is shared with no other text.

    That is the text itself where it is short and plain, else what is plain of it and a digest.
    """
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:60].strip("-") + f"-{digest}"


def cache_paths() -> list[Path]:
    """Return the caches in the caches folder, by name; a folder that holds nothing is none."""
    return [path for path in entries(folder("caches"), ".zarr") if entries(path)]


def default_caches() -> list[Path]:
    """Return what `only_cache` chooses from: the caches in the caches folder, a list of parts in place of its parts."""
    lists = [path for path in entries(folder("caches")) if path.name.endswith(PARTS_SUFFIX) and path.is_file()]
    parts = {part.absolute() for path in lists for part in _parts_in(path)}
    return sorted([*lists, *(path for path in cache_paths() if path.absolute() not in parts)])


def _parts_in(path: Path) -> list[Path]:
    """Return the parts that a file lists; none where it lists none, which is said once it is opened."""
    from ifcar.cache.parts import part_places  # costs start-up time that folders without such a file need not pay

    try:
        return part_places(path)
    except InputError:
        return []


def only_cache(cache: Path | str | None) -> Path:
    """Return the cache to work on: the named one, or the only one there is.

    Raises:
        InputError: none is named and there is not exactly one; the message lists them.
    """
    if cache is not None:
        return place_of(cache)
    found = default_caches()
    if not found:
        raise CacheMismatchError(
            f"no cache in {folder('caches')}/; make one with `ifcar extract --dataset toybox`, or name one with --cache"
        )
    if len(found) > 1:
        raise InputError("several caches; choose one with --cache: " + ", ".join(str(path) for path in found))
    return found[0]
