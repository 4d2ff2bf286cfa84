"""The answers of finished runs on the training clips of one that learns them, see `DistilConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ifcar.cache.protocols import ProtocolTable
from ifcar.errors import InputError
from ifcar.heads.contract import Head
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.feed.held_out import Division
from ifcar.pipelines.runs.config import run_id
from ifcar.pipelines.runs.distil import DistilConfig
from ifcar.pipelines.runs.finished import Run, open_run
from ifcar.pipelines.runs.trained import own_config


def identified(distil: DistilConfig) -> DistilConfig:
    """Return the config with the ids of its teachers.

    Raises:
        MissingDataError, InputError: a teacher is no finished run of a head, or has been trained anew since.
    """
    ids = tuple(run_id(own_config(open_run(path))) for path in distil.runs)
    if distil.run_ids not in ((), ids):
        changed = [str(p) for p, was, now in zip(distil.runs, distil.run_ids, ids, strict=True) if was != now]
        raise InputError(f"{', '.join(changed)}: not the run that was learned from; it has been trained anew since")
    return replace(distil, run_ids=ids)


def taught(trained: Examples, tested: Examples, protocol: ProtocolTable, head: Head, distil: DistilConfig) -> Examples:
    """Return the training clips with the teachers' logits.

    Raises:
        InputError: labels or head are none that distillation is for; a teacher has other classes, lacks a training
            clip, or was trained on a test clip.
    """
    if protocol.labels.kind != "single":
        raise InputError(
            f"--distil-from: {protocol.labels.name!r} has several labels a clip; expected a label space of one class a "
            "clip"
        )
    students = [task.name for task in head.tasks if task.space in ("", protocol.labels.name)]
    if len(students) > 1:
        raise InputError(
            f"--distil-from: this run would answer by {', '.join(students)}; expected one student, as with --set "
            f"streams=[{head.tasks[0].stream}]"
        )
    answers = [_answers(open_run(path), trained, tested, protocol) for path in distil.runs]
    return replace(trained, teachers=np.stack(answers, axis=1))


def _answers(teacher: Run, trained: Examples, tested: Examples, protocol: ProtocolTable) -> np.ndarray:
    data, known = teacher.data(), teacher.predictions("train")
    if (data.classes, data.label_kind) != (protocol.labels.classes, protocol.labels.kind):
        raise InputError(
            f"{teacher.path}: learned {data.labels!r} of protocol {data.protocol!r}, which has other classes than "
            f"{protocol.labels.name!r} of {protocol.name!r}; expected a teacher of the same"
        )
    place = {name: number for number, name in enumerate(known.clip_ids.tolist())}
    if seen := [name for name in tested.names.tolist() if name in place]:
        raise InputError(
            f"{teacher.path}: was trained on {len(seen)} of the {len(tested)} test clips, as {seen[0]!r}; expected a "
            "teacher of the same protocol"
        )
    if absent := [name for name in trained.names.tolist() if name not in place]:
        raise InputError(
            f"{teacher.path}: has no answer for {len(absent)} of the {len(trained)} training clips, as {absent[0]!r}; "
            "expected a teacher of the same clips, or of another stream of the same join"
        )
    return known.logits[[place[name] for name in trained.names.tolist()]]


def check_unseen(teachers: Sequence[Run], division: Division) -> None:
    """Refuse teachers that were trained on the clips which choose the student's stopping point.

    Raises:
        InputError: names the teacher, and what to do.
    """
    if division.held_out is None:
        return
    chosen = set(division.held_out.names.tolist())
    for teacher in teachers:
        refit = own_config(teacher).schedule.refit
        known = None if teacher.metric("held_out") is None else set(teacher.predictions("held_out").clip_ids.tolist())
        if refit or known != chosen:
            raise InputError(
                f"{teacher.path}: its answers come from a training on clips that are held out here to choose the "
                "stopping point; give --no-refit and the same protocol to both, or --schedule paper"
            )
