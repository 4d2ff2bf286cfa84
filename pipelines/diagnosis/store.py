"""A diagnosis on disk: diagnosis.json, which the report reads, and diagnosis.csv, the same numbers as a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ifcar.cache.durable import write_atomic
from ifcar.errors import InputError
from ifcar.pipelines.comparison.formats import csv_text
from ifcar.pipelines.comparison.statistics import PairedTest
from ifcar.pipelines.configs import from_plain, to_plain
from ifcar.text_files import read_text

NAME, TABLE = "diagnosis.json", "diagnosis.csv"
AS_TRAINED = "as trained"
State = Literal["measured", "unchanged", "not read"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosisRow:
    """What one intervention makes of the measure; the first row of a diagnosis is without any.

    Args:
        name: of the intervention.
        does: what it does to a clip, as a clause.
        fall: what a fall of the measure means, as a clause.
        state: "measured"; "unchanged", no score of any clip changes beyond rounding; or "not read", the head reads none
            of the arrays that it changes.
        arrays: names of the arrays that it changes and the head reads.
        primary: the measure that decides, a share, of each run; empty where nothing was scored.
        interval: 95 % interval over clips of its mean.
        against: how it differs from the clips as they are, on the same clips; None where nothing changed.
        p_corrected: its p after Holm's correction over all interventions that were measured.
        class_scores: what each class scores, the mean over runs; None for a class without test clips.
    """

    name: str
    does: str
    fall: str
    state: State
    arrays: tuple[str, ...] = ()
    primary: tuple[float, ...] = ()
    interval: tuple[float, ...] = ()
    against: PairedTest | None = None
    p_corrected: float | None = None
    class_scores: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenPairs:
    """Test clips whose pairs of class and group were seen in training, and the others.

    Args:
        kind: what a group is, for example "object".
        measure: what a clip scores, for example "top-1"; the figures are its means over clips.
        num_seen: clips all of whose pairs some training clip shows.
        num_unseen: the other ones.
        seen: the measure on the former, a share, of each run.
        unseen: on the latter.
        seen_interval: 95 % interval over clips of its mean.
        unseen_interval: the same of the latter.
        difference: unseen less seen.
        difference_interval: its 95 % interval; the clips of both parts are drawn again, each by themselves.
    """

    kind: str
    measure: str
    num_seen: int
    num_unseen: int
    seen: tuple[float, ...]
    unseen: tuple[float, ...]
    seen_interval: tuple[float, ...]
    unseen_interval: tuple[float, ...]
    difference: float
    difference_interval: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What trained runs of one system go by.

    Args:
        title: what the system is, in one line.
        task: the protocol, and the label space where it has a name.
        runs: their folders, which differ in the seed only.
        run_ids: their ids, see `ifcar.pipelines.runs.config.run_id`.
        seeds: their seeds.
        n: test clips.
        metric: key of the measure that decides.
        class_metric: key of what a class scores.
        classes: names of the classes.
        class_counts: test clips that show each.
        draw_seed: of what is drawn.
        cache: the cache that was scored.
        detected: the cache with detected boxes; empty where none was given.
        rows: the clips as they are, then every intervention.
        seen: seen against unseen pairs; None where there are not both.
        notes: lines that belong below the table.
    """

    title: str
    task: str
    runs: tuple[str, ...]
    run_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    n: int
    metric: str
    class_metric: str
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    draw_seed: int
    cache: str
    detected: str
    rows: tuple[DiagnosisRow, ...]
    seen: SeenPairs | None
    notes: tuple[str, ...]

    def class_changes(self, row: DiagnosisRow) -> dict[str, float]:
        """Return by how much each class's score differs from the clips as they are, the largest fall first."""
        before = self.rows[0].class_scores
        found = {
            name: after - own
            for name, own, after in zip(self.classes, before, row.class_scores, strict=True)
            if own is not None and after is not None
        }
        return dict(sorted(found.items(), key=lambda item: item[1]))


def write_diagnosis(folder: Path, diagnosis: Diagnosis) -> list[Path]:
    """Write both files and return their paths."""
    text = json.dumps(to_plain(diagnosis), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((NAME, text), (TABLE, numbers(diagnosis))):
        write_atomic(folder / name, content.encode())
    return [folder / NAME, folder / TABLE]


def read_diagnosis(folder: Path) -> Diagnosis | None:
    """Read a folder's diagnosis; None where there is none. Raises InputError when it is damaged."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        return from_plain(Diagnosis, json.loads(read_text(path)), str(path))
    except ValueError as error:
        said = str(error) if isinstance(error, InputError) else f"{path}: {error}"
        raise InputError(f"{said}; make it again with `ifcar diagnose`") from error


def numbers(diagnosis: Diagnosis) -> str:
    """Return the table as CSV: a line for the clips as they are and one an intervention, shares unrounded."""
    key, rows = diagnosis.metric, list[list[object]]()
    measured = [f"{key}_mean", f"{key}_low", f"{key}_high"]
    tested = ["difference", "difference_low", "difference_high", "p", "p_holm"]
    seeds = [f"{key}_seed{seed}" for seed in diagnosis.seeds]
    classes = [f"{diagnosis.class_metric}: {name}" for name in diagnosis.classes]
    for row in diagnosis.rows:
        test, scored = row.against, bool(row.primary)
        rows.append(
            [
                *(row.name, row.state, " ".join(row.arrays), diagnosis.n if scored else None),
                *([float(np.mean(row.primary)), *row.interval] if scored else [None] * len(measured)),
                *([None] * 4 if test is None else [test.difference, test.low, test.high, test.p]),
                row.p_corrected,
                *(row.primary or [None] * len(seeds)),
                *(row.class_scores or [None] * len(classes)),
            ]
        )
    return csv_text(["intervention", "state", "arrays", "n", *measured, *tested, *seeds, *classes], rows)
