"""Examples: what has labels in one part of a protocol, and the rows that show each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split, Status, share_views
from ifcar.counts import count_of
from ifcar.errors import InputError
from ifcar.pipelines.feed.labelled import Labelled, read_labelled
from ifcar.pipelines.feed.subjects import grouped, slot_order
from ifcar.pipelines.labels.contract import LabelKind
from ifcar.pipelines.labels.kinds import kind_of


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceLabels:
    """What n clips are in one label space: targets (n,) or (n, K), see `ifcar.pipelines.labels.kinds`."""

    targets: NDArray[Any]
    kind: LabelKind


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The labelled clips, or instances of clips, of one part of a protocol.

    Args:
        name: "train", "test", "held_out", …
        names: (n,) ids of the clips or instances.
        clips: (n,) clip numbers; instances of a clip follow each other.
        segments: (n,) numbers of the clips' segments, which no part divides.
        groups: (n,) numbers of the protocol's groups, −1 for none; None where clips of one group are independent.
        orders: (n, N) slots of a row, the instance's own first, see `slot_order`; None for clips.
        targets: (n,) int64 classes, or (n, K) labels, see `ifcar.pipelines.labels.kinds`.
        kind: of the labels.
        space: name of their label space.
        further: labels of the spaces that are learned beside it, by name.
        teachers: (n, S, K) logits of S other runs, whose answers are learned beside the labels; None without.
        rows: (n, V + A) rows of each clip.
        usable: (n, V + A) True where the row is done, and in a test clip plain: what training may draw.
        plain: (n, V + A) True where the row is done and a plain view: what scores are made of, in every part alike.
        per_rate: (n, V + A) how many of the clip's usable rows have the sampling rate of this one.
        note: one line where clips are not scored by all plain views, or by fewer than others; else empty.
    """

    name: str
    names: NDArray[np.str_]
    clips: NDArray[np.int64]
    segments: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None
    orders: NDArray[np.int64] | None = None
    targets: NDArray[Any]
    kind: LabelKind
    rows: NDArray[np.int64]
    usable: NDArray[np.bool_]
    plain: NDArray[np.bool_]
    per_rate: NDArray[np.int64]
    note: str = ""
    space: str = ""
    further: Mapping[str, SpaceLabels] = field(default_factory=dict)
    teachers: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def part(self, name: str, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Examples:
        """Return the clips where `chosen` (n,) is True, or those at its places in its order, under another name."""
        values = {own.name: getattr(self, own.name) for own in fields(self)}
        arrays: dict[str, Any] = {k: value[chosen] for k, value in values.items() if isinstance(value, np.ndarray)}
        further = {space: replace(own, targets=own.targets[chosen]) for space, own in self.further.items()}
        return replace(self, name=name, further=further, **arrays)

    def labels_in(self, space: str) -> SpaceLabels:
        """Return the labels of a space; "" is that of `targets`."""
        if space in ("", self.space):
            return SpaceLabels(targets=self.targets, kind=self.kind)
        return self.further[space]

    def labels(self, num_classes: int) -> torch.Tensor:
        """Return (n, K) bool, True where a clip has the class, whatever the kind of labels."""
        return torch.from_numpy(self.kind.shown(self.targets, num_classes))

    def order_of(self, places: NDArray[np.int64]) -> torch.Tensor | None:
        """Return the order of the slots in which these examples are asked about, or None where they are clips."""
        return None if self.orders is None else torch.from_numpy(self.orders[places])

    def by_clip(self) -> list[NDArray[np.int64]]:
        """Return the places of each clip's examples: one each, or those of its instances."""
        return grouped(self.clips)

    def plain_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all plain rows, example after example, and the place of each one's example."""
        places = np.nonzero(self.plain)[0]
        return self.rows[self.plain], places

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
    """Return what has labels in a split, clips or instances, as far as it has at least one finished plain view.

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
    rows = reader.rows_of(clips)
    done = reader.status()[rows] == Status.DONE
    plain = done & _is_plain(reader, rows)
    if not plain.any():
        raise InputError(
            f"{reader.path}: none of the {len(np.unique(clips))} {name} clips of protocol {protocol.name!r} is "
            "extracted; run `ifcar extract` again, with --retry-failed for failed clips"
        )
    usable = plain if split == Split.TEST else done
    examples = make_examples(
        name,
        found,
        protocol,
        segments=reader.clips.segment_numbers()[clips],
        rows=rows,
        usable=usable,
        plain=plain,
        per_rate=_count_alike(reader.table("sampling_rate")[rows], usable),
    )
    if found.slots is not None:
        seen = rows[np.arange(len(rows)), plain.argmax(axis=1)]
        examples = replace(examples, orders=slot_order(found.slots, reader.table("boxes")[seen]))
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
    failed = (reader.status()[examples.rows] == Status.FAILED) & _is_plain(reader, examples.rows)
    more, fewer = int((counts > num_views).sum()), int(((counts < num_views) & failed.any(axis=1)).sum())
    notes = []
    if more:
        notes.append(
            f"{count_of(more, 'has', of=f'{len(examples)} {examples.name} clips')} up to {counts.max()} plain "
            f"views and others {num_views}, as an earlier version made them: every clip is scored by {num_views}, "
            "spread over it; extract anew to have as many of all"
        )
        examples = spread_views(examples, reader, num_views)
    if fewer and examples.name == "test":
        notes.append(
            f"{count_of(fewer, 'is', of=f'{len(examples)} test clips')} scored by fewer than {num_views} plain "
            "views, for the others failed; `ifcar extract --retry-failed` tries them again"
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


def make_examples(
    name: str,
    found: Labelled,
    protocol: ProtocolTable,
    *,
    segments: NDArray[np.int64],
    rows: NDArray[np.int64],
    usable: NDArray[np.bool_],
    plain: NDArray[np.bool_],
    per_rate: NDArray[np.int64],
) -> Examples:
    """Return examples of what has labels; the other arrays as in `Examples`."""
    kind = kind_of(protocol.labels)
    return Examples(
        name=name,
        names=found.names,
        clips=found.clips,
        targets=kind.as_trained(found.targets),
        kind=kind,
        space=protocol.labels.name,
        further={
            own.name: SpaceLabels(targets=kind_of(own).as_trained(own.targets[found.clips]), kind=kind_of(own))
            for own in protocol.spaces[1:]
        },
        segments=segments,
        groups=protocol.groups[found.clips].astype(np.int64) if protocol.shares_recordings else None,
        rows=rows,
        usable=usable,
        plain=plain,
        per_rate=per_rate,
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
    return _using(examples, reader, kept, examples.usable & (kept | ~examples.plain))


def limit_views(
    examples: Examples, reader: CacheReader, num_views: int | None = None, num_augmented_views: int | None = None
) -> Examples:
    """Use fewer views of each clip than the cache has, as if it held no more.

    Args:
        examples: the clips.
        reader: tells each row's sampling rate and frames.
        num_views: plain views, see `spread_views`; None: all.
        num_augmented_views: augmented views that training draws from, the first ones; None: all.

    Raises:
        InputError: the cache has fewer; says what makes more.
    """
    if num_views is not None:
        check_views(examples, reader, num_views)
        examples = spread_views(examples, reader, num_views)
    if num_augmented_views is None or examples.name != "train":
        return examples
    augmented = examples.usable & ~_is_plain(reader, examples.rows)
    most = int(augmented.sum(axis=1).max())
    if num_augmented_views > most:
        raise InputError(
            f"--augmented-views is {num_augmented_views}; expected 0 to {most}, the augmented views of a training clip "
            f"in {reader.path}; for more, `ifcar extract --augmented-views {num_augmented_views}` into another --out"
        )
    kept = augmented & (augmented.cumsum(axis=1) <= num_augmented_views)
    return _using(examples, reader, examples.plain, examples.plain | kept)


def _using(examples: Examples, reader: CacheReader, plain: NDArray[np.bool_], usable: NDArray[np.bool_]) -> Examples:
    """Return examples with other views to score and to train on."""
    rates = reader.table("sampling_rate")[examples.rows]
    return replace(examples, plain=plain, usable=usable, per_rate=_count_alike(rates, usable))
