"""Detected in place of annotated boxes: the same clips from a second cache that differs in its boxes only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifcar.cache.open import open_cache
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.errors import CacheMismatchError, InputError
from ifcar.pipelines.feed.examples import Examples, read_examples
from ifcar.pipelines.runs.trained import TrainedRun

# What an identity says of views that are drawn at random, which training alone sees.
OF_TRAINING = ("num_augmented_views", "seed", "min_scale", "flip", "training_clips", "version")


@dataclass(frozen=True, kw_only=True)
class DetectedBoxes:
    """The test clips of a run, as a cache with other boxes holds them.

    Args:
        reader: that cache, open.
        tested: the test clips, in the order of the run's own.
    """

    reader: CacheReader
    tested: Examples


def open_detected(path: Path, trained: TrainedRun) -> DetectedBoxes:
    """Open a cache of the run's clips with other boxes.

    Raises:
        InputError: instances have labels, which other boxes have not; it is the run's own cache; clips are missing.
        CacheMismatchError: it differs in more than its boxes, or lacks an array that the head reads.
    """
    own = trained.reader
    if trained.tested.orders is not None:
        raise InputError(f"--detected {path}: here instances have the labels, which detected boxes do not have")
    reader = open_cache(path)
    if reader.fingerprint == own.fingerprint:
        raise InputError(f"--detected {path}: the cache that the run was trained from, with the same boxes")
    _check_alike(path, reader, trained)
    protocol = reader.protocol(trained.config.protocol).only(trained.config.labels)
    if protocol.labels.classes != trained.protocol.labels.classes:
        raise CacheMismatchError(f"--detected {path}: protocol {protocol.name!r} has other classes there")
    tested = read_examples(reader, protocol, Split.TEST)
    place = {name: k for k, name in enumerate(tested.names.tolist())}
    names = trained.tested.names.tolist()
    missing = [name for name in names if name not in place]
    if missing:
        raise InputError(
            f"--detected {path}: lacks {len(missing)} of {len(names)} test clips, {missing[0]} first; finish it with "
            "`ifcar extract`, --retry-failed for failed clips"
        )
    tested = tested.part(tested.name, np.array([place[name] for name in names]))
    if not np.array_equal(tested.targets, trained.tested.targets):
        raise CacheMismatchError(f"--detected {path}: the same test clips have other labels there")
    return DetectedBoxes(reader=reader, tested=tested)


def _check_alike(path: Path, reader: CacheReader, trained: TrainedRun) -> None:
    """Refuse a cache that differs from the run's own in views or backbone, or lacks what the head reads."""
    own = trained.reader
    for what in ("views", "backbone"):
        theirs, ours = reader.identity.get(what, {}), own.identity.get(what, {})
        keys = [key for key in {**ours, **theirs} if key not in OF_TRAINING and theirs.get(key) != ours.get(key)]
        if keys:
            raise CacheMismatchError(
                f"--detected {path}: {what} differ in {keys[0]}, {theirs.get(keys[0])} there and {ours.get(keys[0])} "
                f"in {own.path}; expected one that differs in its boxes only: the same `ifcar extract`, with --boxes"
            )
    names = [r.identity.get("dataset", {}).get("name") for r in (reader, own)]
    if names[0] != names[1]:
        raise CacheMismatchError(f"--detected {path}: of dataset {names[0]!r}; expected {names[1]!r}")
    for name in trained.arrays:
        if reader.spec.shape(name) != own.spec.shape(name):
            raise CacheMismatchError(
                f"--detected {path}: {name} is {reader.spec.shape(name)} there; expected {own.spec.shape(name)}"
            )
