"""Reading batches before they are asked for, in threads of their own, within bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ifcar.priority import give_way

AHEAD_BYTES, MOST_AHEAD = 256 << 20, 8  # batches read and not yet taken: so many bytes, but at least one batch
# Rows that the system is told of at once, to fetch them from disk in the order they lie there: few at first, so that
# the first batch does not wait for all of them, then twice as many each time.
FEWEST_ADVISED, MOST_ADVISED = 128, 2048
MOST_THREADS = 4

Rows = NDArray[np.int64]
Arrays = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Coming:
    """A batch under way: its rows, each once, and what will hold their arrays."""

    rows: Rows
    arrays: Future[Arrays]


class ReadAhead:
    """Batches of rows, read in the order in which they were announced.

    Args:
        read: rows, each once → their arrays; called from several threads.
        advise: told which rows will be read soon.
        row_bytes: size of a row's arrays.
        gives_way: read at the lowest priority, for a head that trains on the same cores.
    """

    def __init__(
        self,
        read: Callable[[Rows], Arrays],
        advise: Callable[[Rows], None],
        row_bytes: int,
        *,
        gives_way: bool = False,
    ) -> None:
        self._read, self._advise, self._row_bytes = read, advise, row_bytes
        threads = min(MOST_THREADS, max(1, (os.cpu_count() or 1) - 1))
        begin = give_way if gives_way else None
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead", initializer=begin)
        # of its own: advice waits while the disk's queue is full, and reading must not wait with it
        self._adviser = ThreadPoolExecutor(1, thread_name_prefix="advise", initializer=begin)
        self._announced: list[Rows] = []
        self._next = self._advised = self._last_group = 0
        self._advise_rows = FEWEST_ADVISED
        self._coming: deque[_Coming] = deque()

    def expect(self, batches: Iterable[Rows]) -> None:
        """Announce the batches that will be taken from now on; what was announced before is forgotten.

        Args:
            batches: for each its rows, in any shape and order, doubles allowed.
        """
        for coming in self._coming:
            coming.arrays.cancel()
        self._coming.clear()
        self._announced = [_each_once(rows.ravel()) for rows in batches]
        self._next = self._advised = self._last_group = 0
        self._advise_rows = FEWEST_ADVISED
        self._go_on()

    def take(self, rows: Rows) -> Arrays:
        """Return the arrays of these rows, from what was read ahead, or read now when they were not announced.

        Args:
            rows: in any shape and order, doubles allowed.

        Returns:
            Tensors of the rows' shape and then a row's.
        """
        wanted = rows.ravel()
        for number, coming in enumerate(self._coming):
            if np.isin(wanted, coming.rows).all():
                for _ in range(number + 1):
                    self._coming.popleft()
                self._go_on()
                return _pick(coming.rows, coming.arrays.result(), rows)
        once = np.unique(wanted)
        return _pick(once, self._read(once), rows)

    def _go_on(self) -> None:
        """Start reading as many announced batches as memory allows."""
        left = AHEAD_BYTES - sum(len(coming.rows) * self._row_bytes for coming in self._coming)
        while self._next < len(self._announced) and len(self._coming) < MOST_AHEAD:
            rows = self._announced[self._next]
            left -= len(rows) * self._row_bytes
            if left < 0 and self._coming:
                return
            self._coming.append(_Coming(rows, self._threads.submit(self._read, rows)))
            self._advise_up_to(self._next)
            self._next += 1

    def _advise_up_to(self, batch: int) -> None:
        """Tell the system of batches, a group at a time: a group when the one before it begins to be read."""
        while self._advised < len(self._announced) and batch >= self._last_group:
            stop, num_rows = self._advised, 0
            while stop < len(self._announced) and num_rows < self._advise_rows:
                num_rows += len(self._announced[stop])
                stop += 1
            self._adviser.submit(self._advise, np.unique(np.concatenate(self._announced[self._advised : stop])))
            self._last_group, self._advised = self._advised, stop
            self._advise_rows = min(2 * self._advise_rows, MOST_ADVISED)


def _each_once(rows: Rows) -> Rows:
    """Return the rows as they are, or ascending when some are there twice."""
    once = np.unique(rows)
    return rows if len(once) == len(rows) else once


def _pick(held: Rows, arrays: Arrays, rows: Rows) -> Arrays:
    """Return the arrays of `rows`, any shape, out of those of the rows held; not copied when they are the same."""
    if not np.array_equal(held, rows.ravel()):
        order = np.argsort(held)
        places = torch.from_numpy(order[np.searchsorted(held, rows.ravel(), sorter=order)])
        arrays = {name: value[places] for name, value in arrays.items()}
    return {name: value.view(*rows.shape, *value.shape[1:]) for name, value in arrays.items()}
