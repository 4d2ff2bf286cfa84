"""From a cache to batches: which rows a split has, and their arrays, preloaded where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split, Status, share_views
from ifcar.devices import choose_device
from ifcar.errors import InputError
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.feed.memory import Memory, choose_place
from ifcar.pipelines.feed.order import Order
from ifcar.pipelines.feed.read_ahead import ReadAhead
from ifcar.pipelines.labels.kinds import LabelKind, kind_of

STAGING_BYTES = 128 << 20  # of rows on their way from disk to where they are preloaded
_PLACES = {"gpu": "preloaded to the GPU's memory", "ram": "preloaded to memory", "stream": "streamed from disk"}


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The labelled clips of one part of a protocol.

    Args:
        name: "train", "test", "held_out", …
        clips: (n,) clip numbers.
        targets: (n,) int64 classes, or (n, K) labels, see `ifcar.pipelines.labels.kinds`.
        kind: of the labels.
        rows: (n, V + A) rows of each clip.
        usable: (n, V + A) True where the row is done, and in a test clip plain: what training may draw.
        plain: (n, V + A) True where the row is done and a plain view: what scores are made of, in every part alike.
        per_rate: (n, V + A) how many of the clip's usable rows have the sampling rate of this one.
        note: one line where clips are not scored by all plain views, or by fewer than others; else empty.
    """

    name: str
    clips: NDArray[np.int64]
    targets: NDArray[Any]
    kind: LabelKind
    rows: NDArray[np.int64]
    usable: NDArray[np.bool_]
    plain: NDArray[np.bool_]
    per_rate: NDArray[np.int64]
    note: str = ""

    def __len__(self) -> int:
        return len(self.clips)

    def part(self, name: str, chosen: NDArray[np.bool_]) -> Examples:
        """Return the clips where `chosen` (n,) is True, under another name."""
        fields = ("clips", "targets", "rows", "usable", "plain", "per_rate")
        return replace(self, name=name, **{field: getattr(self, field)[chosen] for field in fields})

    def labels(self, num_classes: int) -> torch.Tensor:
        """Return (n, K) bool, True where a clip has the class, whatever the kind of labels."""
        return torch.from_numpy(self.kind.shown(self.targets, num_classes))

    def draw_rows(self, places: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return one usable row for each of these clips: each of its sampling rates alike, then each row of that rate.

        The largest u^n wins, u uniform and n the rows of the rate: it is a row's with a chance of 1/n to others' 1/m.
        """
        if self.rows.shape[1] == 1:
            only: NDArray[np.int64] = self.rows[places, 0]
            return only
        uniform = rng.random((len(places), self.rows.shape[1])).clip(min=np.finfo(np.float64).tiny)
        scores = np.where(self.usable[places], np.log(uniform) * self.per_rate[places], -np.inf)
        drawn: NDArray[np.int64] = self.rows[places, scores.argmax(axis=1)]
        return drawn


def read_examples(reader: CacheReader, protocol: ProtocolTable, split: Split) -> Examples:
    """Return the clips of a split that have at least one finished plain view.

    Raises:
        InputError: there is none.
    """
    clips = protocol.clips(split)
    name = split.name.lower()
    if not len(clips):
        raise InputError(
            f"{reader.path}: protocol {protocol.name!r} has no {name} clips in this cache; "
            "check the split files' ids, or extract without --limit"
        )
    rows = reader.rows_of(clips)
    done = reader.status()[rows] == Status.DONE
    plain = done & _is_plain(reader, rows)
    if not plain.any():
        raise InputError(
            f"{reader.path}: none of the {len(clips)} {name} clips of protocol {protocol.name!r} is extracted; "
            "run `ifcar extract` again, with --retry-failed for failed clips"
        )
    kind = kind_of(protocol.labels)
    usable = plain if split == Split.TEST else done
    examples = Examples(
        name=name,
        clips=clips,
        targets=kind.as_trained(protocol.labels.targets[clips]),
        kind=kind,
        rows=rows,
        usable=usable,
        plain=plain,
        per_rate=_count_alike(reader.table("sampling_rate")[rows], usable),
    )
    examples = examples.part(name, plain.any(axis=1))
    tested = reader.rows_of(protocol.clips(Split.TEST))
    return _score_alike(examples, reader, int(_is_plain(reader, tested).sum(axis=1).min(initial=reader.num_views)))


def _is_plain(reader: CacheReader, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n, V + A), True for plain views, whatever became of them.

    Caches that do not say how many views are augmented have them among the V, of some clips and not of others.
    """
    plain: NDArray[np.bool_] = (np.arange(rows.shape[1]) < reader.num_views) & ~reader.table("augmented")[rows]
    return plain


def _count_alike(rates: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each row how many usable rows of its clip have its rate; all arrays are (n, V + A)."""
    counts = np.zeros(rates.shape, np.int64)
    for column in range(rates.shape[1]):
        counts += (rates == rates[:, [column]]) & usable[:, [column]]
    return counts


def _score_alike(examples: Examples, reader: CacheReader, num_views: int) -> Examples:
    """Score every clip by as many plain views as each test clip of the protocol has, and note where that is not all."""
    counts = examples.plain.sum(axis=1)
    more, fewer = int((counts > num_views).sum()), int((counts < num_views).sum())
    notes = []
    if more:
        notes.append(
            f"{more} of {len(examples)} {examples.name} clips have up to {counts.max()} plain views and others "
            f"{num_views}, as an earlier version made them: every clip is scored by {num_views}, spread over it; "
            "extract anew to have as many of all"
        )
        examples = spread_views(examples, reader, num_views)
    if fewer and examples.name == "test":
        notes.append(
            f"{fewer} of {len(examples)} test clips are scored by fewer than {num_views} plain views, for the others "
            "failed; `ifcar extract --retry-failed` tries them again"
        )
    return replace(examples, note="; ".join(notes))


def check_views(examples: Examples, reader: CacheReader, num_views: int) -> None:
    """Check that a test can take this many plain views of each clip.

    Raises:
        InputError: the cache has fewer; says what makes more.
    """
    most = int(examples.plain.sum(axis=1).max())
    if not 1 <= num_views <= most:
        expected = "1" if most == 1 else f"1 to {most}"
        more = f"; for more, `ifcar extract --views {num_views}` into another --out, and train on that cache"
        raise InputError(
            f"--views is {num_views}; expected {expected}, the plain views of a {examples.name} clip in {reader.path} "
            f"(augmented ones are for training only){more if num_views > most else ''}"
        )


def spread_views(examples: Examples, reader: CacheReader, num_views: int) -> Examples:
    """Keep this many plain views of each clip: as many of each sampling rate as `share_views` says, spread over time.

    Args:
        examples: the clips.
        reader: tells each row's sampling rate and frames.
        num_views: views a clip; a clip that has no more keeps all.
    """
    rates, starts = reader.table("sampling_rate"), reader.table("frame_indices")[:, 0]
    kept = np.zeros_like(examples.plain)
    for place, rows in enumerate(examples.rows):
        known = np.flatnonzero(examples.plain[place])
        by_rate = [known[rates[rows[known]] == rate] for rate in np.unique(rates[rows[known]])]
        for own, count in zip(by_rate, share_views(num_views, len(by_rate)), strict=True):
            own = own[np.argsort(starts[rows[own]], kind="stable")]
            count = min(count, len(own))
            kept[place, own[((np.arange(count) + 0.5) * len(own) / max(1, count)).astype(np.int64)]] = True
    return replace(examples, plain=kept, usable=examples.usable & (kept | ~examples.plain))


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

    def batch(self, rows: NDArray[np.int64]) -> InstanceBatch:
        """Return the arrays of these rows, in this order; rows (B,) give (B, …), rows (M, B) give (M, B, …)."""
        if self.place == "stream":
            large = self._ahead.take(rows)
        else:
            places = torch.from_numpy(np.searchsorted(self.rows, rows))
            large = {name: _pick(value, places.to(value.device)) for name, value in self._loaded.items()}
        index = torch.from_numpy(rows)
        small = {name: table[index] for name, table in self.tables.items()}
        return InstanceBatch({**small, **large}).to(self.device)

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
