"""A cache's spec as JSON values, in the forms of format versions 1 and 2.

Version 1 stated six sizes, and the arrays followed from them. A cache keeps the version that it was made with. A spec
that version 1 could state has version 1's fingerprint in both, so that rows of the same content have the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ifcar.cache.arrays import ArraySpec, CacheSpec

FORMAT_VERSION = 2
FIRST_VERSION = 1


def spec_content(spec: CacheSpec, version: int) -> dict[str, Any]:
    """Return a spec in the form of a format version, which must be able to state it."""
    if version == FIRST_VERSION:
        return {
            "num_frames": spec.num_frames,
            "num_steps": spec.num_steps,
            "num_instances": spec.num_instances,
            "channels": spec.channels,
            "pooled_size": spec.pooled_size,
            "grid_size": spec.grid_size,
        }
    arrays = [{**asdict(array), "axes": list(array.axes), "classes": list(array.classes)} for array in spec.arrays]
    return {"sizes": dict(spec.sizes), "arrays": arrays}


def parse_spec(content: Mapping[str, Any]) -> CacheSpec:
    """Return the spec that JSON values of either form describe.

    Raises:
        InputError, KeyError, TypeError: they describe none.
    """
    if "arrays" not in content:
        grid = content["grid_size"]
        return CacheSpec.standard(**{**content, "grid_size": None if grid is None else tuple(grid)})
    lists = ({**array, "axes": tuple(array["axes"]), "classes": tuple(array["classes"])} for array in content["arrays"])
    return CacheSpec(sizes=dict(content["sizes"]), arrays=tuple(ArraySpec(**array) for array in lists))


def fingerprint_version(spec: CacheSpec) -> int:
    """Return the format version whose form of this spec is fingerprinted: the first that can state it."""
    first = parse_spec(spec_content(spec, FIRST_VERSION)) if spec.num_instances else None
    return FIRST_VERSION if spec == first else FORMAT_VERSION
