"""What a run's heads read of a new video, as its cache would hold it: rows of its views, and live features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ifcar.cache.arrays import RowArrays
from ifcar.errors import CacheMismatchError, InputError, UnavailableError
from ifcar.extract.decoded_views import ViewDataset
from ifcar.extract.extractor import EngineOptions, FeatureExtractor, fault_of_features
from ifcar.extract.view_content import View
from ifcar.pipelines.extraction.backbones import load_backbone
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.runs.data import RunData
from ifcar.pipelines.runs.own_weights import own_weights
from ifcar.pipelines.runs.recipe import Recipe


def view_arrays(run: Path, data: RunData, views: Sequence[View], reads: Sequence[str]) -> RowArrays:
    """Return what the heads read of the views besides features, each (V, …).

    Raises:
        InputError: they read what only a data set gives.
    """
    rows = [view.row() for view in views]
    wanted = [name for name in reads if data.spec.array(name).role != "feature"]
    for name in wanted:
        if name not in rows[0]:
            raise InputError(
                f"{run}: reads the array {name!r}, which {data.identity['dataset']['name']} gives and a video with "
                "boxes does not, nor does its detector; `ifcar evaluate` scores it from its cache"
            )
    return {name: np.stack([row[name] for row in rows]) for name in wanted}


def live_features(
    run: Path,
    homes: Sequence[Path],
    data: RunData,
    recipe: Recipe,
    views: ViewDataset,
    weights: str | None,
    device: str,
    progress: Progress,
) -> RowArrays:
    """Return the arrays over views that a cache would hold, float16, by name; see `own_weights` for `homes`.

    Raises:
        InputError: the weights have to be named, or cannot be fetched; a view cannot be read, or its features are not
            finite.
        CacheMismatchError: the weights are not those that the run was trained on.
    """
    assert recipe.pooled is not None and recipe.precision is not None
    weights = own_weights(run, recipe, homes) if weights is None else weights
    try:
        backbone, found = load_backbone(recipe.backbone, weights, progress)
    except UnavailableError as error:
        said = str(error)
        for entry in recipe.backbone.published.values():  # whose way out may be other weights
            said = said.removesuffix(f"; {entry.ways_out}")
        raise UnavailableError(f"{run}: {said}; name the weights that it was trained on with --weights") from error
    if found != recipe.weights:
        raise CacheMismatchError(
            f"{run}: trained on {recipe.backbone.name} weights {recipe.weights}, but {weights} are {found}; "
            "name the run's own with --weights"
        )
    options = EngineOptions(num_workers=0, device=device, precision=recipe.precision)
    extractor = FeatureExtractor(backbone, data.spec, recipe.pooled, options)
    parts: list[RowArrays] = []
    progress.start("running the backbone", len(views))
    for start in range(0, len(views), options.batch_size):
        batch = [views[row] for row in range(start, min(start + options.batch_size, len(views)))]
        _refuse(item.failure for item in batch)
        parts.append(extractor(batch))
        _refuse(fault_of_features(parts[-1], place) for place in range(len(batch)))
        progress.advance(len(batch))
    progress.finish()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _refuse(faults: Iterable[str]) -> None:
    """Raise InputError with the first fault that is not empty."""
    for fault in filter(None, faults):
        raise InputError(fault)
