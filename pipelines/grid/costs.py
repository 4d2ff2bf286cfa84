"""What the lines of a grid take: minutes of training, gigabytes of the cache, and the cache's own extraction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ifcar.cache.reader import CacheReader
from ifcar.counts import count_of
from ifcar.pipelines.comparison.results import Costs, Replicate
from ifcar.pipelines.extraction.hours import hours_a_row
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.runs.history import read_history, training_seconds


def bytes_read(reader: CacheReader, arrays: Iterable[str], parts: Sequence[Examples]) -> int:
    """Return the size in bytes of the rows that these parts use, each counted once, in these arrays."""
    rows = np.unique(np.concatenate([part.rows[part.usable | part.plain] for part in parts]))
    return len(rows) * reader.spec.row_bytes(arrays)


def costs_of(replicates: Sequence[Replicate], size_bytes: int) -> Costs:
    """Return what a system takes whose runs read so many bytes; a replicate of several runs takes all of theirs."""
    runs = [[training_seconds(read_history(run.path)) for run in replicate.runs] for replicate in replicates]
    known = [second for seconds in runs for second in seconds if second is not None]
    complete = len(known) == sum(map(len, runs))
    return Costs(minutes=sum(known) / 60 / len(runs) if complete else None, size_bytes=size_bytes)


def extraction_note(cache: Path, num_rows: int) -> str:
    """Return how long all rows of the cache took, as far as the file beside it says."""
    hours = hours_a_row(cache)
    took = "took a time that is not recorded" if hours is None else f"took {60 * hours * num_rows:.2g} minutes"
    return f"all lines share one extraction: {count_of(num_rows, 'row')} {took}"
