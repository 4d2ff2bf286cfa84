"""What CCAU's streams share and look at: python benchmarks/toybox_views_facts.py runs/toybox-views-table2.

For every system of the comparison with several streams, over its runs:
- R@1: how often, of the test windows' contexts c_N of one stream, that of the same window has the largest product with
  one of another stream, both ways, beside 1/n;
- mass: the share of the attention p that falls into the boxes of the hands and objects that act, beside the share of
  the picture that these boxes take, in the cameras ego and third-1.
"""

from __future__ import annotations

import functools
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.toybox_views import ToyboxViews
from ifcar.extract.toybox.activities import plan_recording
from ifcar.extract.toybox.cameras import FILM_HEIGHT, FILM_WIDTH, acting_boxes
from ifcar.extract.toybox.encode import FRAMES_PER_SECOND
from ifcar.pipelines.comparison.columns import mean_and_deviation
from ifcar.pipelines.comparison.store import read_comparison
from ifcar.pipelines.feed.batches import open_batches
from ifcar.pipelines.runs.trained import TrainedRun, open_trained

WINDOW = round(ToyboxViews.window_sec * FRAMES_PER_SECOND)
CAMERA_OF = {"ego": "ego", "third": "third-1"}


@functools.cache
def boxes_of(camera: str, number: int, seed: int) -> NDArray[np.float64]:
    """Return (F, 4) what acts in a recording of the data set of this seed, in a camera's picture."""
    return acting_boxes(camera, plan_recording(seed, number), seed)


def covered(boxes: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return (HW,) the share of each cell that boxes (F, 4) cover, the mean over them."""
    edges = np.arange(side + 1) / side
    low, high = boxes[:, :2] / (FILM_WIDTH, FILM_HEIGHT), boxes[:, 2:] / (FILM_WIDTH, FILM_HEIGHT)
    within = np.clip(np.minimum(edges[1:, None], high[:, None]) - np.maximum(edges[:-1, None], low[:, None]), 0, None)
    shares: NDArray[np.float64] = (within[:, :, None, 1] * within[:, None, :, 0] * side**2).mean(0).ravel()
    return shares


def told(trained: TrainedRun) -> dict[str, NDArray[np.float32]]:
    """Return what the head explains of the first row of each test window."""
    batches = open_batches(trained.reader, trained.arrays, [trained.tested], "cpu", "auto")
    first = trained.tested.rows[np.arange(len(trained.tested)), trained.tested.plain.argmax(1)]
    found = trained.head.eval().explain(batches.batch(first))
    return {name: np.asarray(value.float()) for name, value in found.items()}


def retrieval(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return R@1 between contexts (n, D), the mean of both ways."""
    products = torch.from_numpy(one @ other.T)
    own = torch.arange(len(one))
    return float(np.mean([(side.argmax(1) == own).float().mean() for side in (products, products.T)]))


def attended(weights: NDArray[np.float32], segments: list[str], camera: str, seed: int) -> tuple[float, float]:
    """Return the mean share of p (n, N, HW) within what acts, and the share of the picture that this is."""
    blocks, cells = weights.shape[1:]
    side, mass, area = round(cells**0.5), [], []
    for own, segment in zip(weights, segments, strict=True):
        start = int(segment.rpartition("_t")[2]) * FRAMES_PER_SECOND
        boxes = boxes_of(camera, int(segment[1:5]) - 1, seed)[start : start + WINDOW].reshape(blocks, -1, 4)
        shares = np.stack([covered(block, side) for block in boxes])
        mass.append((own * shares).sum(1).mean())
        area.append(shares.mean())
    return float(np.mean(mass)), float(np.mean(area))


def main(folder: Path) -> None:
    """Print a line a system and measure."""
    seen: set[tuple[str, ...]] = set()
    for row in read_comparison(folder).rows:
        if row.runs in seen:
            continue
        seen.add(row.runs)
        facts: dict[str, list[float]] = {}
        for path in row.runs:
            trained = open_trained(Path(path))
            dataset = DATASETS.get(trained.reader.identity["dataset"]["name"])
            if not issubclass(dataset, ToyboxViews):
                sys.exit(f"{path}: learned from {dataset.name}; expected runs on one of the sets of toybox-views")
            found, segments = told(trained), trained.tested.names.tolist()
            streams = [name.removesuffix("/context") for name in found if name.endswith("/context")]
            for one, other in combinations(streams, 2):
                value = retrieval(found[f"{one}/context"], found[f"{other}/context"])
                facts.setdefault(f"R@1 {one} – {other} (1/n = {100 / len(segments):.1f})", []).append(value)
            for stream in CAMERA_OF.keys() & set(streams):
                mass, area = attended(found[f"{stream}/attention"], segments, CAMERA_OF[stream], dataset.seed)
                facts.setdefault(f"mass {stream} (area {100 * area:.1f})", []).append(mass)
        for name, values in facts.items():
            print(f"| {row.system} | {name} | {mean_and_deviation(values)} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
