"""Where things lie by default: data/, caches/, runs/ and weights/ under the current directory, or as IFCAR_… says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ifcar.errors import CacheMismatchError, InputError

Kind = Literal["data", "caches", "runs", "weights"]


def folder(kind: Kind) -> Path:
    """Return the folder of a kind of files; IFCAR_DATA, IFCAR_CACHES, IFCAR_RUNS and IFCAR_WEIGHTS override."""
    return Path(os.environ.get(f"IFCAR_{kind.upper()}") or kind)


def only_cache(cache: Path | None) -> Path:
    """Return the cache to work on: the named one, or the only one there is.

    Raises:
        InputError: none is named and there is not exactly one; the message lists them.
    """
    if cache is not None:
        return cache
    found = sorted(folder("caches").glob("*.zarr"))
    if not found:
        raise CacheMismatchError(
            f"no cache in {folder('caches')}/; make one with `ifcar extract --dataset toybox`, or name one with --cache"
        )
    if len(found) > 1:
        raise InputError("several caches; choose one with --cache: " + ", ".join(str(path) for path in found))
    return found[0]
