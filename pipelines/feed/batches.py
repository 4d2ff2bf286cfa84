"""From a cache to batches: the arrays of the rows that are asked for, preloaded where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.cache.reader import CacheReader
from ifcar.devices import choose_device
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.feed.memory import Memory, choose_place
from ifcar.pipelines.feed.order import Order
from ifcar.pipelines.feed.read_ahead import ReadAhead
from ifcar.pipelines.feed.subjects import ask_about

STAGING_BYTES = 128 << 20  # of rows on their way from disk to where they are preloaded
_PLACES = {"gpu": "preloaded to the GPU's memory", "ram": "preloaded to memory", "stream": "streamed from disk"}


def read_batch(reader: CacheReader, arrays: Iterable[str], rows: NDArray[np.int64]) -> InstanceBatch:
    """Read these arrays of these rows (B,) from disk, each once."""
    return InstanceBatch({name: torch.from_numpy(reader.read_rows(name, rows)) for name in dict.fromkeys(arrays)})


class BatchReader:
    """Random access to the rows that a run needs.

    Args:
        reader: the open cache.
        arrays: names of the arrays to fetch.
        rows: the rows that will be asked for.
        device: where batches go.
        memory: "gpu" or "ram" loads the rows there at once, "stream" reads them from disk batch by batch, ahead of
            when they are asked for; "auto" is the first of these that fits, see `choose_place`.

    Raises:
        InputError: "gpu" without one.
        CacheMismatchError: the cache lacks one of the arrays.
        CacheDamageError: a row does not match its checksum.
    """

    def __init__(
        self,
        reader: CacheReader,
        arrays: tuple[str, ...],
        rows: NDArray[np.int64],
        device: torch.device,
        memory: Memory = "auto",
    ) -> None:
        self.reader, self.device = reader, device
        self.sharded = tuple(name for name in arrays if reader.spec.array(name).sharded)
        self.tables = {name: torch.from_numpy(reader.table(name)) for name in arrays if name not in self.sharded}
        self.rows = np.unique(rows)
        row_bytes = reader.spec.row_bytes(self.sharded)
        self.num_bytes = row_bytes * len(self.rows)
        self.place = choose_place(memory, self.num_bytes, device)
        self.order: Order = "shards" if self.place == "stream" else "full"
        self._loaded = {} if self.place == "stream" else {name: self._load(name) for name in self.sharded}
        self._ahead = ReadAhead(self._read, self._advise, row_bytes, gives_way=device.type == "cpu")

    def describe(self) -> str:
        """Return one line on where the rows are."""
        return f"{self.num_bytes / 2**20:,.0f} MiB of large arrays, {len(self.rows):,} rows, {_PLACES[self.place]}"

    def expect(self, batches: Iterable[NDArray[np.int64]]) -> None:
        """Announce the rows of the batches that will be asked for from now on; streamed ones are read ahead."""
        if self.place == "stream":
            self._ahead.expect(batches)

    def batch(self, rows: NDArray[np.int64], order: torch.Tensor | None = None) -> InstanceBatch:
        """Return the arrays of these rows, in this order; rows (B,) give (B, …), rows (M, B) give (M, B, …).

        Args:
            rows: row numbers.
            order: (B, N) or (M, B, N) the order of each one's slots, see `ask_about`; None as they are.
        """
        if self.place == "stream":
            large = self._ahead.take(rows)
        else:
            places = torch.from_numpy(np.searchsorted(self.rows, rows))
            places = places.to(self.device if self.place == "gpu" else "cpu", non_blocking=True)
            large = {name: _pick(value, places) for name, value in self._loaded.items()}
        index = torch.from_numpy(rows)
        small = {name: table[index] for name, table in self.tables.items()}
        return ask_about(order, InstanceBatch({**small, **large}), self.reader.spec).to(self.device)

    def _load(self, name: str) -> torch.Tensor:
        """Return all rows of a sharded array where they are kept, read piece by piece."""
        spec = self.reader.spec
        device = self.device if self.place == "gpu" else torch.device("cpu")
        dtype = getattr(torch, spec.array(name).dtype)
        loaded = torch.empty((len(self.rows), *spec.shape(name)), dtype=dtype, device=device)
        step = max(1, STAGING_BYTES // spec.row_bytes([name]))
        for start in range(0, len(self.rows), step):
            self.reader.advise(name, self.rows[start + step : start + 2 * step])
            rows, target = self.rows[start : start + step], loaded[start : start + step]
            if self.place == "gpu":
                target.copy_(torch.from_numpy(self.reader.read_rows(name, rows)))
            else:
                self.reader.read_rows(name, rows, target.numpy())
        return loaded

    def _read(self, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        return dict(read_batch(self.reader, self.sharded, rows).arrays)

    def _advise(self, rows: NDArray[np.int64]) -> None:
        for name in self.sharded:
            self.reader.advise(name, rows)


def _pick(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return values[places]; on a CPU faster than indexing."""
    return values.index_select(0, places.flatten()).view(*places.shape, *values.shape[1:])


def open_batches(
    reader: CacheReader, arrays: tuple[str, ...], parts: Sequence[Examples], device: str | None, memory: Memory
) -> BatchReader:
    """Open the rows of these parts for random access."""
    rows = np.concatenate([part.rows[part.usable] for part in parts])
    return BatchReader(reader, arrays, rows, torch.device(choose_device(device)), memory)
