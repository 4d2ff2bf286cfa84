"""From a cache to batches: which rows a split has, and their arrays, preloaded where they fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split, Status, share_views
from ifcar.errors import InputError
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.feed.labelled import Labelled, read_labelled
from ifcar.pipelines.feed.memory import Memory, choose_place
from ifcar.pipelines.feed.order import Order
from ifcar.pipelines.feed.read_ahead import ReadAhead
from ifcar.pipelines.feed.subjects import ask_about, slot_order
from ifcar.pipelines.labels.kinds import LabelKind, kind_of

STAGING_BYTES = 128 << 20  # of rows on their way from disk to where they are preloaded
_PLACES = {"gpu": "preloaded to the GPU's memory", "ram": "preloaded to memory", "stream": "streamed from disk"}


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The labelled clips, or instances of clips, of one part of a protocol.

    Args:
        name: "train", "test", "held_out", …
        names: (n,) ids of the clips or instances.
        clips: (n,) clip numbers; instances of a clip follow each other.
        segments: (n,) numbers of the clips' segments, which no part divides.
        orders: (n, N) slots of a row, the instance's own first, see `slot_order`; None for clips.
        targets: (n,) int64 classes, or (n, K) labels, see `ifcar.pipelines.labels.kinds`.
        kind: of the labels.
        rows: (n, V) rows of each clip.
        usable: (n, V) True where the row is done.
        plain: (n, V) True where the row is done and not augmented: what a test averages over.
    """

    name: str
    names: NDArray[np.str_]
    clips: NDArray[np.int64]
    segments: NDArray[np.int64]
    orders: NDArray[np.int64] | None = None
    targets: NDArray[Any]
    kind: LabelKind
    rows: NDArray[np.int64]
    usable: NDArray[np.bool_]
    plain: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.clips)

    def part(self, name: str, chosen: NDArray[np.bool_]) -> Examples:
        """Return the clips where `chosen` (n,) is True, under another name."""
        over_examples = ("names", "clips", "segments", "targets", "rows", "usable", "plain")
        arrays = {field: getattr(self, field)[chosen] for field in over_examples}
        return replace(self, name=name, orders=None if self.orders is None else self.orders[chosen], **arrays)

    def labels(self, num_classes: int) -> torch.Tensor:
        """Return (n, K) bool, True where a clip has the class, whatever the kind of labels."""
        return torch.from_numpy(self.kind.shown(self.targets, num_classes))

    def order_of(self, places: NDArray[np.int64]) -> torch.Tensor | None:
        """Return the order of the slots in which these examples are asked about, or None where they are clips."""
        return None if self.orders is None else torch.from_numpy(self.orders[places])

    def plain_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all plain rows, example after example, and the place of each one's example."""
        places = np.nonzero(self.plain)[0]
        return self.rows[self.plain], places

    def draw_rows(self, places: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return one usable row for each of these clips, at random."""
        if self.rows.shape[1] == 1:
            only: NDArray[np.int64] = self.rows[places, 0]
            return only
        scores = np.where(self.usable[places], rng.random((len(places), self.rows.shape[1])), -1.0)
        drawn: NDArray[np.int64] = self.rows[places, scores.argmax(axis=1)]
        return drawn


def read_examples(reader: CacheReader, protocol: ProtocolTable, split: Split) -> Examples:
    """Return what has labels in a split, clips or instances, as far as it has at least one finished row.

    Raises:
        InputError: there is none.
    """
    found = read_labelled(protocol, split, reader.clip_ids)
    clips, name = found.clips, split.name.lower()
    if not len(clips):
        raise InputError(
            f"{reader.path}: protocol {protocol.name!r} has no {name} clips in this cache; "
            "check the split files' ids, or extract without --limit"
        )
    rows = clips[:, None] * reader.num_views + np.arange(reader.num_views)
    usable = reader.status()[rows] == Status.DONE
    plain = usable & ~reader.table("augmented")[rows]
    kept = usable.any(axis=1) & plain.any(axis=1)
    if not kept.any():
        raise InputError(
            f"{reader.path}: none of the {len(np.unique(clips))} {name} clips of protocol {protocol.name!r} is "
            "extracted; run `ifcar extract` again, with --retry-failed for failed clips"
        )
    examples = make_examples(
        name, found, protocol, segments=reader.clips.segment_numbers()[clips], rows=rows, usable=usable, plain=plain
    )
    if found.slots is not None:
        seen = rows[np.arange(len(rows)), plain.argmax(axis=1)]
        examples = replace(examples, orders=slot_order(found.slots, reader.table("boxes")[seen]))
    return examples.part(name, kept)


def make_examples(name: str, found: Labelled, protocol: ProtocolTable, **arrays: NDArray[Any]) -> Examples:
    """Return examples of what has labels, with their `segments`, `rows`, `usable` and `plain`, see `Examples`."""
    kind = kind_of(protocol.labels)
    return Examples(
        name=name,
        names=found.names,
        clips=found.clips,
        targets=kind.as_trained(found.targets),
        kind=kind,
        **arrays,
    )


def spread_views(examples: Examples, reader: CacheReader, num_views: int) -> Examples:
    """Keep this many plain views of each clip: as many of each sampling rate as `share_views` says, spread over time.

    Args:
        examples: the clips.
        reader: tells each row's sampling rate and frames.
        num_views: views a clip; a clip whose other views failed is tested on those that it has.

    Raises:
        InputError: the cache has fewer plain views of some clip.
    """
    plain = examples.rows.shape[1] if len(examples) == 0 else int((examples.plain | ~examples.usable).sum(1).min())
    if not 1 <= num_views <= plain:
        raise InputError(
            f"--views is {num_views}; expected 1 to {plain}, the views of a {examples.name} clip in {reader.path} that "
            "are not augmented; `ifcar extract --views` makes more"
        )
    rates, starts = reader.table("sampling_rate"), reader.table("frame_indices")[:, 0]
    kept = np.zeros_like(examples.plain)
    for place, rows in enumerate(examples.rows):
        known = np.flatnonzero(examples.plain[place])
        by_rate = [known[rates[rows[known]] == rate] for rate in np.unique(rates[rows[known]])]
        for own, count in zip(by_rate, share_views(num_views, len(by_rate)), strict=True):
            own = own[np.argsort(starts[rows[own]], kind="stable")]
            count = min(count, len(own))
            kept[place, own[((np.arange(count) + 0.5) * len(own) / max(1, count)).astype(np.int64)]] = True
    return replace(examples, plain=kept)


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
            large = {name: _pick(value, places.to(value.device)) for name, value in self._loaded.items()}
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
