"""What a report shows of systems that learn from several streams: their tasks, their contexts, and where they look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import IfcarError
from ifcar.pipelines.comparison.columns import NONE, Column, mean_and_deviation
from ifcar.pipelines.labels.contract import MEASURES
from ifcar.pipelines.labels.kinds import label_kind
from ifcar.pipelines.report.camera_figures import draw_cameras, read_cameras, sees
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.context_figures import (
    FEWEST_POINTS,
    MEASURE_COLUMNS,
    MOST_CLIPS,
    draw_contexts,
    measure_rows,
)
from ifcar.pipelines.report.contexts import Contexts, StreamCaches, StreamHead, load_stream, stream_runs
from ifcar.pipelines.report.drawing import Drawing
from ifcar.pipelines.report.tables import Table
from ifcar.pipelines.report.trained import spread
from ifcar.pipelines.runs.tasks import NAME as TASKS
from ifcar.text_files import read_text

NUM_CLIPS = 2


@dataclass(frozen=True, kw_only=True)
class StreamParts:
    """What is shown of streams.

    Args:
        drawings: contexts, then cameras.
        tables: tasks side by side, then measures of contexts.
        text: why something is left out, or empty.
    """

    drawings: Sequence[Drawing]
    tables: Sequence[Table]
    text: str = ""


def stream_parts(chapter: Chapter, caches: StreamCaches) -> StreamParts:
    """Return what is shown of the chapter's systems: of A and B their contexts, and of one of them where it looks."""
    tables = [table] if (table := tasks_table(chapter)) is not None else []
    loaded: dict[str, list[StreamHead]] = {}
    left_out: list[str] = []
    for _, system in chapter.pair():
        for stream, run in stream_runs(chapter, system.name).items():
            try:
                head = load_stream(caches, stream, run)
            except (IfcarError, OSError) as error:
                left_out.append(f"stream {stream} of {system.name} ({error})")
                continue
            if head is not None:
                loaded.setdefault(system.name, []).append(head)
    drawings: list[Drawing] = []
    try:
        if loaded:
            drawing, measures = _contexts(chapter, loaded)
            drawings += [] if drawing is None else [drawing]
            tables += [measures_table(measures)] if measures else []
            drawings += _cameras(chapter, loaded, caches)
    finally:
        for head in (head for heads in loaded.values() for head in heads):
            head.reader.close()
    return StreamParts(drawings=drawings, tables=tables, text=f"Left out: {'; '.join(left_out)}." if left_out else "")


def _contexts(chapter: Chapter, loaded: dict[str, list[StreamHead]]) -> tuple[Drawing | None, list[list[object]]]:
    """Return the plane of both systems' contexts, where there are enough clips, and the measures of these."""
    assert chapter.a is not None
    whole = next(iter(loaded.values()))[0].run
    predictions, data = whole.predictions("test"), whole.data()
    ids = predictions.clip_ids.tolist()
    targets = predictions.targets if data.kind.exclusive else None
    order = sorted(range(len(ids)), key=lambda k: (-1 if targets is None else int(targets[k]), ids[k]))
    shown = np.array(spread(order, MOST_CLIPS), np.int64)
    clip_ids = [ids[k] for k in shown]
    own = None if targets is None else targets[shown].astype(np.int64)
    place = {clip: number for number, clip in enumerate(chapter.a.clip_ids.tolist())}
    units: NDArray[np.int64] = chapter.a.segments[[place[clip] for clip in clip_ids]]
    systems = [
        Contexts(system=name, vectors={head.stream: head.contexts(clip_ids) for head in heads})
        for name, heads in loaded.items()
    ]
    measures = measure_rows(systems, own, units)
    if min(sum(map(len, system.vectors.values())) for system in systems) < FEWEST_POINTS:
        return None, measures
    count = f"{len(clip_ids):,} of {len(ids):,} test clips"
    return draw_contexts(systems, clip_ids, own, data.classes, measures, count), measures


def _cameras(chapter: Chapter, loaded: dict[str, list[StreamHead]], caches: StreamCaches) -> list[Drawing]:
    """Return where the cameras look in a few test clips, by the system that has most streams in one run, A before B."""
    system = max(loaded, key=lambda name: max(_streams_of(head) for head in loaded[name]))
    heads = [head for head in loaded[system] if sees(head)]
    if not heads:
        return []
    predictions, data = heads[0].run.predictions("test"), heads[0].run.data()
    labels = data.kind.shown(predictions.targets, len(data.classes))
    ids = predictions.clip_ids.tolist()
    order = sorted(range(len(ids)), key=lambda k: (np.flatnonzero(labels[k]).tolist(), ids[k]))
    drawings = []
    for number, k in enumerate(spread(order, NUM_CLIPS)):
        cameras = [camera for head in heads for camera in read_cameras(head, ids[k], caches.data_root)]
        if cameras:
            label = ", ".join(data.classes[c] for c in np.flatnonzero(labels[k])) or "no label"
            drawings.append(draw_cameras(system, ids[k], cameras, label, f"cameras-{number + 1}"))
    return drawings


def _streams_of(head: StreamHead) -> int:
    return len({task.stream for task in head.head.tasks})


def tasks_table(chapter: Chapter) -> Table | None:
    """Return every system and stream with its measure in each label space side by side, as its runs' tasks.json say.

    Returns:
        None where no run has several tasks.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    titles: dict[str, str] = {}
    seen = set[tuple[str, str]]()
    for row in chapter.comparison.rows:
        for path in row.runs:
            if (row.system, path) in seen or not (Path(path) / TASKS).is_file():
                continue
            seen.add((row.system, path))
            for name, record in json.loads(read_text(Path(path) / TASKS)).items():
                stream, _, space = name.rpartition("/")
                key = label_kind(record["label_kind"], record["unlabelled"]).measure
                if record.get(key) is not None:
                    titles.setdefault(space, f"{space}, {MEASURES[key]}")
                    found.setdefault((row.system, stream), {}).setdefault(space, []).append(float(record[key]))
    if not found:
        return None
    rows = list(found.items())

    def column(space: str) -> Column[tuple[tuple[str, str], dict[str, list[float]]]]:
        return Column(
            titles[space],
            lambda row: mean_and_deviation(row[1][space]) if space in row[1] else NONE,
            lambda row: float(np.mean(row[1][space])) if space in row[1] else None,
        )

    columns: list[Column[tuple[tuple[str, str], dict[str, list[float]]]]] = [
        Column("system", lambda row: row[0][0]),
        Column("stream", lambda row: row[0][1]),
    ]
    return Table(
        name="streams-tasks",
        caption="What each stream says by itself in each label space, in percent: mean ± sample standard deviation "
        "over runs. – : not learned",
        columns=[*columns, *(column(space) for space in titles)],
        rows=rows,
        whole=True,
    )


def measures_table(rows: Sequence[Sequence[object]]) -> Table:
    """Return R@1 and purity of every pair of streams and every stream."""

    def text(place: int) -> Column[Sequence[object]]:
        return Column(MEASURE_COLUMNS[place], lambda row: str(row[place]))

    def share(place: int) -> Column[Sequence[object]]:
        return Column(
            f"{MEASURE_COLUMNS[place]} (%)",
            lambda row: f"{100 * float(str(row[place])):.1f}",
            lambda row: float(str(row[place])),
        )

    return Table(
        name="streams-agreement",
        caption="Agreement of contexts: R@1 is the share of clips whose most similar clip in the other stream is "
        "themselves; kNN purity the share of the most similar clips of other recordings that are of the clip’s class; "
        "similarity is the cosine, and chance what a stream without information gives",
        columns=[text(0), text(1), text(2), share(3), share(4), Column("n", lambda row: f"{row[5]}")],
        rows=list(rows),
    )
