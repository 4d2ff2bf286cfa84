"""`ifcar cache verify --recompute N`: decode rows of a cache again, run the backbone again, and compare.

What may differ is known beforehand. Frames, boxes and categories are integers, or floats that the same arithmetic
gives: they are the same. Features are stored as float16, whose neighbours lie 2⁻¹⁰ of the value apart: two computations
that agree as far as float32 goes store the same number or its neighbour, whatever the batch, the threads or the device.
bf16 keeps 8 bits, so a rounding moves a value by up to 2⁻⁸, and through a whole network the features of two
computations lie a percent or two apart: measured, see docs/cache.md. Beyond it pixels, weights or code are others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import ArraySpec, RowArrays
from ifcar.cache.manifest import differing, new_manifest
from ifcar.cache.open import open_cache
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Status
from ifcar.counts import count_of
from ifcar.errors import CacheMismatchError, InputError
from ifcar.pipelines.engines.local import engine_options
from ifcar.pipelines.extraction.cache_options import RecomputeConfig
from ifcar.pipelines.extraction.preparation import Preparation, prepare
from ifcar.pipelines.extraction.remake import options_of
from ifcar.pipelines.progress import Progress

FEATURE_BOUNDS: Mapping[str, float] = {"fp32": 2**-10, "bf16": 2**-5}
"""Largest ‖now − stored‖ / ‖stored‖ of a row's features that the backbone's precision explains."""
WHY = {
    "fp32": "features may differ by 2⁻¹⁰ of a row, a step of the float16 in which they are stored",
    "bf16": "features may differ by 2⁻⁵ of a row, eight roundings of bf16's 8 bits",
}
FLOAT_BOUND = 2**-20  # the same of boxes and crops: float32, whose rounding is 2⁻²⁴, through a few operations


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayDifference:
    """How an array's rows differ from those that were computed again.

    Args:
        name: of the array.
        largest: largest difference of two values.
        mean: mean of the absolute differences.
        cosine: smallest cosine between a row as it is stored and as it is now; 1 where both are zero.
        relative: largest ‖now − stored‖ / ‖stored‖ of a row.
        bound: what `relative` may be; 0: nothing may differ.
        beyond: the rows that differ by more.
    """

    name: str
    largest: float
    mean: float
    cosine: float
    relative: float
    bound: float
    beyond: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recomputed:
    """What computing rows again showed.

    Args:
        rows: those that were drawn, ascending.
        arrays: how each array differs over the rows that could be read.
        faults: row → why it is not what the cache holds, one line each.
        environment: (name, when the cache was begun, now) of what has changed; None: not recorded.
        precision: the backbone's, or "" where it reads nothing.
    """

    rows: tuple[int, ...]
    arrays: Sequence[ArrayDifference]
    faults: Mapping[int, str]
    environment: Sequence[tuple[str, str | None, str | None]]
    precision: str

    def verdict(self) -> str:
        """Return whether the rows are what the cache holds, by which bound, and where to look where they are not."""
        num, bad = len(self.rows), len(self.faults)
        why = WHY.get(self.precision, "no row has features, and all else has to be the same")
        if not bad:
            return f"{count_of(num, 'row is')} what the cache holds: {why}"
        where = (
            "every one, so look at weights, code and decoder"
            if bad == num > 1
            else "not all, so their own videos or annotations have changed since, or their decoder reads them otherwise"
        )
        return f"{count_of(bad, 'is', of=f'{num} rows')} not what the cache holds ({where}); {why}"


def recompute(cache: Path, config: RecomputeConfig, progress: Progress) -> Recomputed:
    """Compute rows of a cache again and compare them with what it holds; the cache stays as it is.

    Raises:
        MissingDataError, InputError: cache, data or weights are not at hand.
        CacheMismatchError: what is at hand makes another cache; names in what.
    """
    reader = open_cache(cache)
    options = options_of(
        reader, data_root=config.data_root, weights=config.weights, boxes=config.boxes, device=config.device
    )
    preparation = prepare(options, progress, reader.clip_ids if options.part is None else None)
    _check_same(reader, preparation)
    rows = drawn_rows(reader, config)
    now, faults = _computed(preparation, rows, progress)
    read = [row for row in rows if row not in faults]
    precision = options.precision if preparation.backbone is not None else ""
    arrays = []
    for array in reader.spec.arrays:
        if read and array.name in now:
            stored = reader.read_rows(array.name, np.array(read))
            arrays.append(_difference(array, read, stored, now[array.name], precision))
    for difference in arrays:
        for row in difference.beyond:
            faults.setdefault(row, f"{reader.describe_row(row)}: {difference.name} is not what it was")
    environment = _changes(reader.environment, preparation.provenance.environment)
    reader.close()
    return Recomputed(
        rows=tuple(rows),
        arrays=arrays,
        faults=dict(sorted(faults.items())),
        environment=environment,
        precision=precision,
    )


def drawn_rows(reader: CacheReader, config: RecomputeConfig) -> list[int]:
    """Return which rows are computed again, ascending. Raises InputError when none is done."""
    done = np.flatnonzero(reader.status() == Status.DONE)
    if not len(done):
        raise InputError(f"{reader.path}: no row is done; run the same `ifcar extract` first")
    drawn = np.random.default_rng(config.seed).choice(done, min(config.rows, len(done)), replace=False)
    return [int(row) for row in np.sort(drawn)]


def _check_same(reader: CacheReader, preparation: Preparation) -> None:
    identity = preparation.identity()
    new = new_manifest(**identity)
    if new.fingerprint != reader.fingerprint:
        said = differing(reader.manifest, reader.clip_ids, new, identity["clip_ids"])
        raise CacheMismatchError(
            f"{reader.path}: what is here now makes another cache: {said}. Name the cache's own files with "
            "--data-root, --weights or --boxes; a feature_version is that of the ifcar which made it"
        )


def _computed(preparation: Preparation, rows: Sequence[int], progress: Progress) -> tuple[RowArrays, dict[int, str]]:
    """Return the arrays of the rows that can be computed, in order, and why the others cannot."""
    options = engine_options(preparation.config, 0)
    views, extractor = preparation.views(), preparation.extractor(options)
    parts: dict[str, list[NDArray[Any]]] = {}
    faults: dict[int, str] = {}
    progress.start("computing rows again", len(rows))
    for start in range(0, len(rows), options.batch_size):
        decoded = [views[row] for row in rows[start : start + options.batch_size]]
        faults |= {item.row: item.failure for item in decoded if item.failure}
        batch = [item for item in decoded if not item.failure]
        if batch:
            own = [item.view.row() for item in batch if item.view is not None]
            features = extractor(batch)
            for name, values in {**{name: np.stack([row[name] for row in own]) for name in own[0]}, **features}.items():
                parts.setdefault(name, []).append(values)
        progress.advance(len(decoded))
    progress.finish()
    return {name: np.concatenate(values) for name, values in parts.items()}, faults


def _difference(
    array: ArraySpec, rows: Sequence[int], stored: NDArray[Any], now: NDArray[Any], precision: str
) -> ArrayDifference:
    """Compare an array's rows; integers have to be the same."""
    a, b = (side.reshape(len(rows), -1).astype(np.float64) for side in (stored, now.astype(stored.dtype)))
    apart = np.abs(b - a)
    length, other, gap = (np.linalg.norm(side, axis=1) for side in (a, b, b - a))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(gap == 0, 0.0, gap / length)
        cosine = np.where(length + other == 0, 1.0, (a * b).sum(axis=1) / (length * other))
    cosine = np.nan_to_num(cosine, nan=0.0)
    bound = FEATURE_BOUNDS[precision] if array.role == "feature" else FLOAT_BOUND if stored.dtype.kind == "f" else 0.0
    return ArrayDifference(
        name=array.name,
        largest=float(apart.max()),
        mean=float(apart.mean()),
        cosine=float(cosine.min()),
        relative=float(relative.max()),
        bound=bound,
        beyond=tuple(row for row, value in zip(rows, relative, strict=True) if not value <= bound),
    )


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str | None, str | None]]:
    pairs = {name: (then.get(name), now.get(name)) for name in {**then, **now}}
    return [
        (name, None if old is None else str(old), None if new is None else str(new))
        for name, (old, new) in pairs.items()
        if old != new
    ]
