"""The extraction engine: worker processes decode ahead, the backbone runs, a thread writes finished blocks."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as RowDataset

from ifcar.cache.arrays import CacheSpec, RowArrays
from ifcar.cache.blocks import BlockStage
from ifcar.cache.schema import Status
from ifcar.config_fields import check_fields
from ifcar.errors import InputError, is_out_of_memory
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.fold import channels_last, folded
from ifcar.extract.decoded_views import Decoded, ViewDataset, naming_lost_decoders
from ifcar.extract.limits import BATCH_SIZES, WORKERS
from ifcar.extract.roi import arrays_of_maps, pooled_with
from ifcar.extract.view_options import PooledMode
from ifcar.priority import give_way

logger = logging.getLogger(__name__)
T = TypeVar("T")
BATCHES_AHEAD = 4  # decoded before they are asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """How fast, not what: nothing here but `precision` changes a feature by more than rounding.

    Args:
        batch_size: views per forward pass.
        num_workers: decoding processes; 0 decodes in the main process.
        device: where the backbone runs.
        precision: of the backbone's weights and activations, "fp32" or "bf16".
        compile: run the backbone through torch.compile, which takes minutes to begin with.
    """

    batch_size: Annotated[int, BATCH_SIZES] = 8
    num_workers: Annotated[int, WORKERS] = 1
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


class FeatureExtractor:
    """Pixels and boxes to the cache's feature arrays.

    Args:
        backbone: loaded network, or None where nothing is read.
        spec: the cache's dimensions.
        pooled: how instances are pooled.
        options: device and precision.

    Attributes:
        views_at_once: views that go through the network together, at most; halved when they do not fit in memory.
    """

    def __init__(self, backbone: Backbone | None, spec: CacheSpec, pooled: PooledMode, options: EngineOptions) -> None:
        self.device = torch.device(options.device)
        self.backbone = backbone
        self.dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        if backbone is not None:
            self.backbone = channels_last(folded(backbone).to(self.device, self.dtype))
            if options.compile:
                self.backbone.compile()
        self.spec, self.pooled = spec, pooled
        self.views_at_once = options.batch_size

    def __call__(self, batch: Sequence[Decoded]) -> RowArrays:
        """Return the feature arrays of a batch of decoded views, each (len(batch), …) float16.

        A batch that does not fit in the device's memory is halved, and so are those after it.

        Raises:
            InputError: a single view does not fit.
        """
        if self.backbone is None:
            return {}
        parts: list[RowArrays] = []
        while (done := sum(len(part["frame_features"]) for part in parts)) < len(batch):
            part = batch[done : done + self.views_at_once]
            try:
                parts.append(self._features(part))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise InputError(
                        f"one view does not fit in the memory of {self.device}; take fewer --frames, a smaller --crop, "
                        "or --device cpu"
                    ) from error
                self.views_at_once = len(part) // 2
                logger.warning("%d views at once do not fit in memory; going on with %d", len(part), self.views_at_once)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @torch.inference_mode()
    def _features(self, batch: Sequence[Decoded]) -> RowArrays:
        assert self.backbone is not None
        inputs = torch.stack([_present(d.inputs) for d in batch]).to(self.device)
        of_view = {
            name: torch.stack([torch.from_numpy(_present(d.view).arrays[name]) for d in batch]).to(self.device)
            for name in pooled_with(self.pooled)
        }
        maps = self.backbone.checked(self.backbone(self.backbone.normalise(inputs).to(self.dtype)))
        out = arrays_of_maps(maps, of_view, self.pooled, self.spec.names("feature"), self.spec.grid_size)
        return {name: value.half().cpu().numpy() for name, value in out.items()}


def _present(value: Any) -> Any:
    assert value is not None
    return value


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

    def order() -> Iterator[int]:
        for task in tasks:
            taken.append(task)
            yield from task.rows

    decoded = decode_ahead(views, order(), options)
    with naming_lost_decoders(), ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer") as thread:
        writing: Future[object] | None = None
        while (first := next(decoded, None)) is not None:
            started = time.perf_counter()
            task = taken.popleft()
            items = itertools.chain([first], decoded)
            filled, failures, notes = _compute_block(stage, task, items, extractor, options, on_rows)
            if writing is not None:
                writing.result()
            writing = thread.submit(on_block, task.block, filled, failures, notes)
            logger.debug("block %d computed in %.1f s", task.block, time.perf_counter() - started)
        if writing is not None:
            writing.result()


def decode_ahead(views: RowDataset[T], rows: Iterable[int], options: EngineOptions) -> Iterator[T]:
    """Return the decoded rows in their order; worker processes decode some batches before they are asked for.

    What is decoded and not yet taken lies in shared memory and costs file descriptors, so it is bounded for all workers
    together; each has at least two rows in hand, so that none waits for its next one.
    """
    workers = options.num_workers
    loader = DataLoader(
        views,
        sampler=rows,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=max(2, -(-BATCHES_AHEAD * options.batch_size // workers)) if workers else None,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=(lambda worker: give_way()) if options.device == "cpu" else None,
    )
    return iter(loader)


def _compute_block(
    stage: BlockStage,
    task: BlockTask,
    decoded: Iterator[Decoded],
    extractor: FeatureExtractor,
    options: EngineOptions,
    on_rows: Callable[[int, int], None],
) -> tuple[RowArrays, dict[int, str], dict[int, str]]:
    """Compute one block's rows; return its arrays, the reasons of its failed rows and the notes on others."""
    first, num_rows = stage.rows_of(task.block).start, len(stage.rows_of(task.block))
    if task.replaces:
        filled = stage.read_block(task.block)
    else:
        filled = extractor.spec.empty_rows(num_rows)
        filled["status"][:] = Status.NOT_WANTED
    failures: dict[int, str] = {}
    notes: dict[int, str] = {}
    batch: list[Decoded] = []
    for count in range(len(task.rows)):
        item = next(decoded)
        if item.failure:
            failures[item.row] = item.failure
            on_rows(1, 1)
        else:
            batch.append(item)
            notes.update({item.row: item.note} if item.note else {})
        if batch and (len(batch) == options.batch_size or count == len(task.rows) - 1):
            bad = _fill(filled, batch, extractor(batch), first)
            failures.update(bad)
            on_rows(len(batch), len(bad))
            batch = []
    nothing = extractor.spec.empty_rows(1)
    for row in failures:
        for name in filled:
            filled[name][row - first] = nothing[name][0]
        filled["status"][row - first] = Status.FAILED
        notes.pop(row, None)
    return filled, failures, notes


def _fill(filled: RowArrays, batch: Sequence[Decoded], features: RowArrays, first: int) -> dict[int, str]:
    """Put a batch's results into the block's arrays; return the rows whose features are not finite in float16."""
    bad: dict[int, str] = {}
    for place, item in enumerate(batch):
        view, i = _present(item.view), item.row - first
        own = {name: values[place] for name, values in features.items()}
        for name, value in {**view.row(), **own, "status": Status.DONE}.items():
            filled[name][i] = value
        fault = fault_of_features(features, place)
        if fault:
            bad[item.row] = fault
    return bad


def fault_of_features(features: RowArrays, place: int) -> str:
    """Return why the features at this place of a batch cannot be used, or an empty string."""
    for name, values in features.items():
        if not np.isfinite(values[place]).all():
            return f"{name} leave the range of float16 (±65504) or are not finite; check the weights"
    return ""
