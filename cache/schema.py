"""What a cache holds: array shapes, row numbering, protocol tables and the fingerprint.

Axis letters (the same everywhere): R rows, V views, T frames, T′ feature steps, N instances, C channels,
P pooled size, H W map, K classes. Row r = clip_number · V + view_number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ifcar.errors import InputError

FORMAT_VERSION = 1
ROWS_PER_SHARD = 256
MAX_SIDE = 1 << 14
INSTANCE_ARRAYS = frozenset({"instance_features", "boxes", "categories"})  # with an entry for every slot


class Status(IntEnum):
    """State of one row."""

    PENDING = 0
    DONE = 1
    FAILED = 2


class Category(IntEnum):
    """What sits in an instance slot."""

    EMPTY = 0
    SUBJECT = 1
    OBJECT = 2


class Split(IntEnum):
    """The part of a protocol that a clip belongs to."""

    NONE = 0
    TRAIN = 1
    TEST = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One array over rows.

    Args:
        shape: shape of one row.
        dtype: numpy type name.
        is_feature: True for the large arrays that are sharded with one row a chunk; False for small row tables.
    """

    shape: tuple[int, ...]
    dtype: str
    is_feature: bool

    def row_bytes(self) -> int:
        """Return the size of one row in bytes, without checksum."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSpec:
    """The dimensions of a cache; heads are built from it.

    Args:
        num_frames: T, frames sampled for a view.
        num_steps: T′, feature steps; equals T when no pixels are read.
        num_instances: N, instance slots.
        channels: C, feature channels; 0 when no pixels are read.
        pooled_size: P, RoIAlign output bins a side; 0 when no instances are pooled.
        grid_size: (H, W) of `grid_features`, or None when that array is not stored.
    """

    num_frames: int
    num_steps: int
    num_instances: int
    channels: int = 0
    pooled_size: int = 0
    grid_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.num_steps < 1 or self.num_instances < 1:
            raise InputError(
                f"frames, steps and instances must be at least 1, found T={self.num_frames}, "
                f"T′={self.num_steps}, N={self.num_instances}"
            )
        if self.num_frames % self.num_steps:
            raise InputError(f"T={self.num_frames} must be a multiple of T′={self.num_steps}")
        grid = self.grid_size or (0, 0)
        sizes = (self.num_frames, self.num_instances, self.channels, self.pooled_size, *grid)
        if len(grid) != 2 or not all(0 <= size <= MAX_SIDE for size in sizes):
            raise InputError(f"T, N, C, P, H, W are {sizes}; expected at most {MAX_SIDE:,} each")

    def arrays(self) -> dict[str, ArraySpec]:
        """Return every array over rows that this cache stores, by name."""
        t, s, n, c, p = self.num_frames, self.num_steps, self.num_instances, self.channels, self.pooled_size
        specs: dict[str, ArraySpec] = {}
        if c:
            if p:
                specs["instance_features"] = _feature(s, n, c, p, p)
            specs["frame_features"] = _feature(s, c)
            if self.grid_size is not None:
                specs["grid_features"] = _feature(s, c, *self.grid_size)
        specs["boxes"] = _table("float32", t, n, 4)
        specs["categories"] = _table("uint8", t, n)
        specs["frame_indices"] = _table("int32", t)
        specs["crop"] = _table("float32", 4)
        specs["flip"] = _table("bool")
        specs["sampling_rate"] = _table("float32")
        specs["augmented"] = _table("bool")
        specs["status"] = _table("uint8")
        return specs


def _feature(*shape: int) -> ArraySpec:
    return ArraySpec(shape=shape, dtype="float16", is_feature=True)


def _table(dtype: str, *shape: int) -> ArraySpec:
    return ArraySpec(shape=shape, dtype=dtype, is_feature=False)


def step_frames(num_frames: int, num_steps: int) -> NDArray[np.int64]:
    """Return which of the T frames each feature step stands for: the first frame of its window.

    With T = 8 and T′ = 4 that is (0, 2, 4, 6), the subsampling of the authors' released code and of
    Wang and Gupta 2018 §4.1 ("1 frame every 2"). RoIAlign and the heads' layout stream use the same frames.
    """
    if num_frames % num_steps:
        raise InputError(f"T={num_frames} must be a multiple of T′={num_steps}")
    return np.arange(num_steps) * (num_frames // num_steps)


def share_views(num_views: int, num_rates: int) -> list[int]:
    """Return how many of V views each of several sampling rates gets, by ascending rate.

    Three rates share as in the 30-view test of Zhang et al. (Multi-Label Activity Recognition using Activity-specific
    Features, §3.6), 9 + 12 + 9: the middle one has four views for three of each other. Any other number of rates share
    equally. What does not divide goes to the largest remainders, the middle first.
    """
    weights = np.array([3, 4, 3]) if num_rates == 3 else np.ones(num_rates)
    exact = num_views * weights / weights.sum()
    counts = np.floor(exact + 1e-9).astype(np.int64)
    middle = np.abs(np.arange(num_rates) - (num_rates - 1) / 2)
    order = np.lexsort((middle, -np.round(exact - counts, 9)))
    counts[order[: num_views - int(counts.sum())]] += 1
    return [int(count) for count in counts]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a cache's numbers come from.

    Args:
        identity: everything that changes a feature's value (dataset and annotation digest, backbone, SHA-256
            of its weights or "random:SEED", layer, stride, sampling, crop, pooled size, precision, views, seed).
            JSON values; enters the fingerprint.
        environment: package versions and the like; recorded, compared on resume, outside the fingerprint.
    """

    identity: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)


def fingerprint(spec: CacheSpec, identity: Mapping[str, Any], clip_ids: Sequence[str], num_views: int) -> str:
    """Return the SHA-256 over all that changes what a cache's rows hold, as hexadecimal text."""
    clips = hashlib.sha256("\n".join(clip_ids).encode()).hexdigest()
    payload = {
        "format_version": FORMAT_VERSION,
        "spec": asdict(spec),
        "identity": dict(identity),
        "clips": clips,
        "num_views": num_views,
    }
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def zeros_for_rows(spec: CacheSpec, num_rows: int) -> dict[str, NDArray[Any]]:
    """Return zero-filled arrays for `num_rows` rows, by array name; `status` is PENDING everywhere."""
    return {name: np.zeros((num_rows, *a.shape), dtype=_dtype(a.dtype)) for name, a in spec.arrays().items()}


def _dtype(name: DTypeLike) -> np.dtype[Any]:
    return np.dtype(name)
