"""What a cache's numbers mean: states, categories, splits, row numbering, protocol tables and the fingerprint.

Row r = clip_number · (V + A) + view_number: V plain views of a clip, then A augmented ones. Axis letters: see
`ifcar.cache.arrays`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.stored_spec import fingerprint_version, spec_content
from ifcar.errors import InputError

ROWS_PER_SHARD = 256


class Status(IntEnum):
    """State of one row; NOT_WANTED: an augmented view of a clip that no protocol trains on."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    NOT_WANTED = 3


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


def fingerprint(
    spec: CacheSpec,
    identity: Mapping[str, Any],
    clip_ids: Sequence[str],
    num_views: int,
    num_augmented_views: int = 0,
) -> str:
    """Return the SHA-256 over all that changes what a cache's rows hold, as hexadecimal text.

    A number of augmented views enters where there are any: a cache without has the fingerprint that it always had.
    """
    clips = hashlib.sha256("\n".join(clip_ids).encode()).hexdigest()
    version = fingerprint_version(spec)
    payload = {
        "format_version": version,
        "spec": spec_content(spec, version),
        "identity": dict(identity),
        "clips": clips,
        "num_views": num_views,
        **({"num_augmented_views": num_augmented_views} if num_augmented_views else {}),
    }
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
