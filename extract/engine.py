"""The extraction engine: worker processes decode ahead, the backbone runs, a thread writes finished blocks."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self, TypeVar

import torch

from ifcar.cache.arrays import CacheSpec, RowArrays
from ifcar.cache.blocks import BlockStage
from ifcar.cache.schema import Status
from ifcar.extract.decode_ahead import decode_ahead
from ifcar.extract.decoded_views import Decoded, ViewDataset, naming_lost_decoders
from ifcar.extract.extractor import EngineOptions, FeatureExtractor, fault_of_features, present

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockTask:
    """Rows of one block to compute.

    Args:
        block: block number.
        rows: the rows, ascending, at least one; a block's other rows are not wanted.
        replaces: the block is committed; its other rows stay as they are.
    """

    block: int
    rows: Sequence[int]
    replaces: bool = False


def extract_rows(
    stage: BlockStage,
    views: ViewDataset,
    extractor: FeatureExtractor,
    options: EngineOptions,
    tasks: Iterable[BlockTask],
    on_rows: Callable[[int, int], None],
    on_block: Callable[[int, RowArrays, dict[int, str], dict[int, str]], object],
) -> None:
    """Compute blocks.

    A batch never crosses a block, so a block's bytes depend neither on where an earlier run stopped nor on who computes
    the blocks beside it. Decoding runs ahead into the next task, so `tasks` is read before the task in front is done.

    Args:
        stage: the open cache.
        views: decodes rows.
        extractor: turns decoded views into features.
        options: batch size and workers.
        tasks: what to compute, in order.
        on_rows: called with (rows just finished, how many of them failed).
        on_block: called in a thread of its own with (block, its arrays, row → why it failed, row → what is to be said
            of it), one block at a time.

    Raises:
        LostProcessError: a decoding process was killed.
    """
    taken: deque[BlockTask] = deque()

    def order() -> Iterator[Sequence[int]]:
        for task in tasks:
            taken.append(task)
            yield task.rows

    decoded = decode_ahead(views, order(), options)
    with (
        naming_lost_decoders(),
        _cores_for_decoders(extractor.device),
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer") as thread,
    ):
        writing: Future[object] | None = None
        begun = _begun(stage, taken, decoded, extractor, options.batch_size, on_rows)
        for block, batch, features, is_last in begun if extractor.device.type == "cpu" else _one_ahead(begun):
            bad = block.fill(batch, features())
            on_rows(len(batch), bad)
            if is_last:
                if writing is not None:
                    writing.result()
                writing = thread.submit(on_block, block.number, block.arrays(), block.failures, block.notes)
        if writing is not None:
            writing.result()


def _begun(
    stage: BlockStage,
    taken: deque[BlockTask],
    decoded: Iterator[Decoded],
    extractor: FeatureExtractor,
    batch_size: int,
    on_rows: Callable[[int, int], None],
) -> Iterator[_Begun]:
    """Yield batch after batch, given to the device; a block's last one may be empty."""
    while (first := next(decoded, None)) is not None:
        task = taken.popleft()
        block = _Block.of_task(stage, task, extractor.spec)
        batch: list[Decoded] = []
        rows = itertools.islice(itertools.chain([first], decoded), len(task.rows))
        for count, item in enumerate(rows, 1):
            if item.failure:
                block.failures[item.row] = item.failure
                on_rows(1, 1)
            else:
                batch.append(item)
            is_last = count == len(task.rows)
            if len(batch) == batch_size or is_last:
                features = extractor.begin(batch)
                yield _Begun(block, [replace(item, inputs=None) for item in batch], features, is_last)
                batch = []


def _one_ahead(values: Iterator[T]) -> Iterator[T]:
    """Yield each value when the one after it is there: a GPU has its next batch before its last one is taken."""
    before = next(values, None)
    while before is not None:
        after = next(values, None)
        yield before
        before = after


@contextmanager
def _cores_for_decoders(device: torch.device) -> Iterator[None]:
    """Beside a GPU, copy in one thread: several would wait for each other on cores that decode."""
    threads = torch.get_num_threads()
    try:
        if device.type != "cpu":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class _Block:
    """A block's rows, as far as they are there.

    Args:
        number: of the block.
        first: its first row.
        spec: the cache's dimensions.
        filled: its arrays.
        failures: row → why it failed.
        notes: row → what is to be said of it.
    """

    number: int
    first: int
    spec: CacheSpec
    filled: RowArrays
    failures: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of_task(cls, stage: BlockStage, task: BlockTask, spec: CacheSpec) -> Self:
        """Return the block with its committed rows, where it has some."""
        rows = stage.rows_of(task.block)
        if task.replaces:
            return cls(task.block, rows.start, spec, stage.read_block(task.block))
        filled = spec.empty_rows(len(rows))
        filled["status"][:] = Status.NOT_WANTED
        return cls(task.block, rows.start, spec, filled)

    def fill(self, batch: Sequence[Decoded], features: RowArrays) -> int:
        """Put a batch's results in; return how many rows failed since their features are not finite in float16."""
        bad = 0
        for place, item in enumerate(batch):
            view, i = present(item.view), item.row - self.first
            own = {name: values[place] for name, values in features.items()}
            for name, value in {**view.row(), **own, "status": Status.DONE}.items():
                self.filled[name][i] = value
            fault = fault_of_features(features, place)
            if fault:
                self.failures[item.row] = fault
                bad += 1
            elif item.note:
                self.notes[item.row] = item.note
        return bad

    def arrays(self) -> RowArrays:
        """Return the whole block; failed rows hold nothing."""
        nothing = self.spec.empty_rows(1)
        for row in self.failures:
            for name in self.filled:
                self.filled[name][row - self.first] = nothing[name][0]
            self.filled["status"][row - self.first] = Status.FAILED
        return self.filled


class _Begun(NamedTuple):
    """A batch that the device was given.

    Args:
        block: it belongs to.
        batch: its views, without pixels.
        features: waits for what becomes of them.
        is_last: whether the block is whole with it.
    """

    block: _Block
    batch: Sequence[Decoded]
    features: Callable[[], RowArrays]
    is_last: bool
