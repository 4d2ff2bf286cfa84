"""Where things lie by default: data/, caches/, runs/ and weights/ under the current directory, or as IFCAR_… says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Kind = Literal["data", "caches", "runs", "weights"]


def folder(kind: Kind) -> Path:
    """Return the folder of a kind of files; IFCAR_DATA, IFCAR_CACHES, IFCAR_RUNS and IFCAR_WEIGHTS override."""
    return Path(os.environ.get(f"IFCAR_{kind.upper()}") or kind)
