"""A cache as notebooks and scripts use it: the labelled examples of a protocol as tensors, arrays and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ifcar.cache.addresses import place_of
from ifcar.cache.open import open_cache as open_reader
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Category, Split
from ifcar.errors import InputError
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.feed.examples import Examples, read_examples
from ifcar.pipelines.feed.subjects import ask_about
from ifcar.pipelines.runs.resolve import choose_protocol


@dataclass(frozen=True, repr=False)
class Cache:
    """An open cache.

    Args:
        reader: reads single rows and tables, see `CacheReader`.
    """

    reader: CacheReader

    @property
    def protocols(self) -> list[str]:
        """Names of its protocols."""
        return self.reader.protocol_names()

    def examples(
        self, protocol: str | None = None, split: Literal["train", "test"] = "test", *, labels: str | None = None
    ) -> CachedExamples:
        """Return what has labels in one part of a protocol, as heads are trained and scored on it.

        Args:
            protocol: default: "compositional" where there is one, else the only one.
            split: the part.
            labels: the label space; default: the protocol's first.

        Raises:
            InputError: no such protocol, label space or part, or none of its clips is extracted.
        """
        name = protocol or choose_protocol(self.protocols, self.reader.path)
        table = self.reader.protocol(name).only(labels)
        if split not in ("train", "test"):
            raise InputError(f"split is {split!r}; expected 'train' or 'test'")
        found = read_examples(self.reader, table, Split[split.upper()])
        return CachedExamples(reader=self.reader, protocol=table, found=found)

    def __repr__(self) -> str:
        arrays = ", ".join(self.reader.spec.names())
        return (
            f"<cache {self.reader.path}: {self.reader.num_clips} clips, {self.reader.num_rows} rows; arrays {arrays}; "
            f"protocols {', '.join(self.protocols) or 'none'}>"
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class CachedExamples:
    """The n clips, or instances of clips, that have labels in one part of a protocol.

    An example has m ≥ 1 plain views; `dataset` and `arrays` hold one item a view, example after example.

    Args:
        reader: of the cache.
        protocol: its protocol, with one label space.
        found: the examples and their rows.
    """

    reader: CacheReader
    protocol: ProtocolTable
    found: Examples

    def __len__(self) -> int:
        return len(self.found)

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names, in target order."""
        return self.protocol.labels.classes

    def dataset(self, *names: str) -> Dataset[tuple[dict[str, Tensor], Tensor]]:
        """Return a torch Dataset of (arrays by name, target), one item a plain view.

        Its items have the arrays' shapes without the rows' axis; of instances the one that is asked about lies in slot
        0 and is the only subject. It can be pickled for a DataLoader's processes.

        Args:
            names: of the arrays.

        Raises:
            CacheMismatchError: the cache has no such array.
        """
        return _Views(self, self._known(names))

    def arrays(self, *names: str) -> dict[str, NDArray[Any]]:
        """Return arrays (v, …) over the v plain views, with "targets" (v,) or (v, K) and "places" (v,) of the examples.

        Raises:
            CacheMismatchError: the cache has no such array.
        """
        rows, places = self.found.plain_rows()
        read = self._read(self._known(names), rows, places)
        return {
            **{name: v.numpy() for name, v in read.items()},
            "targets": self.found.targets[places],
            "places": places,
        }

    def table(self) -> dict[str, list[Any]]:
        """Return columns of one length n, one row an example, as `pandas.DataFrame` and `polars.DataFrame` take them.

        Columns: id; clip, its id; labels, a list of class names; num_views; num_instances, num_subjects and
        num_objects in the first plain view; track_frames, in how many of its T frames each of these is seen.
        """
        found = self.found
        shown = found.kind.shown(found.targets, len(self.classes))
        rows = found.rows[np.arange(len(found)), found.plain.argmax(axis=1)]
        categories = self.reader.table("categories")[rows]
        frames = (categories != Category.EMPTY).sum(axis=1)
        subjects, objects = (
            (categories == kind).any(axis=1).sum(axis=1) for kind in (Category.SUBJECT, Category.OBJECT)
        )
        return {
            "id": found.names.tolist(),
            "clip": [self.reader.clip_ids[clip] for clip in found.clips],
            "labels": [[self.classes[k] for k in np.flatnonzero(own)] for own in shown],
            "num_views": found.plain.sum(axis=1).tolist(),
            "num_instances": (frames > 0).sum(axis=1).tolist(),
            "num_subjects": subjects.tolist(),
            "num_objects": objects.tolist(),
            "track_frames": [own[own > 0].tolist() for own in frames],
        }

    def _known(self, names: Sequence[str]) -> tuple[str, ...]:
        if not names:
            raise ValueError(f"name the arrays to read; the cache has {', '.join(self.reader.spec.names())}")
        for name in names:
            self.reader.read_rows(name, np.empty(0, np.int64))
        return tuple(names)

    def _read(self, names: Sequence[str], rows: NDArray[np.int64], places: NDArray[np.int64]) -> dict[str, Tensor]:
        batch = InstanceBatch({name: torch.from_numpy(self.reader.read_rows(name, rows)) for name in names})
        return dict(ask_about(self.found.order_of(places), batch, self.reader.spec).arrays)

    def __repr__(self) -> str:
        what = "clips" if self.found.orders is None else "instances"
        views = int(self.found.plain.sum())
        return (
            f"<{len(self)} {self.found.name} {what} of {self.protocol.name} in {self.reader.path}, {views} views, "
            f"{len(self.classes)} classes>"
        )


class _Views(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """The plain views of examples, one an item."""

    def __init__(self, examples: CachedExamples, names: tuple[str, ...]) -> None:
        self._examples, self._names = examples, names
        self._rows, self._places = examples.found.plain_rows()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int) -> tuple[dict[str, Tensor], Tensor]:
        rows, places = self._rows[[item]], self._places[[item]]
        read = self._examples._read(self._names, rows, places)
        target = torch.as_tensor(self._examples.found.targets[places])[0]
        return {name: value[0] for name, value in read.items()}, target


def open_cache(path: Path | str | Sequence[Path | str]) -> Cache:
    """Open a cache: a `.zarr` folder, its address in object storage, an exported file, a join of several, or parts.

    Args:
        path: where it is; or where each of its parts is, see docs/cache.md.

    Raises:
        MissingDataError: there is nothing at `path`.
        InputError: it is no cache, or one of another format version; or not all parts of one are there.
        CacheMismatchError: parts are not of one cache.
        CacheDamageError: metadata do not match their checksums.
    """
    return Cache(
        open_reader(
            [place_of(own) for own in path]
            if isinstance(path, Sequence) and not isinstance(path, str)
            else place_of(path)
        )
    )
