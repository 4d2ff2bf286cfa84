"""What interventions need beside a batch: averages over training views, and another test clip for each view."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ifcar.cache.arrays import ArraySpec
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.diagnosis.interventions import Intervention
from ifcar.pipelines.diagnosis.scene import Scene, as_stored, by_slot, held_slots
from ifcar.pipelines.feed.batches import BatchReader, read_batch
from ifcar.pipelines.feed.examples import read_examples
from ifcar.pipelines.runs.trained import TrainedRun

MOST_AVERAGED = 2048  # training views, at even distances: enough for an average, and quick to read
CHUNK = 64


class Stage:
    """Makes what a head is shown of test clips under an intervention.

    Args:
        trained: the run.
        batches: gives the test clips' rows.
        seed: of everything that is drawn.
    """

    def __init__(self, trained: TrainedRun, batches: BatchReader, seed: int) -> None:
        self.trained, self.batches, self.seed = trained, batches, seed
        self.spec = trained.reader.spec
        self.rows, self.places = trained.tested.plain_rows()
        self._averages: dict[str, Tensor] = {}

    def change(
        self, intervention: Intervention, touched: Sequence[ArraySpec]
    ) -> Callable[[InstanceBatch, slice], InstanceBatch]:
        """Return what makes changed batches, as `ifcar.pipelines.scoring.scores.predict` takes it.

        Args:
            intervention: what is done.
            touched: the arrays that it changes.
        """
        sizes = [self.spec.shape(array.name)[axis] for array in touched for axis in array.time_axes]
        windows = min((size for size in sizes if size > 1), default=1)

        def changed(batch: InstanceBatch, part: slice) -> InstanceBatch:
            scene = Scene(
                batch=batch,
                spec=self.spec,
                places=range(len(self.rows))[part],
                seed=self.seed,
                windows=windows,
                average=self.average,
                other=functools.cache(lambda: self._other(part)),
            )
            own = {a.name: intervention.change(batch.array(a.name), a, scene) for a in touched}
            return InstanceBatch({**batch.arrays, **own})

        return changed

    @functools.cached_property
    def donors(self) -> NDArray[np.int64]:
        """(rows,) for each plain row the place, among the plain rows, of another clip's that stands in for it.

        The clips stand in a circle in random order, and each one's stand-in is the next that has instances.
        """
        clips = self.trained.tested.clips
        row_clips = clips[self.places]
        names = np.unique(row_clips)
        fit = names
        if "categories" in self.spec:
            held = self.trained.reader.table("categories")[self.rows].any(axis=(1, 2))
            fit = np.unique(row_clips[held])
        order = np.random.default_rng(self.seed).permutation(fit if len(fit) > 1 else names)
        following = dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True))
        theirs = {clip: np.flatnonzero(self.places == self.places[row_clips == clip][0]) for clip in names.tolist()}
        found = np.empty(len(self.rows), np.int64)
        for clip in names.tolist():
            stands_in = theirs[following.get(clip, int(order[0]))]
            own = np.flatnonzero(row_clips == clip)
            found[own] = stands_in[np.arange(len(own)) % len(stands_in)]
        return found

    def average(self, array: ArraySpec) -> Tensor:
        """Return an array's average over training views, times and the instances that are there, (1, its axes)."""
        if array.name not in self._averages:
            self._averages[array.name] = average_of(array, self.trained.reader, self._training_rows)
        return self._averages[array.name]

    @functools.cached_property
    def _training_rows(self) -> NDArray[np.int64]:
        """Plain rows of training clips, `MOST_AVERAGED` at most, at even distances."""
        rows = np.unique(read_examples(self.trained.reader, self.trained.protocol, Split.TRAIN).plain_rows()[0])
        return rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_AVERAGED)).astype(np.int64)]

    def _other(self, part: slice) -> InstanceBatch:
        donors = self.donors[part]
        return self.batches.batch(self.rows[donors], self.trained.tested.order_of(self.places[donors]))


def average_of(array: ArraySpec, reader: CacheReader, rows: NDArray[np.int64]) -> Tensor:
    """Return the average of an array over these rows, its times, and its slots that hold an instance.

    Returns:
        (1, its axes), with 1 for time and slots; rounded where the array holds whole numbers.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    names = [array.name, *(["categories"] if "categories" in reader.spec else [])]
    for start in range(0, len(rows), CHUNK):
        batch = read_batch(reader, names, rows[start : start + CHUNK])
        value = batch.array(array.name)
        if array.is_by_slot:
            values = by_slot(value, array)[held_slots(array, batch)]
        else:
            values = value.movedim([axis + 1 for axis in array.time_axes], [*range(1, 1 + len(array.time_axes))])
            values = values.flatten(0, len(array.time_axes))
        total = total + values.double().sum(dim=0)
        count += len(values)
    mean = total / max(1, count)
    if not value.is_floating_point():
        mean = mean.round()
    if array.is_by_slot:
        return as_stored(mean[None, None, None], array)
    for axis in array.time_axes:
        mean = mean.unsqueeze(axis)
    return mean.unsqueeze(0)
