"""Random forests on a cache: python benchmarks/forest.py CACHE PROTOCOL [SEEDS].

What the same arrays give without a neural network, 500 trees of scikit-learn's defaults a forest:

boxes      each view's boxes, how these change from step to step, how far the centres of any two slots are apart, and
           the categories
features   where the cache has them: at each step, the mean over subjects' and over objects' bins, and the frame's
both       the mean of the two forests' probabilities

Trained on every view that a head would draw, tested on plain views, whose probabilities are averaged. Printed: top-1,
or mAP of several labels, in percent, on the held-out part of the training split (from the rest of it), on test clips
from the same rest, as a run without refit has it, and on test clips from the whole training split; mean and deviation
over seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from ifcar.cache.open import open_cache
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split, step_frames
from ifcar.pipelines.feed.examples import Examples, read_examples
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.runs.schedule import ScheduleConfig

NUM_TREES = 500
SUBJECT, OBJECT = 1, 2
Rows = NDArray[np.int64]
Values = NDArray[np.float32]


def boxes_of(reader: CacheReader, rows: Rows) -> Values:
    """Return one vector a row: boxes (T, N, 4), their differences over time, between slots, and categories."""
    boxes, categories = reader.table("boxes")[rows], reader.table("categories")[rows]
    first, second = np.triu_indices(boxes.shape[2], 1)
    between = boxes[:, :, first, :2] - boxes[:, :, second, :2]
    parts = (boxes, np.diff(boxes, axis=1), between, categories)
    return np.concatenate([part.reshape(len(rows), -1).astype(np.float32) for part in parts], axis=1)


def features_of(reader: CacheReader, rows: Rows) -> Values:
    """Return one vector a row: for each of T′ steps the mean feature of subjects, of objects and of the frame (C)."""
    regions = reader.read_rows("instance_features", rows).astype(np.float32).mean(axis=(4, 5))  # (R, T′, N, C)
    steps = step_frames(reader.spec.num_frames, regions.shape[1])
    categories = reader.table("categories")[rows][:, steps]
    parts = [reader.read_rows("frame_features", rows).astype(np.float32)]
    for category in (SUBJECT, OBJECT):
        there = (categories == category)[..., None]
        parts.append((regions * there).sum(2) / there.sum(2).clip(min=1))
    return np.concatenate([part.reshape(len(rows), -1) for part in parts], axis=1)


def probabilities(train: Values, targets: NDArray[np.integer], tested: Values, num_classes: int, seed: int) -> Values:
    """Return (R, K): of one class a clip, targets (n,), or of each of several, targets (n, K)."""
    forest = RandomForestClassifier(NUM_TREES, random_state=seed, n_jobs=1).fit(train, targets)
    found = np.zeros((len(tested), num_classes), dtype=np.float32)
    if targets.ndim == 1:
        found[:, forest.classes_] = forest.predict_proba(tested)
        return found
    for number, (classes, of_class) in enumerate(zip(forest.classes_, forest.predict_proba(tested), strict=True)):
        found[:, number] = of_class[:, classes == 1].sum(axis=1)
    return found


def scores_of(reader: CacheReader, train: Examples, tested: Examples, num_classes: int, seed: int) -> dict[str, float]:
    """Return the measure that decides of each forest."""
    fitted, targets = train.rows[train.usable], train.targets[np.nonzero(train.usable)[0]]
    rows, places = tested.plain_rows()
    inputs = {"boxes": boxes_of}
    if "instance_features" in reader.spec:
        inputs["features"] = features_of
    of_clips = {}
    for name, read in inputs.items():
        of_views = probabilities(read(reader, fitted), targets, read(reader, rows), num_classes, seed)
        of_clips[name] = np.zeros((len(tested), num_classes), dtype=np.float32)
        np.add.at(of_clips[name], places, of_views)
    if len(of_clips) > 1:
        of_clips["both"] = sum(of_clips.values(), start=np.zeros((), dtype=np.float32))
    kind = tested.kind
    return {name: 100 * kind.measures(found, tested.targets)[kind.measure] for name, found in of_clips.items()}


def main(cache: Path, name: str, seeds: int) -> None:
    """Print a line a part and forest."""
    reader = open_cache(cache)
    protocol = reader.protocol(name)
    train, test = (read_examples(reader, protocol, split) for split in (Split.TRAIN, Split.TEST))
    division = hold_out(train, protocol, ScheduleConfig().held_out)
    assert division.held_out is not None
    num_classes = len(protocol.labels.classes)
    parts = {
        "held out": (division.fitting, division.held_out),
        "test, without the held-out part": (division.fitting, test),
        "test": (train, test),
    }
    for part, (fitted, tested) in parts.items():
        found = [scores_of(reader, fitted, tested, num_classes, seed) for seed in range(seeds)]
        for kind in found[0]:
            values = np.array([scores[kind] for scores in found])
            print(
                f"{cache.stem} {name}, {part}, {kind}, n {len(tested)}: "
                f"{values.mean():.1f} ± {values.std(ddof=min(1, seeds - 1)):.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3)
