"""What a run says in each of its tasks: a label space, answered from one stream.

tasks.json  of each task STREAM/SPACE its test metrics, the kind of its labels, and its classes
tasks.npz   TASK/logits and TASK/targets of the test clips, in the order of predictions.npz
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ifcar.cache.durable import write_atomic
from ifcar.cache.npz import NpzError, read_arrays
from ifcar.cache.protocols import LabelSpace
from ifcar.cache.schema import Split
from ifcar.errors import InputError, nearest
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.scoring.scores import Metrics, Predictions
from ifcar.text_files import read_text

NAME, ARRAYS = "tasks.json", "tasks.npz"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """What a run says in a task.

    Args:
        space: its labels.
        predictions: of the test clips.
        metrics: of them.
    """

    space: LabelSpace
    predictions: Predictions
    metrics: Metrics


def write_tasks(path: Path, results: Mapping[str, TaskResult]) -> None:
    """Write both files; nothing where there is no task."""
    if not results:
        return
    records, arrays = {}, dict[str, Any]()
    for name, own in results.items():
        labels = {"label_kind": own.space.kind, "unlabelled": own.space.unlabelled, "classes": list(own.space.classes)}
        records[name] = own.metrics.record() | labels
        arrays |= {f"{name}/logits": own.predictions.logits, f"{name}/targets": own.predictions.targets}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomic(path / ARRAYS, content.getvalue())
    write_atomic(path / NAME, (json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode())


def on_task(run: Run, name: str) -> Run:
    """Return the run as if it had this task alone; its files stay as they are.

    Raises:
        InputError: it has no such task, or an earlier version made it, or its files are damaged.
    """
    path = run.path / NAME
    try:
        known = json.loads(read_text(path)) if path.is_file() else {}
        if name not in known:
            there = ", ".join(known) or "none"
            raise InputError(f"{run.path}: no task {name!r}{nearest(name, known, '.')} Its tasks: {there}")
        record = dict(known[name])
        facts = {key: record.pop(key) for key in ("label_kind", "unlabelled", "classes")}
        metrics = Metrics(**record)
        found = read_arrays(run.path / ARRAYS, [f"{name}/logits", f"{name}/targets"], [])
    except InputError:
        raise
    except (AttributeError, KeyError, NpzError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged, or of an earlier version ({error}); make the run again") from error
    data = replace(run.data(), **facts | {"classes": tuple(facts["classes"]), "labels": name.rpartition("/")[2]})
    shown = replace(run, metrics=[metrics], shown=data)
    logits, targets = found[f"{name}/logits"], found[f"{name}/targets"]
    tested = run.predictions(Split.TEST.name.lower())
    if len(logits) != len(tested.clip_ids) or len(targets) != len(logits):
        raise InputError(f"{run.path / ARRAYS}: {len(logits)} clips of task {name!r}; expected {len(tested.clip_ids)}")
    return shown.showing(replace(tested, logits=logits, targets=targets, kind=data.kind))
