"""What the streams of a table's systems make of test clips: contexts, and how far they agree with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ifcar.cache.joined import JoinedReader
from ifcar.cache.schema import Status
from ifcar.cache.single import JOIN_SUFFIX
from ifcar.cache.streams import stream_of
from ifcar.errors import CacheMismatchError, IfcarError
from ifcar.heads.contract import Head
from ifcar.pipelines.feed.batches import read_batch
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.trained import explains
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.finished import Run, open_run
from ifcar.pipelines.runs.heads import trained_head
from ifcar.pipelines.runs.resolve import head_arrays

NUM_NEIGHBOURS = 10
BATCH_SIZE = 64
Vectors = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class StreamCaches:
    """The join that the runs of a table were trained from, whose streams are opened one by one.

    Args:
        path: of the join.
        fingerprint: what it must hold.
        data_root: the dataset's folder, when it is not at its default place.
    """

    path: Path
    fingerprint: str
    data_root: Path | None

    def open(self, stream: str) -> JoinedReader:
        """Open one stream's cache. Raises MissingDataError, CacheMismatchError or InputError when it cannot be used."""
        reader = JoinedReader(self.path, (stream,))
        if reader.fingerprint != self.fingerprint:
            reader.close()
            raise CacheMismatchError(f"{self.path} joins other caches than the runs were trained from")
        return reader


def find_join(paths: Sequence[Path], fingerprint: str, data_root: Path | None) -> StreamCaches | None:
    """Return the first of these caches that is a join of this fingerprint; None where there is none."""
    joins = (path for path in paths if path.name.endswith(JOIN_SUFFIX) and path.is_file())
    found = next((path for path in joins if _may_be(path, fingerprint)), None)
    return None if found is None else StreamCaches(path=found, fingerprint=fingerprint, data_root=data_root)


def _may_be(path: Path, fingerprint: str) -> bool:
    try:
        reader = JoinedReader(path)
    except IfcarError:
        return True  # whoever reads it says what is wrong
    found = reader.fingerprint
    reader.close()
    return found == fingerprint


@dataclass(frozen=True, kw_only=True)
class StreamHead:
    """A trained head, asked about one stream alone.

    Args:
        stream: its name.
        run: the run.
        head: in evaluation mode, on the CPU.
        reader: the join, opened for this stream.
        arrays: what the head reads of it.
    """

    stream: str
    run: Run
    head: Head
    reader: JoinedReader
    arrays: tuple[str, ...]

    def explain(self, rows: NDArray[np.int64]) -> Mapping[str, Tensor]:
        """Return what the head says of these rows of the stream, by names without the stream's."""
        found = self.head.explain(read_batch(self.reader, self.arrays, rows))
        return {stream_of(name)[1]: value for name, value in found.items() if stream_of(name)[0] == self.stream}

    def contexts(self, segments: Sequence[str]) -> Vectors:
        """Return what is classified of each segment's first finished view, (n, D), of length 1."""
        rows = first_rows(self.reader, segments)
        parts = [
            self.explain(rows[start : start + BATCH_SIZE])["context"].double().numpy()
            for start in range(0, len(rows), BATCH_SIZE)
        ]
        return unit_length(np.concatenate(parts))


def stream_runs(chapter: Chapter, system: str) -> dict[str, Run]:
    """Return of each stream that a system learned its run of the first seed; empty where its head has no streams."""
    found: dict[str, Run] = {}
    for row in chapter.comparison.rows:
        if row.system != system or not row.runs:
            continue
        run = open_run(Path(row.runs[0]))
        if isinstance(run.config, RunConfig) and explains(run.config.head):
            for stream in dict.fromkeys(stream_of(name)[0] for name in head_arrays(run.config)):
                if stream:
                    found.setdefault(stream, run)
    return found


def load_stream(caches: StreamCaches, stream: str, run: Run) -> StreamHead | None:
    """Load a run's head to ask it about one stream; None where it has no contexts to show.

    Raises:
        MissingDataError, CacheMismatchError, InputError: the stream's cache or the weights cannot be used.
    """
    assert isinstance(run.config, RunConfig)
    reader = caches.open(stream)
    head = trained_head(run.config, run.path, reader.spec_of(run.config.protocol), len(run.data().classes))
    arrays = tuple(name for name in head_arrays(run.config) if stream_of(name)[0] == stream)
    loaded = StreamHead(stream=stream, run=run, head=head, reader=reader, arrays=arrays)
    shown = loaded.explain(np.flatnonzero(reader.status() == Status.DONE)[:1])
    return loaded if {"context", "attention"} <= shown.keys() else None


def rows_of_segment(reader: JoinedReader, segment: str) -> NDArray[np.int64]:
    """Return the finished rows of a segment, one for each view of each camera of the stream."""
    start = reader.clip_ids.index(segment) * reader.rows_per_clip
    rows = np.arange(start, start + reader.rows_per_clip)
    done: NDArray[np.int64] = rows[reader.status()[rows] == Status.DONE]
    return done


def first_rows(reader: JoinedReader, segments: Sequence[str]) -> NDArray[np.int64]:
    """Return the first finished row of each of these segments."""
    place = {name: number for number, name in enumerate(reader.clip_ids)}
    done = (reader.status() == Status.DONE).reshape(reader.num_clips, reader.rows_per_clip)
    clips = np.array([place[name] for name in segments], np.int64)
    rows: NDArray[np.int64] = clips * reader.rows_per_clip + done[clips].argmax(axis=1)
    return rows


def unit_length(vectors: Vectors) -> Vectors:
    """Return the rows of (n, D) at length 1; a row of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def retrieval(queries: Vectors, shown: Vectors) -> float:
    """Return R@1: the share of rows i whose most similar row of the other stream is i, and i alone.

    Args:
        queries: (n, D) contexts of one stream, of length 1.
        shown: (n, D) those of another stream of the same n moments.
    """
    scores = queries @ shown.T
    own = scores.diagonal().copy()
    np.fill_diagonal(scores, -np.inf)
    return float((own > scores.max(axis=1)).mean())


def purity(vectors: Vectors, targets: NDArray[np.int64], units: NDArray[np.int64]) -> tuple[float, float]:
    """Return the share of neighbours that have a row's own class, and that share among all that could be neighbours.

    Neighbours are the `NUM_NEIGHBOURS` most similar rows of other units, or all where there are fewer: windows of one
    recording resemble each other whatever they show. Rows without a row of another unit do not count.

    Args:
        vectors: (n, D) contexts of one stream, of length 1.
        targets: (n,) classes.
        units: (n,) numbers of their recordings.
    """
    scores = vectors @ vectors.T
    shares, chances = [], []
    for i, row in enumerate(scores):
        others = np.flatnonzero(units != units[i])
        if len(others):
            nearest = others[np.argsort(-row[others], kind="stable")[:NUM_NEIGHBOURS]]
            shares.append((targets[nearest] == targets[i]).mean())
            chances.append((targets[others] == targets[i]).mean())
    return (float(np.mean(shares)), float(np.mean(chances))) if shares else (float("nan"), float("nan"))


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """What the streams of one system make of the same n test clips.

    Args:
        system: its name.
        vectors: of each stream (n, D), of length 1.
    """

    system: str
    vectors: Mapping[str, Vectors]

    def retrievals(self) -> dict[str, float]:
        """Return R@1 of each ordered pair of streams of one width, "ego → third"."""
        return {
            f"{one} → {other}": retrieval(self.vectors[one], self.vectors[other])
            for one in self.vectors
            for other in self.vectors
            if one != other and self.vectors[one].shape == self.vectors[other].shape
        }
