"""What to do where a cache lacks an array."""

from __future__ import annotations

from collections.abc import Sequence

from ifcar.errors import nearest

_BOXES_ONLY = "or read boxes only: `--streams layout`, of head base where this head has no streams"
_MADE_BY = {
    "instance_features": "extract with a backbone, not with --pooled none",
    "frame_features": "extract with a backbone",
    "grid_features": "extract with a backbone and --grid",
}


def lacking(name: str, known: Sequence[str]) -> str:
    """Return "no array …" with what there is instead and what makes it, for messages about a missing array."""
    hint = "" if name in _MADE_BY else nearest(name, known)
    made_by = _MADE_BY.get(name, "extract a dataset that gives it")
    if name in _MADE_BY and not {*_MADE_BY} & {*known}:  # a cache of boxes alone
        made_by = f"{made_by}, {_BOXES_ONLY}"
    return f"no array {name!r}{hint}; there are {', '.join(known)}; {made_by}"
