"""Live training data: new views of the training clips in every epoch, decoded ahead by worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.errors import InputError
from ifcar.extract.backbones.spec import Reads
from ifcar.extract.decode import open_source
from ifcar.extract.decoded_views import READERS, Decoded, clip_info
from ifcar.extract.picture_source import PictureSource, VideoInfo
from ifcar.extract.view_content import View
from ifcar.extract.views import ViewPolicy, plan_view
from ifcar.pipelines.extraction.sources import Source
from ifcar.pipelines.feed.examples import Examples, make_examples
from ifcar.pipelines.feed.labelled import read_labelled
from ifcar.pipelines.feed.subjects import slot_order

Key = tuple[int, int]  # clip number, epoch
PREFETCHED = 8  # views that a worker decodes ahead


def live_examples(source: Source, protocol: ProtocolTable, split: Split, num_views: int) -> Examples:
    """Return the clips of a split with the rows that a cache of `num_views` plain views would have for them.

    Raises:
        InputError: there is none.
    """
    found = read_labelled(protocol, split, source.clip_ids())
    clips = found.clips
    if not len(clips):
        raise InputError(
            f"{source.dataset.root}: protocol {protocol.name!r} has no {split.name.lower()} clips with pixels; check "
            "the split files' ids"
        )
    rows = clips[:, None] * num_views + np.arange(num_views)
    every = np.ones(rows.shape, np.bool_)
    examples = make_examples(
        split.name.lower(),
        found,
        protocol,
        segments=source.clip_table().segment_numbers()[clips],
        rows=rows,
        usable=every,
        plain=every,
        per_rate=every.sum(axis=1, keepdims=True).repeat(num_views, axis=1),
    )
    if found.slots is None:
        return examples
    unseen = np.zeros((len(examples), 1, source.dataset.num_instances or 1, 4))  # no boxes before videos are opened
    return replace(examples, orders=slot_order(found.slots, unseen))


class TrainingViews(Dataset[Decoded]):
    """(clip number, epoch) → an augmented view, the same for the same policy.

    Args:
        source: the dataset.
        policy: how views are sampled; its seed is the run's.
        reads: what the backbone reads of a view.
    """

    def __init__(self, source: Source, policy: ViewPolicy, reads: Reads = "pixels") -> None:
        self.read = READERS.get(reads)
        self.clips, self.dataset, self.policy = source.clips, source.dataset, policy
        self.proposals, self.proposals_fps, self.carried = source.proposals, source.tracks_fps, source.carried()
        self._infos: dict[int, VideoInfo] = {}

    def __getitem__(self, key: Key) -> Decoded:
        number, epoch = key
        clip = self.clips[number]
        assert clip.source is not None
        try:
            with open_source(clip.source, self._infos.get(number)) as opened:
                view = self._plan(number, epoch, opened)
                inputs = self.read(opened, self._infos[number], view, self.policy)
        except (InputError, OSError) as error:
            return Decoded(row=number, failure=str(error))
        return Decoded(row=number, view=view, inputs=torch.from_numpy(inputs))

    def _plan(self, number: int, epoch: int, opened: PictureSource) -> View:
        clip = self.clips[number]
        if number not in self._infos:
            self._infos[number] = clip_info(clip, opened)  # walks the whole file
        view = plan_view(
            self.policy,
            clip,
            self.dataset.tracks(clip.clip_id),
            self._infos[number],
            self.dataset.annotation_fps,
            view_number=self.policy.views + epoch,  # plain views come first
            proposals=None if self.proposals is None else self.proposals.boxes(clip.clip_id),
            proposals_fps=self.proposals_fps,
            carried=self.carried,
        )
        return self.dataset.complete(clip, view)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBatch:
    """The clips of one optimiser step, and what is asked about them: one thing each, or each of their instances.

    Args:
        step: its number.
        epoch: the pass it belongs to.
        clips: (C,) numbers of the clips, the whole batch.
        places: (B,) places in the examples, clip after clip.
        views: (B,) which of the C clips each example is of, ascending.
        mine: which of the C clips this process computes, ascending and next to each other.
    """

    step: int
    epoch: int
    clips: NDArray[np.int64]
    places: NDArray[np.int64]
    views: NDArray[np.int64]
    mine: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSampler:
    """Each step's batch and each process's share; depends on the seed, the examples and the group, never on a stop.

    Args:
        clips: (n,) clip number of each example.
        by_clip: places of the examples of each clip, see `Examples.by_clip`.
        steps_per_epoch: steps of a pass.
        seed: of the clips' order.
        process: number of this process.
        num_processes: how many share a batch.
    """

    clips: NDArray[np.int64]
    by_clip: Sequence[NDArray[np.int64]]
    steps_per_epoch: int
    seed: int
    process: int = 0
    num_processes: int = 1

    def batches(self, first: int, last: int) -> Iterator[StepBatch]:
        """Yield the batches of steps first … last − 1."""
        order, drawn = np.empty(0, np.int64), -1
        for step in range(first, last):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != drawn:
                order, drawn = np.random.default_rng([self.seed, epoch]).permutation(len(self.by_clip)), epoch
            asked = [self.by_clip[number] for number in np.array_split(order, self.steps_per_epoch)[place]]
            yield StepBatch(
                step=step,
                epoch=epoch,
                clips=self.clips[[places[0] for places in asked]],
                places=np.concatenate(asked),
                views=np.repeat(np.arange(len(asked)), [len(places) for places in asked]),
                mine=np.array_split(np.arange(len(asked)), self.num_processes)[self.process],
            )


class _Keys(Sampler[Key]):
    """What the workers decode, in order, over all steps that are left: the loader runs through epochs unbroken."""

    def __init__(self, sampler: BatchSampler, first: int, last: int) -> None:
        self.sampler, self.first, self.last = sampler, first, last

    def __iter__(self) -> Iterator[Key]:
        for step_batch in self.sampler.batches(self.first, self.last):
            for clip in step_batch.clips[step_batch.mine]:
                yield int(clip), step_batch.epoch


def load_training(
    views: TrainingViews, sampler: BatchSampler, first: int, last: int, num_workers: int
) -> Iterator[Decoded]:
    """Return this process's views of steps first … last − 1, one after another, decoded ahead by worker processes."""
    return iter(
        DataLoader(
            views,
            sampler=_Keys(sampler, first, last),
            batch_size=None,
            num_workers=num_workers,
            prefetch_factor=PREFETCHED if num_workers else None,
            multiprocessing_context="fork" if num_workers else None,
        )
    )


def stack_views(
    items: Sequence[Decoded], names: Iterable[str], device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what the backbone reads (B, …), and the named arrays of the views, each (B, …), on `device`.

    Raises:
        InputError: a clip could not be decoded.
    """
    inputs, rows = [], []
    for item in items:
        if item.view is None or item.inputs is None:
            raise InputError(f"{item.failure}; mend the clip or take it out of the split, then go on with --resume")
        inputs.append(item.inputs)
        rows.append(item.view.row())
    arrays = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in names}
    on_device = {name: value.to(device, non_blocking=True) for name, value in arrays.items()}
    return torch.stack(inputs).to(device, non_blocking=True), on_device
