"""What runs on a node of a cluster: one backbone that computes and stages the blocks it is given."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import torch

from ifcar.cache.arrays import RowArrays
from ifcar.cache.blocks import BlockStage, StagedBlock
from ifcar.errors import IfcarError
from ifcar.extract.decoded_views import ViewDataset
from ifcar.extract.engine import BlockTask, extract_rows
from ifcar.extract.extractor import EngineOptions, FeatureExtractor
from ifcar.heap import keep_freed_memory
from ifcar.pipelines.engines.local import engine_options
from ifcar.pipelines.engines.same_place import DriverPlace
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.defaults import annotation_table
from ifcar.pipelines.extraction.preparation import prepare
from ifcar.pipelines.progress import Silent


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """What every actor of an extraction is told.

    Args:
        place: where the driver stands.
        config: the options, with absolute paths.
        cache: the cache, absolute.
        num_cores: cores that the actor has to itself.
    """

    place: DriverPlace
    config: ExtractConfig
    cache: Path
    num_cores: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """What an actor sees.

    Args:
        difference: what differs from the driver so that it cannot work; empty when nothing does.
        versions: of the packages that it computes with.
    """

    difference: str = ""
    versions: Mapping[str, str] | None = None


class BlockActor:
    """Computes blocks in one thread; its methods are called from others.

    Args:
        assignment: what to work on.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._queue: SimpleQueue[tuple[BlockTask, Future[StagedBlock]]] = SimpleQueue()
        self._open: dict[int, Future[StagedBlock]] = {}
        self._parts: dict[int, tuple[int, int]] = {}
        self._order: deque[BlockTask] = deque()
        self._total = 0

    def prepare(self) -> Sight:
        """Load everything, and say what differs from what the driver sees."""
        assignment = self._assignment
        difference = assignment.place.take()
        if difference:
            return Sight(difference=difference)
        torch.set_num_threads(assignment.num_cores)
        keep_freed_memory()
        try:
            options = engine_options(assignment.config, assignment.num_cores)
            table = annotation_table(assignment.cache, assignment.config)
            preparation = prepare(assignment.config, Silent(), table=table if table.exists() else None)
            self._stage = BlockStage.open(assignment.cache, **preparation.identity())
            extractor = preparation.extractor(options)
        except IfcarError as error:
            return Sight(difference=str(error))
        arguments = (preparation.views(), extractor, options)
        threading.Thread(target=self._serve, args=arguments, name="engine", daemon=True).start()
        return Sight(versions=preparation.versions())

    def extract_block(self, task: BlockTask) -> StagedBlock:
        """Compute and stage a block; calls may overlap, their blocks are done in order."""
        future: Future[StagedBlock] = Future()
        self._queue.put((task, future))
        return future.result()

    def rows_done(self) -> tuple[int, dict[int, tuple[int, int]]]:
        """Return (rows since the start, block in hand → (rows done, failed rows))."""
        return self._total, dict(self._parts)

    def _serve(self, views: ViewDataset, extractor: FeatureExtractor, options: EngineOptions) -> None:
        try:
            while True:
                tasks = self._take(self._queue.get())
                extract_rows(self._stage, views, extractor, options, tasks, self._count, self._finish)
        except BaseException as error:
            self._fail(error)

    def _take(self, first: tuple[BlockTask, Future[StagedBlock]]) -> Iterator[BlockTask]:
        """Yield the first task, then those that are there already: the engine must not wait with rows in hand."""
        item = first
        while True:
            task, future = item
            self._open[task.block] = future
            self._order.append(task)
            yield task
            try:
                item = self._queue.get_nowait()
            except Empty:
                return

    def _count(self, rows: int, bad: int) -> None:
        task = self._order[0]
        done, failed = self._parts.get(task.block, (0, 0))
        self._parts[task.block] = (done + rows, failed + bad)
        self._total += rows
        if done + rows == len(task.rows):
            self._order.popleft()

    def _finish(self, block: int, arrays: RowArrays, failures: dict[int, str], notes: dict[int, str]) -> None:
        staged = self._stage.stage_block(block, arrays, failures, notes)
        self._parts.pop(block, None)
        self._open.pop(block).set_result(staged)

    def _fail(self, error: BaseException) -> None:
        """Hand the error to whoever waits, now and later; the driver then gives this actor up."""
        for future in self._open.values():
            if not future.done():
                future.set_exception(error)
        while True:
            self._queue.get()[1].set_exception(error)
