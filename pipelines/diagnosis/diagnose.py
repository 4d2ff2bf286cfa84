"""`ifcar diagnose`: the same weights, scored again with a part of what the head sees swapped or hidden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ifcar.cache.arrays import ArraySpec
from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.errors import InputError, nearest_of
from ifcar.heads.contract import Head, InstanceBatch
from ifcar.pipelines.comparison.results import Replicate, ResultRow, System, summarise
from ifcar.pipelines.diagnosis.detected import DetectedBoxes, open_detected
from ifcar.pipelines.diagnosis.interventions import INTERVENTIONS, Intervention
from ifcar.pipelines.diagnosis.pairs import compare_pairs
from ifcar.pipelines.diagnosis.seeds import check_one_system, other_seeds
from ifcar.pipelines.diagnosis.stage import Stage
from ifcar.pipelines.diagnosis.store import AS_TRAINED, Diagnosis, DiagnosisRow, State, write_diagnosis
from ifcar.pipelines.feed.batches import BatchReader, open_batches
from ifcar.pipelines.feed.examples import Examples, read_examples
from ifcar.pipelines.feed.memory import Memory
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.runs.config import run_id, run_name, task_name
from ifcar.pipelines.runs.finished import Run, open_run
from ifcar.pipelines.runs.heads import trained_head
from ifcar.pipelines.runs.resolve import head_options
from ifcar.pipelines.runs.trained import (
    TrainedRun,
    gives_stored,
    open_trained,
    own_config,
    same_logits,
)
from ifcar.pipelines.scoring.scores import Predictions, predict
from ifcar.pipelines.stacks.stack import Stack, stack_heads

DETECTED = "boxes-detected"


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosisResult:
    """What `ifcar diagnose` leaves behind: the diagnosis and its files."""

    diagnosis: Diagnosis
    files: Sequence[Path]


def diagnose(
    paths: Sequence[Path],
    progress: Progress,
    *,
    all_seeds: bool = False,
    cache: Path | None = None,
    detected: Path | None = None,
    only: Sequence[str] = (),
    draw_seed: int | None = None,
    device: str | None = None,
    memory: Memory = "auto",
    out: Path | None = None,
) -> DiagnosisResult:
    """Score the test clips of runs under every intervention, and write the diagnosis to the first run's folder.

    Args:
        paths: folders of finished runs that differ in the seed only.
        progress: told about every intervention.
        all_seeds: take the finished runs beside the first that differ from it in the seed only, too.
        cache: where the runs' cache is, when that was moved.
        detected: a cache of the same clips with detected boxes.
        only: names of the interventions to make; none: all.
        draw_seed: of what is drawn: orders, jitter, which clip stands in for which; None: 0.
        device: default: cuda where there is one.
        memory: see `BatchReader`.
        out: another folder for the two files.

    Raises:
        MissingDataError, InputError: not finished runs of one system, an unknown intervention, or a seed below 0.
        CacheMismatchError: a cache is not the one that it should be.
    """
    chosen = choose_interventions(only)
    if draw_seed is not None and draw_seed < 0:
        raise InputError(f"--draw-seed is {draw_seed}; expected at least 0")
    if draw_seed is not None and not any(intervention.drawn for intervention in chosen):
        names = ", ".join(intervention.name for intervention in INTERVENTIONS if intervention.drawn)
        raise InputError(f"--draw-seed would be ignored: nothing is drawn for --only {only[0]}; it belongs to {names}")
    trained = open_trained(paths[0], cache=cache)
    runs = [trained.run, *(open_run(path) for path in paths[1:])]
    if all_seeds:
        found = other_seeds(trained.run, known=runs)
        if not found:
            raise InputError(
                f"--seeds: no finished run beside {paths[0]} differs from it in the seed only; leave it out"
            )
        runs += found
    check_one_system(runs)
    if len(trained.tested) < 2:
        raise InputError(f"{trained.reader.path}: one test clip; a diagnosis needs more, to compare")
    boxes = None if detected is None else open_detected(detected, trained)
    seed = draw_seed or 0
    scorer = _Scorer(trained, runs, boxes, seed, device, memory)
    progress.start(f"diagnosing {count_of(len(runs), 'run')}", 1 + len(chosen) + (boxes is not None))
    before = scorer.score()
    progress.advance()
    rows: list[tuple[DiagnosisRow, list[Predictions]]] = [
        (DiagnosisRow(name=AS_TRAINED, does="nothing is changed", fall="", state="measured"), before)
    ]
    for intervention in chosen:
        rows.append(scorer.row(intervention, before))
        progress.advance(note=intervention.name)
    if boxes is not None:
        rows.append(scorer.detected_row(boxes, before))
        progress.advance(note=DETECTED)
    progress.finish()
    diagnosis = _summary(trained, runs, rows, seed, "" if boxes is None else str(boxes.reader.path.absolute()))
    trained.reader.close()
    return DiagnosisResult(diagnosis=diagnosis, files=write_diagnosis(out or paths[0], diagnosis))


def choose_interventions(names: Sequence[str]) -> list[Intervention]:
    """Return the interventions of these names, or all. Raises InputError naming the known ones."""
    known = {intervention.name: intervention for intervention in INTERVENTIONS}
    for name in names:
        if name not in known:
            raise InputError(f"--only: no intervention {name!r}{nearest_of(name, known)}")
    return [own for name, own in known.items() if not names or name in names]


class _Scorer:
    """Scores the test clips with every run's weights, as they are or changed."""

    def __init__(
        self,
        trained: TrainedRun,
        runs: Sequence[Run],
        boxes: DetectedBoxes | None,
        draw_seed: int,
        device: str | None,
        memory: Memory,
    ) -> None:
        reader, first = trained.reader, trained.head
        spec = reader.spec_of(trained.config.protocol)
        others = [trained_head(own_config(run), run.path, spec, first.num_classes) for run in runs[1:]]
        self.trained, self.boxes, self.device, self.memory = trained, boxes, device, memory
        known = ("categories",) if "categories" in reader.spec else ()  # say where instances are
        self.arrays = tuple(dict.fromkeys((*trained.arrays, *known)))
        self.batches = open_batches(reader, self.arrays, [trained.tested], device, memory)
        self.stacks = _stacks([first, *others], self.batches)
        self.stage = Stage(trained, self.batches, draw_seed)
        # What an auxiliary loss alone reads decides no score.
        self.reads = [reader.spec.array(name) for name in type(trained.head).reads(head_options(trained.config))]

    def score(self, change: Callable[[InstanceBatch, slice], InstanceBatch] | None = None) -> list[Predictions]:
        """Return the predictions of each run."""
        return self._predict(self.batches, self.trained.tested, change)

    def row(self, intervention: Intervention, before: Sequence[Predictions]) -> tuple[DiagnosisRow, list[Predictions]]:
        """Make an intervention."""
        spec = self.trained.reader.spec
        touched = [array for array in self.reads if intervention.touches(array, spec)]
        after = self.score(self.stage.change(intervention, touched)) if touched else []
        row = DiagnosisRow(
            name=intervention.name,
            does=intervention.does,
            fall=intervention.fall,
            state=_state(before, after),
            arrays=tuple(array.name for array in touched),
        )
        return row, after

    def detected_row(
        self, boxes: DetectedBoxes, before: Sequence[Predictions]
    ) -> tuple[DiagnosisRow, list[Predictions]]:
        """Score the clips with detected boxes, where the head reads anything of instances."""
        touched: list[ArraySpec] = [array for array in self.reads if array.is_by_slot]
        after: list[Predictions] = []
        if touched:
            batches = open_batches(boxes.reader, self.arrays, [boxes.tested], self.device, self.memory)
            after = self._predict(batches, boxes.tested)
        boxes.reader.close()
        row = DiagnosisRow(
            name=DETECTED,
            does="boxes, and features pooled in them, are a detector's",
            fall="the head needs annotated boxes",
            state=_state(before, after),
            arrays=tuple(array.name for array in touched),
        )
        return row, after

    def _predict(
        self,
        batches: BatchReader,
        tested: Examples,
        change: Callable[[InstanceBatch, slice], InstanceBatch] | None = None,
    ) -> list[Predictions]:
        return [p for stack in self.stacks for p in predict(stack, batches, tested, change=change)]


def _stacks(heads: Sequence[Head], batches: BatchReader) -> list[Stack]:
    """Return the heads as one where they can be stacked, so that a batch is made once for all of them."""
    together = [heads] if heads[0].stackable else [[head] for head in heads]
    return [stack_heads(own, batches.device) for own in together]


def _state(before: Sequence[Predictions], after: Sequence[Predictions]) -> State:
    if not after:
        return "not read"
    same = all(same_logits(own.logits, other.logits) for own, other in zip(before, after, strict=True))
    return "unchanged" if same else "measured"


def _summary(
    trained: TrainedRun,
    runs: Sequence[Run],
    rows: Sequence[tuple[DiagnosisRow, list[Predictions]]],
    draw_seed: int,
    detected: str,
) -> Diagnosis:
    """Put intervals and tests to the rows, and the comparison of pairs beside them."""
    before, config = rows[0][1], trained.config
    kind, classes = before[0].kind, trained.protocol.labels.classes
    systems = [
        System(
            name=row.name,
            protocol=config.protocol,
            replicates=[
                Replicate(seed=own_config(run).seed, runs=[run.showing(own)])
                for run, own in zip(runs, predictions, strict=True)
            ],
        )
        for row, predictions in rows
        if row.state == "measured"
    ]
    results = {result.system: result for result in summarise(systems, baseline=AS_TRAINED)}
    scored = [_with_results(row, own, results.get(row.name)) for row, own in rows]
    trained_clips = read_examples(trained.reader, trained.protocol, Split.TRAIN)
    seen, note = compare_pairs(before, trained_clips, trained.tested, trained.protocol)
    return Diagnosis(
        title=run_name(config).removesuffix(f"-seed{config.seed}"),
        task=task_name(config),
        runs=tuple(str(run.path.absolute()) for run in runs),
        run_ids=tuple(run_id(own_config(run)) for run in runs),
        seeds=tuple(own_config(run).seed for run in runs),
        n=len(trained.tested),
        metric=kind.measure,
        class_metric=kind.class_measure[0],
        classes=classes,
        class_counts=tuple(kind.shown(trained.tested.targets, len(classes)).sum(axis=0).tolist()),
        draw_seed=draw_seed,
        cache=str(trained.reader.path.absolute()),
        detected=detected,
        rows=tuple(scored),
        seen=seen,
        notes=tuple(filter(None, [*_notes(runs, before), trained.tested.note, note])),
    )


def _with_results(row: DiagnosisRow, predictions: Sequence[Predictions], result: ResultRow | None) -> DiagnosisRow:
    if result is None:
        return row
    shares = np.mean([p.kind.class_scores(p.logits, p.targets) for p in predictions], axis=0)
    return replace(
        row,
        primary=result.primary,
        interval=result.interval,
        against=result.against,
        p_corrected=result.p_corrected,
        class_scores=tuple(None if np.isnan(share) else float(share) for share in shares),
    )


def _notes(runs: Sequence[Run], before: Sequence[Predictions]) -> list[str]:
    """Return a line for each run whose weights do not give the logits that are stored with it."""
    return [
        f"{run.path}: the weights do not give the logits stored with the run, over 1e-4 apart"
        for run, own in zip(runs, before, strict=True)
        if not gives_stored(run, own)
    ]
