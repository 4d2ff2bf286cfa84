"""Rows decoded before they are asked for, by processes of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as RowDataset

from ifcar.extract.decoded_views import Decoded
from ifcar.extract.extractor import EngineOptions
from ifcar.priority import give_way

T = TypeVar("T")
BATCHES_AHEAD = 4  # decoded before they are asked for
MOST_SENT = 8  # rows at once


def decode_ahead(views: RowDataset[T], tasks: Iterable[Sequence[int]], options: EngineOptions) -> Iterator[T]:
    """Return the decoded rows of tasks in their order; worker processes decode some batches before they are asked for.

    What is decoded and not yet taken lies in shared memory and costs file descriptors, so it is bounded for all workers
    together; each has at least two groups of rows in hand, so that none waits for its next one. A group never crosses a
    task.

    Args:
        views: decodes a row.
        tasks: rows; a task is read when those before it are being decoded.
        options: batch size, workers and device.
    """
    workers = options.num_workers
    size = max(1, min(MOST_SENT, options.batch_size // max(1, workers)))
    groups = (task[first : first + size] for task in tasks for first in range(0, len(task), size))
    if not workers:
        yield from (views[row] for group in groups for row in group)
        return
    loader: DataLoader[tuple[list[T], Tensor | None]] = DataLoader(
        views,  # type: ignore[arg-type]
        batch_sampler=groups,  # type: ignore[arg-type]
        collate_fn=_packed,
        num_workers=workers,
        prefetch_factor=max(2, -(-BATCHES_AHEAD * options.batch_size // (workers * size))),
        multiprocessing_context="fork",
        worker_init_fn=(lambda worker: give_way()) if options.device == "cpu" else None,
    )
    for items, inputs in loader:
        yield from _unpacked(items, inputs)


def _packed(items: list[T]) -> tuple[list[T], Tensor | None]:
    """Take the inputs out of decoded rows as one tensor: each tensor that is sent costs a connection."""
    inputs = [item.inputs for item in items if isinstance(item, Decoded) and item.inputs is not None]
    if not inputs:
        return items, None
    bare = [replace(item, inputs=None) if isinstance(item, Decoded) else item for item in items]
    return bare, torch.stack(inputs)


def _unpacked(items: list[T], inputs: Tensor | None) -> Iterator[T]:
    place = 0
    for item in items:
        if inputs is not None and isinstance(item, Decoded) and not item.failure:
            yield replace(item, inputs=inputs[place])
            place += 1
        else:
            yield item
