"""A random forest on boxes and their differences: python benchmarks/forest.py CACHE PROTOCOL [SEEDS].

What the same boxes give without a neural network: 500 trees of scikit-learn's defaults on each view's boxes, how these
change from step to step, and how far the centres of any two slots are apart, with the categories. Trained on every view
that a head would draw, tested on plain views, whose probabilities are averaged. Printed: top-1 in percent on the
held-out part of the training split (from the rest of it) and on test clips (from all of it), mean and deviation over
seeds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from ifcar.cache.open import open_cache
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.pipelines.feed.examples import Examples, read_examples
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.runs.schedule import ScheduleConfig

NUM_TREES = 500


def features_of(reader: CacheReader, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return one vector a row: boxes (T, N, 4), their differences over time, between slots, and categories."""
    boxes, categories = reader.table("boxes")[rows], reader.table("categories")[rows]
    first, second = np.triu_indices(boxes.shape[2], 1)
    between = boxes[:, :, first, :2] - boxes[:, :, second, :2]
    parts = (boxes, np.diff(boxes, axis=1), between, categories)
    return np.concatenate([part.reshape(len(rows), -1).astype(np.float32) for part in parts], axis=1)


def top1(reader: CacheReader, train: Examples, tested: Examples, seed: int) -> float:
    """Return the share of tested clips whose class has the largest mean probability over its plain views."""
    forest = RandomForestClassifier(NUM_TREES, random_state=seed, n_jobs=os.cpu_count())
    drawn = train.usable
    forest.fit(features_of(reader, train.rows[drawn]), train.targets[np.nonzero(drawn)[0]])
    rows, places = tested.plain_rows()
    sums = np.zeros((len(tested), len(forest.classes_)))
    np.add.at(sums, places, forest.predict_proba(features_of(reader, rows)))
    return float((forest.classes_[sums.argmax(axis=1)] == tested.targets).mean())


def main(cache: Path, name: str, seeds: int) -> None:
    """Print the two figures."""
    reader = open_cache(cache)
    protocol = reader.protocol(name)
    train, test = (read_examples(reader, protocol, split) for split in (Split.TRAIN, Split.TEST))
    division = hold_out(train, protocol, ScheduleConfig().held_out)
    assert division.held_out is not None
    for part, fitted, tested in (("held out", division.fitting, division.held_out), ("test", train, test)):
        found = 100 * np.array([top1(reader, fitted, tested, seed) for seed in range(seeds)])
        print(f"{cache} {name}, {part}, n {len(tested)}: {found.mean():.1f} ± {found.std(ddof=min(1, seeds - 1)):.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3)
